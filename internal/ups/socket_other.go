//go:build !linux && !darwin && !freebsd && !windows

package ups

import "time"

// limitUnacknowledged does nothing where the system has no such limit.
func limitUnacknowledged(uintptr, time.Duration) {}
