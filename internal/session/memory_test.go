package session

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

// TestListFromMemoryIsAsTheFilesAre prevents that a service shows a company as it was: after
// each of many changes by another session, in a random order and with pauses of any length,
// a session that remembers lists exactly what one lists that has just been opened.
func TestListFromMemoryIsAsTheFilesAre(t *testing.T) {
	w := newWorld(t)
	open := func(remember bool) *Session {
		o := w.options
		o.Remember, o.Notice = remember, nil
		s, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	remembers := open(true)
	random := rand.New(rand.NewPCG(3, 4))
	name := func() string { return fmt.Sprintf("Company %d", random.IntN(8)) }
	inPlace := func(part string) error {
		found, err := filepath.Glob(filepath.Join(w.dir, "state", part))
		if err != nil || len(found) == 0 {
			return err
		}
		path := found[random.IntN(len(found))]
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if random.IntN(3) == 0 {
			return os.Truncate(path, int64(len(text)/2))
		}
		return os.WriteFile(path, append(text, ' '), 0o600)
	}
	granted := map[string]bool{}
	var restore []string // files that can't be used because of their rights
	ctx := t.Context()
	changes := map[string]func(text string) error{
		"add": func(text string) error { w.add(name(), text); return nil },
		"grant": func(string) error {
			if one := name(); !granted[one] {
				granted[one] = true
				w.grant(one, "rating", "lab")
			}
			return nil
		},
		"note": func(text string) error {
			err := w.Vault.Note(ctx, grant.ID{Company: name(), Application: "rating", Environment: "lab"}, func(l *grant.Local) { l.LastError = &grant.LastError{Message: text} })
			_ = err // there may be none
			return nil
		},
		"event": func(string) error {
			return w.Companies.Note(ctx, grant.Event{Time: time.Now(), What: grant.EventRevoked, ID: grant.ID{Company: name()}})
		},
		"rename":                        func(string) error { return w.Companies.Rename(ctx, name(), name(), time.Now()) },
		"forget":                        func(string) error { return w.Companies.Remove(ctx, name()) },
		"a company's file in its place": func(string) error { return inPlace("companies/*.json") },
		"a history in its place":        func(string) error { return inPlace("companies/*.log") },
		"a record in its place":         func(string) error { return inPlace("records/*.json") },
		"a record's rights": func(string) error {
			found, err := filepath.Glob(filepath.Join(w.dir, "state", "records", "*.json"))
			if err != nil || len(found) == 0 {
				return err
			}
			restore = append(restore, found[0])
			return os.Chmod(found[0], 0o622)
		},
	}
	var kinds []string
	for kind := range changes {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	for i := range 400 {
		for _, path := range restore {
			_ = os.Chmod(path, 0o600)
		}
		restore = nil
		kind := kinds[random.IntN(len(kinds))]
		if err := changes[kind](fmt.Sprintf("text %d", i)); err != nil {
			t.Logf("%s: %v", kind, err) // such as a damaged file: what counts is what is listed
		}
		if random.IntN(12) == 0 {
			time.Sleep(110 * time.Millisecond) // from here on files are remembered
		}
		for range 2 {
			got, gotErr := remembers.Listed(ctx, "")
			want, wantErr := open(false).Listed(ctx, "")
			for _, list := range []Listing{got, want} {
				for j := range list.Records {
					list.Records[j].Revision = 0 // each store has its own
				}
			}
			if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) || !reflect.DeepEqual(got.Records, want.Records) || len(got.Problems) != len(want.Problems) {
				t.Fatalf("change %d, %s: from memory\n%v %v\nthe files say\n%v %v", i, kind, got, gotErr, want, wantErr)
			}
		}
	}
}
