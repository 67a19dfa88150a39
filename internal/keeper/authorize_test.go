package keeper_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http/cookiejar"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/signin"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

// sees returns what the person at the browser saw last.
func sees(t *testing.T, visits <-chan visit) string {
	t.Helper()
	select {
	case v := <-visits:
		if v.err != nil {
			t.Errorf("the person at the browser: %v", v.err)
		}
		return v.page.Text
	case <-time.After(patience):
		t.Fatal("the person at the browser still waits")
		return ""
	}
}

func TestAuthorize(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	visits := make(chan visit, 1)
	login := w.login(visits)
	var steps []signin.Step
	login.Step = func(s signin.Step) { steps = append(steps, s) }
	user := ""
	login.Doubts = func(signedIn string) bool { user = signedIn; return false }
	g, err := w.start(nil).Authorize(t.Context(), login)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}$`).MatchString(g.TokenVaultKey) {
		t.Errorf("the Token Vault Key is %q", g.TokenVaultKey)
	}
	if !w.works(g.AccessToken) {
		t.Error("UPS does not take the access token")
	}
	if page := sees(t, visits); !strings.Contains(page, "It worked") || !strings.Contains(page, g.TokenVaultKey) {
		t.Errorf("the person at the browser sees %q", page)
	}

	kinds := make([]signin.StepKind, 0, len(steps))
	for _, s := range steps {
		kinds = append(kinds, s.Kind)
	}
	want := []signin.StepKind{signin.Listening, signin.Preflight, signin.Opening, signin.Exchanging}
	if !slices.Equal(kinds, want) {
		t.Fatalf("the steps are %v, want %v", kinds, want)
	}
	if steps[0].Address == w.client.RedirectURI || !strings.HasPrefix(steps[2].Address, strings.TrimSuffix(steps[0].Address, "/callback")+"/start/") || user != w.user {
		t.Errorf("the steps are %+v, and %q signed in", steps, user)
	}

	d := w.disk()
	w.wantSettled(d, grant.Authorized)
	w.wantOnly(g.TokenVaultKey)
	checkLastError(t, d, "", time.Time{})
	if d.item.Secrets != g.Secrets || d.Generation != 1 || d.RefreshCount != 0 || d.User != w.user || d.ClientID != w.client.ClientID || d.BaseURL != w.client.Origin || d.Home != "file" {
		t.Errorf("the record is %+v", d.Record)
	}
	w.wantNextRefresh()
}

// The earlier grant works until the new one is in its place, and nothing of it
// is left then, not even that it was void.
func TestAuthorizeAgain(t *testing.T) {
	t.Parallel()
	for _, wasVoid := range []bool{false, true} {
		w := newWorld(t)
		old := w.authorize()
		if wasVoid {
			changePassword(w)
			_, err := w.start(nil).Refresh(t.Context(), w.id, always)
			w.wantVoid(old, err)
		}
		g, err := w.start(then(moment{call: "home.Put item"}, func() {
			if d := w.disk(); d.item.Secrets != old.Secrets || d.Void != wasVoid {
				t.Errorf("before the new grant is in its place: %s", d)
			}
			if wasVoid {
				return
			}
			// Nobody waits for the sign-in: the token is served without the lock.
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if served, err := w.start(nil).Token(ctx, w.id, 0); err != nil || served.AccessToken != old.AccessToken {
				t.Errorf("the earlier grant does not work any more: %v", err)
			}
		})).Authorize(t.Context(), w.login(nil))
		if err != nil || g.TokenVaultKey == old.TokenVaultKey {
			t.Fatalf("Token Vault Key %s after %s, %v", g.TokenVaultKey, old.TokenVaultKey, err)
		}
		d := w.disk()
		w.wantSettled(d, grant.Authorized)
		w.wantOnly(g.TokenVaultKey)
		checkLastError(t, d, "", time.Time{})
		w.wantNextRefresh()
	}
}

// An authorization that comes to nothing leaves nothing behind, and the earlier
// grant as it was.
func TestAuthorizeThatComesToNothing(t *testing.T) {
	t.Parallel()
	errWrongUser := errors.New("somebody else signed in")
	refusal := func(kind ups.Kind) func(*testing.T, error) {
		return func(t *testing.T, err error) { t.Helper(); checkKind(t, err, kind) }
	}
	tests := []struct {
		name   string
		fault  *sandbox.Fault
		login  func(*world, *authorization, chan<- visit)
		wire   wire
		check  func(*testing.T, error)
		unseen bool // no browser is opened
		nobody bool // nobody comes back from the browser
	}{
		{name: "declined",
			login: func(w *world, l *authorization, visits chan<- visit) {
				l.Open = w.browser(visits, sandbox.Person.Decline)
				l.Timeout = 5 * time.Second
			},
			check: func(t *testing.T, err error) {
				var nobody *signin.NobodyError
				var declined *keeper.DeclinedError
				if !errors.As(err, &nobody) || !errors.As(nobody.Last, &declined) || declined.Code != "access_denied" || !strings.Contains(err.Error(), "declined") {
					t.Errorf("error %#v, want that nobody came and that the consent was declined", err)
				}
			}},
		{name: "declined for a reason that stays",
			login: func(w *world, l *authorization, visits chan<- visit) {
				l.Open = w.browser(visits, func(p sandbox.Person, ctx context.Context, address string) (sandbox.Page, error) {
					return w.answer(ctx, p, address, "error", "invalid_scope")
				})
			},
			check: func(t *testing.T, err error) {
				if declined := new(keeper.DeclinedError); !errors.As(err, &declined) || declined.Code != "invalid_scope" {
					t.Errorf("error %#v", err)
				}
			}},
		{name: "nobody comes", nobody: true,
			login: func(_ *world, l *authorization, _ chan<- visit) {
				l.Timeout = 20 * time.Millisecond
				l.Open = func(context.Context, string) {}
			},
			check: func(t *testing.T, err error) {
				var nobody *signin.NobodyError
				if !errors.As(err, &nobody) || nobody.Waited != 20*time.Millisecond {
					t.Errorf("error %#v, want that nobody came within 20ms", err)
				}
			}},
		{name: "the code refused", fault: &sandbox.Fault{Endpoint: "token", Status: 400, Code: "10400", Message: "Invalid Authorization Code"},
			login: func(_ *world, l *authorization, _ chan<- visit) { l.Timeout = 5 * time.Second },
			check: func(t *testing.T, err error) {
				var nobody *signin.NobodyError
				if !errors.As(err, &nobody) {
					t.Fatalf("error %#v, want that nobody came", err)
				}
				checkKind(t, nobody.Last, ups.CodeRefused)
			}},
		{name: "the client refused", fault: &sandbox.Fault{Endpoint: "token", Status: 401, Code: "10401", Message: "ClientId is Invalid"}, check: refusal(ups.ClientRefused)},
		{name: "UPS is down", fault: &sandbox.Fault{Endpoint: "token", Status: 503}, check: refusal(ups.Down)},
		{name: "the answer is lost", fault: &sandbox.Fault{Endpoint: "token", Drop: "after"}, check: refusal(ups.Lost)},
		{name: "an answer without tokens", fault: &sandbox.Fault{Endpoint: "token", Body: "html"}, check: refusal(ups.Unusable)},
		{name: "the wrong person",
			login: func(_ *world, l *authorization, _ chan<- visit) {
				l.Doubts = func(user string) bool { return user != "" }
				l.Confirm = func(context.Context, string) error { return errWrongUser }
			},
			check: wantError(errWrongUser)},
		{name: "another person than expected",
			login: func(_ *world, l *authorization, _ chan<- visit) { l.ExpectUser = "john@acme.example" },
			check: func(t *testing.T, err error) {
				var other *keeper.OtherUserError
				if !errors.As(err, &other) || other.User == "" || other.Expect != "john@acme.example" {
					t.Errorf("error %#v", err)
				}
			}},
		{name: "nobody pastes and nobody can call back", nobody: true,
			login: func(_ *world, l *authorization, _ chan<- visit) {
				l.Client.RedirectURI = "https://shop.example/callback"
				l.NoPreflight = true
				l.Open = func(context.Context, string) {}
				l.Paste = func(context.Context, func(string) (grant.Callback, error)) (grant.Callback, error) {
					return grant.Callback{}, io.EOF
				}
			}, check: func(t *testing.T, err error) {
				if err == nil || !strings.Contains(err.Error(), "no address was pasted") {
					t.Errorf("error %v", err)
				}
			}},
		{name: "the preflight refused", unseen: true, fault: &sandbox.Fault{Endpoint: "authorize", Status: 400, Code: "10400", Message: "Invalid Redirect URL"}, check: refusal(ups.RedirectURIRefused)},
		{name: "the preflight finds UPS's error page", unseen: true, fault: &sandbox.Fault{Endpoint: "authorize", ErrorPage: true}, check: refusal(ups.Down)},
		{name: "the preflight finds nobody", unseen: true,
			login: func(_ *world, l *authorization, _ chan<- visit) { l.Client.BaseURL = "http://127.0.0.1:1" }, check: refusal(ups.Unreachable)},
		{name: "a home that can't be written", unseen: true, wire: failing(errLocked, "home.Put probe"), check: wantError(errLocked)},
		{name: "a home that takes no journal key", unseen: true, wire: failing(errLocked, "home.Put journal"), check: wantError(errLocked)},
		{name: "a disk without room for the journal", unseen: true, wire: failing(errFull, "Claim"), check: wantError(errFull)},
		{name: "a lock that can't be taken", unseen: true, wire: failing(errFull, "Lock"), check: wantError(errFull)},
	}
	all := newWorld(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := all.of(t, tt.name)
			old := w.authorize()
			visits := make(chan visit, 1)
			login := w.login(visits)
			if tt.login != nil {
				tt.login(w, &login, visits)
			}
			opened := false
			open := login.Open
			login.Open = func(ctx context.Context, address string) { opened = true; open(ctx, address) }
			if tt.fault != nil {
				fault := *tt.fault
				fault.Times = 1
				if err := w.ups.AddFault(fault); err != nil {
					t.Fatal(err)
				}
			}
			g, err := w.start(tt.wire).Authorize(t.Context(), login)
			tt.check(t, err)
			if g.AccessToken != "" {
				t.Error("there is a grant beside the error")
			}
			if opened == tt.unseen {
				t.Errorf("the browser was opened: %t", opened)
			}
			if !tt.unseen && !tt.nobody {
				if page := sees(t, visits); !strings.Contains(page, "It failed") {
					t.Errorf("the person at the browser sees %q", page)
				}
			}
			d := w.disk()
			w.wantKept(old, d)
			w.wantSettled(d, grant.Authorized)
			w.wantOnly(old.TokenVaultKey)
			w.wantNextRefresh()
		})
	}
}

func TestAuthorizeOnAPortThatIsTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w.client.RedirectURI = "http://" + l.Addr().String() + "/"
	login := w.login(nil)
	login.Open = func(context.Context, string) { t.Error("the browser was opened") }
	_, err = w.start(nil).Authorize(t.Context(), login)
	var port *loopback.PortError
	if !errors.As(err, &port) {
		t.Errorf("error %v, want that the port is taken", err)
	}
	w.wantOnly("")
}

// Ctrl-C ends a login at once until the code is sent; then the grant is saved
// first.
func TestAuthorizeCancelled(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		when  moment // zero for while the browser is open
		saved bool
	}{
		{name: "while the person signs in"},
		{name: "before the browser opens", when: moment{"Prove", true}},
		{name: "when the code is sent", when: moment{call: "send token"}, saved: true},
		{name: "when the answer is sealed", when: moment{"Seal", true}, saved: true},
		{name: "when the grant is written", when: moment{"home.Put item", true}, saved: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			old := w.authorize()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			p := w.start(then(tt.when, cancel))
			login := w.login(nil)
			if tt.when == (moment{}) {
				login.Open = func(context.Context, string) { cancel() }
			}
			g, err := p.Authorize(ctx, login)
			if !errors.Is(err, context.Canceled) || errors.As(err, new(*keeper.SavedError)) != tt.saved {
				t.Fatalf("error %#v, want that it was cancelled and says that it is saved: %t", err, tt.saved)
			}
			d := w.disk()
			if tt.saved && (g.TokenVaultKey == old.TokenVaultKey || d.item.Secrets != g.Secrets) {
				t.Errorf("the grant was not saved: %s", d)
			}
			if !tt.saved {
				w.wantKept(old, d)
			}
			w.wantSettled(d, grant.Authorized)
			w.wantOnly(d.TokenVaultKey)
			w.wantNextRefresh()
		})
	}
}

// UPS documents PKCE without an Authorization header, and may want the header
// all the same.
func TestAuthorizeWherePKCENeedsTheHeader(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		pkce     ups.PKCE
		known    bool // from an earlier login
		requests int
		learned  bool
		kind     ups.Kind
	}{
		{name: "found out", pkce: ups.PKCEAuto, requests: 2, learned: true},
		{name: "known", pkce: ups.PKCEAuto, known: true, requests: 1},
		{name: "not wanted", pkce: ups.PKCEOn, requests: 1, kind: ups.HeaderMissing},
		{name: "without PKCE", pkce: ups.PKCEOff, requests: 1},
	}
	all := newWorld(t)
	if err := all.ups.AddFault(sandbox.Fault{Endpoint: "token", PKCEBasic: true}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := all.of(t, tt.name)
			login := w.login(nil)
			login.Client.PKCE, login.Client.PKCENeedsBasic = tt.pkce, tt.known
			learned := false
			login.Learned = func(needsBasic bool) { learned = needsBasic }
			before := w.front.counted("token")
			_, err := w.start(nil).Authorize(t.Context(), login)
			checkKind(t, err, tt.kind)
			if n := w.front.counted("token") - before; n != tt.requests || learned != tt.learned {
				t.Errorf("%d exchanges, learned: %t; want %d and %t", n, learned, tt.requests, tt.learned)
			}
		})
	}
}

// Only one person at a time signs in for a company. Everybody else goes on with
// the grant that is there, and nobody touches what the login has begun.
func TestWhileSomebodySignsIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.authorize()
	login := w.login(nil)
	signIn := login.Open
	login.Open = func(ctx context.Context, address string) {
		var busy *vault.LoginBusyError
		second := w.login(nil)
		second.Open = func(context.Context, string) { t.Error("a second browser was opened") }
		if _, err := w.start(nil).Authorize(t.Context(), second); !errors.As(err, &busy) || busy.PID != os.Getpid() {
			t.Errorf("a second login: %v, want that this process is at it", err)
		}
		begun := w.disk().journals
		if len(begun) != 1 || begun[0].Purpose != grant.Authorizing || begun[0].Answered {
			t.Errorf("journals %+v, want that of the login", begun)
		}
		w.wantNextRefreshBeside(old)
		if now := w.disk().journals; !slices.Equal(now, begun) {
			t.Errorf("journals %+v, want %+v", now, begun)
		}
		signIn(ctx, address)
	}
	login.Doubts = func(string) bool { return true }
	login.Confirm = func(ctx context.Context, _ string) error {
		// The answer is sealed, and this process is about to put it in place.
		if j := w.disk().journals; len(j) != 1 || !j[0].Answered {
			t.Errorf("journals %+v, want a sealed answer", j)
		}
		result, err := w.start(nil).Refresh(ctx, w.id, keeper.Need{})
		if err != nil || result.TokenVaultKey != old.TokenVaultKey {
			t.Errorf("another process finished the login: Token Vault Key %s, %v", result.TokenVaultKey, err)
		}
		if err := w.start(nil).Revoke(ctx, w.id); err != nil {
			t.Errorf("revoking: %v", err)
		}
		if _, err := w.start(nil).Token(ctx, w.id, 0); !errors.Is(err, grant.ErrNoGrant) {
			t.Errorf("after the revoke, before the login ends: %v, want that there is no grant", err)
		}
		if j := w.disk().journals; len(j) != 1 || !j[0].Answered {
			t.Errorf("journals %+v after the revoke, want the sealed answer", j)
		}
		return nil
	}
	g, err := w.start(nil).Authorize(t.Context(), login)
	if err != nil || g.TokenVaultKey == old.TokenVaultKey {
		t.Fatalf("Token Vault Key %s, %v", g.TokenVaultKey, err)
	}
	w.wantSettled(w.disk(), grant.Authorized)
	w.wantOnly(g.TokenVaultKey)
	w.wantNextRefresh()
}

// A login that was cut off: without an answer the company's next login clears
// it away and nobody else does, with one any call finishes it.
func TestLoginLeftByAnEarlierProcess(t *testing.T) {
	t.Parallel()
	cutOffAt := func(w *world, m moment) (begun grant.Journal) {
		p := w.start(endAt(m))
		if !p.run(func() { _, _ = p.Authorize(w.t.Context(), w.login(nil)) }) {
			w.t.Fatal("the login was not cut off")
		}
		return w.disk().journals[0]
	}
	t.Run("without answer", func(t *testing.T) {
		w := newWorld(t)
		old := w.authorize()
		begun := cutOffAt(w, moment{"send token", true})
		w.wantNextRefreshBeside(old)
		if _, err := w.start(nil).Token(t.Context(), w.id, 0); err != nil {
			t.Error(err)
		}
		if d := w.disk(); len(d.journals) != 1 || !slices.Contains(w.items(), begun.TokenVaultKey+"/journal") || d.state != grant.Authorized {
			t.Errorf("%s, items %q; want what was begun, and a state that it does not touch", d, w.items())
		}
		g := w.authorize()
		w.wantSettled(w.disk(), grant.Authorized)
		w.wantOnly(g.TokenVaultKey)
	})
	for name, call := range map[string]func(*process) error{
		"Refresh":   func(p *process) error { _, err := p.Refresh(p.w.t.Context(), p.w.id, keeper.Need{}); return err },
		"Token":     func(p *process) error { _, err := p.Token(p.w.t.Context(), p.w.id, 0); return err },
		"Authorize": func(p *process) error { _, err := p.Authorize(p.w.t.Context(), p.w.login(nil)); return err },
	} {
		t.Run("with an answer, then "+name, func(t *testing.T) {
			w := newWorld(t)
			begun := cutOffAt(w, moment{"Seal", true})
			if d := w.disk(); d.state != grant.Interrupted {
				t.Errorf("%s, want that the company's first login shows as interrupted", d)
			}
			// It waits as long as the home is locked.
			for _, locked := range []string{"home.Get journal", "home.Put item"} {
				wantError(errLocked)(t, call(w.start(failing(errLocked, locked))))
			}
			finished := false
			p := w.start(then(moment{"Put", true}, func() {
				finished = finished || slices.Contains(w.items(), begun.TokenVaultKey)
			}))
			if err := call(p); err != nil {
				t.Fatal(err)
			}
			if !finished {
				t.Error("what the login had made was never put in place")
			}
			d := w.disk()
			w.wantSettled(d, grant.Authorized)
			w.wantOnly(d.TokenVaultKey)
			if w.front.counted("refresh") != 0 || (d.TokenVaultKey == begun.TokenVaultKey) != (name != "Authorize") {
				t.Errorf("Token Vault Key %s, begun %s, %d refreshes", d.TokenVaultKey, begun.TokenVaultKey, w.front.counted("refresh"))
			}
			w.wantNextRefresh()
		})
	}
	t.Run("with an answer whose key is in another keychain", func(t *testing.T) {
		w := newWorld(t)
		old := w.authorize()
		begun := cutOffAt(w, moment{"Seal", true})
		if err := w.home().Delete(t.Context(), begun.TokenVaultKey+"/journal"); err != nil {
			t.Fatal(err)
		}
		// The earlier grant works, and the answer waits for its key.
		w.wantNextRefreshBeside(old)
		if d := w.disk(); len(d.journals) != 1 || !d.journals[0].Answered {
			t.Errorf("%s, want the sealed answer", d)
		}
		// Once the company is authorized anew, it is of no use any more.
		g := w.authorize()
		w.wantNextRefresh()
		w.wantOnly(g.TokenVaultKey)
		w.wantSettled(w.disk(), grant.Authorized)
	})
	for name, spoil := range map[string]func(*world, grant.Journal){
		"that is damaged":                func(w *world, _ grant.Journal) { w.damage() },
		"that has no usable token in it": nil,
	} {
		t.Run("with an answer "+name, func(t *testing.T) {
			w := newWorld(t)
			old := w.authorize()
			if spoil == nil {
				if err := w.ups.AddFault(sandbox.Fault{Endpoint: "token", Body: "html", Times: 1}); err != nil {
					t.Fatal(err)
				}
			}
			begun := cutOffAt(w, moment{"Seal", true})
			if spoil != nil {
				spoil(w, begun)
			}
			w.wantNextRefresh()
			d := w.disk()
			w.wantSettled(d, grant.Authorized)
			w.wantOnly(old.TokenVaultKey)
		})
	}
}

// A home that is locked when the new grant is to be written costs no second
// sign-in.
func TestAuthorizeWhoseAnswerCanNotBeStored(t *testing.T) {
	t.Parallel()
	sealed := false
	for name, wire := range map[string]wire{
		"the home is locked": failing(errLocked, "home.Put item"),
		"the lock can't be taken": func(m moment) error {
			sealed = sealed || m.call == "Seal"
			if sealed && m == (moment{call: "Lock"}) {
				return errLocked
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			visits := make(chan visit, 1)
			_, err := w.start(wire).Authorize(t.Context(), w.login(visits))
			wantError(errLocked)(t, err)
			if page := sees(t, visits); !strings.Contains(page, "It failed") {
				t.Errorf("the person at the browser sees %q", page)
			}
			g, err := w.start(nil).Token(t.Context(), w.id, 0)
			if err != nil || !w.works(g.AccessToken) {
				t.Fatalf("the token of the sealed answer: %v", err)
			}
			w.wantSettled(w.disk(), grant.Authorized)
			w.wantOnly(g.TokenVaultKey)
			w.wantNextRefresh()
		})
	}
}

func TestAuthorizeWhoseAnswerCanNotBeSealed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.loseJournals("token")
	p := w.start(nil)
	g, err := p.Authorize(t.Context(), w.login(nil))
	if err != nil || !p.heard("can't be sealed") {
		t.Fatalf("%v, heard %q", err, p.said)
	}
	w.wantSettled(w.disk(), grant.Authorized)
	w.wantOnly(g.TokenVaultKey)
	w.wantNextRefresh()
}

// What a login that came to nothing can't clear away is left to the company's
// next one.
func TestAuthorizeClearsUpBehindAnEarlierOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	login := w.login(nil)
	login.Open = w.browser(nil, sandbox.Person.Decline)
	login.Timeout = 5 * time.Second
	_, err := w.start(failing(errLocked, "home.Delete journal")).Authorize(t.Context(), login)
	if nobody := new(signin.NobodyError); !errors.As(err, &nobody) || !errors.As(nobody.Last, new(*keeper.DeclinedError)) {
		t.Errorf("error %v, want that the consent was declined", err)
	}
	if len(w.items()) == 0 || len(w.disk().journals) != 1 {
		t.Fatalf("items %q, %s; the test wants something to be left", w.items(), w.disk())
	}
	g := w.authorize()
	w.wantSettled(w.disk(), grant.Authorized)
	w.wantOnly(g.TokenVaultKey)
}

// What is odd about an answer is noted, and what it came with is kept: here the
// items of the earlier grant, which could not be removed, are not forgotten.
func TestAuthorizeWithAnOddAnswer(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(map[string]any)
		code   string
	}{
		{"another client ID", func(f map[string]any) { f["client_id"] = "somebody-else" }, "other-client"},
		{"no access token", func(f map[string]any) { delete(f, "access_token") }, "no-access-token"},
		{"numbers and nothing in expires_in", func(f map[string]any) { f["expires_in"] = ""; f["issued_at"] = 1795277103000 }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			old := w.authorize()
			w.front.set(func() {
				w.front.change = func(endpoint string, a *answer) {
					if endpoint == "token" {
						a.fields(t, tt.change)
					}
				}
			})
			g, err := w.start(failing(errLocked, "home.Delete item")).Authorize(t.Context(), w.login(nil))
			w.front.set(func() { w.front.change = nil })
			if err != nil {
				t.Fatal(err)
			}
			d := w.disk()
			checkLastError(t, d, tt.code, w.clock.Now())
			if !slices.Contains(w.items(), old.TokenVaultKey) || d.TokenVaultKey != g.TokenVaultKey {
				t.Fatalf("items %q; the test wants the earlier grant's to be left", w.items())
			}
			w.wantNextRefresh()
			w.wantOnly(g.TokenVaultKey)
		})
	}
}

// wantNextRefreshBeside is wantNextRefresh where a login's journal lies beside
// the grant.
func (w *world) wantNextRefreshBeside(g grant.Grant) {
	w.t.Helper()
	p := w.start(nil)
	w.pass(time.Second)
	result, err := p.Refresh(w.t.Context(), w.id, always)
	if err != nil || !result.Refreshed || result.TokenVaultKey != g.TokenVaultKey {
		w.t.Errorf("the refresh beside a login: refreshed %t, Token Vault Key %s, %v", result.Refreshed, result.TokenVaultKey, err)
	}
}

// A try that comes to nothing is not the end: the same person signs in again at the
// same address, and what an earlier try left in the journal is never taken for the
// later one's answer, wherever the process ends.
func TestAuthorizeAfterATryThatCameToNothing(t *testing.T) {
	t.Parallel()
	late := sandbox.Fault{Endpoint: "token", Status: 400, Code: "10400", Message: "Invalid Authorization Code", Times: 1}
	tests := []struct {
		name  string
		fault *sandbox.Fault
		words string // of a granted answer that refuses, in the place of the first
	}{
		{name: "declined"},
		{name: "too late", fault: &late},
		{name: "refused in other words", fault: &sandbox.Fault{Endpoint: "token", Status: 400, Code: "10400", Message: "Something is amiss", Times: 1}},
		{name: "refused with status 200", words: `{"response":{"errors":[{"code":"10400","message":"Invalid Authorization Code"}]}}`},
	}
	for _, tt := range tests {
		for _, cut := range []moment{{}, {"send token", true}, {"Seal", true}} {
			t.Run(tt.name+" "+cut.call, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				old := w.authorize()
				visits := make(chan visit, 2)
				login := w.login(visits)
				first := sandbox.Person.SignIn
				switch {
				case tt.fault != nil:
					if err := w.ups.AddFault(*tt.fault); err != nil {
						t.Fatal(err)
					}
				case tt.words != "":
					once := true
					w.front.set(func() {
						w.front.change = func(endpoint string, a *answer) {
							if endpoint == "token" && once {
								once = false
								a.body = []byte(tt.words)
							}
						}
					})
				default:
					first = sandbox.Person.Decline
				}
				jar, err := cookiejar.New(nil)
				if err != nil {
					t.Fatal(err)
				}
				var start string
				login.Open = func(ctx context.Context, address string) {
					start = address
					w.browserOf(jar, visits, first)(ctx, address)
				}
				tries := 0
				login.Step = func(s signin.Step) {
					if s.Kind != signin.Awaited {
						return
					}
					tries++
					// It is seen before the next try, after which a process that is cut off serves nothing.
					if page := sees(t, visits); !strings.Contains(page, "It failed") {
						t.Errorf("after the first try the page says %q", page)
					}
					if d := w.disk(); len(d.journals) != 1 || d.journals[0].Answered || d.state != grant.Authorized {
						t.Errorf("while it is awaited again: %s, journals %+v", d, d.journals)
					}
					w.wantNextRefreshBeside(old)
					w.browserOf(jar, visits, sandbox.Person.SignIn)(t.Context(), start)
				}
				sent := 0
				wire := wire(func(m moment) error {
					if tries == 1 && m == cut && sent == 0 {
						sent++
						panic(ended{})
					}
					return nil
				})
				p := w.start(wire)
				var g grant.Grant
				wasCut := p.run(func() { g, err = p.Authorize(t.Context(), login) })
				if wasCut != (cut.call != "") || tries != 1 {
					t.Fatalf("cut off: %t, after %d tries, %v", wasCut, tries, err)
				}
				switch cut.call {
				case "":
					if err != nil || g.TokenVaultKey == old.TokenVaultKey {
						t.Fatalf("%s, %v", g.TokenVaultKey, err)
					}
					if page := sees(t, visits); !strings.Contains(page, "It worked") {
						t.Errorf("in the end the page says %q", page)
					}
				case "Seal":
					// UPS has answered: the next call puts that in place.
					if _, err := w.start(nil).Refresh(t.Context(), w.id, keeper.Need{}); err != nil {
						t.Fatal(err)
					}
					if d := w.disk(); d.TokenVaultKey == old.TokenVaultKey {
						t.Errorf("the later try's answer is lost: %s", d)
					}
				default:
					g = w.authorize()
				}
				d := w.disk()
				w.wantSettled(d, grant.Authorized)
				w.wantOnly(d.TokenVaultKey)
				w.wantNextRefresh()
			})
		}
	}
}

// Somebody who waits for a company that does not consent can leave it, once a try
// came to nothing.
func TestAuthorizeGivenUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	errLeave := errors.New("the next one")
	login := w.login(nil)
	login.Open = w.browser(nil, sandbox.Person.Decline)
	tried := false
	login.Step = func(s signin.Step) { tried = tried || s.Kind == signin.Awaited }
	login.GiveUp = func(context.Context) error {
		if !tried {
			t.Error("it was asked before anything had happened")
		}
		return errLeave
	}
	_, err := w.start(nil).Authorize(t.Context(), login)
	wantError(errLeave)(t, err)
	w.wantOnly("")
}
