package ups

import (
	"context"
	"net"
	"syscall"
	"time"
)

// dial returns the way to make connections on which nothing is delivered after
// the process has ended or the limit has passed. The kernel goes on sending what a
// killed process has written, for minutes, until a cut network is back: behind the
// retry, which then looks like theft. A close without lingering, which also the
// end of a process is, throws that away; a limit on what stays unacknowledged does
// the same where the process lives and stands still.
func dial(limit time.Duration) func(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{
		Timeout: 10 * time.Second, KeepAlive: 30 * time.Second,
		// The limit is the socket's before its first byte.
		Control: func(_, _ string, socket syscall.RawConn) error {
			return socket.Control(func(fd uintptr) { limitUnacknowledged(fd, limit) })
		},
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			err = tcp.SetLinger(0)
		}
		if err != nil {
			conn.Close()
			return nil, err
		}
		return conn, nil
	}
}
