package keys

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/safefile"
)

// Keys come along with what they cover and when they were used. Another key of a name keeps all
// of them where they are.
func TestMove(t *testing.T) {
	ctx := t.Context()
	store := func() Store {
		path := filepath.Join(t.TempDir(), "keys.json")
		return File(path, &safefile.Places{Trusted: []string{filepath.Dir(path)}})
	}
	entry := func(name string, digest byte) Entry {
		return Entry{Digest: Digest{digest}, Key: Key{Name: name, Added: start, Scope: Scope{Rights: []Right{Token}, Companies: []string{"6f1c"}}}}
	}
	from, to := store(), store()
	for _, e := range []Entry{entry("shop", 1), entry("label", 2)} {
		if err := from.Add(ctx, e); err != nil {
			t.Fatal(err)
		}
	}
	used := start.Add(time.Hour)
	if err := from.Use(ctx, map[Digest]time.Time{{1}: used}); err != nil {
		t.Fatal(err)
	}
	if err := to.Add(ctx, entry("Label", 9)); err != nil {
		t.Fatal(err)
	}
	if err := Move(ctx, from, to); !errors.As(err, new(*ExistsError)) {
		t.Fatalf("over another key: %v", err)
	}
	if left, err := from.List(ctx); err != nil || len(left) != 2 {
		t.Fatalf("left are %v, %v", left, err)
	}
	if err := to.Remove(ctx, "Label"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // what came before it was refused comes once
		if err := Move(ctx, from, to); err != nil {
			t.Fatal(err)
		}
	}
	for digest, name := range map[byte]string{1: "shop", 2: "label"} {
		e, err := to.Find(ctx, Digest{digest})
		if err != nil || e.Name != name || len(e.Companies) != 1 || digest == 1 && !e.Used.Equal(used) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
	if left, err := from.List(ctx); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}
