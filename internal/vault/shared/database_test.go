package shared_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

var other = grant.ID{Company: "Globex", Application: id.Application, Environment: id.Environment}

func (w *world) sql(statement string) [][]string {
	w.t.Helper()
	rows, err := w.server.SQL("postgres", statement)
	must(w.t, err)
	return rows
}

// Who writes to the database, and has not the team's identity, puts nothing in place that is
// used: not another grant's item, not an older one, not one of their own, and no other
// recipient, client or server.
func TestNothingThatIsForgedIsUsed(t *testing.T) {
	w := newWorld(t)
	writer := w.host(t.TempDir(), "web-1")
	writer.authorize()
	writer.authorizeFor(other)
	slot, slot2 := id.Slot(), other.Slot()
	older := w.sql("SELECT item::text, mac::text FROM upsauth.grants WHERE slot = '" + slot + "'")[0]
	w.pass(time.Minute)
	_, err := writer.Refresh(t.Context(), id, keeper.Need{Always: true})
	must(t, err)
	w.sql("CREATE TABLE kept AS SELECT * FROM upsauth.grants; CREATE TABLE kept_secrets AS SELECT * FROM upsauth.secrets")
	restore := `DELETE FROM upsauth.grants; INSERT INTO upsauth.grants SELECT * FROM kept; DELETE FROM upsauth.secrets; INSERT INTO upsauth.secrets SELECT * FROM kept_secrets`
	for name, statement := range map[string]string{
		"an item in another's row": `UPDATE upsauth.grants SET item = (SELECT item FROM kept WHERE slot = '` + slot2 + `') WHERE slot = '` + slot + `'`,
		"with its code":            `UPDATE upsauth.grants SET item = k.item, mac = k.mac FROM kept k WHERE k.slot = '` + slot2 + `' AND grants.slot = '` + slot + `'`,
		"an older item":            `UPDATE upsauth.grants SET item = '` + older[0] + `', mac = '` + older[1] + `' WHERE slot = '` + slot + `'`,
		"a byte of it":             `UPDATE upsauth.grants SET item = set_byte(item, 40, get_byte(item, 40) # 1) WHERE slot = '` + slot + `'`,
		"another server":           `UPDATE upsauth.grants SET facts = jsonb_set(facts, '{base_url}', '"https://evil.example"') WHERE slot = '` + slot + `'`,
		"another client":           `UPDATE upsauth.grants SET facts = jsonb_set(facts, '{client_id}', '"theirs"') WHERE slot = '` + slot + `'`,
		"another recipient":        `UPDATE upsauth.grants SET facts = jsonb_set(facts, '{journal_recipient}', '"age1theirs"') WHERE slot = '` + slot + `'`,
		"another generation":       `UPDATE upsauth.grants SET generation = 7, facts = jsonb_set(facts, '{generation}', '7') WHERE slot = '` + slot + `'`,
		"an item of nobody's":      `UPDATE upsauth.grants SET item = '\x00', mac = decode(repeat('00', 32), 'hex') WHERE slot = '` + slot + `'`,
	} {
		w.sql(statement)
		// A host that has never seen the grant has no copy of it.
		h := w.host(t.TempDir(), "web-2")
		_, err := h.Token(t.Context(), id, time.Minute)
		if !is[*vault.HomeError](err) || !strings.Contains(err.Error(), "not what upsauth put there") {
			t.Errorf("%s: %v", name, err)
		}
		_, err = h.Refresh(t.Context(), id, keeper.Need{Always: true})
		if !is[*vault.HomeError](err) {
			t.Errorf("%s, refreshed: %v", name, err)
		}
		w.sql(restore)
	}
	for name, statement := range map[string]string{
		"the key of another journal": `UPDATE upsauth.secrets SET item = k.item, mac = k.mac FROM kept_secrets k WHERE k.account = (SELECT max(account) FROM kept_secrets) AND secrets.account = (SELECT min(account) FROM kept_secrets)`,
		"a key that is damaged":      `UPDATE upsauth.secrets SET item = set_byte(item, 40, get_byte(item, 40) # 1)`,
	} {
		w.sql(statement)
		h := w.host(t.TempDir(), "web-2")
		failed := 0
		for _, which := range []grant.ID{id, other} {
			if err := h.vault.Check(t.Context(), which); is[*vault.HomeError](err) {
				failed++
			}
		}
		if failed == 0 {
			t.Errorf("%s was used", name)
		}
		w.sql(restore)
	}
	spent := w.refreshes()
	_, err = w.host(t.TempDir(), "web-3").Refresh(t.Context(), id, keeper.Need{Always: true})
	must(t, err)
	if w.reused() != 0 || w.refreshes() != spent+1 {
		t.Errorf("%d tokens were sent again", w.reused())
	}
}

// Another vault's database, and another identity, are refused before anything is read.
func TestAnotherVaultAndAnotherIdentityAreRefused(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	w.host(dir, "web-1").authorize()
	identity := w.identity
	v := newWorld(t)
	w.identity = v.identity
	if _, err := w.host(t.TempDir(), "web-2").Token(t.Context(), id, 0); !is[*shared.IdentityError](err) {
		t.Errorf("another identity: %v", err)
	}
	w.identity = identity
	w.sql("UPDATE upsauth.meta SET vault = gen_random_uuid()")
	if _, err := w.host(dir, "web-1").Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*shared.VaultError](err) {
		t.Errorf("another vault: %v", err)
	}
}

// The database is put back to an earlier dump: nobody spends before every host has said what
// it has, and then the newest token stands again.
func TestADumpIsRestoredInPlace(t *testing.T) {
	w := newWorld(t)
	dirA, dirB := t.TempDir(), t.TempDir()
	a, b := w.host(dirA, "web-1"), w.host(dirB, "web-2")
	a.authorize()
	a.authorizeFor(other)
	_, err := b.Token(t.Context(), id, time.Minute)
	must(t, err)
	_, err = b.Refresh(t.Context(), other, keeper.Need{Always: true})
	must(t, err)
	forget := w.remember()
	w.pass(time.Minute)
	newer, err := a.Refresh(t.Context(), id, keeper.Need{Always: true})
	must(t, err)
	a.db.Close()
	b.db.Close()
	forget()

	// The other host comes first. It would send what is spent.
	b = w.host(dirB, "web-2")
	if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*ledger.FrozenError](err) {
		t.Errorf("the host that has an older token: %v", err)
	}
	if _, err := b.Token(vault.Recent(t.Context()), other, time.Minute); err != nil {
		t.Errorf("a good token is not served meanwhile: %v", err)
	}
	a = w.host(dirA, "web-1")
	got, err := a.Token(t.Context(), id, time.Minute)
	if err != nil || got.AccessToken != newer.AccessToken {
		t.Errorf("the host that has the newer token has generation %d, %v", got.Generation, err)
	}
	for _, h := range []*host{b, a, b} {
		for _, which := range []grant.ID{id, other} {
			if _, err := h.Refresh(t.Context(), which, keeper.Need{Always: true}); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		}
	}
	if w.reused() != 0 {
		t.Errorf("%d tokens were sent again", w.reused())
	}
}

// What was revoked stays revoked, although the database is put back.
func TestARevokedGrantStaysRevoked(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a := w.host(dir, "web-1")
	a.authorize()
	forget := w.remember()
	must(t, a.Revoke(t.Context(), id))
	a.db.Close()
	forget()
	a = w.host(dir, "web-1")
	if _, err := a.Token(t.Context(), id, 0); !is[*keeper.GoneError](err) && err == nil {
		t.Error("it is served again")
	}
	must(t, func() error { _, err := a.vault.FinishRemovals(t.Context()); return err }())
	if _, err := w.host(t.TempDir(), "web-2").Token(t.Context(), id, 0); err == nil {
		t.Error("another host is served")
	}
	if rows := w.sql("SELECT slot FROM upsauth.grants"); len(rows) > 0 {
		t.Errorf("there is %v", rows)
	}
}

// A directory that was copied to another machine is another host: what the first one claimed
// is somebody else's.
func TestAClonedDirectoryIsAnotherHost(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	w.host(dir, "web-1").authorize()
	clone := w.host(dir, "web-1", func(o *shared.Options) { o.Machine = func() string { return "another machine" } })
	w.pass(2 * time.Hour)
	if _, err := clone.Token(t.Context(), id, time.Minute); err != nil {
		t.Fatal(err)
	}
	if rows := w.sql("SELECT DISTINCT id FROM upsauth.hosts"); len(rows) != 2 {
		t.Errorf("the hosts are %v", rows)
	}
}

// The power is lost between the moment at which a host's incarnation was raised in the database
// and that at which it is on the host's disk. It is the same host afterwards; a copy of its disk,
// which another run of the machine has raised, is another one.
func TestThePowerIsLostWhileTheIncarnationIsRaised(t *testing.T) {
	for _, noted := range []bool{true, false} {
		w := newWorld(t)
		dir := t.TempDir()
		w.host(dir, "web-1").authorize()
		before := w.sql("SELECT id FROM upsauth.hosts")
		path := filepath.Join(dir, "host.json")
		text, err := os.ReadFile(path)
		must(t, err)
		_, boot, _ := strings.Cut(string(text), `"boot": "`)
		boot, _, _ = strings.Cut(boot, `"`)
		with := `"boot": "one before",`
		if noted {
			with += ` "boots": ["the run in which it was raised"],`
		}
		must(t, os.WriteFile(path, []byte(strings.Replace(string(text), `"boot": "`+boot+`",`, with, 1)), 0o600))
		w.sql("UPDATE upsauth.hosts SET incarnation = incarnation + 1, boot = 'the run in which it was raised'")
		if _, err := w.host(dir, "web-1").Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
			t.Errorf("noted: %t, %v", noted, err)
		}
		if after := w.sql("SELECT id, incarnation FROM upsauth.hosts ORDER BY seen"); noted && (len(after) != 1 || after[0][0] != before[0][0] || after[0][1] != "3") || !noted && len(after) != 2 {
			t.Errorf("noted: %t, the hosts are %v", noted, after)
		}
		text, err = os.ReadFile(path)
		must(t, err)
		if strings.Contains(string(text), `"boots"`) || !strings.Contains(string(text), boot) {
			t.Errorf("noted: %t, on disk is\n%s", noted, text)
		}
	}
}

// A service is at work on a grant while the database goes away, and is asked for its token. One that
// is good is served from this host's copy.
func TestAGoodTokenIsServedBesideARefresh(t *testing.T) {
	w := newWorld(t)
	a := w.host(t.TempDir(), "web-1")
	want := a.authorize()
	asking := &keeper.Keeper{Vault: a.vault, Now: w.clock, Wait: a.Wait, Client: a.Client, Notice: a.Notice}
	a.Vault = wired{a.vault, func(now string) {
		if now != "before Claim" {
			return
		}
		must(t, w.server.Kill())
		time.Sleep(300 * time.Millisecond) // what was read with the lock is old
		ctx, cancel := context.WithTimeout(vault.Recent(t.Context()), 10*time.Second)
		defer cancel()
		if g, err := asking.Token(ctx, id, time.Minute); err != nil || g.AccessToken != want.AccessToken {
			t.Errorf("another token, %v", err)
		}
	}}
	if _, err := a.Refresh(t.Context(), id, keeper.Need{Always: true}); err == nil {
		t.Error("it was refreshed")
	}
}

// UPS refuses the token that stands, while another host may have the next one: the grant is
// interrupted and not void, until that host has said so.
func TestARefusalIsNoVoidWhileAnAnswerIsAwaited(t *testing.T) {
	w := newWorld(t)
	dirA, dirB := t.TempDir(), t.TempDir()
	a := w.host(dirA, "web-1")
	a.authorize()
	_, err := w.host(dirB, "web-2").Token(t.Context(), id, time.Minute)
	must(t, err)
	w.pass(2 * time.Hour)
	if !a.until("after Seal", func() { _, _ = a.Refresh(t.Context(), id, keeper.Need{Always: true}) }) {
		t.Fatal("it was not ended")
	}
	w.later(11 * time.Minute) // longer than its claim is respected
	b := w.host(dirB, "web-2")
	_, err = b.Refresh(t.Context(), id, keeper.Need{Always: true})
	if !is[*keeper.ContestedError](err) {
		t.Errorf("the refusal: %v", err)
	}
	r, err := b.vault.Record(t.Context(), id)
	if err != nil || r.Void {
		t.Errorf("void: %t, %v", r.Void, err)
	}
	_, err = b.Refresh(t.Context(), id, keeper.Need{Always: true})
	if !is[*keeper.ContestedError](err) {
		t.Errorf("the next: %v", err)
	}
	// The host comes back with its answer, which a strict UPS has made void.
	g, err := w.host(dirA, "web-1").Settle(t.Context(), id)
	if err != nil || g.Generation != 2 {
		t.Errorf("the answer: generation %d, %v", g.Generation, err)
	}
	_, err = b.Refresh(t.Context(), id, keeper.Need{Always: true})
	if !is[*keeper.GoneError](err) {
		t.Errorf("at the end: %v", err)
	}
	if rows := w.sql("SELECT state FROM upsauth.grants"); rows[0][0] != "void" {
		t.Errorf("it is %s", rows[0][0])
	}
}

// A host never got its answer, and another one found that the grant is void. Both say so.
func TestAVoidGrantIsVoidOnTheHostWhoseAnswerWasLost(t *testing.T) {
	w := newWorld(t)
	dirA, dirB := t.TempDir(), t.TempDir()
	w.host(dirA, "web-1").authorize()
	must(t, w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Drop: "after", Times: 1}))
	if _, err := w.host(dirA, "web-1").Refresh(t.Context(), id, keeper.Need{Always: true}); err == nil {
		t.Fatal("the answer was not lost")
	}
	w.pass(2 * time.Hour)
	w.later(11 * time.Minute)
	b := w.host(dirB, "web-2")
	for range 2 { // the first refusal may wait for what the other host has
		_, _ = b.Refresh(t.Context(), id, keeper.Need{Always: true})
		_, _ = w.host(dirA, "web-1").Settle(t.Context(), id)
	}
	for _, dir := range []string{dirA, dirB} {
		found, err := w.host(dir, "web").vault.Survey(t.Context(), "")
		must(t, err)
		if state := found.Records[0].StateAt(w.clock()); state != grant.Void {
			t.Errorf("it is %s", state)
		}
	}
}

// While the database is away a good token is served, and whoever needs more is told why.
func TestTheDatabaseIsAway(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	h := w.host(dir, "web-1")
	first := h.authorize()
	_, err := h.Token(t.Context(), id, time.Minute)
	must(t, err)
	must(t, w.server.Stop())
	w.pass(6 * time.Minute)
	h = w.host(dir, "web-1")
	g, err := h.Token(vault.Recent(t.Context()), id, time.Minute)
	if err != nil || g.AccessToken != first.AccessToken {
		t.Errorf("a good token: %v", err)
	}
	w.pass(2 * time.Hour)
	_, err = h.Token(vault.Recent(t.Context()), id, time.Minute)
	if !is[*postgres.Error](err) {
		t.Errorf("a token that has ended: %v", err)
	}
	must(t, w.server.Restart())
	if _, err = w.host(dir, "web-1").Token(t.Context(), id, time.Minute); err != nil {
		t.Error(err)
	}
}

// While one goroutine asks a database that does not answer whether it is the right one, another
// is served a good token.
func TestATokenIsServedWhileTheDatabaseIsAsked(t *testing.T) {
	w := newWorld(t)
	dir, keyed := t.TempDir(), make(chan struct{}, 2)
	w.host(dir, "web-1").authorize()
	h := w.host(dir, "web-1", func(o *shared.Options) {
		keys := o.Keys
		o.Keys = func(ctx context.Context) (agefile.Keys, error) {
			keyed <- struct{}{}
			return keys(ctx)
		}
	})
	token := func() {
		t.Helper()
		_, err := h.Token(vault.Recent(t.Context()), id, time.Minute)
		must(t, err)
	}
	token()
	<-keyed
	must(t, w.server.Pause())
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() {
		_, err := h.store.Vault(ctx)
		asked <- err
	}()
	<-keyed
	token()
	select {
	case err := <-asked:
		t.Errorf("the database has been asked: %v", err)
	default:
	}
	cancel()
	<-asked
	must(t, w.server.Resume())
}

// A new identity: everything is sealed to it anew, also where that was cut off; the earlier
// one opens nothing any more, and hosts that still have it are told.
func TestANewIdentity(t *testing.T) {
	w := newWorld(t)
	dirA, dirB := t.TempDir(), t.TempDir()
	a := w.host(dirA, "web-1")
	a.authorize()
	a.authorizeFor(other)
	_, err := w.host(dirB, "web-2").Token(t.Context(), id, time.Minute)
	must(t, err)
	before := w.identity
	identity, err := age.GenerateX25519Identity()
	must(t, err)
	w.identity = filepath.Join(t.TempDir(), "next.txt")
	must(t, os.WriteFile(w.identity, []byte(identity.String()+"\n"), 0o600))
	next, err := agefile.New("", w.identity).Keys(t.Context())
	must(t, err)
	after := w.identity
	none := func(int, int) {}

	// What is not ours is told before anything is changed.
	w.identity = before
	w.sql("CREATE TABLE kept AS SELECT * FROM upsauth.grants; UPDATE upsauth.grants SET item = '\\x00' WHERE slot = '" + id.Slot() + "'")
	if err := w.host(dirA, "web-1").store.Rekey(t.Context(), next, none); !is[*shared.ForgedError](err) {
		t.Errorf("with a forged item: %v", err)
	}
	w.sql("UPDATE upsauth.grants g SET item = k.item FROM kept k WHERE k.slot = g.slot")

	// It is cut off once, after each item.
	cutAt := func(n int) (err error) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		return w.host(dirA, "web-1").store.Rekey(ctx, next, func(done, _ int) {
			if done == n {
				stop()
			}
		})
	}
	for n := 1; n <= 3; n++ {
		if err := cutAt(n); err == nil {
			t.Fatalf("it was not cut off after %d", n)
		}
		for _, identity := range []string{before, after} {
			w.identity = identity
			if _, err := w.host(dirB, "web-2").Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*shared.RekeyError](err) {
				t.Errorf("in the middle of it: %v", err)
			}
		}
		w.identity = before
	}
	must(t, w.host(dirA, "web-1").store.Rekey(t.Context(), next, none))
	if _, err := w.host(dirB, "web-2").Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*shared.IdentityError](err) {
		t.Errorf("with the earlier identity: %v", err)
	}
	w.identity = after
	for _, dir := range []string{dirB, dirA, t.TempDir()} {
		h := w.host(dir, "web-2")
		for _, which := range []grant.ID{id, other} {
			if _, err := h.Token(vault.Recent(t.Context()), which, time.Minute); err != nil {
				t.Errorf("with the new identity: %v", err)
			}
			if _, err := h.Refresh(t.Context(), which, keeper.Need{Always: true}); err != nil {
				t.Errorf("with the new identity: %v", err)
			}
		}
	}
	if err := w.host(dirA, "web-1").store.Rekey(t.Context(), next, none); !is[*shared.SameIdentityError](err) {
		t.Errorf("to the same identity: %v", err)
	}
}

// An answer that came while the database was away is put in place by this host's next look,
// whatever that is about.
func TestAnAnswerIsDelivered(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a := w.host(dir, "web-1")
	a.authorize()
	w.pass(2 * time.Hour)
	if !a.until("after Seal", func() { _, _ = a.Refresh(t.Context(), id, keeper.Need{Always: true}) }) {
		t.Fatal("it was not ended")
	}
	a = w.host(dir, "web-1")
	grants, err := a.store.Undelivered(t.Context())
	if err != nil || len(grants) != 1 || grants[0] != id {
		t.Fatalf("there are %v, %v", grants, err)
	}
	_, err = a.Settle(t.Context(), id)
	must(t, err)
	if grants, err = a.store.Undelivered(t.Context()); err != nil || len(grants) != 0 {
		t.Errorf("there are still %v, %v", grants, err)
	}
	if rows := w.sql("SELECT generation, outcome FROM upsauth.claims WHERE purpose = 'refresh'"); len(rows) != 1 || rows[0][1] != "granted" {
		t.Errorf("the claims are %v", rows)
	}
	if g, err := w.host(t.TempDir(), "web-2").Token(t.Context(), id, time.Minute); err != nil || g.Generation != 2 {
		t.Errorf("another host: generation %d, %v", g.Generation, err)
	}
}

// The power was lost, and with it the note of an answer. A service that begins before the
// database can be reached finds the answer once it can.
func TestNewsWhoseNoteWasLostIsFoundOnceTheDatabaseIsThere(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a := w.host(dir, "web-1")
	a.authorize()
	w.pass(2 * time.Hour)
	if !a.until("after Seal", func() { _, _ = a.Refresh(t.Context(), id, keeper.Need{Always: true}) }) {
		t.Fatal("it was not ended")
	}
	must(t, os.RemoveAll(filepath.Join(dir, "journals", "open")))
	must(t, w.server.Stop())
	a = w.host(dir, "web-1")
	a.store.Disk().Boot = func() string { return "another run of the system" }
	news, err := a.store.News(t.Context(), "")
	if err != nil || len(news) != 0 {
		t.Fatalf("without the database there are %v, %v", news, err)
	}
	must(t, w.server.Restart())
	if grants, err := a.store.Undelivered(t.Context()); err != nil || len(grants) != 1 || grants[0] != id {
		t.Errorf("there are %v, %v", grants, err)
	}
}

// A host whose clock is off by an hour serves a token that is good, and knows when it ends.
func TestAHostsClockIsOff(t *testing.T) {
	w := newWorld(t, func(o *sandbox.Options) { o.Now = time.Now })
	at := func(off time.Duration) (*host, func() time.Time) {
		clock := func() time.Time { return time.Now().Add(off) }
		h := w.host(t.TempDir(), "web", func(o *shared.Options) { o.Now, o.Offset = clock, nil })
		h.Now = clock
		client := h.Client
		h.Client = func(ctx context.Context, id grant.ID) (*ups.Client, error) {
			c, err := client(ctx, id)
			c.Now = clock
			return c, err
		}
		return h, clock
	}
	a, _ := at(0)
	first := a.authorize()
	for _, off := range []time.Duration{time.Hour, -time.Hour, -3 * 24 * time.Hour} {
		h, clock := at(off)
		g, err := h.Token(t.Context(), id, 50*time.Minute)
		if err != nil || g.AccessToken != first.AccessToken {
			t.Fatalf("%s: another token, %v", off, err)
		}
		left := g.AccessUntil.Sub(clock())
		if left < 55*time.Minute || left > time.Hour {
			t.Errorf("%s: it is good for %s", off, left)
		}
		fresh, err := h.Refresh(t.Context(), id, keeper.Need{Always: true})
		must(t, err)
		back, err := a.Token(t.Context(), id, 50*time.Minute)
		if err != nil || back.AccessToken != fresh.AccessToken {
			t.Fatalf("%s: what it refreshed is not served, %v", off, err)
		}
		if left := time.Until(back.AccessUntil); left < 55*time.Minute || left > time.Hour {
			t.Errorf("%s: what it refreshed is good for %s", off, left)
		}
		first = back
	}
}

// A sign-in that a restored dump has taken back is put in place again by the host that has
// finished it.
func TestASignInThatWasTakenBack(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a := w.host(dir, "web-1")
	a.authorize()
	forget := w.remember()
	second := a.authorize()
	a.authorizeFor(other) // of which the dump knows nothing
	_, err := a.Token(t.Context(), other, time.Minute)
	must(t, err)
	_, err = a.Token(t.Context(), id, time.Minute)
	must(t, err)
	a.db.Close()
	forget()
	a = w.host(dir, "web-1")
	// A list notices it as well, and no copy is lost by it.
	if records, _, err := a.vault.List(t.Context(), other.Company); err != nil || len(records) != 1 {
		t.Errorf("the company that signed in first: %d records, %v", len(records), err)
	}
	if _, err := a.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
		t.Errorf("the company that signed in again: %v", err)
	}
	if r, err := a.vault.Record(t.Context(), id); err != nil || r.TokenVaultKey != second.TokenVaultKey {
		t.Errorf("it has the grant %s, %v", r.TokenVaultKey, err)
	}
	if _, err := a.Refresh(t.Context(), other, keeper.Need{Always: true}); err != nil {
		t.Errorf("the company that signed in first: %v", err)
	}
	if w.reused() != 0 {
		t.Errorf("%d tokens were sent again", w.reused())
	}
}

// A database that was put back has an open claim of an answer that was put in place long ago.
// Once UPS refuses that token, the host that has it says so, and the grant is void.
func TestAnOldClaimKeepsNoGrantInterrupted(t *testing.T) {
	w := newWorld(t)
	dirA, dirB := t.TempDir(), t.TempDir()
	a := w.host(dirA, "web-1")
	a.authorize()
	w.pass(2 * time.Hour)
	_, err := a.Refresh(t.Context(), id, keeper.Need{Always: true})
	must(t, err)
	w.sql("UPDATE upsauth.claims SET outcome = NULL, ended = NULL WHERE purpose = 'refresh'")
	must(t, w.ups.ChangePassword(jane))
	b := w.host(dirB, "web-2")
	if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*keeper.ContestedError](err) {
		t.Errorf("UPS refuses: %v", err)
	}
	if _, err := w.host(dirA, "web-1").Refresh(t.Context(), id, keeper.Need{Always: true}); err == nil {
		t.Error("it was refreshed")
	}
	if rows := w.sql("SELECT state FROM upsauth.grants"); rows[0][0] != "void" {
		t.Errorf("it is %s", rows[0][0])
	}
	if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*keeper.GoneError](err) {
		t.Errorf("in the end: %v", err)
	}
}

// The same of a claim whose attempt this host's journal has let go of long ago, as others came
// after it. A journal that was damaged and lies aside may have an answer, and nobody says that it
// has none.
func TestAnOldClaimWithoutItsAttemptKeepsNoGrantInterrupted(t *testing.T) {
	for state, damaged := range map[string]bool{"void": false, "interrupted": true} {
		t.Run(state, func(t *testing.T) { testOldClaim(t, state, damaged) })
	}
}

func testOldClaim(t *testing.T, state string, damaged bool) {
	w := newWorld(t)
	dirA, dirB := t.TempDir(), t.TempDir()
	key := w.host(dirA, "web-1").authorize().TokenVaultKey
	b := w.host(dirB, "web-2")
	_, err := b.Token(t.Context(), id, time.Minute)
	must(t, err)
	for range 4 {
		a := w.host(dirA, "web-1")
		if !a.until("after LastLook", func() { _, _ = a.Refresh(t.Context(), id, keeper.Need{Always: true}) }) {
			t.Fatal("it was not ended")
		}
		w.pass(2 * time.Minute)
		w.later(2 * time.Minute)
	}
	w.sql("UPDATE upsauth.claims SET outcome = NULL, ended = NULL WHERE purpose = 'refresh'")
	must(t, w.ups.ChangePassword(jane))
	w.later(11 * time.Minute)
	if damaged {
		must(t, os.WriteFile(filepath.Join(dirA, "journals", "slots", key+".damaged"), []byte("?"), 0o600))
	}
	if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*keeper.ContestedError](err) {
		t.Errorf("UPS refuses: %v", err)
	}
	if _, err := w.host(dirA, "web-1").Refresh(t.Context(), id, keeper.Need{Always: true}); err == nil {
		t.Error("it was refreshed")
	}
	if rows := w.sql("SELECT state FROM upsauth.grants"); rows[0][0] != state {
		t.Errorf("it is %s: %v", rows[0][0], w.sql("SELECT attempt, host, outcome FROM upsauth.claims WHERE purpose = 'refresh'"))
	}
	if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); is[*keeper.GoneError](err) == damaged {
		t.Errorf("in the end: %v", err)
	}
}

// Claims that say nothing any more go, once a day.
func TestOldClaimsGo(t *testing.T) {
	w := newWorld(t)
	a := w.host(t.TempDir(), "web-1")
	a.authorize()
	for range 3 {
		w.pass(time.Minute)
		_, err := a.Refresh(t.Context(), id, keeper.Need{Always: true})
		must(t, err)
	}
	claims := func() string { return w.sql("SELECT count(*) FROM upsauth.claims")[0][0] }
	must(t, a.store.Tidy(t.Context()))
	if n := claims(); n != "4" {
		t.Fatalf("there are %s claims", n)
	}
	w.sql("UPDATE upsauth.claims SET time = time - interval '91 days', ended = ended - interval '91 days'")
	must(t, a.store.Tidy(t.Context()))
	if n := claims(); n != "4" {
		t.Errorf("on the same day there are %s claims", n)
	}
	w.sql(`INSERT INTO upsauth.claims (number, token_vault_key, generation, attempt, sends_generation, sends_attempt, nonce, purpose, host, incarnation, epoch, time, outcome, ended)
		SELECT 1000 + n, 'of a grant that is gone', n, 1, n, 1, 'a nonce of a claim ' || n, 'refresh', 'web-1', 1, 1, now() - interval '91 days', 'granted', now() - interval '91 days'
		FROM generate_series(1, 2500) n`)
	w.pass(25 * time.Hour)
	must(t, a.store.Tidy(t.Context()))
	if n := claims(); n != "1" { // that of the token that stands
		t.Errorf("a day later there are %s claims", n)
	}
	if _, err := a.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
		t.Error(err)
	}
}
