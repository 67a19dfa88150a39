package ups

import (
	"time"

	"golang.org/x/sys/unix"
)

// limitUnacknowledged lets the kernel give up what the other side has not
// acknowledged within the limit (tcp(7), TCP_USER_TIMEOUT). A kernel that has no
// such limit has the close without lingering all the same.
func limitUnacknowledged(fd uintptr, limit time.Duration) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
}
