//go:build !windows

package files

func isDiskFull(error) bool { return false }
