package files

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
)

const (
	key      = "AAAAAAAA-3C21-4F7E-B122-8BF55EA80CDA"
	otherKey = "BBBBBBBB-3C21-4F7E-B122-8BF55EA80CDA"
)

var (
	acme = grant.ID{Company: "Acme Corp", Application: "intelligent-rating", Environment: "production"}
	noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
)

func attempt(generation int64, n int) grant.Journal {
	return grant.Journal{Version: grant.RecordVersion, Nonce: fmt.Sprintf("nonce-%d-%d", generation, n), ID: acme, Purpose: grant.Refreshing,
		TokenVaultKey: key, Generation: generation, Attempt: n, ClientID: "client", BaseURL: "https://ups.example",
		Fate: grant.Fate{Time: noon}, Home: "file", Recipient: "age1"}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// opened is the journal at a path as another process finds it.
func opened(t testing.TB, path string) *slotFile {
	t.Helper()
	f, err := openSlots(path, key, os.O_RDWR|os.O_CREATE)
	check(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func claimed(t testing.TB, path string, j grant.Journal) {
	t.Helper()
	check(t, opened(t, path).claim(j))
}

func sealed(t testing.TB, path string, j grant.Journal, answer string) {
	t.Helper()
	f := opened(t, path)
	check(t, f.seal(f.of(j.Nonce), []byte(answer)))
}

// answers are what is sealed in the slots of a file, by attempt.
func answers(t testing.TB, f *slotFile) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, s := range f.slots {
		if s.whole {
			text, _, err := f.text(s.answer)
			check(t, err)
			found[s.intent.Nonce] = string(text)
		}
	}
	return found
}

// The grants of ten thousand companies have a journal each for good.
func TestSizeOfAJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), key)
	answer := strings.Repeat("x", answerRoom)
	for generation := int64(1); generation < 9; generation++ {
		j := attempt(generation, 1)
		claimed(t, path, j)
		sealed(t, path, j, answer)
		if info, err := os.Stat(path); err != nil || info.Size() != 32<<10 {
			t.Errorf("at generation %d it has %d bytes, %v", generation, info.Size(), err)
		}
	}
}

// What does not fit into its room lies behind the slots, and neither is taken for the
// other.
func TestWhatDoesNotFit(t *testing.T) {
	path := filepath.Join(t.TempDir(), key)
	want := map[string]string{}
	for n := 1; n <= 6; n++ {
		j := attempt(5, n)
		if n%2 == 0 {
			j.ExpectUser = strings.Repeat("u", detailsRoom)
		}
		claimed(t, path, j)
		answer := fmt.Sprint(n) + strings.Repeat("x", n%3*answerRoom)
		sealed(t, path, j, answer)
		want[j.Nonce] = answer
		f := opened(t, path)
		if got := answers(t, f); len(got) != n || f.journals()[0].ExpectUser != j.ExpectUser {
			t.Fatalf("after %d attempts there are %d answers", n, len(got))
		} else if got[j.Nonce] != answer {
			t.Errorf("the answer of attempt %d is %d bytes, want %d", n, len(got[j.Nonce]), len(answer))
		}
	}
	got := answers(t, opened(t, path))
	for nonce, answer := range want {
		if got[nonce] != answer {
			t.Errorf("the answer of %s is lost", nonce)
		}
	}
	// The next generations give the room back.
	for generation := int64(6); generation < 10; generation++ {
		f := opened(t, path)
		check(t, f.shrink(generation-1))
		check(t, f.claim(attempt(generation, 1)))
		sealed(t, path, attempt(generation, 1), "short")
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 32<<10 {
		t.Errorf("at last it has %d bytes, %v", info.Size(), err)
	}
}

// A company whose answers are all too long for a slot is refreshed each hour for years.
func TestLongAnswersTakeTurns(t *testing.T) {
	path := filepath.Join(t.TempDir(), key)
	for generation := int64(1); generation <= 50; generation++ {
		j := attempt(generation, 1)
		j.ExpectUser = strings.Repeat("x", 2*detailsRoom) // nor do the details fit
		f := opened(t, path)
		check(t, f.shrink(generation-1))
		check(t, f.claim(j))
		if generation > 1 && len(answers(t, opened(t, path))) == 0 {
			t.Fatalf("the intent of generation %d is written over the newest answer", generation)
		}
		answer := fmt.Sprint(generation) + strings.Repeat("y", int(generation%3+1)*answerRoom)
		sealed(t, path, j, answer)
		if got := answers(t, opened(t, path)); got[j.Nonce] != answer {
			t.Fatalf("the answer of generation %d does not read back", generation)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() > 16*slotSize {
		t.Errorf("it has %d bytes, %v", info.Size(), err)
	}
}

// An hour without UPS is a hundred attempts, and no more room for it.
func TestAttemptsWithoutAnswerTakeNoRoom(t *testing.T) {
	path := filepath.Join(t.TempDir(), key)
	first := attempt(1, 1)
	claimed(t, path, first)
	sealed(t, path, first, "one")
	for n := 1; n <= 100; n++ {
		j := attempt(2, n)
		claimed(t, path, j)
		f := opened(t, path)
		if open, _ := grant.Unsettled(f.journals(), 1); len(open) == 0 || open[0].Attempt != n {
			t.Fatalf("after %d attempts there are %+v", n, open)
		}
		if got := answers(t, f); got[first.Nonce] != "one" {
			t.Fatalf("after %d attempts the newest answer is gone", n)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() > 3*slotSize {
		t.Errorf("it has %d bytes, %v", info.Size(), err)
	}
}

// state is what a journal says to whoever reads it next.
type state struct {
	newest  string // sealed answer
	pending string // the latest attempt whose fate is not known
	fate    grant.Fate
}

func stateOf(t testing.TB, f *slotFile, generation int64) (s state) {
	t.Helper()
	found := answers(t, f)
	for _, j := range f.journals() {
		if answer, ok := found[j.Nonce]; ok && s.newest == "" {
			s.newest = answer
		}
	}
	if open, _ := grant.Unsettled(f.journals(), generation); len(open) > 0 {
		s.pending, s.fate = open[0].Nonce, open[0].Fate
	}
	return s
}

// The power fails in the midst of a write: of its sectors, any are on the disk and any
// are not. Whatever is there, the journal says what it said before or what it was to say,
// and never loses the newest answer.
func TestTornWrites(t *testing.T) {
	one, two, three := attempt(1, 1), attempt(2, 1), attempt(3, 1)
	retry := attempt(3, 2)
	outcome := retry
	outcome.Outcome = "no answer came"
	long := strings.Repeat("the answer to the third ", 100)
	steps := []struct {
		name string
		do   func(f *slotFile) error
	}{
		{"claim 1", func(f *slotFile) error { return f.claim(one) }},
		{"seal 1", func(f *slotFile) error { return f.seal(f.of(one.Nonce), []byte("first")) }},
		{"claim 2", func(f *slotFile) error { return f.claim(two) }},
		{"seal 2", func(f *slotFile) error { return f.seal(f.of(two.Nonce), []byte("second")) }},
		{"claim 3", func(f *slotFile) error { return f.claim(three) }},
		{"claim 3 again", func(f *slotFile) error { return f.claim(retry) }},
		{"mark 3", func(f *slotFile) error { return f.mark(f.of(retry.Nonce), outcome.Fate) }},
		{"mark 3 again", func(f *slotFile) error {
			outcome.Outcome = "the clock was set back"
			return f.mark(f.of(retry.Nonce), outcome.Fate)
		}},
		{"seal 3", func(f *slotFile) error { return f.seal(f.of(retry.Nonce), []byte(long)) }},
	}
	path := filepath.Join(t.TempDir(), key)
	check(t, os.WriteFile(path, nil, 0o600))
	random := rand.New(rand.NewPCG(1, 2))
	torn := 0
	for i, step := range steps {
		before, err := os.ReadFile(path)
		check(t, err)
		// Whatever is settled by then is below the generation that is asked for.
		generation := int64(0)
		for _, done := range []string{"claim 2", "claim 3"} {
			if slices.IndexFunc(steps[:i+1], func(s struct {
				name string
				do   func(f *slotFile) error
			}) bool {
				return s.name == done
			}) >= 0 {
				generation++
			}
		}
		was := stateOf(t, opened(t, path), generation)
		check(t, step.do(opened(t, path)))
		after, err := os.ReadFile(path)
		check(t, err)
		is := stateOf(t, opened(t, path), generation)
		before = append(before, make([]byte, len(after)-len(before))...)
		var changed []int
		for at := 0; at < len(after); at += sector {
			if !bytes.Equal(before[at:min(at+sector, len(after))], after[at:min(at+sector, len(after))]) {
				changed = append(changed, at)
			}
		}
		for n := range 200 {
			disk := bytes.Clone(before)
			for k, at := range changed {
				// Each alone, all but each, then any.
				on := n == k || n >= len(changed) && n < 2*len(changed) && n-len(changed) != k || n >= 2*len(changed) && random.IntN(2) == 0
				if on {
					copy(disk[at:], after[at:min(at+sector, len(after))])
				}
			}
			check(t, os.WriteFile(path, disk, 0o600))
			torn++
			f := opened(t, path)
			if f.damage() != nil {
				t.Fatalf("%s: it is damaged", step.name)
			}
			if got := stateOf(t, f, generation); got != was && got != is {
				t.Errorf("%s: it says %+v; want %+v or %+v", step.name, got, was, is)
			}
		}
		check(t, os.WriteFile(path, after, 0o600))
	}
	if torn < 1000 {
		t.Errorf("only %d writes were torn", torn)
	}
}

// A header that nobody can read may be of an attempt whose token is spent: it is told,
// once, and what the other slot has is not thrown away with it.
func TestDamagedSlotIsSetAside(t *testing.T) {
	for name, damage := range map[string]func(head []byte){
		"a bit":         func(head []byte) { head[100] ^= 1 },
		"its end":       func(head []byte) { clear(head[300:]) },
		"its beginning": func(head []byte) { clear(head[:100]) },
		"another key's": func(head []byte) { copy(head, bytes.ReplaceAll(head, []byte(key), []byte(otherKey))) },
		"not JSON":      func(head []byte) { copy(head, bytes.Repeat([]byte("x"), len(head))) },
	} {
		t.Run(name, func(t *testing.T) {
			s := New(t.TempDir(), nil)
			first, second := attempt(1, 1), attempt(2, 1)
			first.Nonce, second.Nonce = "", ""
			check(t, s.Claim(t.Context(), &first))
			check(t, s.Seal(t.Context(), &first, []byte("answer")))
			check(t, s.Claim(t.Context(), &second))
			whole, err := os.ReadFile(s.slotsPath(key))
			check(t, err)
			damaged := bytes.Clone(whole)
			damage(damaged[slotSize:][:sector])
			check(t, os.WriteFile(s.slotsPath(key), damaged, 0o600))

			var told *vault.DamagedError
			if _, err := s.Attempts(t.Context(), acme.Slot(), key); !errors.As(err, &told) || !told.Journal {
				t.Fatalf("it says %v", err)
			}
			if aside, err := os.ReadFile(told.Path); err != nil || !bytes.Equal(aside, damaged) {
				t.Errorf("what was set aside is not what there was: %v", err)
			}
			left, err := s.Attempts(t.Context(), acme.Slot(), key)
			if err != nil || len(left) != 1 || left[0].Nonce != first.Nonce {
				t.Errorf("afterwards there are %+v, %v", left, err)
			}
			if answer, err := s.Sealed(t.Context(), first); err != nil || string(answer) != "answer" {
				t.Errorf("the answer is %q, %v", answer, err)
			}
		})
	}
}

// What a newer upsauth wrote is left alone.
func TestNewerSlots(t *testing.T) {
	s := New(t.TempDir(), nil)
	j := attempt(1, 1)
	check(t, s.Claim(t.Context(), &j))
	text, err := os.ReadFile(s.slotsPath(key))
	check(t, err)
	text = bytes.Replace(text, []byte(`"version":2`), []byte(`"version":9`), 1)
	check(t, os.WriteFile(s.slotsPath(key), text, 0o600))
	var newer *vault.NewerError
	again := attempt(1, 2)
	for name, err := range map[string]error{
		"Attempts": func() error { _, err := s.Attempts(t.Context(), acme.Slot(), key); return err }(),
		"Claim":    s.Claim(t.Context(), &again),
		"Mark":     s.Mark(t.Context(), &j),
	} {
		if !errors.As(err, &newer) || newer.Version != 9 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if now, err := os.ReadFile(s.slotsPath(key)); err != nil || !bytes.Equal(now, text) {
		t.Errorf("it was changed, %v", err)
	}
}

// The notes of what is news are lost with the power: after a start of the system all
// journals are looked at, once.
func TestNewsAfterAStartOfTheSystem(t *testing.T) {
	dir, boot := t.TempDir(), "one"
	process := func() *Store {
		s := New(dir, nil)
		s.Boot = func() string { return boot }
		return s
	}
	s := process()
	open, settled := attempt(2, 1), attempt(1, 1)
	settled.TokenVaultKey, settled.Company = otherKey, "Apex"
	check(t, s.Claim(t.Context(), &open))
	check(t, s.Claim(t.Context(), &settled))
	check(t, s.Seal(t.Context(), &settled, []byte("answer")))
	record := grant.Record{Facts: grant.Facts{ID: settled.ID, TokenVaultKey: otherKey, Generation: 1, Home: "file"}}
	_, err := s.Commit(t.Context(), vault.Change{Record: record, Settles: &settled, First: true})
	check(t, err)
	check(t, s.Settle(t.Context(), record.Slot(), otherKey, 1))

	news := func(s *Store) (keys []string) {
		t.Helper()
		found, err := s.News(t.Context(), "")
		check(t, err)
		for _, n := range found {
			keys = append(keys, n.Slot+"."+n.TokenVaultKey)
		}
		return keys
	}
	want := []string{acme.Slot() + "." + key}
	if got := news(process()); !slices.Equal(got, want) {
		t.Errorf("there is news of %q", got)
	}
	check(t, os.RemoveAll(filepath.Join(dir, "journals", newsDir)))
	if got := news(process()); len(got) != 0 {
		t.Errorf("in the same run there is news of %q", got)
	}
	boot = "two"
	if got := news(process()); !slices.Equal(got, want) {
		t.Errorf("after the start there is news of %q", got)
	}
	check(t, os.RemoveAll(filepath.Join(dir, "journals", newsDir)))
	if got := news(process()); len(got) != 0 {
		t.Errorf("they are looked at again: %q", got)
	}
}

// FuzzSlots has whatever a disk may make of a journal read: it never ends the program,
// and an answer is one only where it is whole.
func FuzzSlots(f *testing.F) {
	path := filepath.Join(f.TempDir(), key)
	one, two := attempt(1, 1), attempt(2, 1)
	claimed(f, path, one)
	sealed(f, path, one, "first")
	claimed(f, path, two)
	whole, err := os.ReadFile(path)
	check(f, err)
	f.Add(whole[:answerAt+64], whole[slotSize:][:sector])
	f.Add([]byte(`{"version":2}`), []byte("x"))
	f.Add([]byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		content := make([]byte, slotSize)
		copy(content, first)
		content = append(content, second...)
		path := filepath.Join(t.TempDir(), key)
		check(t, os.WriteFile(path, content, 0o600))
		f, err := openSlots(path, key, os.O_RDWR)
		if err != nil {
			return
		}
		defer func() { _ = f.Close() }()
		for _, j := range f.journals() {
			if j.TokenVaultKey != key || j.Nonce == "" || j.Check() != nil {
				t.Errorf("there is an attempt %+v", j)
			}
		}
		for nonce, answer := range answers(t, f) {
			if nonce == one.Nonce && answer != "first" {
				t.Errorf("the answer of %s is %q", nonce, answer)
			}
		}
		if f.damage() == nil {
			check(t, f.claim(attempt(9, 1)))
			check(t, f.read())
			if f.of(attempt(9, 1).Nonce) == nil {
				t.Error("what was written does not read back")
			}
		}
	})
}

// An upsauth that does not know these journals must not touch a grant whose token is about
// to be sent: it would send it again. Before the first attempt the grant's record is of a
// format that it refuses.
func TestAnOlderUpsauthIsKeptOut(t *testing.T) {
	s := New(t.TempDir(), nil)
	record := grant.Record{Facts: grant.Facts{ID: acme, TokenVaultKey: key, Generation: 1, Home: "file"}, Local: grant.Local{Void: true}}
	_, err := s.Commit(t.Context(), vault.Change{Record: record})
	check(t, err)
	path := s.recordPath(acme.Slot())
	text, err := os.ReadFile(path)
	check(t, err)
	older := bytes.Replace(text, []byte(`"version": 2`), []byte(`"version": 1`), 1)
	if bytes.Equal(older, text) {
		t.Fatal("the record names no version")
	}
	check(t, os.WriteFile(path, older, 0o600))
	j := attempt(2, 1)
	check(t, s.Claim(t.Context(), &j))
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, text) {
		t.Errorf("the record is %s, %v", now, err)
	}
	// Where that can't be, nothing is claimed.
	check(t, os.WriteFile(path, older, 0o600))
	check(t, os.Remove(s.slotsPath(key)))
	check(t, os.Rename(filepath.Dir(path), filepath.Dir(path)+".moved"))
	check(t, os.WriteFile(filepath.Dir(path), nil, 0o600))
	if err := s.Claim(t.Context(), &j); err == nil {
		t.Error("it was claimed")
	}
	if _, err := os.Lstat(s.slotsPath(key)); !os.IsNotExist(err) {
		t.Errorf("there is a journal: %v", err)
	}
}

// Where locks hold nobody off, two may claim the same attempt: only the later one sends.
func TestTheLastLookSeesALaterAttempt(t *testing.T) {
	s := New(t.TempDir(), nil)
	first, second := attempt(2, 1), attempt(2, 2)
	check(t, s.Claim(t.Context(), &first))
	check(t, s.Check(t.Context(), first))
	check(t, s.Claim(t.Context(), &second))
	if err := s.Check(t.Context(), first); !errors.Is(err, grant.ErrConflict) {
		t.Errorf("the first may still send: %v", err)
	}
	check(t, s.Check(t.Context(), second))
	second.Unsent = true
	check(t, s.Mark(t.Context(), &second))
	check(t, s.Check(t.Context(), first))
}
