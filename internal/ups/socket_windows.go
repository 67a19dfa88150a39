package ups

import (
	"time"

	"golang.org/x/sys/windows"
)

// limitUnacknowledged lets Windows give up what it has sent again for longer than
// the limit (ws2ipdef.h, TCP_MAXRT).
func limitUnacknowledged(fd uintptr, limit time.Duration) {
	_ = windows.SetsockoptInt(windows.Handle(fd), windows.IPPROTO_TCP, windows.TCP_MAXRT, int(limit.Seconds()))
}
