//go:build !linux

package checkup

// passing can't tell on this system.
func passing(string) string { return "" }
