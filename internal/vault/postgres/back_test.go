package postgres

import (
	"fmt"
	"slices"
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
			err := s.BringBack(ctx, Row{
				Slot: slot, Grant: ledger.Grant{Key: key, Token: ledger.Made{Generation: 4, Attempt: 2}, State: ledger.Interrupted}, Item: item("back"),
				Earlier: []Earlier{{Key: keyB, Recipient: "age1x"}},
			})
			if err != nil {
				return err
			}
			there, err := s.RowIn(ctx, slot)
			if got := there.Grant.Key == key; got != want {
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
	if r := a.read(t, slotB); r.Grant.Token != (ledger.Made{Generation: 4, Attempt: 2}) || r.Grant.State != ledger.Live || string(r.Item.Sealed) != "back" ||
		len(r.Earlier) != 1 || r.Earlier[0] != (Earlier{keyB, "age1x"}) {
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

// A row tells in whose place its grant came, the latest last, and no more of them than are kept.
func TestEarlierGrantsOfARow(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, _ := two(t, s)
	keyOf := func(n int) string { return fmt.Sprintf("BBBBBBBB-2222-3333-4444-5555555555%02d", n) }
	was, want := keyA, []Earlier{{Key: keyA}}
	for n := range mostEarlier + 3 {
		key := keyOf(n)
		must(t, a.session(t, func(s *Session) error {
			made := item("x")
			made.Facts = []byte(fmt.Sprintf(`{"journal_recipient": "age1%d"}`, n))
			_, err := s.Flip(t.Context(), slotA, was, a.intent(key, ledger.Made{}), first, made, respect)
			return err
		}))
		if got := a.read(t, slotA).Earlier; !slices.Equal(got, want) {
			t.Fatalf("before %s there were %v, not %v", key, got, want)
		}
		was, want = key, append(want, Earlier{key, fmt.Sprintf("age1%d", n)})
		want = want[max(0, len(want)-mostEarlier):]
	}
	rows, err := a.db.Rows(t.Context(), slotA)
	if err != nil || len(rows) != 1 || len(rows[0].Earlier) != mostEarlier {
		t.Errorf("the rows are %v, %v", rows, err)
	}
	// Another name leaves them alone.
	r := a.read(t, slotA)
	must(t, a.session(t, func(s *Session) error {
		_, err := s.Rename(t.Context(), slotA, r.Grant.Version, slotB, Item{MAC: make([]byte, 32)}, respect)
		return err
	}))
	if got := a.read(t, slotB).Earlier; !slices.Equal(got, r.Earlier) {
		t.Errorf("by another name there were %v", got)
	}
}
