package loopback

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const managerHome = "http://localhost:8488/"

// seated is a login at a shared listener.
type seated struct {
	*Handler
	*Seat
}

func (s seated) Close(t *testing.T) {
	t.Helper()
	s.Handler.Close()
	if err := s.Seat.Close(); err != nil {
		t.Error(err)
	}
}

func sit(t *testing.T, shared *Shared, p Place, state string) seated {
	t.Helper()
	seat, err := shared.Listen(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(Config{RedirectURI: seat.RedirectURI(), State: state, Front: seat.Front(), Home: managerHome + state})
	if err != nil {
		t.Fatal(err)
	}
	seat.ServeLogin(h)
	s := seated{h, seat}
	t.Cleanup(func() { s.Close(t) })
	return s
}

// Logins that share a port have one listener, whatever their hosts and paths are; it has
// all the addresses that one of them needs, and closes with the last.
func TestSharedPort(t *testing.T) {
	shared := NewShared(managerHome, nil)
	first := sit(t, shared, Place{RedirectURI: "http://127.0.0.1:0/one"}, "first")
	_, port, err := net.SplitHostPort(first.Addr())
	if err != nil {
		t.Fatal(err)
	}
	second := sit(t, shared, Place{RedirectURI: "http://localhost:" + port + "/two"}, "second")
	third := sit(t, shared, Place{RedirectURI: "http://localhost:" + port + "/two"}, "third")
	tunnelled := sit(t, shared, Place{RedirectURI: "https://shop.example/cb", Listen: "127.0.0.1:" + port}, "fourth")
	if len(shared.shares) != 1 || second.Addr() != first.Addr() {
		t.Errorf("%d listeners, at %s and %s", len(shared.shares), first.Addr(), second.Addr())
	}
	for host, to := range map[string]seated{"127.0.0.1:" + port + "/one": first, "localhost:" + port + "/two": second} {
		host, path, _ := strings.Cut(host, "/")
		if r := send(t, first.Addr(), get("/"+path+"?code=c&state=unknown", host)); r.status != 400 || !strings.Contains(r.body, `href="`+managerHome+`"`) {
			t.Errorf("an unknown state: %d", r.status)
		}
		if to.current != nil {
			t.Error("a login took what is not its own")
		}
	}
	// The right state at the path or the host of another is nobody's.
	for _, target := range []string{"/one?code=c&state=second", "/two?code=c&state=fourth", "/cb?code=c&state=third"} {
		if r := send(t, first.Addr(), get(target, "localhost:"+port)); r.status != 400 && r.status != 404 {
			t.Errorf("%s: %d", target, r.status)
		}
	}
	for _, s := range []seated{third, first, tunnelled, second} {
		target, host := "/two", "localhost:"+port
		switch s {
		case first:
			target, host = "/one", "127.0.0.1:"+port
		case tunnelled:
			target, host = "/cb", "shop.example"
		}
		c := dial(t, s.Addr())
		if _, err := fmt.Fprint(c, get(target+"?code=mine&state="+s.State(), host)); err != nil {
			t.Fatal(err)
		}
		if cb, err := s.Wait(t.Context()); err != nil || cb.Code != "mine" {
			t.Fatalf("%s: %v, %v", s.State(), cb, err)
		}
		if err := s.Again(Page{Heading: "Not yet"}); err != nil {
			t.Fatal(err)
		}
		to := receive(t, c, "GET").header.Get("Location")
		if r := send(t, s.Addr(), get(to, host)); r.status != 200 || !strings.Contains(r.body, "Not yet") || !strings.Contains(r.body, `href="`+managerHome+s.State()+`"`) || strings.Contains(r.body, "terminal") {
			t.Errorf("%s: %d %s", s.State(), r.status, r.body)
		}
	}

	// Whoever comes too late is told, as long as anybody listens.
	second.CloseWith(Page{Heading: "Another took its place", Next: "Go home"})
	second.Close(t)
	if r := send(t, first.Addr(), get("/two?code=late&state=second", "localhost:"+port)); r.status != 410 || !strings.Contains(r.body, "Another took its place") || !strings.Contains(r.body, "Go home") {
		t.Errorf("too late: %d %s", r.status, r.body)
	}
	first.Close(t)
	third.Close(t)
	if r := send(t, tunnelled.Addr(), get("/two?code=late&state=third", "localhost:"+port)); r.status != 410 || !strings.Contains(r.body, "This sign-in has ended") {
		t.Errorf("too late: %d %s", r.status, r.body)
	}
	tunnelled.Close(t)
	if len(shared.shares) != 0 {
		t.Error("a listener is left")
	}
	for _, at := range []string{"127.0.0.1:" + port, "[::1]:" + port} {
		if c, err := net.Dial("tcp", at); err == nil {
			_ = c.Close()
			t.Errorf("something listens at %s", at)
		}
	}
	// And the port can be had again at once.
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	sit(t, shared, Place{RedirectURI: fmt.Sprintf("http://127.0.0.1:%d/one", number)}, "again").Close(t)
}

func TestSharedPortIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	shared := NewShared(managerHome, nil)
	place := Place{RedirectURI: fmt.Sprintf("http://localhost:%d/cb", port), Holder: func(int) Holder {
		return Holder{Name: "the service (process 1)", PID: 1, SignIn: true}
	}}
	var taken *PortError
	if _, err := shared.Listen(t.Context(), place); !errors.As(err, &taken) || taken.Port != port {
		t.Fatalf("got %v", err)
	}
	if strings.Contains(taken.Owner, "(process ") && taken.SignIn {
		t.Errorf("what is written down counts more than what the system tells: %v", taken)
	}
	if len(shared.shares) != 0 {
		t.Error("a listener is left")
	}
	here := sit(t, shared, Place{RedirectURI: "http://127.0.0.1:0/cb"}, "here")
	_, own, _ := net.SplitHostPort(here.Addr())
	if _, err := shared.Listen(t.Context(), Place{RedirectURI: "https://127.0.0.1:" + own + "/cb", TLS: testCertificate(t)}); !errors.As(err, &taken) {
		t.Errorf("another scheme at the port: %v", err)
	}
}

// A page for everybody who comes to a redirect URI, and to nothing else.
func TestTell(t *testing.T) {
	shared := NewShared(managerHome, nil)
	seat, err := shared.Listen(t.Context(), Place{RedirectURI: "http://127.0.0.1:0/cb"})
	if err != nil {
		t.Fatal(err)
	}
	defer seat.Close()
	seat.Tell(Page{Heading: "Interrupted"})
	for target, status := range map[string]int{"/cb?code=c&state=s": 410, "/cb": 410, "/start/x": 410, "/other": 404, "/favicon.ico": 404, "/done/x": 404} {
		if r := send(t, seat.Addr(), get(target, seat.Addr())); r.status != status || (status == 410) != strings.Contains(r.body, "Interrupted") {
			t.Errorf("%s: %d", target, r.status)
		} else {
			checkHeaders(t, r.header)
		}
	}
	if r := send(t, seat.Addr(), get("/cb", "evil.example")); r.status != 404 || strings.Contains(r.body, "Interrupted") {
		t.Errorf("another host: %d", r.status)
	}
	if r := send(t, seat.Addr(), request("POST", "/cb", seat.Addr(), "", "Content-Length: 0")); r.status != 405 {
		t.Errorf("POST: %d", r.status)
	}
}

// Requests come to a port that is shared while another login takes its seat: the race
// detector sees whether they read what is being written.
func TestRequestsBesideANewLogin(t *testing.T) {
	shared := NewShared(managerHome, nil)
	first := sit(t, shared, Place{RedirectURI: "http://127.0.0.1:0/cb"}, "first")
	_, port, _ := net.SplitHostPort(first.Addr())
	end := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			first.share.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "http://127.0.0.1:"+port+"/cb?state=x", nil))
			select {
			case <-end:
				return
			default:
			}
		}
	})
	for range 50 {
		seat, err := shared.Listen(t.Context(), Place{RedirectURI: "http://127.0.0.1:" + port + "/cb"})
		if err != nil {
			t.Fatal(err)
		}
		seat.Tell(Page{Heading: "Interrupted"})
		h, err := New(Config{RedirectURI: seat.RedirectURI(), State: "other"})
		if err != nil {
			t.Fatal(err)
		}
		seat.ServeLogin(h)
		h.Close()
		if err := seat.Close(); err != nil {
			t.Error(err)
		}
	}
	close(end)
	asking.Wait()
}

// Whatever comes, nobody but the holder of a login's state ends the login.
func FuzzShared(f *testing.F) {
	for _, target := range []string{"/cb?code=c&state=x", "/cb?state=x&state=y", "//cb", "/cb?%73tate=x", "/start/", "/done/", "/cb?state=" + testState[1:]} {
		f.Add("GET", "localhost:1", target)
	}
	f.Fuzz(func(t *testing.T, method, host, target string) {
		if strings.Contains(target, "7ate.of") {
			t.Skip("this is the state")
		}
		h, err := New(Config{RedirectURI: "http://localhost:1/cb", State: testState, Home: managerHome})
		if err != nil {
			t.Fatal(err)
		}
		answers, err := newAnswerer(managerHome, defaultLimits(), nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := parseRedirect("http://localhost:1/cb")
		if err != nil {
			t.Fatal(err)
		}
		seat := &Seat{redirect: r}
		seat.ServeLogin(h)
		one := &share{answerer: answers, seats: []*Seat{seat}}
		request, err := http.NewRequest(method, "http://localhost:1"+target, nil)
		if err != nil {
			t.Skip("no request")
		}
		request.Host, request.RequestURI = host, target
		recorder := httptest.NewRecorder()
		one.ServeHTTP(recorder, request)
		if recorder.Code < 400 || h.current != nil {
			t.Errorf("status %d, %v", recorder.Code, h.current)
		}
	})
}
