//go:build !linux

package safefile

import "os"

// SyncData returns when what was written to a file is on disk, and its size.
func SyncData(file *os.File) error { return file.Sync() }
