//go:build !linux

package postgres

import "time"

// giveUpAfter leaves the limit to the system: only Linux has one of a connection's own.
func giveUpAfter(uintptr, time.Duration) {}
