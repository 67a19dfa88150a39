package realpart

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Port is a TCP port that nobody listens on at a loopback address of this machine. It is
// below those that systems give to whoever names none: nobody else gets it while the test
// does not listen.
func Port(tb testing.TB) int {
	tb.Helper()
	for range 100 {
		port := 10_000 + rand.IntN(20_000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		l.Close()
		// Without IPv6 nobody is there.
		c, err := net.Dial("tcp", net.JoinHostPort("::1", strconv.Itoa(port)))
		if err != nil {
			return port
		}
		c.Close()
	}
	tb.Fatal("no port of this machine is free")
	return 0
}
