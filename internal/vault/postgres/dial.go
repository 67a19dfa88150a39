package postgres

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// dialer makes connections whose end is noticed: an idle one asks its peer, and one that
// waits for an acknowledgement gives up.
func dialer(timeout time.Duration) *net.Dialer {
	return &net.Dialer{
		Timeout:         timeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: deadAfter, Interval: 5 * time.Second, Count: 3},
		Control: func(network, _ string, c syscall.RawConn) error {
			if network == "unix" {
				return nil
			}
			return c.Control(func(fd uintptr) { giveUpAfter(fd, deadAfter) })
		},
	}
}

// localhostIsHere leaves only this machine's addresses to the name localhost, which needs
// no TLS: a resolver may say something else.
func localhostIsHere(lookup pgconn.LookupFunc) pgconn.LookupFunc {
	return func(ctx context.Context, host string) ([]string, error) {
		found, err := lookup(ctx, host)
		if err != nil || !isLoopback(host) {
			return found, err
		}
		var here []string
		for _, address := range found {
			if ip, err := netip.ParseAddr(address); err == nil && ip.Unmap().IsLoopback() {
				here = append(here, address)
			}
		}
		if len(here) == 0 {
			return nil, fmt.Errorf("%s is not this machine but %v", host, found)
		}
		return here, nil
	}
}
