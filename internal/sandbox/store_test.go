package sandbox

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestServersShareADirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "sandbox")
	a := start(t, Options{Dir: dir})
	b := start(t, Options{Dir: dir, Now: a.clock.Now})

	// A page of one is sent to the other, and so is what comes of it.
	page := strings.Replace(a.signInURL(), a.url, b.url, 1)
	r := b.post(page, url.Values{"username": {"jane"}, "agree": {"yes"}, "password": {"x"}}, "")
	u, err := url.Parse(r.header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	first := a.tokens(a.exchange(u.Query().Get("code")))
	second := b.tokens(b.refresh(first.RefreshToken))
	if !a.works(second.AccessToken) || !b.works(first.AccessToken) {
		t.Error("an access token of one server does not work at the other")
	}

	if err := a.srv.ChangePassword("jane"); err != nil {
		t.Fatal(err)
	}
	b.refresh(second.RefreshToken).wantError(t, 400, "10400", "Invalid Refresh Token")
}

func TestOneWinnerForOneRefreshToken(t *testing.T) {
	dir := t.TempDir()
	var servers []*harness
	for range 3 {
		servers = append(servers, start(t, Options{Dir: dir}))
	}
	token := servers[0].grant("jane").RefreshToken
	for range 5 {
		const each = 4
		answers := make(chan reply, each*len(servers))
		var wg sync.WaitGroup
		for _, h := range servers {
			for range each {
				wg.Go(func() {
					form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
					r, err := h.try("POST", "/security/v1/oauth/refresh", form.Encode(), "Content-Type", formType, "Authorization", basic(testClient, testSecret))
					if err != nil {
						r.body = err.Error()
					}
					answers <- r
				})
			}
		}
		wg.Wait()
		close(answers)
		won := 0
		for r := range answers {
			if r.status == 200 {
				won++
				token = servers[0].tokens(r).RefreshToken
				continue
			}
			r.wantError(t, 400, "10400", "Invalid Refresh Token")
		}
		if won != 1 {
			t.Fatalf("%d requests won the refresh token", won)
		}
	}
	committed := 0
	for _, h := range servers {
		for _, e := range h.srv.Refreshes() {
			if e.Endpoint == "refresh" && e.Outcome == Committed {
				committed++
			}
		}
	}
	if committed != 5 {
		t.Errorf("%d refreshes were committed, want 5", committed)
	}
}

func TestDirectoryHoldsNoSecret(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sandbox")
	var mu sync.Mutex
	var logged strings.Builder
	h := start(t, Options{Dir: dir, Log: func(line string) {
		mu.Lock()
		defer mu.Unlock()
		logged.WriteString(line + "\n")
	}})
	unused := h.code("jane")
	code := h.code("jane", "code_challenge", challenge)
	a := h.tokens(h.exchange(code, "Authorization", "", "client_id", testClient, "code_verifier", verifier))
	b := h.tokens(h.refresh(a.RefreshToken))
	h.do("GET", "/api/x?secret=hunter2", "", "Authorization", "Bearer "+b.AccessToken)
	h.do("GET", "/cb?%zz=hunter2", "")
	c, err := verifyJWT(publicKey(t), b.AccessToken)
	if err != nil {
		t.Fatal(err)
	}

	secrets := []string{unused, code, a.AccessToken, b.AccessToken, a.RefreshToken, b.RefreshToken, c.ID, testSecret, url.QueryEscape(testSecret), verifier, "hunter2"}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if entry.IsDir() {
			return nil
		}
		content, err := os.ReadFile(path)
		for _, secret := range secrets {
			if bytes.Contains(content, []byte(secret)) {
				t.Errorf("%s holds %q", path, secret)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	mu.Lock()
	defer mu.Unlock()
	for _, secret := range append(secrets, testState, url.QueryEscape(testState)) {
		if strings.Contains(logged.String(), secret) {
			t.Errorf("the log holds %q:\n%s", secret, logged.String())
		}
	}
	for _, want := range []string{
		"GET /security/v1/oauth/authorize?client_id=client-1&redirect_uri=http%3A%2F%2Flocalhost%3A8400%2Fcallback?***&response_type=code&scope=read&state=*** 302\n",
		"POST /security/v1/oauth/token 200\n", "GET /api/x?secret=*** 200\n", "GET /cb?*** 404 (10404 Not Found)\n",
	} {
		if !strings.Contains(logged.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, logged.String())
		}
	}
}

func TestDamagedAndNewerState(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "cut": `{"version":1,"se`, "no JSON": "hello", "no version": "{}", "array": "[]", "no seal": `{"version":1}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "state.json")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			var line string
			h := start(t, Options{Dir: dir, Log: func(l string) {
				if line == "" {
					line = l
				}
			}})
			if kept, err := os.ReadFile(path + ".damaged"); err != nil || string(kept) != content {
				t.Errorf("set aside: %q, %v", kept, err)
			}
			if !strings.Contains(line, "state.json.damaged") {
				t.Errorf("logged %q", line)
			}
			h.grant("jane")
		})
	}
	t.Run("newer", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "state.json")
		const newer = `{"version":2,"codes":[]}`
		if err := os.WriteFile(path, []byte(newer), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "newer") {
			t.Errorf("New: %v", err)
		}
		if kept, err := os.ReadFile(path); err != nil || string(kept) != newer {
			t.Errorf("it is now %q, %v", kept, err)
		}
	})
	t.Run("newer while serving", func(t *testing.T) {
		dir := t.TempDir()
		h := start(t, Options{Dir: dir})
		if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte(`{"version":2}`), 0o600); err != nil {
			t.Fatal(err)
		}
		h.do("GET", h.authorizeURL(), "").wantError(t, 500, "10500", "Internal Server Error")
	})
}

func TestStateThatCannotBeKeptIsNotServed(t *testing.T) {
	dir := t.TempDir()
	h := start(t, Options{Dir: dir})
	token := h.grant("jane").RefreshToken
	// A directory where the temporary file goes keeps every write from
	// succeeding, for root too.
	obstacle := filepath.Join(dir, "state.json.tmp")
	if err := os.Mkdir(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	h.refresh(token).wantError(t, 500, "10500", "Internal Server Error")
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	h.tokens(h.refresh(token))
}

func TestKeyIsMadeOnceAndKept(t *testing.T) {
	dir := t.TempDir()
	store := func() *dirStore { return &dirStore{dir: dir, now: time.Now, log: func(string) {}} }
	path := filepath.Join(dir, "key.pem")
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	first := store()
	key, err := first.key()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dirStore{first, store()} {
		if again, err := s.key(); err != nil || !again.Equal(key) {
			t.Errorf("another key, %v", err)
		}
	}
	if kept, err := os.ReadFile(path + ".damaged"); err != nil || string(kept) != "damaged" {
		t.Errorf("set aside: %q, %v", kept, err)
	}
}

func TestNothingButTheStateIsMadeBeforeAKeyIsNeeded(t *testing.T) {
	dir := t.TempDir()
	h := start(t, Options{Dir: dir})
	h.do("GET", h.authorizeURL(), "")
	h.do("GET", "/", "")
	if _, err := os.Stat(filepath.Join(dir, "key.pem")); err == nil {
		t.Error("key.pem is there")
	}
}

func TestPrune(t *testing.T) {
	h := start(t, Options{RefreshLifetime: 2 * time.Hour})
	h.code("jane") // never exchanged
	h.grant("joe") // never refreshed
	token := h.grant("jane").RefreshToken
	for range maxSpent + 20 {
		token = h.tokens(h.refresh(token)).RefreshToken
	}
	counts := func() (got string) {
		_ = h.srv.store.do(func(st *state) bool {
			got = fmt.Sprintf("codes %d, grants %d, access %d, refresh %d", len(st.Codes), len(st.Grants), len(st.Access), len(st.Refresh))
			return false
		})
		return got
	}
	h.clock.advance(time.Hour)
	token = h.tokens(h.refresh(token)).RefreshToken
	if got, want := counts(), fmt.Sprintf("codes 2, grants 2, access 1, refresh %d", maxSpent+2); got != want {
		t.Errorf("after an hour %s, want %s", got, want)
	}
	h.clock.advance(time.Hour)
	h.tokens(h.refresh(token))
	if got, want := counts(), "codes 1, grants 1, access 1, refresh 2"; got != want {
		t.Errorf("after two hours %s, want %s", got, want)
	}
}

func TestEventsAreBounded(t *testing.T) {
	var e events
	for range maxEvents + 1 {
		e.add(Event{})
	}
	if len(e.list) > maxEvents {
		t.Errorf("%d events", len(e.list))
	}
}

func TestPeopleAreForgotten(t *testing.T) {
	now := time.Date(2026, 11, 21, 16, 5, 3, 0, time.UTC)
	st := newState()
	for i := range 3 * maxPeople {
		name := fmt.Sprint("person ", i)
		st.People[name] = person{Name: name, Since: now.Add(time.Duration(i) * time.Second)}
	}
	st.Grants["family"] = grant{User: "Person 0"}
	st.Access["x"] = accessToken{Family: "family", Expires: now.Add(time.Hour)}
	st.prune(now)
	_, granted := st.People["person 0"]
	_, first := st.People["person 1"]
	_, last := st.People[fmt.Sprint("person ", 3*maxPeople-1)]
	if n := len(st.People); n != maxPeople+1 || !granted || first || !last {
		t.Errorf("%d people; the one with a grant %t, the first %t, the last %t", n, granted, first, last)
	}
}
