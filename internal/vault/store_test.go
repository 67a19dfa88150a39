package vault_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
)

// store is the store itself, as a new process has it.
func (w *world) store() vault.Store {
	if w.memory != nil {
		return w.memory.With(w.home())
	}
	return w.disk()
}

// Two processes that read the same record must not both change it: the second would
// undo what the first did.
func TestStoreChangesOnlyWhatWasRead(t *testing.T) {
	zeta := acme
	zeta.Company = "Zeta"
	type store = vault.Store
	for name, change := range map[string]func(s store, r grant.Record) error{
		"Commit": func(s store, r grant.Record) error {
			_, err := s.Commit(t.Context(), vault.Change{Record: r})
			return err
		},
		"Commit of an item": func(s store, r grant.Record) error {
			_, err := s.Commit(t.Context(), vault.Change{Record: r, Item: []byte("late")})
			return err
		},
		"Commit of the first": func(s store, r grant.Record) error {
			_, err := s.Commit(t.Context(), vault.Change{Record: r, Item: []byte("late"), First: true})
			return err
		},
		"Drop":         func(s store, r grant.Record) error { return s.Drop(t.Context(), r) },
		"Rename":       func(s store, r grant.Record) error { _, err := s.Rename(t.Context(), r, "Zeta"); return err },
		"FinishRename": func(s store, r grant.Record) error { _, err := s.FinishRename(t.Context(), r); return err },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			authorize(t, w.open(), grantOf(acme, keyA, 1))
			s := w.store() // a revision is known to the process that read it
			read, err := s.Grant(t.Context(), acme.Slot())
			check(t, err)
			check(t, w.open().Note(t.Context(), acme, func(l *grant.Local) { l.Void = true }))
			none := read
			none.Revision = 0 // as where no record was found
			for _, r := range []grant.Record{read, none} {
				if err := change(s, r); !errors.Is(err, grant.ErrConflict) {
					t.Errorf("a change of revision %d where there is another: %v", r.Revision, err)
				}
			}
			got, err := s.Grant(t.Context(), acme.Slot())
			if err != nil || !got.Void {
				t.Errorf("there is %+v, %v", got, err)
			}
			wantWhole(t, mustGet(t, w.open(), acme))
			if _, err := w.store().Grant(t.Context(), zeta.Slot()); !errors.Is(err, grant.ErrNoGrant) {
				t.Errorf("under another name: %v", err)
			}
			check(t, change(s, got))
		})
	}
	t.Run("a record that is gone", func(t *testing.T) {
		w := newWorld(t)
		authorize(t, w.open(), grantOf(acme, keyA, 1))
		s := w.store()
		read, err := s.Grant(t.Context(), acme.Slot())
		check(t, err)
		check(t, w.open().Delete(t.Context(), acme))
		if _, err := s.Commit(t.Context(), vault.Change{Record: read}); !errors.Is(err, grant.ErrConflict) {
			t.Errorf("it was brought back: %v", err)
		}
		w.wantNothing()
	})
}

// A home that does not take the item keeps the record as it was.
func TestStoreCommitsNoRecordWithoutItsItem(t *testing.T) {
	w := newWorld(t)
	g := authorize(t, w.open(), grantOf(acme, keyA, 1))
	refuse := func(op, _ string) error {
		if op == "put" {
			return errLocked
		}
		return nil
	}
	home := &double{Home: w.home(), before: refuse}
	wantHomeError(t, w.open(home).Put(t.Context(), grantOf(acme, keyA, 2), 1, nil))
	sameJSON(t, mustGet(t, w.open(), acme), g)
	record, err := w.open().Record(t.Context(), acme)
	check(t, err)
	sameJSON(t, record, g.Record)
}

// What an attempt is from its claim until it is forgotten.
func TestStoreKeepsAttempts(t *testing.T) {
	w := newWorld(t)
	s := w.store()
	first, second, other := login(acme, keyA), login(acme, keyA), login(apex, keyB)
	second.Generation = 2
	for _, j := range []*grant.Journal{&first, &second, &other} {
		j.Recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
		check(t, s.Claim(t.Context(), j))
	}
	if first.Nonce == second.Nonce || first.Nonce == "" || first.Path == "" {
		t.Errorf("the nonces are %q and %q, the path is %q", first.Nonce, second.Nonce, first.Path)
	}
	if _, err := w.store().Sealed(t.Context(), first); !errors.Is(err, grant.ErrNoAnswer) {
		t.Errorf("before there is an answer: %v", err)
	}
	check(t, s.Seal(t.Context(), &first, []byte("sealed")))
	if text, err := w.store().Sealed(t.Context(), first); err != nil || string(text) != "sealed" {
		t.Errorf("sealed is %q, %v", text, err)
	}
	if _, err := w.store().Sealed(t.Context(), second); !errors.Is(err, grant.ErrNoAnswer) {
		t.Errorf("the other attempt's answer: %v", err)
	}
	want := func(prefix string, want ...int64) {
		t.Helper()
		news, err := w.store().News(t.Context(), prefix)
		var got []int64
		for _, n := range news {
			if still, err := w.store().Still(t.Context(), n); n.Err != nil || err != nil || !still {
				t.Errorf("news %+v, %v", n, err)
			}
			got = append(got, n.Journal.Generation)
		}
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("news of %q are of the generations %v, %v; want %v", prefix, got, err, want)
		}
	}
	want("", 1, 1, 2)
	want(acme.Slot(), 1, 2)
	news, err := w.store().News(t.Context(), acme.Slot())
	check(t, err)
	check(t, s.Settle(t.Context(), acme.Slot(), keyA, 2))
	want("", 1)
	if still, err := w.store().Still(t.Context(), news[0]); err != nil || still {
		t.Errorf("what is settled is still news: %t, %v", still, err)
	}
	// What made the grant that stands is no news, and helps where its item is lost.
	if found, err := w.store().Attempts(t.Context(), acme.Slot(), keyA); err != nil || len(found) == 0 || found[0].Nonce != second.Nonce || found[0].News {
		t.Errorf("the attempts are %+v, %v", found, err)
	}
	if found, err := w.store().Attempts(t.Context(), acme.Slot(), ""); err != nil || len(found) > 0 {
		t.Errorf("the attempts of no key are %+v, %v", found, err)
	}
	check(t, s.Forget(t.Context(), acme.Slot(), keyA, true))
	if found, err := w.store().Attempts(t.Context(), acme.Slot(), keyA); err != nil || len(found) > 0 {
		t.Errorf("the attempts are %+v, %v", found, err)
	}
	if err := s.Mark(t.Context(), &second); err == nil {
		t.Error("an attempt that is gone was marked")
	}
	if err := s.Seal(t.Context(), &second, []byte("sealed")); err == nil {
		t.Error("an answer was sealed into an attempt that is gone")
	}
	want("", 1)
}

// A lock that is being looked at isn't held, and is taken once nobody looks.
func TestStoreLocks(t *testing.T) {
	w := newWorld(t)
	s := w.store()
	release, held, _, err := s.Lock(t.Context(), "a", false)
	if err != nil || held {
		t.Fatalf("held %t, %v", held, err)
	}
	if _, held, holder, err := w.store().Lock(t.Context(), "a", false); err != nil || !held || holder == 0 {
		t.Errorf("held %t by %d, %v", held, holder, err)
	}
	if _, free, err := w.store().Look(t.Context(), "a"); err != nil || free {
		t.Errorf("free %t, %v", free, err)
	}
	release()
	done, free, err := w.store().Look(t.Context(), "a")
	if err != nil || !free {
		t.Fatalf("free %t, %v", free, err)
	}
	doneToo, free, err := w.store().Look(t.Context(), "a")
	if err != nil || !free {
		t.Fatalf("two can't look at once: %t, %v", free, err)
	}
	doneToo()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, _, err := w.store().Lock(ctx, "a", true); err == nil {
		t.Error("it was taken while somebody looked, by a call that was over")
	}
	taken := make(chan func())
	go func() {
		release, _, _, err := w.store().Lock(t.Context(), "a", true)
		if err != nil {
			t.Error(err)
			release = func() {}
		}
		taken <- release
	}()
	done()
	(<-taken)()
	if _, free, err := w.store().Look(t.Context(), "a"); err != nil || !free {
		t.Errorf("free %t, %v", free, err)
	}
}
