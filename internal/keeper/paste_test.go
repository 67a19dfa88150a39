package keeper_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/signin"
)

// pasting lets a person sign in elsewhere and paste the address they end on,
// after some that are wrong.
func (w *world) pasting(login *authorization, wrong ...string) {
	addresses := make(chan string, 1)
	login.Open = func(_ context.Context, address string) { addresses <- address }
	login.Paste = func(ctx context.Context, read signin.Reader) (grant.Callback, error) {
		for _, text := range wrong {
			if _, err := read(text); err == nil {
				w.t.Errorf("%q was accepted", text)
			}
		}
		callback, err := sandbox.Person{User: w.user, Password: "pw", HTTP: w.transport}.Callback(ctx, <-addresses)
		if err != nil {
			return grant.Callback{}, err
		}
		return read(callback)
	}
}

// A person at another machine pastes the address, whether somebody could listen
// for the callback or not.
func TestAuthorizeByPaste(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for name, uri := range map[string]string{
		"a public page":     "https://shop.example/callback",
		"this machine":      "http://127.0.0.1:0/callback",
		"a port in use":     "http://" + busy.Addr().String() + "/callback",
		"https on loopback": "https://localhost:8443/callback",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(o *sandbox.Options) {
				if !strings.Contains(uri, ":0/") {
					o.Clients = []sandbox.Client{{ID: "client-1", Secret: "s3cret", RedirectURI: uri}}
				}
			})
			login := w.login(nil)
			login.Client.RedirectURI = uri
			w.pasting(&login, "a-bare-code", "https://elsewhere.example/?code=x&state=y", "")
			g, err := w.start(nil).Authorize(t.Context(), login)
			if err != nil {
				t.Fatal(err)
			}
			w.wantSettled(w.disk(), grant.Authorized)
			w.wantOnly(g.TokenVaultKey)
			w.wantNextRefresh()
		})
	}
}

// Where standard input has ended, the browser may still come back.
func TestAuthorizeByCallbackWhenNothingIsPasted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	login := w.login(nil)
	login.Paste = func(context.Context, signin.Reader) (grant.Callback, error) { return grant.Callback{}, io.EOF }
	if _, err := w.start(nil).Authorize(t.Context(), login); err != nil {
		t.Fatal(err)
	}
	w.wantSettled(w.disk(), grant.Authorized)
}

// A pasted refusal is a refusal.
func TestAuthorizeDeclinedByPaste(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	login := w.login(nil)
	login.Client.RedirectURI = "https://shop.example/callback"
	login.NoPreflight = true
	login.Open = func(context.Context, string) {}
	pasted := false
	login.Paste = func(context.Context, signin.Reader) (grant.Callback, error) {
		if pasted {
			return grant.Callback{}, io.EOF
		}
		pasted = true
		return grant.Callback{Error: "access_denied"}, nil
	}
	var tries []error
	login.Step = func(s signin.Step) {
		if s.Kind == signin.Awaited {
			tries = append(tries, s.Err)
		}
	}
	_, err := w.start(nil).Authorize(t.Context(), login)
	if err == nil || !strings.Contains(err.Error(), "no address was pasted") || len(tries) != 1 || !errors.As(tries[0], new(*keeper.DeclinedError)) {
		t.Errorf("got %v after %v", err, tries)
	}
}

// TestUnconfirmedUserIsNotKept guards the company from the wrong person's
// authorization where the process ends before anybody said yes: the next one
// must not put it in place.
func TestUnconfirmedUserIsNotKept(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		tune func(*authorization)
		at   moment
		kept bool
	}{
		{"while it is asked", func(l *authorization) {
			l.Doubts = func(string) bool { return true }
			l.Confirm = func(context.Context, string) error { panic(ended{}) }
		}, moment{}, false},
		{"before it is asked, where somebody is expected", func(l *authorization) { l.ExpectUser = "john" }, moment{"Seal", true}, false},
		{"where the right one is expected", func(l *authorization) { l.ExpectUser = " JANE@acme.example" }, moment{"Seal", true}, true},
		{"before it is asked, where another one signed in before", func(l *authorization) {
			l.Asks = true
			l.Doubts = func(string) bool { return true }
		}, moment{"Seal", true}, false},
		{"after somebody said yes to another one", func(l *authorization) {
			l.Asks = true
			l.Doubts = func(string) bool { return true }
			l.Confirm = func(context.Context, string) error { return nil }
		}, moment{"home.Put item", false}, true},
		{"after somebody said yes", func(l *authorization) {
			l.Doubts = func(string) bool { return true }
			l.Confirm = func(context.Context, string) error { return nil }
		}, moment{"home.Put item", false}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			old := w.authorize()
			if strings.Contains(tt.name, "another one") {
				w.user = "somebody@else.example"
			}
			login := w.login(nil)
			tt.tune(&login)
			p := w.start(endAt(tt.at))
			if !p.run(func() { _, _ = p.Authorize(t.Context(), login) }) {
				t.Fatal("it was not cut off")
			}
			next := w.start(nil)
			result, err := next.Refresh(t.Context(), w.id, keeper.Need{})
			if err != nil || (result.TokenVaultKey != old.TokenVaultKey) != tt.kept {
				t.Errorf("Token Vault Key %s after %s, %v", result.TokenVaultKey, old.TokenVaultKey, err)
			}
			if !tt.kept && !next.heard("nobody") && !next.heard("before anybody confirmed") {
				t.Errorf("nothing was said: %q", next.said)
			}
			w.wantOnly(result.TokenVaultKey)
			w.wantNextRefresh()
		})
	}
}

// A journal that can't be written any more must not cost tokens that are good.
func TestConfirmedUserIsKeptWhateverTheJournalDoes(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"Mark", "Seal"} {
		w := newWorld(t)
		login := w.login(nil)
		login.Doubts = func(string) bool { return true }
		login.Confirm = func(context.Context, string) error { return nil }
		g, err := w.start(failing(errFull, call)).Authorize(t.Context(), login)
		if err != nil {
			t.Fatalf("%s: %v", call, err)
		}
		w.wantOnly(g.TokenVaultKey)
		w.wantNextRefresh()
	}
}

// What UPS already answered may be newer than what is imported.
func TestImportBesideAnAnswerThatCantBeOpened(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.authorize()
	export := w.exported()
	p := w.start(endAt(moment{"Seal", true}))
	if !p.run(func() { _, _ = p.Authorize(t.Context(), w.login(nil)) }) {
		t.Fatal("the authorization was not cut off")
	}
	if _, err := w.start(failing(errLocked, "Answer")).Import(t.Context(), export); err == nil {
		t.Error("it was imported over the answer")
	}
	result, err := w.start(nil).Refresh(t.Context(), w.id, keeper.Need{})
	if err != nil || result.TokenVaultKey == export.TokenVaultKey {
		t.Errorf("the answer is lost: %s, %v", result.TokenVaultKey, err)
	}
}

func TestExpectedUserHoldsForAnEarlierSignInToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.start(endAt(moment{"Seal", true}))
	if !p.run(func() { _, _ = p.Authorize(t.Context(), w.login(nil)) }) {
		t.Fatal("the authorization was not cut off")
	}
	login := w.login(nil)
	login.ExpectUser = "somebody@else.example"
	if _, err := w.start(nil).Authorize(t.Context(), login); !errors.As(err, new(*keeper.OtherUserError)) {
		t.Errorf("got %v", err)
	}
	if d := w.disk(); d.state != "" {
		t.Errorf("something was stored: %s", d)
	}
	w.wantOnly("")
}
