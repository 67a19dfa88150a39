//go:build !linux

package shared

import "time"

// Elapsed is the time since this process began. It may not count a time in which the machine
// was suspended: the database's clock does.
func Elapsed() time.Duration { return time.Since(began) }
