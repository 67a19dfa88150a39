package events

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
)

const far = 60 * day

func TestWhatIsToldOfAGrant(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	d := open(t, dir, noon)
	a, b := record("A", 1, noon.Add(far)), void(record("B", 2, noon.Add(far)))
	d.look(a, b)
	d.want("trouble that lasts when a command comes first", "B void")
	d.look(a, b)
	d.want("nothing new")
	d = open(t, dir, d.now)
	d.look(a, b)
	d.want("nothing new after a restart")
	b = record("B", 3, noon.Add(far))
	d.look(a, b)
	d.want("authorized again", "B authorized", "B recovered after void")
	a.Company = "A renamed"
	d.look(a, b)
	d.want("renamed")
	for _, step := range []struct {
		days float64
		want []string
	}{
		{45.9, nil}, {46, []string{"A renamed expiring 14", "B expiring 14"}}, {50, nil}, {45, nil}, {47, nil},
		{53.5, []string{"A renamed expiring 7", "B expiring 7"}}, {59.5, []string{"A renamed expiring 1", "B expiring 1"}}, {59.9, nil},
		{61, []string{"A renamed expired", "B expired"}}, {62, nil},
	} {
		d.now = noon.Add(time.Duration(step.days * float64(day)))
		d.look(a, b)
		d.want(fmt.Sprintf("after %g days", step.days), step.want...)
	}
	a.RefreshUntil, a.RefreshTokenExpires, a.Generation = d.now.Add(far), d.now.Add(far), 2
	d.look(a, b)
	d.want("refreshed after all", "A renamed recovered after expired")
	refused := a
	refused.LastError = &grant.LastError{Code: "10401", Message: "no"}
	d.look(refused, b)
	d.want("client", "A renamed refused_client")
	refused.LastError = &grant.LastError{Code: "503", Kind: "down", Message: "no"}
	d.look(refused, b)
	d.want("UPS is down since, so nobody knows")
	a.Generation = 3
	d.look(a)
	d.want("client again", "A renamed recovered after refused_client")
	d.look(a, b)
	d.want("missed once")
	a.Interrupted = true
	d.look(a, b)
	d.want("cut off")
	a = void(a)
	a.Interrupted = false
	d.look(a, b)
	d.want("and refused", "A renamed void")
	again := record("A renamed", 4, d.now.Add(10*day))
	again.Interrupted = true
	d.look(again, b)
	d.want("authorized with little time", "A renamed authorized")
	again.Interrupted = false
	d.look(again, b)
	d.want("settled", "A renamed recovered after void", "A renamed expiring 14")
	// UPS may not give a refresh token that lasts longer with each refresh.
	for i := range int64(5) {
		again.Generation += i
		d.look(again, b)
		d.want("refreshed and no better")
	}
}

// An event that comes twice with the same ID is taken for one, and one that comes with
// another for two. So IDs must not go by what may be lost.
func TestIDs(t *testing.T) {
	a := record("A", 1, noon.Add(far))
	ids := func(lose bool) []string {
		dir := filepath.Join(t.TempDir(), "events")
		d := open(t, dir, noon)
		d.look(record("Z", 9, noon.Add(far)))
		d.look(record("Z", 9, noon.Add(far)), a)
		d.want("authorized", "A authorized")
		d.look(void(a))
		d.want("void", "A void")
		if lose {
			for _, name := range []string{toldFile} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte("{"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			d = open(t, dir, d.now.Add(time.Hour))
			d.look(void(a))
			d.want("void again", "A void")
			if !strings.Contains(d.log.String(), "told.json.1.damaged") {
				t.Errorf("the log is %q", d.log.String())
			}
		}
		return slices.Sorted(maps.Keys(d.tried))
	}
	whole, lost := ids(false), ids(true)
	if len(whole) != 2 || len(lost) != 1 || !slices.Contains(whole, lost[0]) {
		t.Errorf("IDs %q, and after the loss %q", whole, lost)
	}
	// The same trouble for a second time is another event.
	d := open(t, filepath.Join(t.TempDir(), "events"), noon)
	d.look(a)
	for _, r := range []grant.Record{void(a), a, void(a), a} {
		d.look(r)
	}
	d.want("twice", "A void", "A recovered after void", "A void", "A recovered after void")
	if len(d.tried) != 4 {
		t.Errorf("%d IDs for four events", len(d.tried))
	}
}

func TestWithoutACommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	d := open(t, dir, noon)
	a, b := record("A", 1, noon.Add(far)), record("B", 2, noon.Add(far))
	off := func(records ...grant.Record) {
		t.Helper()
		if err := d.Look(context.Background(), Known{Records: records, Complete: true}, nil); err != nil {
			t.Fatal(err)
		}
	}
	off(a)
	if _, err := os.Stat(dir); err == nil {
		t.Error("something is kept for nobody")
	}
	d.look(a)
	d.look(void(a))
	off(void(a))
	d.want("taken away")
	off(void(a), b)
	d = open(t, dir, noon.Add(time.Hour))
	off(void(a), b)
	d.want("taken away, after a restart")
	d.look(void(a), b, record("C", 3, noon.Add(far)), void(record("D", 4, noon.Add(far))))
	d.want("there again", "A void", "D void")
	d.look(void(a), b, record("C", 3, noon.Add(far)), record("E", 5, noon.Add(far)))
	d.want("as before", "E authorized")
}

// A company whose events the command does not take keeps no other company's waiting, and
// gets its own in order, also under another name. After a day they are dropped.
func TestBackoff(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	d := open(t, dir, noon)
	d.look()
	d.fail = func(event) error { return errNo }
	a, b := record("A", 1, noon.Add(far)), record("B", 2, noon.Add(far))
	d.look(a, b)
	d.work(d.now.Add(30 * time.Minute))
	a.Company = "Alpha"
	d.look(void(a), b)
	d.work(noon.Add(time.Hour))
	if len(d.told) != 0 || len(d.tried) != 2 {
		t.Fatalf("told %v, tried %v", d.told, d.tried)
	}
	for id, n := range d.tried {
		if n < 10 || n > 30 {
			t.Errorf("%s was tried %d times in an hour", id, n)
		}
	}
	d = open(t, dir, d.now)
	failing := true
	d.fail = func(e event) error {
		if failing && e.Company != "B" {
			return errNo
		}
		return nil
	}
	d.look(void(a), b)
	d.work(d.now.Add(time.Hour))
	if len(d.told) != 1 || d.told[0].Company != "B" || len(d.tried) != 2 {
		t.Errorf("told %v, tried %v", d.told, d.tried)
	}
	failing = false
	d.work(d.now.Add(longestPause))
	d.want("all", "B authorized", "A authorized", "Alpha void")

	d.fail = func(event) error { return errNo }
	d.look(void(a), void(b), record("C", 3, noon.Add(far)))
	d.look(void(a), b, void(record("C", 3, noon.Add(far))))
	d.work(d.now.Add(23 * time.Hour))
	if n := d.files.waiting(); n != 4 {
		t.Errorf("%d wait after 23 hours", n)
	}
	d.work(d.now.Add(2 * time.Hour))
	if n, dropped := d.files.waiting(), strings.Count(d.log.String(), "dropped the event"); n != 0 || dropped != 4 {
		t.Errorf("%d wait after a day, %d were dropped", n, dropped)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 {
		t.Errorf("%v, %v are left", names, err)
	}
	// Nobody could take what waited while no service ran.
	d.look(void(a), void(b))
	d = open(t, dir, d.now.Add(3*day))
	d.fail = func(event) error { return errNo }
	d.look(void(a), void(b))
	d.work(d.now.Add(30 * time.Minute))
	if d.files.waiting() != 1 {
		t.Error("it was dropped at once")
	}
}

// TestOrder lets companies, looks, failures, renames, restarts and the clock do what they
// like.
func TestOrder(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		dir := filepath.Join(t.TempDir(), "events")
		d := open(t, dir, noon)
		d.look()
		const companies = 5
		var (
			now    [companies]grant.Record
			next   = 100
			order  [companies][]string // the events of each, as they must come
			told   = map[string]int{}
			number = map[string]int{} // by Token Vault Key
			ids    = map[string]string{}
		)
		all := func() (list []grant.Record) {
			for _, one := range now {
				if one.TokenVaultKey != "" {
					list = append(list, one)
				}
			}
			r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			return list
		}
		restart := func() {
			fail := d.fail
			for _, e := range d.told {
				told[e.Header.ID]++
			}
			d = open(t, dir, d.now)
			d.fail = fail
			d.look(all()...)
		}
		var got [companies][]string
		take := func(e event) error {
			if r.IntN(3) == 0 {
				return errNo
			}
			var c int
			if _, err := fmt.Sscanf(e.Company, "company %d", &c); err != nil {
				t.Fatal(err)
			}
			if id, ok := ids[e.Header.ID]; ok && id != e.String() {
				t.Errorf("seed %d: %s is the ID of %s and %s", seed, e.Header.ID, id, e)
			}
			ids[e.Header.ID] = e.String()
			got[c] = append(got[c], string(e.Event))
			return nil
		}
		d.fail = take
		for range 200 {
			c := r.IntN(companies)
			switch r.IntN(6) {
			case 0: // a person signs in
				before := now[c]
				next++
				now[c] = record(fmt.Sprintf("company %d", c), next, noon.Add(1000*day))
				if before.Company != "" {
					now[c].Company = before.Company
				}
				number[now[c].TokenVaultKey] = c
				order[c] = append(order[c], "authorized")
				if before.Void {
					order[c] = append(order[c], "recovered")
				}
			case 1: // UPS refuses
				if now[c].TokenVaultKey != "" && !now[c].Void {
					now[c] = void(now[c])
					order[c] = append(order[c], "void")
				}
			case 2:
				if now[c].TokenVaultKey != "" {
					now[c].Company = fmt.Sprintf("company %d, %d", c, r.IntN(1000))
				}
			case 3:
				restart()
			case 4:
				d.work(d.now.Add(time.Duration(r.IntN(300)) * time.Second))
			case 5:
				d.now = d.now.Add(time.Duration(r.IntN(600)-200) * time.Second)
			}
			d.look(all()...)
		}
		d.fail = func(e event) error {
			for take(e) != nil {
			}
			return nil
		}
		d.work(d.now.Add(time.Hour))
		for c := range got {
			if !slices.Equal(got[c], order[c]) {
				t.Fatalf("seed %d: company %d got %q, want %q", seed, c, got[c], order[c])
			}
		}
		for _, e := range d.told {
			told[e.Header.ID]++
		}
		for id, n := range told {
			if n != 1 {
				t.Errorf("seed %d: %s was told %d times", seed, id, n)
			}
		}
	}
}

// Two companies that become one have their events in order from then on.
func TestLanesJoin(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "events"), noon)
	d.look()
	d.fail = func(e event) error { return errNo }
	a, b := record("A", 1, noon.Add(far)), record("B", 2, noon.Add(far))
	b.Application = "batch"
	d.look(a, b)
	d.work(d.now.Add(time.Minute))
	b.Company = "a"
	d.look(a, void(b))
	d.fail = func(e event) error {
		if e.Company == "A" {
			return errNo
		}
		return nil
	}
	d.work(d.now.Add(time.Hour))
	if len(d.told) != 0 {
		t.Errorf("told %v before the first event of the company", d.told)
	}
}

// A disk that is full keeps nothing from being told later, and none is told before it is
// kept.
func TestDiskFails(t *testing.T) {
	if os.Getuid() == 0 {
		// Root may write anywhere: a directory in the way is in everybody's.
		t.Log("as root")
	}
	dir := filepath.Join(t.TempDir(), "events")
	d := open(t, dir, noon)
	a := record("A", 1, noon.Add(far))
	d.look()
	block := filepath.Join(dir, toldFile)
	if err := os.Remove(block); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(block, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Look(context.Background(), Known{Records: []grant.Record{a}, Complete: true}, teller); err == nil {
		t.Fatal("no error")
	}
	d.want("not kept yet")
	if err := os.RemoveAll(block); err != nil {
		t.Fatal(err)
	}
	d.look(a)
	d.want("kept", "A authorized")
	d.look(a)
	d.want("nothing new")
}

func TestDamagedFiles(t *testing.T) {
	for _, text := range []string{"", "{", "[]", "null", `{"version":1}`, `{"version":1,"events":[]}`, `{"version":1,"grants":{"x":{}}}`} {
		dir := filepath.Join(t.TempDir(), "events")
		d := open(t, dir, noon)
		a, b := record("A", 1, noon.Add(far)), record("B", 2, noon.Add(far))
		d.look()
		d.look(a)
		d.look(a, b)
		first, second := d.files.path(1), d.files.path(2)
		if err := os.WriteFile(first, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		d = open(t, dir, noon)
		d.look(a, b)
		d.want("the rest", "B authorized")
		if !strings.Contains(d.log.String(), first+".1.damaged") {
			t.Errorf("%q: the log is %q", text, d.log.String())
		}
		if kept, err := os.ReadFile(first + ".1.damaged"); err != nil || string(kept) != text {
			t.Errorf("%q was set aside as %q, %v", text, kept, err)
		}
		// What a newer version wrote is left alone.
		if err := os.WriteFile(second, []byte(`{"version":2}`), 0o600); err != nil {
			t.Fatal(err)
		}
		d = open(t, dir, noon)
		if err := d.Look(context.Background(), Known{Records: []grant.Record{a}, Complete: true}, teller); err == nil || !strings.Contains(err.Error(), second) {
			t.Errorf("a newer file is %v", err)
		}
	}
}

func FuzzFiles(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "events")
	d := open(&testing.T{}, dir, noon)
	if err := d.Look(context.Background(), Known{Records: nil, Complete: true}, teller); err != nil {
		f.Fatal(err)
	}
	if err := d.Look(context.Background(), Known{
		Records: []grant.Record{record("A", 1, noon.Add(far)), void(record("B & C", 2, noon.Add(far)))}, Complete: true,
		Invitations: []invitation.Listed{held(invite("A", 1), "joe", noon)}, AllInvitations: true,
	}, teller); err != nil {
		f.Fatal(err)
	}
	read := func(path string) []byte {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		return text
	}
	f.Add(read(filepath.Join(dir, toldFile)), read(d.files.path(1)))
	f.Add([]byte(`{"version":1,"next":9223372036854775807,"grants":{}}`), []byte("{"))
	f.Add([]byte(`{"version":2}`), []byte(`{"version":1,"events":[{"text":"x"}]}`))
	f.Fuzz(func(t *testing.T, told, first []byte) {
		dir := t.TempDir()
		d := open(t, dir, noon)
		for path, text := range map[string][]byte{filepath.Join(dir, toldFile): told, d.files.path(1): first} {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		a := record("A", 1, noon.Add(far))
		if d.Look(context.Background(), Known{Records: []grant.Record{a}, Complete: true}, teller) != nil {
			return // a newer format
		}
		d.work(d.now.Add(time.Hour))
		d.told = nil
		d.look(void(a), record("D", 4, noon.Add(far)))
		d.work(d.now.Add(time.Hour))
		if !slices.ContainsFunc(d.told, func(e event) bool { return e.Company == "D" && e.Event == Authorized }) {
			t.Errorf("told %v", d.told)
		}
		if d.files.waiting() != 0 {
			t.Errorf("%d wait", d.files.waiting())
		}
	})
}
