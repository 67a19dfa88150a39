package loopback

import (
	"context"
	"encoding/json"
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
