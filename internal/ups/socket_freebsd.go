package ups

import (
	"time"

	"golang.org/x/sys/unix"
)

// tcpMaxUnackTime is TCP_MAXUNACKTIME of netinet/tcp.h, in seconds.
const tcpMaxUnackTime = 68

// limitUnacknowledged lets the kernel give up what the other side has not
// acknowledged within the limit (tcp(4)).
func limitUnacknowledged(fd uintptr, limit time.Duration) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, tcpMaxUnackTime, int(limit.Seconds()))
}
