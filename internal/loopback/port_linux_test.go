package loopback

import (
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestPortOwner(t *testing.T) {
	v4, v6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")
	for _, tt := range []struct {
		network, listen string
		keeps, leaves   []netip.Addr
	}{
		{"tcp4", "127.0.0.1:0", []netip.Addr{v4}, []netip.Addr{v6, netip.MustParseAddr("127.0.0.2")}},
		{"tcp4", "0.0.0.0:0", []netip.Addr{v4}, []netip.Addr{v6}},
		{"tcp6", "[::1]:0", []netip.Addr{v6}, []netip.Addr{v4}},
		{"tcp", "[::]:0", []netip.Addr{v4, v6}, nil},
	} {
		t.Run(tt.listen, func(t *testing.T) {
			if strings.Contains(tt.listen, "[") && !haveIPv6(t) {
				t.Skip("this machine has no IPv6 loopback")
			}
			l, err := net.Listen(tt.network, tt.listen)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			port := l.Addr().(*net.TCPAddr).Port
			for _, a := range tt.keeps {
				if owner := portOwner(a, port); !strings.Contains(owner, " (process ") {
					t.Errorf("the owner for %s is %q", a, owner)
				}
			}
			for _, a := range tt.leaves {
				if owner := portOwner(a, port); owner != "" {
					t.Errorf("the owner for %s is %q", a, owner)
				}
			}
		})
	}
}
