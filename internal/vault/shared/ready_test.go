package shared_test

import (
	"errors"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
	"github.com/upsauth/upsauth/internal/vault/shared"
	"github.com/upsauth/upsauth/internal/vault/vaulttest"
)

// Nobody is sent to ups.com where their sign-in could not be put in place: a host is awaited, this
// host is to be accepted, or the database is away.
func TestNobodySignsInInVain(t *testing.T) {
	w := newWorld(t)
	dirA, dirB := t.TempDir(), t.TempDir()
	a, b := w.sharing(dirA, dirB)
	client, err := a.Client(t.Context(), id)
	must(t, err)
	begin := func(h *host) error {
		s, err := h.Begin(t.Context(), keeper.Request{ID: named("New Ltd"), Home: shared.HomeName, Client: client, Lasts: time.Minute})
		if err == nil {
			s.Close(t.Context())
		}
		return err
	}
	must(t, begin(a))
	w.sql("UPDATE upsauth.meta SET timeline = timeline + 7")
	if err := begin(a); !is[*ledger.FrozenError](err) {
		t.Errorf("while another host is awaited: %v", err)
	}
	_, _ = b.Refresh(t.Context(), other, keeper.Need{Always: true})
	if err := begin(a); err != nil {
		t.Errorf("once all have answered: %v", err)
	}
	w.sql("UPDATE upsauth.hosts SET seen = seen - interval '2 days'")
	var alone *ledger.HostError
	if err := begin(w.host(t.TempDir(), "web-3")); !errors.As(err, &alone) || alone.Reason != ledger.Alone {
		t.Errorf("at a host that is to be accepted: %v", err)
	}
	must(t, w.server.Stop())
	var away *postgres.Error
	if err := begin(w.host(dirA, "web-1")); !errors.As(err, &away) {
		t.Errorf("while the database is away: %v", err)
	}
}

// Another process of this host is about to make it known to the database, which does not have its
// row yet. Whoever comes then makes it known, and nobody is told to come again.
func TestAHostThatIsBeingMadeKnown(t *testing.T) {
	for what, do := range map[string]func(*host) error{
		"ready": func(h *host) error { return h.vault.Ready(t.Context()) },
		"import": func(h *host) error {
			g := vaulttest.GrantOf(named("New Ltd"), "AAAAAAAA-3C21-4F7E-B122-8BF55EA80CDA", 3)
			g.Home = shared.HomeName
			_, err := h.Import(t.Context(), g)
			return err
		},
	} {
		w := newWorld(t)
		dir := t.TempDir()
		a := w.host(dir, "web-1")
		a.authorize()
		w.sql("DELETE FROM upsauth.hosts")
		if err := do(w.host(dir, "web-1")); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}
