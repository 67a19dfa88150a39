package shared_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/postgres"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// A page reads a grant while a process of the same host refreshes it, and is slow. Another host
// renames the company meanwhile. What was read is not what is written: the answer goes to the
// company's new name.
func TestASlowReaderBesideARefreshAndARename(t *testing.T) {
	w := newWorld(t)
	var armed atomic.Bool
	stalled, goOn := make(chan struct{}), make(chan struct{})
	a := w.host(t.TempDir(), "web-1", func(o *shared.Options) {
		now := o.Now
		o.Now = func() time.Time {
			if armed.CompareAndSwap(true, false) {
				close(stalled)
				<-goOn
			}
			return now()
		}
	})
	a.authorize()
	b := w.host(t.TempDir(), "web-2")
	_, err := b.Token(t.Context(), id, 0)
	must(t, err)
	renamed := grant.ID{Company: "Acme Inc", Application: id.Application, Environment: id.Environment}
	read := make(chan struct{})
	a.Vault = wired{a.vault, func(now string) {
		switch now {
		case "before LastLook":
			time.Sleep(300 * time.Millisecond) // what was read before is old
			armed.Store(true)
			go func() {
				defer close(read)
				_, _ = a.store.Grant(t.Context(), id.Slot())
			}()
			<-stalled
			must(t, b.Rename(t.Context(), id, renamed.Company))
		case "after LastLook":
			close(goOn)
			<-read
		}
	}}
	_, err = a.Refresh(t.Context(), id, keeper.Need{Always: true})
	t.Logf("the refresh: %v", err)
	a.Vault = a.vault
	if g, err := a.Settle(t.Context(), renamed); err != nil || g.Generation != 2 {
		t.Errorf("the answer is not put in place: generation %d, %v", g.Generation, err)
	}
	for _, h := range []*host{w.host(t.TempDir(), "web-3"), b} {
		if g, err := h.vault.Get(t.Context(), renamed); err != nil || g.Generation != 2 {
			t.Errorf("another host: generation %d, %v", g.Generation, err)
		}
	}
}

// A company is renamed by another host right before an answer is put in place.
func TestACompanyIsRenamedBeforeItsAnswerIsPutInPlace(t *testing.T) {
	w := newWorld(t)
	a, b := w.host(t.TempDir(), "web-1"), w.host(t.TempDir(), "web-2")
	a.authorize()
	_, err := b.Token(t.Context(), id, 0)
	must(t, err)
	renamed := grant.ID{Company: "Acme Inc", Application: id.Application, Environment: id.Environment}
	a.Vault = wired{a.vault, func(now string) {
		if now == "before Put" {
			w.sql("UPDATE upsauth.claims SET time = time - interval '11 min'") // so that it may be renamed
			must(t, b.Rename(t.Context(), id, renamed.Company))
		}
	}}
	_, err = a.Refresh(t.Context(), id, keeper.Need{Always: true})
	t.Logf("the refresh: %v", err)
	a.Vault = a.vault
	if g, err := a.Settle(t.Context(), renamed); err != nil || g.Generation != 2 {
		t.Errorf("the answer is not put in place: generation %d, %v", g.Generation, err)
	}
	if g, err := b.vault.Get(t.Context(), renamed); err != nil || g.Generation != 2 {
		t.Errorf("another host: generation %d, %v", g.Generation, err)
	}
}

// A clone of a machine, which kept its machine ID, has become what the original was. It does not
// say in the time in which others wait for the original that there is no answer.
func TestACloneOfTheMachineDoesNotSpeakForTheOriginal(t *testing.T) {
	w := newWorld(t, func(o *sandbox.Options) { o.Strict, o.Grace = false, 24*time.Hour })
	dir, cloned := t.TempDir(), filepath.Join(t.TempDir(), "clone")
	a := w.host(dir, "web-1")
	a.authorize()
	w.pass(2 * time.Hour)
	a.db.Close()
	must(t, os.CopyFS(cloned, os.DirFS(dir)))
	must(t, filepath.Walk(cloned, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	}))
	a = w.host(dir, "web-1")
	if !a.until("after Seal", func() { _, _ = a.Refresh(t.Context(), id, keeper.Need{Always: true}) }) {
		t.Fatal("it was not ended")
	}
	path := filepath.Join(cloned, "host.json")
	text, err := os.ReadFile(path)
	must(t, err)
	_, boot, _ := strings.Cut(string(text), `"boot": "`)
	boot, _, _ = strings.Cut(boot, `"`)
	must(t, os.WriteFile(path, []byte(strings.Replace(string(text), boot, "the original's", 1)), 0o600))
	w.sql("UPDATE upsauth.hosts SET boot = 'the original''s'")
	must(t, w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Status: 400, Code: "10400", Message: "Invalid Refresh Token", Times: 1}))
	for tries := range 4 {
		w.later(2 * time.Minute)
		c := w.host(cloned, "web-1")
		if tries == 0 {
			c.store.TakeOver() // a person lets it ask UPS, who refuses
		}
		_, err := c.Refresh(t.Context(), id, keeper.Need{Always: true})
		t.Logf("the clone: %v", err)
		if rows := w.sql("SELECT state FROM upsauth.grants"); rows[0][0] == "void" {
			t.Fatal("it is void, and the original has a sealed answer")
		}
	}
	if g, err := w.host(dir, "web-1").Settle(t.Context(), id); err != nil || g.Generation != 2 {
		t.Errorf("the original: generation %d, %v", g.Generation, err)
	}
}

// Many grants were revoked before the database went back, and many goroutines find that out at
// once: a process has two connections.
func TestManyRevokesThatWereTakenBack(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a := w.host(dir, "web-1")
	var ids []grant.ID
	for i := range 6 {
		ids = append(ids, grant.ID{Company: fmt.Sprintf("Company %d", i), Application: id.Application, Environment: id.Environment})
		a.authorizeFor(ids[i])
	}
	dump, err := w.server.Dump("postgres", "--clean", "--if-exists")
	must(t, err)
	for _, id := range ids {
		must(t, a.Revoke(t.Context(), id))
	}
	a.db.Close()
	must(t, w.server.Restore("postgres", dump))
	a = w.host(dir, "web-1")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	said := make(chan error, len(ids))
	for _, id := range ids {
		go func() {
			_, err := a.store.Grant(ctx, id.Slot())
			said <- err
		}()
	}
	for range ids {
		if err := <-said; ctx.Err() != nil {
			t.Fatalf("they wait for each other: %v", err)
		}
	}
	if rows := w.sql("SELECT DISTINCT state FROM upsauth.grants"); len(rows) != 1 || rows[0][0] != "removing" {
		t.Errorf("the grants are %v", rows)
	}
}

// The database has lost the claim of an answer that became a spare. Its host says so at the roll
// call, and the spare is tried before void is said.
func TestASpareWhoseClaimWasLostIsTriedBeforeVoidIsSaid(t *testing.T) {
	w := newWorld(t, func(o *sandbox.Options) { o.Strict, o.Grace = false, 24*time.Hour })
	dirA, dirB := t.TempDir(), t.TempDir()
	a, b := w.host(dirA, "web-1"), w.host(dirB, "web-2")
	a.authorize()
	a.authorizeFor(other)
	_, err := b.Refresh(t.Context(), other, keeper.Need{Always: true})
	must(t, err)
	dump, err := w.server.Dump("postgres", "--clean", "--if-exists")
	must(t, err)
	w.pass(2 * time.Hour)
	if !b.until("after Seal", func() { _, _ = b.Refresh(t.Context(), id, keeper.Need{Always: true}) }) {
		t.Fatal("it was not ended")
	}
	w.later(61 * time.Second)
	a = w.host(dirA, "web-1")
	a.store.TakeOver()
	_, err = a.Refresh(t.Context(), id, keeper.Need{Always: true})
	must(t, err)
	_, err = w.host(dirB, "web-2").Settle(t.Context(), id)
	must(t, err) // a spare now
	a.db.Close()
	b.db.Close()
	must(t, w.server.Restore("postgres", dump))
	a, b = w.host(dirA, "web-1"), w.host(dirB, "web-2")
	_, _ = b.Refresh(t.Context(), other, keeper.Need{Always: true})
	_, err = a.Refresh(t.Context(), other, keeper.Need{Always: true})
	must(t, err) // both have answered
	must(t, w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Status: 400, Code: "10400", Message: "Invalid Refresh Token", Times: 1}))
	if _, err = a.Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*keeper.ContestedError](err) {
		t.Errorf("UPS refuses the token that stands: %v", err)
	}
	if g, err := w.host(dirB, "web-2").Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
		t.Errorf("the host that has the spare: generation %d, %v", g.Generation, err)
	}
}

// named is the grant of a company of which nothing else is known.
func named(company string) grant.ID {
	return grant.ID{Company: company, Application: id.Application, Environment: id.Environment}
}

// behind is a company whose slot is listed after that of another.
func behind(first grant.ID) grant.ID {
	for i := 0; ; i++ {
		if c := named(fmt.Sprintf("Zeta %d", i)); c.Slot() > first.Slot() {
			return c
		}
	}
}

// deliver does what each command of a host begins with.
func (h *host) deliver() {
	t := h.w.t
	t.Helper()
	found, err := h.store.Undelivered(t.Context())
	if err != nil {
		t.Errorf("what is to be delivered: %v", err)
	}
	for _, id := range found {
		if _, err := h.Settle(t.Context(), id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// sealed is a process that is ended once its answer is sealed.
func (h *host) sealed(id grant.ID) {
	h.w.t.Helper()
	if !h.until("after Seal", func() { _, _ = h.Refresh(h.w.t.Context(), id, keeper.Need{Always: true}) }) {
		h.w.t.Fatal("it was not ended")
	}
}

// Another host has revoked a grant whose journal is looked at again after a start of the system.
// The answers of other grants are delivered all the same.
func TestAnAnswerIsDeliveredBesideARevokedGrant(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a, b := w.host(dir, "web-1"), w.host(t.TempDir(), "web-2")
	later := behind(id)
	a.authorize()
	a.authorizeFor(later)
	_, err := a.Refresh(t.Context(), id, keeper.Need{Always: true})
	must(t, err)
	must(t, b.Revoke(t.Context(), id))
	must(t, os.Remove(filepath.Join(dir, "journals", ".boot")))
	w.host(dir, "web-1").sealed(later)
	w.host(dir, "web-1").deliver()
	w.later(11 * time.Minute)
	if _, err := b.Refresh(t.Context(), later, keeper.Need{Always: true}); err != nil || w.reused() > 0 {
		t.Errorf("%d tokens were sent twice, %v", w.reused(), err)
	}
}

// Another host renames the companies whose answers are sealed here. They are delivered by this
// host's next command, whatever that is about.
func TestAnAnswerFollowsItsGrant(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a, b := w.host(dir, "web-1"), w.host(t.TempDir(), "web-2")
	later := behind(id)
	a.authorize()
	a.authorizeFor(later)
	_, err := b.Token(t.Context(), id, 0)
	must(t, err)
	for _, id := range []grant.ID{id, later} {
		w.host(dir, "web-1").sealed(id)
	}
	w.later(11 * time.Minute)
	renamed := named("Acme Inc")
	must(t, b.Rename(t.Context(), id, renamed.Company))
	w.host(dir, "web-1").deliver()
	for _, id := range []grant.ID{renamed, later} {
		if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
			t.Error(err)
		}
	}
	if w.reused() > 0 {
		t.Errorf("%d tokens were sent twice", w.reused())
	}
}

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
	dump, err := w.server.Dump("postgres", "--clean", "--if-exists")
	must(t, err)
	a.db.Close()
	b.db.Close()
	w.pass(2 * time.Hour)
	return w, dirA, dirB, func() { must(t, w.server.Restore("postgres", dump)) }
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
		m, _, err := s.Roll(t.Context())
		if err != nil {
			return err
		}
		_, err = s.AcceptFailover(t.Context(), self, m.Epoch)
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

// The roll call looks at a journal that is damaged. The next use of the grant tells it all the
// same, and sends nothing.
func TestADamagedJournalIsToldAfterTheRollCall(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a := w.host(dir, "web-1")
	key := a.authorize().TokenVaultKey
	a.authorizeFor(other)
	a.sealed(id)
	path := filepath.Join(dir, "journals", "slots", key)
	text, err := os.ReadFile(path)
	must(t, err)
	for i := range text {
		if text[i] != 0 {
			text[i] ^= 0x55
		}
	}
	must(t, os.WriteFile(path, text, 0o600))
	w.sql("UPDATE upsauth.meta SET timeline = timeline + 7")
	_, _ = w.host(dir, "web-1").Refresh(t.Context(), other, keeper.Need{Always: true})
	w.wait(11 * time.Minute)
	if _, err := w.host(dir, "web-1").Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*vault.DamagedError](err) || w.reused() > 0 {
		t.Errorf("%d tokens were sent twice, %v", w.reused(), err)
	}
}

// A database that went back has lost a sign-in, and another host has the next token of its grant.
// That host answers the roll call before the one that signed in brings the grant back.
func TestATokenOfASignInThatWasTakenBack(t *testing.T) {
	for _, how := range []string{"delivered", "sealed", "sealed, and its host knows no key"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t)
			dirA, dirB := t.TempDir(), t.TempDir()
			a, b := w.host(dirA, "web-1"), w.host(dirB, "web-2")
			a.authorize()
			a.authorizeFor(other)
			for _, id := range []grant.ID{id, other} {
				_, err := b.Refresh(t.Context(), id, keeper.Need{Always: true})
				must(t, err)
			}
			dump, err := w.server.Dump("postgres", "--clean", "--if-exists")
			must(t, err)
			wanted := a.authorize().TokenVaultKey
			if how != "delivered" {
				b.sealed(id)
			} else {
				_, err = b.Refresh(t.Context(), id, keeper.Need{Always: true})
				must(t, err)
			}
			a.db.Close()
			b.db.Close()
			must(t, w.server.Restore("postgres", dump))
			if how == "sealed, and its host knows no key" {
				must(t, os.Remove(filepath.Join(dirB, "copies", id.Slot()+".json")))
			}
			b = w.host(dirB, "web-2")
			_, _ = b.Refresh(t.Context(), other, keeper.Need{Always: true}) // it answers the roll call
			_, _ = b.Settle(t.Context(), id)                                // and finds the earlier grant
			_, err = w.host(dirA, "web-1").Refresh(t.Context(), other, keeper.Need{Always: true})
			must(t, err)
			_, _ = w.host(dirA, "web-1").Refresh(t.Context(), id, keeper.Need{Always: true})
			w.host(dirB, "web-2").deliver()
			if g, err := w.host(dirA, "web-1").Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil || g.TokenVaultKey != wanted {
				t.Errorf("it has the grant %s, not %s: %v", g.TokenVaultKey, wanted, err)
			}
			if w.reused() > 0 {
				t.Errorf("%d tokens were sent twice", w.reused())
			}
		})
	}
}

// A grant was revoked, and the database changes hands and has lost nothing. The host that signed
// in, and one that has refreshed it, have a copy and a journal of it yet: nothing of that comes back.
func TestARevokedGrantDoesNotComeBack(t *testing.T) {
	for _, revoker := range []string{"the host that signed in", "another host"} {
		t.Run(revoker, func(t *testing.T) {
			w := newWorld(t)
			dirA, dirB := t.TempDir(), t.TempDir()
			a, b := w.host(dirA, "web-1"), w.host(dirB, "web-2")
			a.authorize()
			a.authorizeFor(other)
			for _, id := range []grant.ID{id, other} {
				_, err := b.Refresh(t.Context(), id, keeper.Need{Always: true})
				must(t, err)
				_, err = a.Token(t.Context(), id, 0)
				must(t, err)
			}
			if revoker == "another host" {
				must(t, b.Revoke(t.Context(), id))
			} else {
				must(t, a.Revoke(t.Context(), id))
			}
			w.sql("UPDATE upsauth.meta SET timeline = timeline + 7")
			for range 2 {
				for dir, name := range map[string]string{dirB: "web-2", dirA: "web-1"} {
					_, _ = w.host(dir, name).Refresh(t.Context(), other, keeper.Need{Always: true})
					w.host(dir, name).deliver()
				}
			}
			for dir, name := range map[string]string{dirB: "web-2", dirA: "web-1"} {
				h := w.host(dir, name)
				if list, _, err := h.vault.List(t.Context(), id.Company); err != nil || len(list) > 0 {
					t.Errorf("%s lists %v, %v", name, list, err)
				}
				if _, err := h.Refresh(t.Context(), id, keeper.Need{Always: true}); err == nil {
					t.Errorf("%s refreshes it", name)
				}
			}
			if rows := w.sql("SELECT slot FROM upsauth.grants"); len(rows) != 1 {
				t.Errorf("the grants are %v", rows)
			}
			if rows := w.sql("SELECT account FROM upsauth.secrets s WHERE NOT EXISTS (SELECT FROM upsauth.grants g WHERE s.account LIKE g.token_vault_key || '%')"); len(rows) > 0 {
				t.Errorf("secrets of nothing: %v", rows)
			}
		})
	}
}

// A host is killed after it has sealed an answer, and another one revokes the grant: what this
// host has of it goes, and nobody is told of it for ever.
func TestAnAnswerOfARevokedGrantGoes(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a := w.host(t.TempDir(), "web-1")
	key := a.authorize().TokenVaultKey
	_, err := w.host(dir, "web-2").Token(t.Context(), id, 0)
	must(t, err)
	w.host(dir, "web-2").sealed(id)
	must(t, a.Revoke(t.Context(), id))
	w.host(dir, "web-2").deliver()
	if list, _, err := w.host(dir, "web-2").vault.List(t.Context(), ""); err != nil || len(list) > 0 {
		t.Errorf("it lists %v, %v", list, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "journals", "slots", key)); !os.IsNotExist(err) {
		t.Errorf("the journal is there: %v", err)
	}
}

// Another host signs the company in again. After the next start of the system this host removes
// what it has of the earlier grant.
func TestJournalsOfAReplacedGrantGo(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a, b := w.host(t.TempDir(), "web-1"), w.host(dir, "web-2")
	key := a.authorize().TokenVaultKey
	_, err := b.Refresh(t.Context(), id, keeper.Need{Always: true})
	must(t, err)
	a.authorize()
	must(t, os.Remove(filepath.Join(dir, "journals", ".boot")))
	b = w.host(dir, "web-2")
	b.deliver()
	if _, err := os.Stat(filepath.Join(dir, "journals", "slots", key)); !os.IsNotExist(err) {
		t.Errorf("the journal is there: %v", err)
	}
	if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
		t.Error(err)
	}
}
