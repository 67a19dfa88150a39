package postgres

import (
	"time"

	"golang.org/x/sys/unix"
)

// giveUpAfter ends a connection whose peer leaves what was sent without an acknowledgement
// for that long (tcp(7), TCP_USER_TIMEOUT). A kernel without it keeps its own limit.
func giveUpAfter(fd uintptr, limit time.Duration) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
}
