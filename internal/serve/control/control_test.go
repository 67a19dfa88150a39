package control

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type someKeys struct{ keys []Key }

func (s *someKeys) Add(_ context.Context, name string, scope Scope) (string, error) {
	if name == "" {
		return "", errors.New("a key needs a name")
	}
	s.keys = append(s.keys, Key{Name: name, Scope: scope, Created: time.Unix(1, 0).UTC()})
	return "secret of " + name, nil
}

func (s *someKeys) List(context.Context) ([]Key, error) { return s.keys, nil }

func (s *someKeys) Remove(_ context.Context, name string) error {
	s.keys = slices.DeleteFunc(s.keys, func(k Key) bool { return k.Name == name })
	return nil
}

func options() Options {
	return Options{
		Service: Service{Version: "1", PID: 7, Manager: "http://localhost:8488"},
		Link:    func(context.Context) (Link, error) { return Link{Address: "http://localhost:8488/login/x"}, nil },
		Keys:    &someKeys{},
		Words:   func(err error) Error { return Error{ExitCode: 3, Message: err.Error(), Advice: "do it"} },
	}
}

func TestClientAndService(t *testing.T) {
	dir, err := os.MkdirTemp("", "c") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "c.sock")
	ctx, c := t.Context(), NewClient(path)
	if _, err := c.Service(ctx); !errors.Is(err, ErrNoService) {
		t.Errorf("nobody listens: %v", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Skip(err) // an old Windows
	}
	server := &http.Server{Handler: New(options()), ReadHeaderTimeout: time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	if s, err := c.Service(ctx); err != nil || s != options().Service {
		t.Errorf("%+v, %v", s, err)
	}
	if link, err := c.Link(ctx); err != nil || link.Address != "http://localhost:8488/login/x" {
		t.Errorf("%+v, %v", link, err)
	}
	scope := Scope{Companies: []string{"A", "B"}, Environment: "cie", Rights: []string{"token"}}
	if secret, err := c.Add(ctx, "web", scope); err != nil || secret != "secret of web" {
		t.Errorf("%q, %v", secret, err)
	}
	list, err := c.List(ctx)
	if err != nil || len(list) != 1 || list[0].Name != "web" || !slices.Equal(list[0].Companies, scope.Companies) || list[0].Environment != "cie" {
		t.Errorf("%+v, %v", list, err)
	}
	refused := new(Error)
	if _, err := c.Add(ctx, "", scope); !errors.As(err, &refused) || *refused != (Error{3, "a key needs a name", "do it"}) {
		t.Errorf("%v", err)
	}
	if err := c.Remove(ctx, "web"); err != nil {
		t.Error(err)
	}
	_ = server.Close()
	<-done
	// A socket that a killed service left.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	if _, err := c.Link(ctx); !errors.Is(err, ErrNoService) {
		t.Errorf("a stale socket: %v", err)
	}
}

// What is not understood of a request has no effect: a misspelt limit of a key would give
// everything away.
func TestRequestsAreReadStrictly(t *testing.T) {
	for _, test := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1/keys/add", `{"name":"a","scope":{"rights":["token"]}}`, 200},
		{"POST", "/v1/keys/add", `{"name":"a","scope":{"company":["A"]}}`, 400},
		{"POST", "/v1/keys/add", `{"name":"a","scopes":{}}`, 400},
		{"POST", "/v1/keys/add", `{"name":"a"} {}`, 400},
		{"POST", "/v1/keys/add", `{"name":`, 400},
		{"POST", "/v1/keys/add", ``, 400},
		{"POST", "/v1/keys/add", `{"name":"` + strings.Repeat("a", longest) + `"}`, 400},
		{"GET", "/v1/keys/add", ``, 405},
		{"GET", "/v1/link", ``, 405},
		{"POST", "/v1/keys", `{}`, 405},
		{"GET", "/v1/token", ``, 404},
		{"GET", "/", ``, 404},
	} {
		o := options()
		w := httptest.NewRecorder()
		New(o).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), test.method, test.path, strings.NewReader(test.body)))
		if w.Code != test.status {
			t.Errorf("%s %s %.40s: %d %s", test.method, test.path, test.body, w.Code, w.Body)
		}
		if n := len(o.Keys.(*someKeys).keys); test.status != 200 && n > 0 {
			t.Errorf("%s %s %.40s made a key", test.method, test.path, test.body)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(`{"name":"a","scope":{"rights":["token"]}}`)
	f.Add(`{"name":"a"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var in addKey
		if err := decode(strings.NewReader(text), &in); err != nil {
			return
		}
		var again addKey
		if err := decode(strings.NewReader(text+"x"), &again); err == nil {
			t.Errorf("%q is taken with more behind it", text)
		}
	})
}
