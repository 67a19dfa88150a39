package shared_test

import (
	"os"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// lenient is a UPS that takes a token twice, and two hosts that share a grant. The second has told
// the database of itself, which forget puts back to this moment.
func lenient(t *testing.T) (w *world, dirA, dirB string, forget func()) {
	w = newWorld(t, func(o *sandbox.Options) { o.Strict, o.Grace = false, 24*time.Hour })
	dirA, dirB = t.TempDir(), t.TempDir()
	a, b := w.host(dirA, "web-1"), w.host(dirB, "web-2")
	a.authorize()
	a.authorizeFor(other)
	_, err := b.Refresh(t.Context(), other, keeper.Need{Always: true})
	must(t, err)
	forget = w.remember()
	a.db.Close()
	b.db.Close()
	w.pass(2 * time.Hour)
	return w, dirA, dirB, forget
}

// answered has both hosts answer the roll call.
func (w *world) answered(dirA, dirB string) {
	_, _ = w.host(dirA, "web-1").Refresh(w.t.Context(), other, keeper.Need{Always: true})
	_, err := w.host(dirB, "web-2").Refresh(w.t.Context(), other, keeper.Need{Always: true})
	must(w.t, err)
	_, err = w.host(dirA, "web-1").Settle(w.t.Context(), other)
	must(w.t, err)
}

func (w *world) refuses(times int) {
	must(w.t, w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Status: 400, Code: "10400", Message: "Invalid Refresh Token", Times: times}))
}

func (w *world) wait(d time.Duration) {
	w.later(d)
	w.pass(d)
}

// The database has lost the claim of an answer that became a spare. Its host says so at the roll
// call, and the spare is tried before void is said.
func TestASpareWhoseClaimWasLostIsTriedBeforeVoidIsSaid(t *testing.T) {
	w, dirA, dirB, forget := lenient(t)
	always := keeper.Need{Always: true}
	w.host(dirB, "web-2").sealed(id)
	w.later(61 * time.Second)
	a := w.host(dirA, "web-1")
	a.store.TakeOver()
	_, err := a.Refresh(t.Context(), id, always)
	must(t, err)
	_, err = w.host(dirB, "web-2").Settle(t.Context(), id)
	must(t, err) // a spare now
	forget()
	w.answered(dirA, dirB)
	w.refuses(1)
	if _, err = w.host(dirA, "web-1").Refresh(t.Context(), id, always); !is[*keeper.ContestedError](err) {
		t.Errorf("UPS refuses the token that stands: %v", err)
	}
	if g, err := w.host(dirB, "web-2").Refresh(t.Context(), id, always); err != nil {
		t.Errorf("the host that has the spare: generation %d, %v", g.Generation, err)
	}
}

// A failover gives the claim of a sealed answer another place, and its old one to another host's.
// It is a spare, and is tried.
func TestASpareThatGotAnotherPlaceIsTried(t *testing.T) {
	w, dirA, dirB, forget := lenient(t)
	always := keeper.Need{Always: true}
	b := w.host(dirB, "web-2")
	if !b.until("before LastLook", func() { _, _ = b.Refresh(t.Context(), id, always) }) {
		t.Fatal("it was not ended")
	}
	w.host(dirB, "web-2").sealed(id) // place 2
	forget()
	w.answered(dirA, dirB) // place 1
	w.wait(11 * time.Minute)
	_, err := w.host(dirA, "web-1").Refresh(t.Context(), id, always) // place 2
	must(t, err)
	_, err = w.host(dirB, "web-2").Settle(t.Context(), id)
	must(t, err)
	w.refuses(1)
	if _, err = w.host(dirA, "web-1").Refresh(t.Context(), id, always); !is[*keeper.ContestedError](err) {
		t.Errorf("UPS refuses the token that stands: %v", err)
	}
	w.wait(11 * time.Minute)
	if _, err := w.host(dirB, "web-2").Refresh(t.Context(), id, always); err != nil {
		t.Errorf("the host that has the spare: %v", err)
	}
}

// The same, where UPS refuses the spare as well: the grant is void.
func TestASpareThatGotAnotherPlaceIsRefused(t *testing.T) {
	w, dirA, dirB, forget := lenient(t)
	always := keeper.Need{Always: true}
	b := w.host(dirB, "web-2")
	if !b.until("before Seal", func() { _, _ = b.Refresh(t.Context(), id, always) }) {
		t.Fatal("it was not ended")
	}
	w.wait(61 * time.Second)
	w.host(dirB, "web-2").sealed(id) // place 2
	w.later(61 * time.Second)
	a := w.host(dirA, "web-1")
	a.store.TakeOver()
	_, err := a.Refresh(t.Context(), id, always) // place 3
	must(t, err)
	_, err = w.host(dirB, "web-2").Settle(t.Context(), id)
	must(t, err)
	forget()
	w.answered(dirA, dirB)
	w.refuses(0)
	for range 3 {
		for dir, name := range map[string]string{dirA: "web-1", dirB: "web-2"} {
			w.wait(11 * time.Minute)
			_, err = w.host(dir, name).Refresh(t.Context(), id, always)
		}
	}
	if !is[*keeper.GoneError](err) {
		t.Errorf("UPS has refused all there is: %v", err)
	}
}

// A host comes after a person has accepted a failover. The database has lost its claim, and the
// place is another host's. Its answer is a spare, and is tried.
func TestAHostComesLateWithASpare(t *testing.T) {
	w, dirA, dirB, forget := lenient(t)
	always := keeper.Need{Always: true}
	w.host(dirB, "web-2").sealed(id)
	forget()
	a := w.host(dirA, "web-1")
	if _, err := a.Refresh(t.Context(), id, always); err == nil {
		t.Fatal("nobody waits for the other host")
	}
	must(t, a.db.Session(t.Context(), func(s *postgres.Session) error {
		self, err := a.store.Self(t.Context())
		if err != nil {
			return err
		}
		roll, err := s.Roll(t.Context())
		if err != nil {
			return err
		}
		_, err = s.AcceptFailover(t.Context(), self, roll.Meta.Epoch)
		return err
	}))
	_, err := a.Refresh(t.Context(), id, always)
	must(t, err)
	_, _ = w.host(dirB, "web-2").Settle(t.Context(), id)
	w.refuses(1)
	_, _ = a.Refresh(t.Context(), id, always)
	for range 3 {
		w.wait(11 * time.Minute)
		if _, err = w.host(dirB, "web-2").Refresh(t.Context(), id, always); err == nil {
			break
		}
	}
	if err != nil {
		t.Errorf("the host that has the spare: %v", err)
	}
}

// A host is killed in the midst of a commit, before it knows of its token's place, and a failover
// forgets the commit: the token may get a second place. It is no spare of itself, and nothing is
// left once UPS has refused it.
func TestATokenWithTwoPlacesIsNoSpareOfItself(t *testing.T) {
	for _, first := range []string{"web-1", "web-2"} {
		t.Run(first+" answers the roll call first", func(t *testing.T) {
			w, dirA, dirB, forget := lenient(t)
			always := keeper.Need{Always: true}
			b := w.host(dirB, "web-2")
			if !b.until("before LastLook", func() { _, _ = b.Refresh(t.Context(), id, always) }) {
				t.Fatal("it was not ended")
			}
			w.host(dirB, "web-2").sealed(id) // place 2
			killed := t.TempDir()
			must(t, os.CopyFS(killed, os.DirFS(dirB)))
			_, err := w.host(dirB, "web-2").Settle(t.Context(), id)
			must(t, err)
			_, err = w.host(dirA, "web-1").Token(t.Context(), id, 0)
			must(t, err)
			dirB = killed
			forget()
			if first == "web-2" {
				_, _ = w.host(dirB, "web-2").Refresh(t.Context(), other, always) // place 1
				_, _ = w.host(dirB, "web-2").Settle(t.Context(), id)
			}
			w.answered(dirA, dirB)
			_, err = w.host(dirB, "web-2").Settle(t.Context(), id)
			must(t, err)
			w.refuses(0)
			for range 4 {
				w.wait(11 * time.Minute)
				for _, h := range []*host{w.host(dirA, "web-1"), w.host(dirB, "web-2")} {
					_, err = h.Refresh(t.Context(), id, always)
				}
			}
			if !is[*keeper.GoneError](err) {
				t.Errorf("UPS has refused all there is: %v", err)
			}
		})
	}
}
