package loopback

import (
	"context"
	"encoding/json"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/realpart"
	"github.com/upsauth/upsauth/internal/safefile"
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
		uid, state, found := findConnection(tt.table, netip.MustParseAddrPort(tt.from), netip.MustParseAddrPort(tt.to))
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
		if uid, state, found := findConnection(table, from, to); uid < 0 || state < 0 || !found && uid != 0 {
			t.Errorf("user %d, state %d, %t", uid, state, found)
		}
	})
}

func littleEndian() bool {
	at, ok := parseKernelAddr("0100007F:1F90")
	return ok && at.Addr() == netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// intruder is another user's program that has found out everything: it has the
// start address, the state and the cookie.
const intruder = `
import json, socket, struct, sys
port, start, state, cookie = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
host = "Host: 127.0.0.1:%d\r\n" % port
def request(path):
    return ("GET %s HTTP/1.1\r\n%sCookie: %s\r\n\r\n" % (path, host, cookie)).encode()
def connect(mapped=False):
    if not mapped:
        return socket.create_connection(("127.0.0.1", port))
    s = socket.socket(socket.AF_INET6)
    s.connect(("::ffff:127.0.0.1", port))
    return s
paths = [start, "/callback?code=mine&state=" + state, "/callback?error=access_denied&state=" + state]
answers = {}
for path in paths:
    for mapped in (False, True):
        try:
            s = connect(mapped)
        except OSError:
            continue # no IPv6
        s.sendall(request(path))
        answer = b""
        while True:
            more = s.recv(65536)
            if not more:
                break
            answer += more
        answers["%s %s" % (path.split("?")[-1][:5], mapped)] = answer.split(b"\r\n\r\n")[0].decode()
# Whose a connection was, the kernel forgets when it is closed or reset.
for n in range(12):
    for path in paths:
        s = connect()
        if n % 3 == 1:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            s.sendall(request(path) + (b"x" * 1000000 if n % 6 == 2 and path == start else b""))
        except OSError:
            pass # refused before all was sent
        s.close()
json.dump(answers, sys.stdout)
`

// TestOtherUsersOfThisMachine guards the login from another user's program that
// knows all that the person's own browser knows. Only whose its connections are
// tells the two apart.
func TestOtherUsersOfThisMachine(t *testing.T) {
	// The system's user nobody has the number that stands for all users who have
	// none in a user namespace, and is a user like any other outside of one.
	for uid, name := range map[string]string{"23002": "23002", "65534": "nobody"} {
		t.Run(name, func(t *testing.T) {
			if uid == "65534" && safefile.OverflowUID() >= 0 {
				t.Skip("this is a user namespace")
			}
			otherUser(t, uid, name)
		})
	}
}

func otherUser(t *testing.T, uid, name string) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be two users")
	}
	for _, program := range []string{"setpriv", "python3"} {
		if _, err := exec.LookPath(program); err != nil {
			realpart.Missing(t, err)
		}
	}
	s, start := guarded(t, testConfig{})
	if !s.TellsUsers() {
		t.Skip("this machine does not tell whose a connection is")
	}
	port := strconv.Itoa(s.login.redirect.port)
	intrude := func(state, cookie string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
		defer cancel()
		path := start[strings.Index(start, "/start/"):]
		command := exec.CommandContext(ctx, "setpriv", "--reuid="+uid, "--regid="+uid, "--clear-groups",
			"python3", "-c", intruder, port, path, state, cookie)
		command.Dir, command.Env = "/", []string{"PATH=/usr/bin:/bin"}
		command.Stderr = os.Stderr
		out, err := command.Output()
		if err != nil {
			t.Fatal(err)
		}
		var answers map[string]string
		if err := json.Unmarshal(out, &answers); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if len(answers) < 3 {
			t.Errorf("only %d answers came: %v", len(answers), answers)
		}
		for what, answer := range answers {
			if !strings.HasPrefix(answer, "HTTP/1.1 403 ") || strings.Contains(answer, "Set-Cookie") || strings.Contains(answer, "Location") {
				t.Errorf("%s: another user got %s", what, answer)
			}
		}
		s.untouched(t)
		if n := s.wantNotice(t, OtherUser); n.User != name {
			t.Errorf("the notice names the user %q", n.User)
		}
	}
	drain := func() {
		t.Helper()
		for {
			select {
			case n := <-s.Notices():
				if n.Kind != OtherUser {
					t.Errorf("another user caused the notice %+v", n)
				}
			default:
				return
			}
		}
	}

	intrude(testState, "x=y") // first at the start address
	drain()
	mine := aBrowser(t)
	state := begin(t, mine, start)
	u, err := url.Parse(start)
	if err != nil {
		t.Fatal(err)
	}
	cookie := mine.Jar.Cookies(u)[0]
	intrude(state, cookie.Name+"="+cookie.Value)
	intrude(state, "x=y") // second at the start address
	drain()
	if begin(t, mine, start) != state {
		t.Error("another user voided the state")
	}
	s.arrives(t, mine, s.answerAt("code", testCode, "state", state))
}

// A service runs as a user of its own, and the person at the browser is another one: who
// began the login on a page takes part, and nobody else does.
func TestUserWhoBegan(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be two users")
	}
	for _, program := range []string{"setpriv", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			realpart.Missing(t, err)
		}
	}
	s := start(t, testConfig{})
	if !s.TellsUsers() {
		t.Skip("this machine does not tell whose a connection is")
	}
	address := s.Guard(Guard{Address: func(state string) string { return ups + state }, Lasts: time.Minute, User: 23002})
	for _, try := range []struct{ uid, status string }{{"23003", "403"}, {"23002", "302"}} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		command := exec.CommandContext(ctx, "setpriv", "--reuid="+try.uid, "--regid="+try.uid, "--clear-groups",
			"curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", address)
		command.Dir, command.Env = "/", []string{"PATH=/usr/bin:/bin"}
		if out, err := command.Output(); err != nil || string(out) != try.status {
			t.Errorf("the user %s gets %s, %v, not %s", try.uid, out, err, try.status)
		}
	}
}
