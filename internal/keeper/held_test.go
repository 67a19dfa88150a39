package keeper_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/keeper"
)

// signedIn is a sign-in by a press, which UPS granted.
func (w *world) signedIn() *keeper.SignIn {
	w.t.Helper()
	sealed, callback := w.press()
	s, err := w.start(nil).Resume(w.t.Context(), w.open(sealed))
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := s.Finish(w.t.Context(), callback); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// What UPS granted waits for days, while the earlier grant works and others have their
// turn, and then takes its place with tokens that work.
func TestWhatIsLaidAsideIsTakenUp(t *testing.T) {
	t.Parallel()
	for _, there := range []bool{false, true} {
		w := newPublicWorld(t)
		if there {
			s := w.signedIn()
			if _, err := s.Keep(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.Close(t.Context())
		}
		before := w.disk()
		w.user = "joe"
		s := w.signedIn()
		text := ""
		if err := s.LayAside(t.Context(), func(_ context.Context, laid string) error { text = laid; return nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Keep(t.Context()); err == nil {
			t.Error("what was laid aside can be kept, too")
		}
		after := w.disk()
		if after.TokenVaultKey != before.TokenVaultKey || after.state != before.state || len(after.journals) != len(before.journals) {
			t.Errorf("there was %+v\nand is %+v", before, after)
		}
		if there {
			if _, err := w.start(nil).Refresh(t.Context(), w.id, keeper.Need{}); err != nil {
				t.Errorf("the earlier grant: %v", err)
			}
		}
		w.pass(48 * time.Hour)

		p := w.start(nil)
		later, err := p.Begin(t.Context(), w.request())
		if err != nil {
			t.Fatal(err)
		}
		outcome, err := later.TakeUp(t.Context(), text)
		if err != nil || outcome.User != "joe" {
			t.Fatalf("%+v, %v", outcome, err)
		}
		want := later.TokenVaultKey()
		g, err := later.Keep(t.Context())
		later.Close(t.Context())
		if err != nil || g.User != "joe" || g.TokenVaultKey != want {
			t.Fatalf("%+v, %v", g, err)
		}
		w.wantOnly(want)
		if _, err := w.start(nil).Refresh(t.Context(), w.id, keeper.Need{}); err != nil {
			t.Errorf("the new grant: %v", err)
		}
	}
}

// Where it can't be laid aside, it can still be kept.
func TestWhatCanNotBeLaidAsideIsNotLost(t *testing.T) {
	t.Parallel()
	w := newPublicWorld(t)
	s := w.signedIn()
	defer s.Close(t.Context())
	full := errors.New("the disk is full")
	if err := s.LayAside(t.Context(), func(context.Context, string) error { return full }); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	if g, err := s.Keep(t.Context()); err != nil || g.User != w.user {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestNothingOfTheKindIsTakenUp(t *testing.T) {
	t.Parallel()
	w := newPublicWorld(t)
	for _, text := range []string{"", "{}", `{"status":200}`, `{"status":200,"body":"e30="}`, "null"} {
		s, err := w.start(nil).Begin(t.Context(), w.request())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.TakeUp(t.Context(), text); err == nil {
			t.Errorf("%q is taken up", text)
		}
		s.Close(t.Context())
	}
	if d := w.disk(); d.state != "" || len(d.journals) > 0 {
		t.Errorf("%+v is left", d)
	}
}
