package keeper_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/files"
)

const (
	publicURI = "https://shop.example/callback"
	purpose   = "the test's"
)

var sealingKey = bytes.Repeat([]byte{7}, keeper.KeySize)

// newPublicWorld has a redirect URI that leads to no listener of this machine.
func newPublicWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, func(o *sandbox.Options) {
		o.Clients = []sandbox.Client{{ID: "client-1", Secret: "s3cret", RedirectURI: publicURI}}
	})
	w.client.RedirectURI = publicURI
	return w
}

func (w *world) request() keeper.Request {
	client := w.client
	return keeper.Request{ID: w.id, Home: "file", Client: &client, Lasts: 30 * time.Minute, Ref: "invitation 7"}
}

// comesBack lets the person sign in at an address, and returns what the browser
// brings back.
func (w *world) comesBack(address, state string) grant.Callback {
	w.t.Helper()
	back, err := sandbox.Person{User: w.user, Password: "pw", HTTP: w.transport}.Callback(w.t.Context(), address)
	if err != nil {
		w.t.Fatal(err)
	}
	u, err := url.Parse(back)
	if err != nil {
		w.t.Fatal(err)
	}
	if got := u.Query().Get("state"); got != state {
		w.t.Fatalf("the browser came back with the state %q, not %q", got, state)
	}
	return grant.Callback{Code: u.Query().Get("code"), Error: u.Query().Get("error")}
}

// press makes what a sign-in has to remember, as a press on a page does, and returns
// it sealed, with what the browser brings back.
func (w *world) press() (sealed string, callback grant.Callback) {
	w.t.Helper()
	p := w.start(nil)
	remembered, err := p.Prepare(w.t.Context(), w.request())
	if err != nil {
		w.t.Fatal(err)
	}
	if sealed, err = remembered.Seal(sealingKey, purpose); err != nil {
		w.t.Fatal(err)
	}
	return sealed, w.comesBack(remembered.Address(&w.client), remembered.State())
}

func (w *world) open(sealed string) keeper.Remembered {
	w.t.Helper()
	remembered, err := keeper.Open(sealingKey, purpose, sealed, w.clock.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return remembered
}

// finisher is another process that finishes a sign-in.
type finisher struct {
	Dir, Identity, BaseURL, Origin string
	Now                            time.Time
	Key                            []byte
	Sealed                         string
	Callback                       grant.Callback
	Doubt, Die                     bool
}

// die ends the process, without anything that it would still do.
func die() {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	panic(fmt.Sprint("it is still alive: ", err))
}

// finished is what it says.
type finished struct{ User, TokenVaultKey, Err string }

const envFinisher = "UPSAUTH_TEST_FINISHER"

// finishHere is the other process. It reads what to do and writes what it did.
func finishHere() {
	var f finisher
	if err := json.NewDecoder(os.Stdin).Decode(&f); err != nil {
		panic(err)
	}
	v := vault.New(files.New(f.Dir, vault.Homes{agefile.New(filepath.Join(f.Dir, "vault"), f.Identity)}))
	said, err := f.finish(context.Background(), v, nil, die)
	if err != nil {
		said.Err = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		panic(err)
	}
}

func (f finisher) finish(ctx context.Context, v keeper.Vault, transport http.RoundTripper, die func()) (finished, error) {
	now := func() time.Time { return f.Now }
	k := &keeper.Keeper{
		Vault: v,
		Client: func(context.Context, grant.ID) (*ups.Client, error) {
			return &ups.Client{
				Environment: ups.Environment{Name: "lab", BaseURL: f.BaseURL, Origin: f.Origin},
				Application: ups.Application{Name: "intelligent-rating", ClientID: "client-1", ClientSecret: "s3cret",
					RedirectURI: "https://another.example/registered-since", PKCE: ups.PKCEAuto},
				Transport: transport, Now: now,
			}, nil
		},
		Now: now,
	}
	remembered, err := keeper.Open(f.Key, purpose, f.Sealed, f.Now)
	if err != nil {
		return finished{}, err
	}
	s, err := k.Resume(ctx, remembered)
	if err != nil {
		return finished{}, err
	}
	defer s.Close(ctx)
	outcome, err := s.Finish(ctx, f.Callback)
	if err != nil {
		return finished{}, err
	}
	if f.Doubt {
		s.MarkUnconfirmed(ctx)
	}
	if f.Die {
		die()
	}
	g, err := s.Keep(ctx)
	return finished{User: outcome.User, TokenVaultKey: g.TokenVaultKey}, err
}

// inAnotherProcess runs another process on the same disk; it is killed where it is to die.
// In memory there is only this one: it is as if it were another.
func (w *world) inAnotherProcess(f finisher) finished {
	w.t.Helper()
	f.Dir, f.Identity, f.BaseURL, f.Origin, f.Now, f.Key = w.dir, w.identity, w.client.BaseURL, w.client.Origin, w.clock.Now(), sealingKey
	if w.memory != nil {
		return w.asAnotherProcess(f)
	}
	input, err := json.Marshal(f)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 3*patience)
	defer cancel()
	command := exec.CommandContext(ctx, os.Args[0])
	command.Env = append(os.Environ(), envFinisher+"=1")
	command.Stdin, command.Stderr = bytes.NewReader(input), os.Stderr
	output, err := command.Output()
	if f.Die {
		if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.Exited() && exit.ExitCode() == 2 {
			w.t.Fatalf("the other process was not killed: %v, %s", err, output)
		}
		return finished{}
	}
	var said finished
	if err != nil {
		w.t.Fatal(err)
	}
	if err := json.Unmarshal(output, &said); err != nil {
		w.t.Fatalf("%v: %s", err, output)
	}
	return said
}

func (w *world) asAnotherProcess(f finisher) (said finished) {
	p := w.start(nil)
	died := p.run(func() {
		var err error
		if said, err = f.finish(w.t.Context(), p.Vault, w.transport, func() { p.gone.Store(true); panic(ended{}) }); err != nil {
			said.Err = err.Error()
		}
	})
	if died != f.Die {
		w.t.Fatalf("the other process was killed: %t", died)
	}
	return said
}

// TestFinishedByAnotherProcess guards whoever signs in over a restart, or where
// several hosts stand behind one address: what the browser keeps is enough, and until
// it comes back nothing is on disk.
func TestFinishedByAnotherProcess(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprintf("authorized before: %t", again), func(t *testing.T) {
			t.Parallel()
			w := newPublicWorld(t)
			old := ""
			if again {
				sealed, callback := w.press()
				old = w.inAnotherProcess(finisher{Sealed: sealed, Callback: callback}).TokenVaultKey
			}
			before := w.files()
			sealed, _ := w.press()
			if after := w.files(); after != before {
				t.Errorf("the press wrote to the disk:\n%s\ninstead of\n%s", after, before)
			}
			if len(sealed) > 1536 || strings.ContainsAny(sealed, "+/=;, ") {
				t.Errorf("%d characters are no cookie's: %s", len(sealed), sealed)
			}
			w.pass(29 * time.Minute)
			remembered := w.open(sealed)
			callback := w.comesBack(remembered.Address(&w.client), remembered.State())
			said := w.inAnotherProcess(finisher{Sealed: sealed, Callback: callback})
			if said.Err != "" || said.User != w.user || said.TokenVaultKey == old {
				t.Fatalf("the other process says %+v", said)
			}
			w.wantSettled(w.disk(), grant.Authorized)
			w.wantOnly(said.TokenVaultKey)
			w.wantNextRefresh()
		})
	}
}

// What Begin wrote is in nobody's way: the process that began may have been killed, or
// have closed.
func TestBegunHereFinishedElsewhere(t *testing.T) {
	t.Parallel()
	for _, killed := range []bool{false, true} {
		w := newPublicWorld(t)
		p := w.start(nil)
		var remembered keeper.Remembered
		p.run(func() {
			s, err := p.Begin(t.Context(), w.request())
			if err != nil {
				t.Fatal(err)
			}
			remembered = s.Remember()
			if _, err := w.start(nil).Resume(t.Context(), remembered); !errors.As(err, new(*vault.LoginBusyError)) {
				t.Errorf("while the first process is at it: %v", err)
			}
			if len(w.disk().journals) != 1 {
				t.Error("nothing was announced")
			}
			if killed {
				panic(ended{})
			}
			s.Close(t.Context())
			w.wantOnly("")
		})
		sealed, err := remembered.Seal(sealingKey, purpose)
		if err != nil {
			t.Fatal(err)
		}
		said := w.inAnotherProcess(finisher{Sealed: sealed, Callback: w.comesBack(remembered.Address(&w.client), remembered.State())})
		if said.Err != "" {
			t.Errorf("killed %t: %s", killed, said.Err)
		}
		w.wantOnly(said.TokenVaultKey)
		w.wantNextRefresh()
	}
}

// TestKilledBeforeItWasKept guards the company's grant: a process that is killed once
// somebody signed in has kept what nobody doubted, and nothing of whom it was to ask
// about.
func TestKilledBeforeItWasKept(t *testing.T) {
	t.Parallel()
	for _, doubt := range []bool{false, true} {
		w := newPublicWorld(t)
		sealed, callback := w.press()
		old := w.inAnotherProcess(finisher{Sealed: sealed, Callback: callback}).TokenVaultKey
		sealed, callback = w.press()
		w.inAnotherProcess(finisher{Sealed: sealed, Callback: callback, Doubt: doubt, Die: true})
		if j := w.disk().journals; len(j) != 1 || !j[0].Answered || j[0].Unconfirmed != doubt {
			t.Fatalf("doubt %t: the process left %+v", doubt, j)
		}
		next := w.start(nil)
		result, err := next.Refresh(t.Context(), w.id, keeper.Need{})
		if err != nil || (result.TokenVaultKey == old) != doubt || next.heard("before anybody confirmed") != doubt {
			t.Errorf("doubt %t: Token Vault Key %s after %s, %v, heard %q", doubt, result.TokenVaultKey, old, err, next.said)
		}
		w.wantOnly(result.TokenVaultKey)
		w.wantNextRefresh()
	}
}

// TestDropLeavesNothing guards the company's grant from the wrong person: after a no
// there is nothing of the new one, and the earlier one works.
func TestDropLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		w := newPublicWorld(t)
		old := ""
		if again {
			sealed, callback := w.press()
			old = w.inAnotherProcess(finisher{Sealed: sealed, Callback: callback}).TokenVaultKey
		}
		before := w.files()
		p := w.start(nil)
		s, err := p.Begin(t.Context(), w.request())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Keep(t.Context()); err == nil {
			t.Error("something was kept before anybody signed in")
		}
		callback := w.comesBack(s.Address(s.State()), s.State())
		if outcome, err := s.Finish(t.Context(), callback); err != nil || outcome.User != w.user {
			t.Fatalf("%+v, %v", outcome, err)
		}
		s.MarkUnconfirmed(t.Context())
		exchanged := w.front.counted("token")
		if _, err := s.Finish(t.Context(), callback); err == nil {
			t.Error("it was finished twice")
		}
		s.Drop(t.Context())
		if _, err := s.Keep(t.Context()); err == nil {
			t.Error("it was kept after it was dropped")
		}
		if _, err := s.Finish(t.Context(), callback); err == nil || w.front.counted("token") != exchanged {
			t.Error("it was finished after it was dropped")
		}
		if after := w.files(); after != before {
			t.Errorf("there is\n%s\ninstead of\n%s", after, before)
		}
		w.wantOnly(old)
		if again {
			w.wantNextRefresh()
		}
		sealed, callback := w.press()
		if said := w.inAnotherProcess(finisher{Sealed: sealed, Callback: callback}); said.Err != "" {
			t.Errorf("the next sign-in: %s", said.Err)
		}
	}
}

// TestStaleSignIn guards a company from a sign-in that was overtaken: nothing is
// exchanged, and nothing on disk changes.
func TestStaleSignIn(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		since func(*world, *process, string, grant.Callback)
		why   keeper.StaleReason
	}{
		{"expired", func(w *world, _ *process, _ string, _ grant.Callback) { w.pass(30 * time.Minute) }, keeper.StaleExpired},
		{"finished", func(w *world, _ *process, sealed string, callback grant.Callback) {
			w.inAnotherProcess(finisher{Sealed: sealed, Callback: callback})
		}, keeper.StaleOvertaken},
		{"authorized otherwise", func(w *world, _ *process, _ string, _ grant.Callback) {
			sealed, callback := w.press()
			w.inAnotherProcess(finisher{Sealed: sealed, Callback: callback})
		}, keeper.StaleOvertaken},
		{"revoked", func(w *world, p *process, _ string, _ grant.Callback) {
			if err := p.Revoke(w.t.Context(), w.id); err != nil {
				w.t.Fatal(err)
			}
		}, keeper.StaleOvertaken},
		{"another client ID", func(w *world, _ *process, _ string, _ grant.Callback) { w.client.ClientID = "client-2" }, keeper.StaleClient},
		{"another base URL", func(w *world, _ *process, _ string, _ grant.Callback) { w.client.Origin = "https://other.example" }, keeper.StaleClient},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newPublicWorld(t)
			sealed, callback := w.press()
			w.inAnotherProcess(finisher{Sealed: sealed, Callback: callback})
			sealed, callback = w.press()
			remembered := w.open(sealed)
			p := w.start(nil)
			tt.since(w, p, sealed, callback)
			before, exchanged := w.files(), w.front.counted("token")
			_, err := p.Resume(t.Context(), remembered)
			if stale := new(keeper.StaleError); !errors.As(err, &stale) || stale.Why != tt.why || stale.ID != w.id {
				t.Errorf("got %v, want %q", err, tt.why)
			}
			if after := w.files(); after != before || w.front.counted("token") != exchanged {
				t.Errorf("something happened:\n%s\ninstead of\n%s", after, before)
			}
			if tt.why == keeper.StaleExpired {
				if _, err := keeper.Open(sealingKey, purpose, sealed, w.clock.Now()); !errors.As(err, new(*keeper.StaleError)) {
					t.Errorf("opened: %v", err)
				}
			}
		})
	}
}

// A try that came to nothing leaves what is remembered as good as it was, for the
// process that began and for any other.
func TestRememberedOutlivesATry(t *testing.T) {
	t.Parallel()
	w := newPublicWorld(t)
	sealed, _ := w.press()
	for _, refusal := range []grant.Callback{{Error: "access_denied"}, {Code: "of-yesterday"}} {
		s, err := w.start(nil).Resume(t.Context(), w.open(sealed))
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Finish(t.Context(), refusal)
		if !errors.As(err, new(*keeper.AwaitedError)) {
			t.Errorf("%v: %v", refusal, err)
		}
		// Here at once...
		remembered := s.Remember()
		if refusal.Code != "" {
			if _, err := s.Finish(t.Context(), w.comesBack(s.Address(s.State()), s.State())); err != nil {
				t.Errorf("finished by a later callback: %v", err)
			}
			s.Drop(t.Context())
		}
		s.Close(t.Context())
		w.wantOnly("")
		sealed, err = remembered.Seal(sealingKey, purpose)
		if err != nil {
			t.Fatal(err)
		}
	}
	// ... or elsewhere, later.
	remembered := w.open(sealed)
	said := w.inAnotherProcess(finisher{Sealed: sealed, Callback: w.comesBack(remembered.Address(&w.client), remembered.State())})
	if said.Err != "" {
		t.Error(said.Err)
	}
	w.wantOnly(said.TokenVaultKey)
}

func TestExpectedUserIsRemembered(t *testing.T) {
	t.Parallel()
	w := newPublicWorld(t)
	request := w.request()
	request.ExpectUser = "john@acme.example"
	remembered, err := w.start(nil).Prepare(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := remembered.Seal(sealingKey, purpose)
	if err != nil {
		t.Fatal(err)
	}
	said := w.inAnotherProcess(finisher{Sealed: sealed, Callback: w.comesBack(remembered.Address(&w.client), remembered.State())})
	if !strings.Contains(said.Err, "only john@acme.example may") {
		t.Errorf("the other process says %+v", said)
	}
	w.wantOnly("")
}

// TestSealedMemory guards the browser's copy: nothing but the very text that was
// sealed, with the very key and for the very purpose, is opened.
func TestSealedMemory(t *testing.T) {
	t.Parallel()
	w := newPublicWorld(t)
	request := w.request()
	request.ExpectUser, request.Asks = "jane@acme.example", true
	request.Company = strings.Repeat("株", 200)
	remembered, err := w.start(nil).Prepare(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := remembered.Seal(sealingKey, purpose)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := remembered.Seal(sealingKey, purpose); again == sealed {
		t.Error("sealed twice, it is the same text")
	}
	opened := w.open(sealed)
	state, address := opened.State(), opened.Address(&w.client)
	if state != remembered.State() || len(state) < 40 || address != remembered.Address(&w.client) {
		t.Error("what was opened has another state or verifier")
	}
	if fmt.Sprint(withoutSecrets(opened)) != fmt.Sprint(withoutSecrets(remembered)) {
		t.Errorf("what was opened is\n%+v, not\n%+v", opened, remembered)
	}

	refused := func(what string, key []byte, purpose, text string) {
		t.Helper()
		got, err := keeper.Open(key, purpose, text, w.clock.Now())
		if err == nil || got.State() != "" || errors.As(err, new(*keeper.StaleError)) {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		for _, bit := range []byte{1, 128} {
			changed := bytes.Clone(raw)
			changed[i] ^= bit
			refused(fmt.Sprintf("byte %d changed", i), sealingKey, purpose, base64.RawURLEncoding.EncodeToString(changed))
		}
	}
	for n := range len(sealed) {
		refused("cut off", sealingKey, purpose, sealed[:n])
	}
	other := bytes.Clone(sealingKey)
	other[0]++
	for what, text := range map[string]string{
		"more behind it": sealed + "A", "padded": sealed + "=", "a blank": " " + sealed, "a line": sealed[:20] + "\n" + sealed[20:],
		"twice": sealed + sealed, "very long": strings.Repeat("A", 1<<20),
	} {
		refused(what, sealingKey, purpose, text)
	}
	refused("another key", other, purpose, sealed)
	refused("a short key", sealingKey[:16], purpose, sealed)
	refused("no key", nil, purpose, sealed)
	refused("another purpose", sealingKey, purpose+"s", sealed)
	refused("no purpose", sealingKey, "", sealed)

	if _, err := (keeper.Remembered{}).Seal(sealingKey, purpose); err == nil {
		t.Error("nothing was sealed")
	}
	if _, err := w.start(nil).Resume(t.Context(), keeper.Remembered{}); err == nil {
		t.Error("nothing was resumed")
	}
	request.Ref = strings.Repeat("x", 1000)
	long, err := w.start(nil).Prepare(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := long.Seal(sealingKey, purpose); !errors.As(err, new(*keeper.TooLongError)) {
		t.Errorf("what no cookie holds: %v", err)
	}
}

// withoutSecrets is all that can be compared.
func withoutSecrets(r keeper.Remembered) []any {
	return []any{r.ID, r.Home, r.ClientID, r.Origin, r.RedirectURI, r.ExpectUser, r.Asks, r.Replaces,
		r.Begun.Truncate(time.Millisecond), r.Ends.Truncate(time.Millisecond), r.Ref}
}

// TestNoSecretIsShown guards state, verifier and code from every way in which
// a value gets into a log by accident.
func TestNoSecretIsShown(t *testing.T) {
	t.Parallel()
	w := newPublicWorld(t)
	p := w.start(nil)
	s, err := p.Begin(t.Context(), w.request())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	remembered := s.Remember()
	u, err := url.Parse(s.Address(s.State()))
	if err != nil {
		t.Fatal(err)
	}
	var shown strings.Builder
	type wrapped struct {
		inside keeper.Remembered
		signIn *keeper.SignIn
	}
	outcome, failure := s.Finish(t.Context(), grant.Callback{Code: "of-yesterday"})
	for _, value := range []any{remembered, &remembered, s, *s, wrapped{remembered, s}, outcome, failure, &keeper.StaleError{ID: w.id, Why: keeper.StaleExpired}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			fmt.Fprintf(&shown, verb+"\n", value)
		}
		text, _ := json.Marshal(value)
		shown.Write(text)
	}
	shown.WriteString(strings.Join(p.said, "\n"))
	for what, secret := range map[string]string{
		"state": u.Query().Get("state"), "verifier": keeper.VerifierOf(remembered), "code": "of-yesterday", "client secret": w.client.ClientSecret,
	} {
		if secret == "" {
			t.Fatalf("the test has no %s", what)
		}
		for _, form := range []string{secret, fmt.Sprintf("%x", secret)} {
			if strings.Contains(shown.String(), form) {
				t.Errorf("the %s is shown", what)
			}
		}
	}
}

// TestManyGoroutinesAuthorizeThroughOneKeeper guards a service: people sign in for
// several companies at once, twice for each, while their grants are used.
func TestManyGoroutinesAuthorizeThroughOneKeeper(t *testing.T) {
	t.Parallel()
	w := newPublicWorld(t)
	p := w.start(nil)
	var all sync.WaitGroup
	kept := make([]string, 4)
	worlds := make([]*world, len(kept))
	for i := range kept {
		worlds[i] = w.of(t, "Company "+string(rune('A'+i)))
		worlds[i].place = w.place
	}
	var mu sync.Mutex
	for i := range 2 * len(worlds) {
		other := worlds[i%len(worlds)]
		all.Go(func() {
			ctx := context.WithValue(t.Context(), caller{}, other.id.Company)
			remembered, err := p.Prepare(t.Context(), other.request())
			if err != nil {
				t.Error(err)
				return
			}
			callback := other.comesBack(remembered.Address(&other.client), remembered.State())
			s, err := p.Resume(ctx, remembered)
			if errors.As(err, new(*vault.LoginBusyError)) || errors.As(err, new(*keeper.StaleError)) {
				return // the other one of the two is at it, or was first
			}
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close(ctx)
			if _, err := s.Finish(ctx, callback); err != nil {
				t.Error(err)
				return
			}
			g, err := s.Keep(ctx)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if kept[i%len(worlds)] != "" {
				t.Errorf("%s was authorized twice", other.id.Company)
			}
			kept[i%len(worlds)] = g.TokenVaultKey
		})
		all.Go(func() {
			if _, err := p.Refresh(t.Context(), other.id, keeper.Need{}); err != nil && !errors.Is(err, grant.ErrNoGrant) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i, other := range worlds {
		if d := other.disk(); d.TokenVaultKey != kept[i] || kept[i] == "" {
			t.Errorf("%s: %s, want %q", other.id.Company, d, kept[i])
		}
		other.wantNextRefresh()
	}
}

// files are the names and sizes of all that is on the disk, locks aside.
func (w *world) files() string {
	w.t.Helper()
	var all strings.Builder
	if w.memory != nil {
		texts := w.memory.Texts()
		for _, name := range slices.Sorted(maps.Keys(texts)) {
			fmt.Fprintf(&all, "%s %d\n", name, len(texts[name]))
		}
		return all.String()
	}
	err := filepath.WalkDir(w.dir, func(name string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if rel, _ := filepath.Rel(w.dir, name); err == nil && !strings.Contains(rel, "lock") && !strings.HasSuffix(rel, ".boot") {
			fmt.Fprintf(&all, "%s %d\n", rel, info.Size())
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all.String()
}
