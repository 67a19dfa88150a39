package shared_test

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// Somebody signs in on one host while the vault gets another identity on another one. What the
// first has opened is no longer the vault's: it puts nothing in place that nobody could open, and
// the sign-in is finished by its next process.
func TestASignInBesideANewIdentity(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a, b := w.host(t.TempDir(), "web-1"), w.host(dir, "web-2")
	a.authorizeFor(other)
	client, err := b.Client(t.Context(), id)
	must(t, err)
	s, err := b.Begin(t.Context(), keeper.Request{ID: id, Home: shared.HomeName, Client: client, Lasts: time.Minute})
	must(t, err)
	back, err := sandbox.Person{User: jane, Password: "pw"}.Callback(t.Context(), s.Address(s.State()))
	must(t, err)
	u, err := url.Parse(back)
	must(t, err)

	after := a.rekey()

	_, err = s.Finish(t.Context(), grant.Callback{Code: u.Query().Get("code")})
	must(t, err)
	if _, err := s.Keep(t.Context()); !is[*shared.IdentityError](err) {
		t.Errorf("it is kept: %v", err)
	}
	s.Close(t.Context())
	if _, err := b.Begin(t.Context(), keeper.Request{ID: named("Late Ltd"), Home: shared.HomeName, Client: client, Lasts: time.Minute}); !is[*shared.IdentityError](err) {
		t.Errorf("another one begins: %v", err)
	}
	w.identity = after
	must(t, w.host(dir, "web-2").SettleLogins(t.Context(), id))
	if _, err := w.host(t.TempDir(), "web-3").Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
		t.Error(err)
	}
}

// The same, with a refresh whose answer is on its way.
func TestAnAnswerBesideANewIdentity(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a, b := w.host(t.TempDir(), "web-1"), w.host(dir, "web-2")
	a.authorize()
	after := ""
	b.Vault = wired{b.vault, func(now string) {
		if now == "after Seal" {
			after = a.rekey()
		}
	}}
	if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*shared.IdentityError](err) {
		t.Errorf("it is put in place: %v", err)
	}
	w.identity = after
	if _, err := w.host(dir, "web-2").Settle(t.Context(), id); err != nil {
		t.Error(err)
	}
	g, err := w.host(t.TempDir(), "web-3").Refresh(t.Context(), id, keeper.Need{Always: true})
	if err != nil || g.Generation != 3 || w.reused() > 0 {
		t.Errorf("generation %d, %d tokens were sent twice, %v", g.Generation, w.reused(), err)
	}
}

// rekey gives the vault another identity, which is in the file.
func (h *host) rekey() (path string) {
	t := h.w.t
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	must(t, err)
	path = filepath.Join(t.TempDir(), "next.txt")
	must(t, os.WriteFile(path, []byte(identity.String()+"\n"), 0o600))
	next, err := agefile.New("", path).Keys(t.Context())
	must(t, err)
	must(t, h.store.Rekey(t.Context(), next, func(int, int) {}))
	return path
}
