package postgres

import (
	"testing"

	"github.com/upsauth/upsauth/internal/postgrestest"
	"github.com/upsauth/upsauth/internal/vault/ledger"
)

// A grant is brought back where there is none: no grant in its slot, no row of its key, and nobody
// who has said that it is gone.
func TestBringBack(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, _ := two(t, s)
	ctx := t.Context()
	const keyC = "BBBBBBBB-2222-3333-4444-555555555555"
	back := func(slot, key string, want bool) {
		t.Helper()
		must(t, a.session(t, func(s *Session) error {
			got, err := s.BringBack(ctx, slot, ledger.Grant{Key: key, Token: ledger.Made{Generation: 4, Attempt: 2}, State: ledger.Interrupted}, item("back"))
			if got != want {
				t.Errorf("the grant %s came back to %s: %t", key, slot, got)
			}
			return err
		}))
	}
	back(slotA, keyB, false)
	back(slotB, keyA, false)
	must(t, a.session(t, func(s *Session) error { return s.SayGone(ctx, keyB) }))
	back(slotB, keyB, false)
	back(slotB, keyC, true)
	if r := a.read(t, slotB); r.Grant.Token != (ledger.Made{Generation: 4, Attempt: 2}) || r.Grant.State != ledger.Live || string(r.Item.Sealed) != "back" {
		t.Errorf("the row is %+v", r)
	}
	must(t, a.session(t, func(s *Session) error {
		for _, key := range []string{keyA, keyB, keyC} { // of one that is there nobody says that it is gone
			if err := s.SayGone(ctx, key); err != nil {
				return err
			}
		}
		gone, err := s.Gone(ctx)
		if len(gone) != 1 || !gone[keyB] {
			t.Errorf("gone are %v", gone)
		}
		return err
	}))
}
