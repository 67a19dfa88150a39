package ups

import (
	"time"

	"golang.org/x/sys/unix"
)

// limitUnacknowledged lets the kernel give up what it has sent again for longer
// than the limit (tcp(4), TCP_RXT_CONNDROPTIME).
func limitUnacknowledged(fd uintptr, limit time.Duration) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_RXT_CONNDROPTIME, int(limit.Seconds()))
}
