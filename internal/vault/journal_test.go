package vault_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
)

// A journal is a header of 4 KiB, a length of 8 bytes, and room for an answer.
const (
	headerRoom = 4 << 10
	answerAt   = headerRoom + 8
	wholeFile  = answerAt + 128<<10
)

const answer = `{"status":200,"body":"access-s3cret refresh-s3cret"}`

func login(id grant.ID, key string) grant.Journal {
	return grant.Journal{ID: id, Purpose: grant.Authorizing, TokenVaultKey: key, Generation: 1, ClientID: "client", BaseURL: "https://ups.example", Time: noon, Home: "file"}
}

func TestJournalFromBeginToEnd(t *testing.T) {
	for name, purpose := range map[string]grant.Purpose{"refresh": grant.Refreshing, "authorization": grant.Authorizing} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			v := w.open()
			j := login(acme, keyA)
			j.Purpose, j.Attempt, j.Outcome = purpose, 2, "no answer within 30s"
			check(t, v.Begin(t.Context(), &j))
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

			check(t, v.Seal(&j, []byte(answer)))
			sealed := readBack(t, w, j)
			if !j.Answered || !sealed.Answered {
				t.Error("it is not answered")
			}
			for range 2 { // opening does not use it up
				if got, err := w.open().Answer(t.Context(), sealed); err != nil || string(got) != answer {
					t.Errorf("the answer is %q, %v", got, err)
				}
			}
			for range 2 { // settling what is settled is no error
				check(t, v.DropJournal(sealed))
			}
			w.wantFiles("journals")
			if left, err := w.open().Journals(acme); err != nil || len(left) != 0 {
				t.Errorf("there are %v, %v", left, err)
			}
			w.wantFiles("vault", keyA+"/journal.age")
		})
	}
}

// readBack is a journal as a later process finds it.
func readBack(t *testing.T, w *world, want grant.Journal) grant.Journal {
	t.Helper()
	found, err := w.open().Journals(want.ID)
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
	check(t, v.Begin(t.Context(), &j))
	for _, size := range []int{0, 1, 4 << 10, 100 << 10} {
		check(t, v.Seal(&j, bytes.Repeat([]byte("a"), size)))
		if info, err := os.Stat(w.journalPath(acme, keyA)); err != nil || info.Size() != wholeFile {
			t.Errorf("with an answer of %d bytes the file has %d, %v", size, info.Size(), err)
		}
		if got, err := v.Answer(t.Context(), j); err != nil || len(got) != size {
			t.Errorf("%d bytes came back of %d, %v", len(got), size, err)
		}
	}
	// Even one that is larger than anybody thought is kept.
	huge := bytes.Repeat([]byte("a"), 1<<20)
	check(t, v.Seal(&j, huge))
	if got, err := v.Answer(t.Context(), j); err != nil || !bytes.Equal(got, huge) {
		t.Errorf("%d bytes came back of %d, %v", len(got), len(huge), err)
	}
	check(t, v.Seal(&j, []byte("short")))
	if got, err := v.Answer(t.Context(), j); err != nil || string(got) != "short" {
		t.Errorf("%q came back, %v", got, err)
	}
}

// Whoever looks into a journal with a pager sees what it is about, and nothing
// that is secret.
func TestJournalIsReadableAndHasNoSecretInIt(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	g := authorize(t, v, grantOf(grant.ID{Company: strings.Repeat("<📦>", 50), Application: strings.Repeat("a", 64), Environment: strings.Repeat("e", 64)}, keyA, 1))
	j := refreshing(g)
	j.Outcome = strings.Repeat("words ", 100)
	check(t, v.Begin(t.Context(), &j))
	check(t, v.Seal(&j, []byte(answer)))
	content := w.read(w.journalPath(g.ID, keyA))
	var header map[string]any
	if err := json.Unmarshal(bytes.TrimRight(content[:headerRoom], " "), &header); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"version": 1.0, "company": g.Company, "purpose": "refresh", "token_vault_key": keyA, "generation": 2.0,
		"attempt": 1.0, "time": "2026-11-21T12:00:00.123456789Z", "outcome": j.Outcome, "recipient": g.JournalRecipient,
	} {
		if header[name] != want {
			t.Errorf("%s is %v, want %v", name, header[name], want)
		}
	}
	if bytes.Contains(content, []byte("s3cret")) {
		t.Error("there is a secret in it")
	}
	if !bytes.HasPrefix(content[answerAt:], []byte("age-encryption.org/v1\n")) {
		t.Error("the answer is no age file")
	}
}

// An answer is sealed when the home can no longer be opened, and by a process
// that never could.
func TestSealingNeedsNoHome(t *testing.T) {
	w := newWorld(t)
	j := login(acme, keyA)
	check(t, w.open().Begin(t.Context(), &j))
	home := locked(w.home())
	check(t, w.open(home).Seal(&j, []byte(answer)))
	if home.calls.Load() != 0 {
		t.Error("the home was opened")
	}
	wantHomeError(t, func() error { _, err := w.open(home).Answer(t.Context(), j); return err }())
	if got, err := w.open().Answer(t.Context(), j); err != nil || string(got) != answer {
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
		check(t, v.Begin(t.Context(), &j))
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

// The second attempt's journal must not pass off the answer of the first as its
// own.
func TestJournalBegunAgainHasNoAnswer(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	j := login(acme, keyA)
	check(t, v.Begin(t.Context(), &j))
	check(t, v.Seal(&j, []byte(answer)))
	j.Attempt++
	check(t, v.Begin(t.Context(), &j))
	if again := readBack(t, w, j); again.Answered || again.Attempt != j.Attempt {
		t.Errorf("it is %+v", again)
	}
	if _, err := v.Answer(t.Context(), j); !errors.Is(err, grant.ErrNoAnswer) {
		t.Errorf("Answer: %v", err)
	}
}

// UPS may grant a refresh in words that this upsauth does not understand. The
// only refresh token is in them, so that no later attempt may overwrite them.
func TestAnswerThatNobodyCouldUseIsKept(t *testing.T) {
	w := newWorld(t)
	w.dir += oddName
	v := w.open()
	g := authorize(t, v, grantOf(acme, keyA, 1))
	j := refreshing(g)
	var sealed [][]byte
	for attempt := 1; attempt <= 3; attempt++ {
		j.Attempt = attempt
		check(t, v.Begin(t.Context(), &j))
		check(t, v.Seal(&j, []byte(answer)))
		sealed = append(sealed, w.read(w.journalPath(acme, keyA)))
	}
	name := acme.Slot() + "." + keyA + ".journal"
	w.wantFiles("journals", name, name+".1.unread", name+".2.unread")
	for i, name := range []string{name + ".1.unread", name + ".2.unread"} {
		if !bytes.Equal(w.read(filepath.Join(w.dir, "journals", name)), sealed[i]) {
			t.Errorf("%s is not what was sealed", name)
		}
	}
	// They are no journals, and stay when the third attempt is settled.
	if found, err := v.Journals(acme); err != nil || len(found) != 1 || found[0].Attempt != 3 {
		t.Errorf("there are %v, %v", found, err)
	}
	check(t, v.DropJournal(j))
	w.list(v)
	w.wantFiles("journals", name+".1.unread", name+".2.unread")
	check(t, v.Delete(t.Context(), acme))
	w.wantNothing()
}

// The machine goes down while the answer is written: whatever got to the disk,
// it is taken for the whole answer only where it is.
func TestAnswerThatIsNotWhole(t *testing.T) {
	w := newWorld(t)
	j := login(acme, keyA)
	check(t, w.open().Begin(t.Context(), &j))
	check(t, w.open().Seal(&j, []byte(answer)))
	whole := w.read(w.journalPath(acme, keyA))
	length := int(binary.BigEndian.Uint64(whole[headerRoom:]))
	setLength := func(b []byte, n uint64) []byte { binary.BigEndian.PutUint64(b[headerRoom:], n); return b }

	for name, tear := range map[string]func([]byte) []byte{
		"the length and nothing else":      func(b []byte) []byte { clear(b[answerAt:]); return b },
		"the answer and no length":         func(b []byte) []byte { return setLength(b, 0) },
		"the first of it":                  func(b []byte) []byte { clear(b[answerAt+100:]); return b },
		"all but the last byte":            func(b []byte) []byte { b[answerAt+length-1] ^= 0xff; return b },
		"a length that is too small":       func(b []byte) []byte { return setLength(b, uint64(length-1)) },
		"a length that is too large":       func(b []byte) []byte { return setLength(b, uint64(length+1)) },
		"a length beyond the file":         func(b []byte) []byte { return setLength(b, uint64(len(b))) },
		"the largest length there is":      func(b []byte) []byte { return setLength(b, 1<<64-1) },
		"the file ends within the answer":  func(b []byte) []byte { return b[:answerAt+length/2] },
		"the file ends after the length":   func(b []byte) []byte { return b[:answerAt] },
		"another answer's bytes behind it": func(b []byte) []byte { copy(b[answerAt+length/2:], "age-encryption.org/v1"); return b },
	} {
		t.Run(name, func(t *testing.T) {
			w := w.clone()
			w.write(w.journalPath(acme, keyA), tear(bytes.Clone(whole)))
			v := w.open()
			found, err := v.Journals(acme)
			if err != nil || len(found) != 1 {
				t.Fatalf("there are %v, %v", found, err)
			}
			if got, err := v.Answer(t.Context(), found[0]); !errors.Is(err, grant.ErrNoAnswer) {
				t.Errorf("the answer is %q, %v", got, err)
			}
		})
	}
	if got, err := w.open().Answer(t.Context(), j); err != nil || string(got) != answer {
		t.Errorf("untouched it is %q, %v", got, err)
	}
}

func TestAnswerWithoutItsIdentity(t *testing.T) {
	w := newWorld(t)
	j := login(acme, keyA)
	check(t, w.open().Begin(t.Context(), &j))
	check(t, w.open().Seal(&j, []byte(answer)))
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
	if err := v.Seal(&j, []byte(answer)); err == nil || j.Answered || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("to no recipient: %v", err)
	}
	check(t, v.Begin(t.Context(), &grant.Journal{ID: apex, TokenVaultKey: keyB, Home: "file"}))
	j = login(acme, keyA)
	check(t, v.Begin(t.Context(), &j))
	check(t, v.DropJournal(j))
	if err := v.Seal(&j, []byte(answer)); err == nil || j.Answered || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("into a journal that is gone: %v", err)
	}
	// It must not make one without header.
	w.wantFiles("journals", apex.Slot()+"."+keyB+".journal")
}

// Nothing is sent unless its journal is on disk and can be opened again.
func TestBeginThatFails(t *testing.T) {
	refuse := func(w *world) vault.Home { return locked(w.home()) }
	for name, test := range map[string]struct {
		home func(*world) vault.Home
		j    func(grant.Journal) grant.Journal
		says string
	}{
		"the home is locked":      {refuse, func(j grant.Journal) grant.Journal { return j }, "locked"},
		"the header is too large": {nil, func(j grant.Journal) grant.Journal { j.ClientID = strings.Repeat("x", headerRoom); return j }, "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			v := w.open()
			if test.home != nil {
				v = w.open(test.home(w))
			}
			j := test.j(login(acme, keyA))
			if err := v.Begin(t.Context(), &j); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v", err)
			}
			w.wantNothing()
		})
	}
	t.Run("the directory can't be made", func(t *testing.T) {
		w := newWorld(t)
		w.write(w.dir, []byte("a file is in the way"))
		j := login(acme, keyA)
		if err := w.open().Begin(t.Context(), &j); err == nil || !strings.Contains(err.Error(), "can't be written") {
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
		check(t, v.Begin(t.Context(), &j))
	}
	found, err := v.Journals(grant.ID{Company: " ACME corp ", Application: acme.Application, Environment: acme.Environment})
	check(t, err)
	if len(found) != 2 || found[0].TokenVaultKey != keyB || found[1].TokenVaultKey != keyA {
		t.Errorf("there are %+v", found)
	}
}

// A journal whose header is no longer one would keep its company from ever
// being used again.
func TestDamagedJournalIsSetAside(t *testing.T) {
	w := newWorld(t)
	g := authorize(t, w.open(), grantOf(acme, keyA, 1))
	j := refreshing(g)
	check(t, w.open().Begin(t.Context(), &j))
	whole := w.read(w.journalPath(acme, keyA))
	for name, damaged := range map[string][]byte{
		"empty":          nil,
		"cut short":      whole[:100],
		"only a header":  whole[:headerRoom],
		"zeroes":         make([]byte, len(whole)),
		"not JSON":       bytes.Repeat([]byte("x"), len(whole)),
		"a wrong type":   bytes.Replace(whole, []byte(`"attempt":1`), []byte(`"attempt":""`), 1),
		"another key's":  bytes.Replace(whole, []byte(keyA), []byte(keyB), 1),
		"no version":     bytes.Replace(whole, []byte(`"version":1`), []byte(`"version":0`), 1),
		"a broken brace": bytes.Replace(whole, []byte("}"), []byte("]"), 1),
	} {
		t.Run(name, func(t *testing.T) {
			w := w.clone()
			path := w.journalPath(acme, keyA)
			w.write(path, damaged)
			authorize(t, w.open(), grantOf(apex, keyB, 1))
			v := w.open()
			// Whoever only looks holds no lock, and leaves it where it is.
			records, problems, err := v.List("")
			if err != nil || len(problems) != 1 || !strings.Contains(problems[0].Error(), path) || len(records) != 2 {
				t.Errorf("List: %v, %v, %v", records, problems, err)
			}
			var damage *vault.DamagedError
			if _, err := v.Journals(acme); !errors.As(err, &damage) || !damage.Journal || !strings.Contains(damage.Error(), damage.Path) {
				t.Fatalf("Journals: %v", err)
			}
			if !bytes.Equal(w.read(damage.Path), damaged) {
				t.Error("what was set aside is not what there was")
			}
			if found, err := v.Journals(acme); err != nil || len(found) != 0 {
				t.Errorf("afterwards there are %v, %v", found, err)
			}
			w.list(v)
			sameJSON(t, mustGet(t, v, acme), g)
		})
	}
}

func TestAbandon(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	g := authorize(t, v, grantOf(acme, keyA, 1))

	j := login(acme, keyB)
	check(t, v.Begin(t.Context(), &j))
	check(t, v.Prove(t.Context(), acme, "file", keyB, 10))
	wantHomeError(t, w.open(locked(w.home())).Abandon(t.Context(), j))
	w.wantFiles("journals", acme.Slot()+"."+keyB+".journal") // or nobody would find its items again
	check(t, v.Abandon(t.Context(), j))
	w.wantFiles("journals")
	w.wantFiles("vault", keyA+".age", keyA+"/journal.age")

	// The grant stands under the journal's key: it was saved before the cut.
	j = login(acme, keyA)
	j.Recipient = g.JournalRecipient
	check(t, v.Begin(t.Context(), &j))
	check(t, v.Abandon(t.Context(), j))
	w.wantFiles("journals")
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
			check(t, v.Begin(t.Context(), &j))
		}, true},
		{"a refresh that was answered", func(t *testing.T, v *vault.Vault, g grant.Grant) {
			j := refreshing(g)
			check(t, v.Begin(t.Context(), &j))
			check(t, v.Seal(&j, []byte(answer)))
		}, true},
		{"an authorization that was answered", func(t *testing.T, v *vault.Vault, _ grant.Grant) {
			j := login(acme, keyB)
			check(t, v.Begin(t.Context(), &j))
			check(t, v.Seal(&j, []byte(answer)))
		}, true},
		{"an authorization that nobody finished", func(t *testing.T, v *vault.Vault, _ grant.Grant) {
			j := login(acme, keyB)
			check(t, v.Begin(t.Context(), &j))
		}, false},
		{"a refresh of the grant before this one", func(t *testing.T, v *vault.Vault, g grant.Grant) {
			g.TokenVaultKey = keyC
			j := refreshing(g)
			check(t, v.Begin(t.Context(), &j))
		}, false},
		{"a refresh to the generation that the record has", func(t *testing.T, v *vault.Vault, g grant.Grant) {
			g.Generation--
			j := refreshing(g)
			check(t, v.Begin(t.Context(), &j))
		}, false},
		{"a refresh of another company", func(t *testing.T, v *vault.Vault, g grant.Grant) {
			g.ID = apex
			j := refreshing(g)
			check(t, v.Begin(t.Context(), &j))
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
			unlockLogin, err := v.LockLogin(acme.Company)
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
	check(t, v.Begin(t.Context(), &j))
	if records := w.list(v); len(records) != 0 {
		t.Errorf("before the answer there are %+v", records)
	}
	check(t, v.Seal(&j, []byte(answer)))
	for _, company := range []string{"", "ACME CORP"} {
		records, problems, err := v.List(company)
		if err != nil || len(problems) != 0 || len(records) != 1 || records[0].ID != acme || records[0].StateAt(noon) != grant.Interrupted {
			t.Errorf("List(%q): %+v, %v, %v", company, records, problems, err)
		}
	}
	if records, _, err := v.List("Apex"); err != nil || len(records) != 0 {
		t.Errorf("Apex has %+v, %v", records, err)
	}

	// Revoking removes it, unless somebody is finishing it right now.
	unlock, err := v.LockLogin(acme.Company)
	check(t, err)
	if err := w.open().Delete(t.Context(), acme); !errors.Is(err, grant.ErrNoGrant) {
		t.Errorf("got %v", err)
	}
	if got, err := v.Answer(t.Context(), j); err != nil || string(got) != answer {
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
	check(t, v.Begin(t.Context(), &j))
	check(t, v.Seal(&j, []byte(answer)))
	check(t, os.Remove(w.recordPath(acme)))
	if records := w.list(v); len(records) != 1 || !records[0].Interrupted {
		t.Errorf("there are %+v", records)
	}
	unlock := mustLock(t, v, acme)
	check(t, v.Delete(t.Context(), acme))
	unlock()
	w.wantNothing()
}

// FuzzJournal has whatever a disk may make of a journal read: it never ends the
// program, harms another company, or throws away what was in it.
func FuzzJournal(f *testing.F) {
	w := newWorld(f)
	v := w.open()
	mustPut(f, v, grantOf(apex, keyB, 1), 0)
	j := refreshing(authorize(f, v, grantOf(acme, keyA, 1)))
	check(f, v.Begin(f.Context(), &j))
	check(f, v.Seal(&j, []byte(answer)))
	path := w.journalPath(acme, keyA)
	whole := w.read(path)
	header, rest := bytes.TrimRight(whole[:headerRoom], " "), whole[headerRoom:][:500]
	for _, seed := range []string{
		string(header), "", "{}", "null", `{"version":2}`, `{"version":"2"}`, `{"version":1,"purpose":"authorize","company":"Acme Corp"}`,
		strings.Replace(string(header), `"refresh"`, `"authorize"`, 1), strings.Replace(string(header), "age1", "age2", 1),
		strings.Replace(string(header), keyA, "../../x", 1),
	} {
		f.Add([]byte(seed), rest)
		f.Add([]byte(seed), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
		f.Add([]byte(seed), []byte(nil))
	}
	f.Fuzz(func(t *testing.T, header, rest []byte) {
		w.t = t
		content := append(bytes.Repeat([]byte(" "), headerRoom), rest...)
		copy(content, header)
		w.write(path, content)
		records, _, err := v.List("")
		if err != nil {
			t.Fatal(err)
		}
		seen := map[grant.ID]bool{}
		for _, r := range records {
			if r.ID == apex && r.Interrupted {
				t.Error("the other company is called interrupted")
			}
			seen[r.ID] = true
		}
		if len(records) != 2 || !seen[acme] || !seen[apex] {
			t.Errorf("there are %+v", records)
		}

		found, err := v.Journals(acme)
		for _, j := range found {
			if j.ID != acme {
				t.Errorf("the journal is %v's", j.ID)
			}
			if _, err := v.Answer(t.Context(), j); err == nil && !j.Answered {
				t.Error("there is an answer where there is none")
			}
		}
		left, readErr := os.ReadFile(path)
		var damage *vault.DamagedError
		if errors.As(err, &damage) {
			left = w.read(damage.Path)
			if err := os.Remove(damage.Path); err != nil {
				t.Fatal(err)
			}
		} else if readErr != nil {
			t.Fatalf("it is gone: %v", err)
		}
		if !bytes.Equal(left, content) {
			t.Error("it was changed")
		}
	})
}

// newer makes a journal's file one of a newer upsauth, in place.
func newer(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	check(t, err)
	changed := bytes.Replace(text, []byte(`"version":1`), []byte(`"version":9`), 1)
	if bytes.Equal(changed, text) {
		t.Fatal("the journal names no version")
	}
	check(t, os.WriteFile(path, changed, 0o600))
	return changed
}

// A journal that is there and can't be read may have the only refresh token in it.
func TestAJournalThatCanNotBeReadIsNotWrittenOver(t *testing.T) {
	w := newWorld(t)
	j := login(acme, keyA)
	check(t, w.open().Begin(t.Context(), &j))
	check(t, w.open().Seal(&j, []byte(answer)))
	was := newer(t, w.journalPath(acme, keyA))
	j.Attempt++
	if err := w.open().Begin(t.Context(), &j); !errors.As(err, new(*vault.NewerError)) {
		t.Errorf("Begin: %v", err)
	}
	if now, err := os.ReadFile(w.journalPath(acme, keyA)); err != nil || !bytes.Equal(now, was) {
		t.Errorf("the journal was changed, %v", err)
	}
}

// sealedElsewhere is a refresh's journal of a generation whose answer could not be
// sealed in its place.
func (w *world) sealedElsewhere(v *vault.Vault, generation int64) grant.Journal {
	w.t.Helper()
	j := login(acme, keyA)
	j.Purpose, j.Generation, j.Attempt = grant.Refreshing, generation, 1
	check(w.t, v.Begin(w.t.Context(), &j))
	journals := filepath.Join(w.dir, "journals")
	check(w.t, os.Rename(journals, journals+".moved"))
	check(w.t, v.Seal(&j, []byte(answer)))
	check(w.t, os.Rename(journals+".moved", journals))
	if !j.Elsewhere || !j.Answered {
		w.t.Fatalf("it is not sealed elsewhere: %+v", j)
	}
	return j
}

// An answer that was sealed elsewhere and is of no use any more once took the
// journal of a later refresh along, whose fate is not known.
func TestAnAnswerSealedElsewhereGoesAlone(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	v.Elsewhere = []string{filepath.Join(t.TempDir(), "elsewhere")}
	check(t, v.Put(t.Context(), grantOf(acme, keyA, 1), 0))
	w.sealedElsewhere(v, 2)
	later := login(acme, keyA)
	later.Purpose, later.Generation, later.Attempt = grant.Refreshing, 3, 1
	check(t, v.Begin(t.Context(), &later))
	found, err := v.Journals(acme)
	if err != nil || len(found) != 2 || found[0].Elsewhere || !found[1].Elsewhere {
		t.Fatalf("there are %+v, %v", found, err)
	}
	check(t, v.DropJournal(found[1]))
	if left, err := v.Journals(acme); err != nil || len(left) != 1 || left[0].Generation != 3 {
		t.Errorf("there are %+v, %v", left, err)
	}
}

// An answer that lies elsewhere and can't be read is not one that is not there: its
// token must not be sent again.
func TestAnAnswerSealedElsewhereThatCanNotBeRead(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	v.Elsewhere = []string{filepath.Join(t.TempDir(), "elsewhere")}
	check(t, v.Put(t.Context(), grantOf(acme, keyA, 1), 0))
	newer(t, w.sealedElsewhere(v, 2).Path)
	if _, err := v.Journals(acme); !errors.As(err, new(*vault.NewerError)) {
		t.Errorf("Journals: %v", err)
	}
	if _, err := v.SealedElsewhere(); !errors.As(err, new(*vault.NewerError)) {
		t.Errorf("SealedElsewhere: %v", err)
	}
}
