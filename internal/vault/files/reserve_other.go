//go:build !linux

package files

// copiesOnWrite is true where APFS, ZFS or ReFS may be: nobody tells.
func copiesOnWrite(string) bool { return true }
