package vault_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
)

const answer = `{"status":200,"body":"access-s3cret refresh-s3cret"}`

func TestJournalFromBeginToEnd(t *testing.T) {
	for name, purpose := range map[string]grant.Purpose{"refresh": grant.Refreshing, "authorization": grant.Authorizing} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			v := w.open()
			j := login(acme, keyA)
			j.Purpose, j.Attempt, j.Outcome = purpose, 2, "no answer within 30s"
			check(t, v.Claim(t.Context(), &j))
			if j.Version != grant.RecordVersion || j.Recipient == "" || j.Answered {
				t.Errorf("it began as %+v", j)
			}
			began := readBack(t, w, j)
			if began.Answered {
				t.Error("it is answered before it is")
			}
			if _, err := w.open().Answer(t.Context(), began); !errors.Is(err, grant.ErrNoAnswer) {
				t.Errorf("Answer: %v", err)
			}

			check(t, v.Seal(t.Context(), &j, nil, []byte(answer)))
			sealed := readBack(t, w, j)
			if !j.Answered || !sealed.Answered {
				t.Error("it is not answered")
			}
			for range 2 { // opening does not use it up
				if got, err := w.open().Answer(t.Context(), sealed); err != nil || string(got.Text) != answer {
					t.Errorf("the answer is %q, %v", got, err)
				}
			}
			for range 2 { // what is over is over
				over(t, v, sealed)
			}
			if left, err := w.open().Attempts(t.Context(), acme); err != nil || len(left) != 1 || !left[0].Over {
				t.Errorf("there are %v, %v", left, err)
			}
			w.wantFiles("vault", "journal/"+keyA+".age")
		})
	}
}

// readBack is a journal as a later process finds it.
func readBack(t *testing.T, w *world, want grant.Journal) grant.Journal {
	t.Helper()
	found, err := w.open().Attempts(t.Context(), want.ID)
	if err != nil || len(found) != 1 {
		t.Fatalf("there are %v, %v", found, err)
	}
	sameJSON(t, found[0], want)
	return found[0]
}

// The disk may be full when the answer comes: its room is taken before the
// request is sent, and the file is never longer than that.
func TestJournalHasRoomForTheAnswer(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	j := login(acme, keyA)
	check(t, v.Claim(t.Context(), &j))
	for _, size := range []int{0, 1, 4 << 10, 6 << 10} {
		check(t, v.Seal(t.Context(), &j, nil, []byte(`"`+strings.Repeat("a", size)+`"`)))
		if w.memory == nil { // a database has no room that could be taken
			if info, err := os.Stat(w.journalPath(acme, keyA)); err != nil || info.Size() != 32<<10 {
				t.Errorf("with an answer of %d bytes the file has %d, %v", size, info.Size(), err)
			}
		}
		if got, err := v.Answer(t.Context(), j); err != nil || len(got.Text) != size+2 {
			t.Errorf("%d bytes came back of %d, %v", len(got.Text), size, err)
		}
	}
	// Even one that is larger than anybody thought is kept.
	huge := []byte(`"` + strings.Repeat("a", 1<<20) + `"`)
	check(t, v.Seal(t.Context(), &j, nil, huge))
	if got, err := v.Answer(t.Context(), j); err != nil || string(got.Text) != string(huge) {
		t.Errorf("%d bytes came back of %d, %v", len(got.Text), len(huge), err)
	}
	check(t, v.Seal(t.Context(), &j, nil, []byte(`"short"`)))
	if got, err := v.Answer(t.Context(), j); err != nil || string(got.Text) != `"short"` {
		t.Errorf("%q came back, %v", got, err)
	}
}

// An answer is sealed when the home can no longer be opened, and by a process
// that never could.
func TestSealingNeedsNoHome(t *testing.T) {
	w := newWorld(t)
	j := login(acme, keyA)
	check(t, w.open().Claim(t.Context(), &j))
	home := locked(w.home())
	check(t, w.open(home).Seal(t.Context(), &j, nil, []byte(answer)))
	if home.calls.Load() != 0 {
		t.Error("the home was opened")
	}
	wantHomeError(t, func() error { _, err := w.open(home).Answer(t.Context(), j); return err }())
	if got, err := w.open().Answer(t.Context(), j); err != nil || string(got.Text) != answer {
		t.Errorf("the answer is %q, %v", got, err)
	}
}

// The identity of a grant's journals is written once: a later journal is sealed
// to the same, without a look at the home.
func TestJournalIdentityIsNeverRewritten(t *testing.T) {
	w := newWorld(t)
	home := &double{Home: w.home()}
	v := w.open(home)
	g := authorize(t, v, grantOf(acme, keyA, 1))
	identity, err := w.home().Get(t.Context(), keyA+"/journal")
	check(t, err)
	home.calls.Store(0)
	j := refreshing(g)
	for range 3 {
		check(t, v.Claim(t.Context(), &j))
		if j.Recipient != g.JournalRecipient {
			t.Errorf("it is sealed to %s, the grant's is %s", j.Recipient, g.JournalRecipient)
		}
	}
	if home.calls.Load() != 0 {
		t.Error("the home was opened")
	}
	if now, err := w.home().Get(t.Context(), keyA+"/journal"); err != nil || !bytes.Equal(now, identity) {
		t.Errorf("the identity is another one, %v", err)
	}
}

// The second attempt must not pass off the answer of the first as its own, and the
// first one's answer finds its place although the second has begun.
func TestAttemptsHaveAnswersOfTheirOwn(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	g := authorize(t, v, grantOf(acme, keyA, 1))
	first := refreshing(g)
	check(t, v.Claim(t.Context(), &first))
	second := refreshing(g)
	second.Attempt = 2
	check(t, v.Claim(t.Context(), &second))
	if found := attempts(t, v); len(found) < 1 || found[0].Answered || found[0].Attempt != 2 {
		t.Errorf("there are %+v", found)
	}
	if _, err := v.Answer(t.Context(), second); !errors.Is(err, grant.ErrNoAnswer) {
		t.Errorf("Answer: %v", err)
	}
	third := refreshing(g)
	third.Attempt = 3
	check(t, v.Claim(t.Context(), &third)) // takes the place of the first
	for i, j := range []*grant.Journal{&first, &second, &third} {
		check(t, v.Seal(t.Context(), j, &g, fmt.Appendf(nil, "%d", i+1)))
	}
	found := attempts(t, v)
	if len(found) != 3 {
		t.Fatalf("there are %+v", found)
	}
	for i, j := range found {
		if got, err := v.Answer(t.Context(), j); err != nil || string(got.Text) != fmt.Sprint(3-i) || j.Attempt != 3-i || got.Old.RefreshToken != g.RefreshToken {
			t.Errorf("attempt %d has the answer %s, %v", j.Attempt, got.Text, err)
		}
	}
}

// attempts are those at acme's refreshes to the second generation.
func attempts(t *testing.T, v *vault.Vault) []grant.Journal {
	t.Helper()
	found, err := v.Attempts(t.Context(), acme)
	check(t, err)
	return slices.DeleteFunc(found, func(j grant.Journal) bool { return j.Generation != 2 })
}

// UPS may grant a refresh in words that this upsauth does not understand. The
// only refresh token is in them, so that no later attempt may overwrite them.
func TestAnswerThatNobodyCouldUseIsKept(t *testing.T) {
	w := newWorld(t)
	w.dir += oddName
	v := w.open()
	g := authorize(t, v, grantOf(acme, keyA, 1))
	for attempt := 1; attempt <= 5; attempt++ {
		j := refreshing(g)
		j.Attempt = attempt
		check(t, v.Claim(t.Context(), &j))
		check(t, v.Seal(t.Context(), &j, &g, fmt.Appendf(nil, "%d", attempt)))
		j.Outcome = "it can't be used"
		check(t, v.Mark(t.Context(), &j))
	}
	found := attempts(t, v)
	for i, j := range found {
		if got, err := v.Answer(t.Context(), j); err != nil || string(got.Text) != fmt.Sprint(5-i) {
			t.Errorf("attempt %d has the answer %s, %v", j.Attempt, got.Text, err)
		}
	}
	if kept, problems, err := v.Kept(t.Context()); err != nil || len(problems) > 0 || len(kept) != 5 || len(found) != 5 {
		t.Errorf("%d are kept, %v, %v", len(kept), problems, err)
	}
	// They are of no use once the next tokens are there, and their room is given back.
	check(t, v.Put(t.Context(), grantOf(acme, keyA, 2), 1, &found[0]))
	if kept, _, err := v.Kept(t.Context()); err != nil || len(kept) != 0 {
		t.Errorf("%d are kept, %v", len(kept), err)
	}
	for generation := int64(3); generation < 6; generation++ {
		j := refreshing(grantOf(acme, keyA, generation-1))
		j.Recipient = g.JournalRecipient
		check(t, v.Claim(t.Context(), &j))
		check(t, v.Seal(t.Context(), &j, &g, []byte("0")))
		check(t, v.Put(t.Context(), grantOf(acme, keyA, generation), generation-1, &j))
	}
	if w.memory != nil {
		if left := w.files("journals/slots"); len(left) > 2 {
			t.Errorf("the journal has %q", left)
		}
	} else if info, err := os.Stat(w.journalPath(acme, keyA)); err != nil || info.Size() != 32<<10 {
		t.Errorf("the journal has %d bytes, %v", info.Size(), err)
	}
	check(t, v.Delete(t.Context(), acme))
	w.wantNothing()
}

func TestAnswerWithoutItsIdentity(t *testing.T) {
	w := newWorld(t)
	j := login(acme, keyA)
	check(t, w.open().Claim(t.Context(), &j))
	check(t, w.open().Seal(t.Context(), &j, nil, []byte(answer)))
	other, err := age.GenerateX25519Identity()
	check(t, err)
	for name, test := range map[string]struct {
		item string // empty is none
		want error
	}{
		"gone":               {"", grant.ErrNoSecrets},
		"damaged":            {`{"version":1,"identity":"AGE-SECRET-KEY-1s3cret"}`, grant.ErrNoSecrets},
		"not JSON":           {"s3cret", grant.ErrNoSecrets},
		"another's identity": {`{"version":1,"identity":"` + other.String() + `"}`, grant.ErrNoAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.clone()
			check(t, w.home().Delete(t.Context(), keyA+"/journal"))
			if test.item != "" {
				check(t, w.home().Put(t.Context(), keyA+"/journal", 0, []byte(test.item)))
			}
			_, err := w.open().Answer(t.Context(), j)
			if !errors.Is(err, test.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("got %v", err)
			}
			// What can't be opened can be cleared away.
			check(t, w.open().Abandon(t.Context(), j))
			w.wantNothing()
		})
	}
}

func TestSealThatFails(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	j := login(acme, keyA)
	j.Recipient = "age1nonsense"
	if err := v.Seal(t.Context(), &j, nil, []byte(answer)); err == nil || j.Answered || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("to no recipient: %v", err)
	}
	j = login(acme, keyA)
	check(t, v.Claim(t.Context(), &j))
	check(t, v.Forget(t.Context(), j))
	if err := v.Seal(t.Context(), &j, nil, []byte(answer)); err == nil || j.Answered || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("into a journal that is gone: %v", err)
	}
	// It must not make one without header.
	w.wantFiles("journals")
}

// Nothing is sent unless its journal is on disk and can be opened again.
func TestBeginThatFails(t *testing.T) {
	refuse := func(w *world) vault.Home { return locked(w.home()) }
	for name, test := range map[string]struct {
		home func(*world) vault.Home
		j    func(grant.Journal) grant.Journal
		says string
	}{
		"the home is locked": {refuse, func(j grant.Journal) grant.Journal { return j }, "locked"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			v := w.open()
			if test.home != nil {
				v = w.open(test.home(w))
			}
			j := test.j(login(acme, keyA))
			if err := v.Claim(t.Context(), &j); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v", err)
			}
			w.wantNothing()
		})
	}
	t.Run("the directory can't be made", func(t *testing.T) {
		w := newWorld(t)
		if w.memory != nil {
			w.memory.Break(errors.New("the database can't be reached"))
		} else {
			w.write(w.dir, []byte("a file is in the way"))
		}
		j := login(acme, keyA)
		if err := w.open().Claim(t.Context(), &j); err == nil || !strings.Contains(err.Error(), "can't be written") {
			t.Errorf("got %v", err)
		}
	})
}

func TestJournalsOfOneGrantRefreshesFirst(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	for key, j := range map[string]grant.Journal{keyA: login(acme, keyA), keyB: login(acme, keyB), keyC: login(apex, keyC)} {
		if key == keyB {
			j.Purpose = grant.Refreshing
		}
		check(t, v.Claim(t.Context(), &j))
	}
	found, err := v.Attempts(t.Context(), grant.ID{Company: " ACME corp ", Application: acme.Application, Environment: acme.Environment})
	check(t, err)
	if len(found) != 2 || found[0].TokenVaultKey != keyB || found[1].TokenVaultKey != keyA {
		t.Errorf("there are %+v", found)
	}
}

func TestAbandon(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	g := authorize(t, v, grantOf(acme, keyA, 1))

	j := login(acme, keyB)
	check(t, v.Claim(t.Context(), &j))
	check(t, v.Prove(t.Context(), acme, "file", keyB, 10))
	wantHomeError(t, w.open(locked(w.home())).Abandon(t.Context(), j))
	w.wantFiles("journals/open", acme.Slot()+"."+keyB) // or nobody would find its items again
	check(t, v.Abandon(t.Context(), j))
	w.wantFiles("journals/open")
	w.wantFiles("vault", keyA+".age", "journal/"+keyA+".age")

	// The grant stands under the journal's key: it was saved before the cut.
	j = login(acme, keyA)
	j.Recipient = g.JournalRecipient
	check(t, v.Claim(t.Context(), &j))
	check(t, v.Abandon(t.Context(), j))
	w.wantFiles("journals/open")
	sameJSON(t, mustGet(t, v, acme), g)
}

// What status says of journals, without a look into any home.
func TestWhatIsInterrupted(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(*testing.T, *vault.Vault, grant.Grant)
		want    bool
	}{
		{"nothing", func(*testing.T, *vault.Vault, grant.Grant) {}, false},
		{"a refresh that was sent", func(t *testing.T, v *vault.Vault, g grant.Grant) {
			j := refreshing(g)
			check(t, v.Claim(t.Context(), &j))
		}, true},
		{"a refresh that was answered", func(t *testing.T, v *vault.Vault, g grant.Grant) {
			j := refreshing(g)
			check(t, v.Claim(t.Context(), &j))
			check(t, v.Seal(t.Context(), &j, nil, []byte(answer)))
		}, true},
		{"an authorization that was answered", func(t *testing.T, v *vault.Vault, _ grant.Grant) {
			j := login(acme, keyB)
			check(t, v.Claim(t.Context(), &j))
			check(t, v.Seal(t.Context(), &j, nil, []byte(answer)))
		}, true},
		{"an authorization that nobody finished", func(t *testing.T, v *vault.Vault, _ grant.Grant) {
			j := login(acme, keyB)
			check(t, v.Claim(t.Context(), &j))
		}, false},
		{"a refresh of the grant before this one", func(t *testing.T, v *vault.Vault, g grant.Grant) {
			g.TokenVaultKey = keyC
			j := refreshing(g)
			check(t, v.Claim(t.Context(), &j))
		}, false},
		{"a refresh to the generation that the record has", func(t *testing.T, v *vault.Vault, g grant.Grant) {
			g.Generation--
			j := refreshing(g)
			check(t, v.Claim(t.Context(), &j))
		}, false},
		{"a refresh of another company", func(t *testing.T, v *vault.Vault, g grant.Grant) {
			g.ID = apex
			j := refreshing(g)
			check(t, v.Claim(t.Context(), &j))
		}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			g := authorize(t, w.open(), grantOf(acme, keyA, 1))
			test.prepare(t, w.open(), g)
			v := w.open(locked(w.home()))
			if records := w.list(v); len(records) != 1 || records[0].Interrupted != test.want {
				t.Fatalf("there are %+v", records)
			}
			// While somebody is at work it is not interrupted.
			unlock := mustLock(t, v, acme)
			unlockLogin, err := v.LockLogin(t.Context(), acme.Company)
			check(t, err)
			if records := w.list(v); len(records) != 1 || records[0].Interrupted {
				t.Errorf("at work there are %+v", records)
			}
			unlock()
			unlockLogin()
			if records := w.list(v); len(records) != 1 || records[0].Interrupted != test.want {
				t.Errorf("afterwards there are %+v", records)
			}
		})
	}
}

// The first authorization of a company was cut off after UPS answered: there is
// no record yet, and it must be seen all the same.
func TestAnsweredAuthorizationWithoutRecord(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	j := login(acme, keyA)
	check(t, v.Claim(t.Context(), &j))
	if records := w.list(v); len(records) != 0 {
		t.Errorf("before the answer there are %+v", records)
	}
	check(t, v.Seal(t.Context(), &j, nil, []byte(answer)))
	for _, company := range []string{"", "ACME CORP"} {
		records, problems, err := v.List(t.Context(), company)
		if err != nil || len(problems) != 0 || len(records) != 1 || records[0].ID != acme || records[0].StateAt(noon) != grant.Interrupted {
			t.Errorf("List(%q): %+v, %v, %v", company, records, problems, err)
		}
	}
	if records, _, err := v.List(t.Context(), "Apex"); err != nil || len(records) != 0 {
		t.Errorf("Apex has %+v, %v", records, err)
	}

	// Revoking removes it, unless somebody is finishing it right now.
	unlock, err := v.LockLogin(t.Context(), acme.Company)
	check(t, err)
	if err := w.open().Delete(t.Context(), acme); !errors.Is(err, grant.ErrNoGrant) {
		t.Errorf("got %v", err)
	}
	if got, err := v.Answer(t.Context(), j); err != nil || string(got.Text) != answer {
		t.Errorf("the answer is %q, %v", got, err)
	}
	unlock()
	check(t, w.open().Delete(t.Context(), acme))
	w.wantNothing()
}

// The record was damaged and set aside while a refresh was cut off: what is
// left of the grant can still be removed.
func TestAnsweredRefreshWithoutRecord(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	j := refreshing(authorize(t, v, grantOf(acme, keyA, 1)))
	check(t, v.Claim(t.Context(), &j))
	check(t, v.Seal(t.Context(), &j, nil, []byte(answer)))
	w.loseRecord(acme)
	if records := w.list(v); len(records) != 1 || !records[0].Interrupted {
		t.Errorf("there are %+v", records)
	}
	unlock := mustLock(t, v, acme)
	check(t, v.Delete(t.Context(), acme))
	unlock()
	w.wantNothing()
}
