//go:build !linux && !windows

package safefile

// accessList is known on Linux only.
func accessList(string) (acl, error) { return acl{}, nil }

// OverflowUID is -1 where there are no user namespaces.
func OverflowUID() int { return -1 }
