package peer

import (
	"net/netip"
	"strings"
	"testing"
)

// Lines as the kernel of a little-endian machine prints them.
const (
	table4 = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 111 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 112 1 0000000000000000 20 4 30 10 -1
   2: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 113 1 0000000000000000 20 4 30 10 -1
   3: 0100007F:C351 0100007F:1F90 04 00000001:00000000 01:00000000 00000000     0        0 0 1 0000000000000000 20 4 30 10 -1
`
	table6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0000000000000000FFFF00000100007F:C352 0000000000000000FFFF00000100007F:1F90 01 00000000:00000000 00:00000000 00000000  1002        0 114 1 0000000000000000 20 4 30 10 -1
   1: 00000000000000000000000001000000:C353 00000000000000000000000001000000:1F90 01 00000000:00000000 00:00000000 00000000  1003        0 115 1 0000000000000000 20 4 30 10 -1
`
)

func TestFindConnection(t *testing.T) {
	if !littleEndian() {
		t.Skip("the tables are those of a little-endian machine")
	}
	for _, tt := range []struct {
		table, from, to string
		uid, state      int
		found           bool
	}{
		{table4, "127.0.0.1:50000", "127.0.0.1:8080", 1001, established, true},
		{table4, "127.0.0.1:50001", "127.0.0.1:8080", 0, 4, true},
		{table4, "127.0.0.1:50002", "127.0.0.1:8080", 0, 0, false},
		{table4, "127.0.0.1:50000", "127.0.0.1:8081", 0, 0, false},
		{table6, "127.0.0.1:50002", "127.0.0.1:8080", 1002, established, true},
		{table6, "[::1]:50003", "[::1]:8080", 1003, established, true},
		{"", "127.0.0.1:50000", "127.0.0.1:8080", 0, 0, false},
		{"a line\n", "127.0.0.1:50000", "127.0.0.1:8080", 0, 0, false},
	} {
		uid, state, found := findConnection(strings.NewReader(tt.table), netip.MustParseAddrPort(tt.from), netip.MustParseAddrPort(tt.to))
		if uid != tt.uid || state != tt.state || found != tt.found {
			t.Errorf("%s to %s: user %d, state %d, %t", tt.from, tt.to, uid, state, found)
		}
	}
}

func FuzzFindConnection(f *testing.F) {
	f.Add(table4)
	f.Add(table6)
	from, to := netip.MustParseAddrPort("127.0.0.1:50000"), netip.MustParseAddrPort("127.0.0.1:8080")
	f.Fuzz(func(t *testing.T, table string) {
		if uid, state, found := findConnection(strings.NewReader(table), from, to); uid < 0 || state < 0 || !found && uid != 0 {
			t.Errorf("user %d, state %d, %t", uid, state, found)
		}
	})
}

func littleEndian() bool {
	at, ok := parseKernelAddr("0100007F:1F90")
	return ok && at.Addr() == netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

func TestDamagedSocketTable(t *testing.T) {
	for _, table := range []string{
		"", "\n\n", "sl local_address",
		"0: : 0 0A 0 0 0 0 0 0", "0: 0100007F 0 0A 0 0 0 0 0 0", "0: 01:1F90 0 0A 0 0 0 0 0 0",
		"0: 0100007G:1F90 0 0A 0 0 0 0 0 0", "0: 0100007F0100007F:1F90 0 0A 0 0 0 0 0 0", "0: 0100007F:1F90 0 0A",
	} {
		if _, _, ok := findListener(strings.NewReader(table), netip.MustParseAddr("127.0.0.1"), 8080); ok {
			t.Errorf("found a listener in %q", table)
		}
	}
}
