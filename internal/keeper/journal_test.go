package keeper_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

// endAt is a wire that ends the process there.
func endAt(m moment) wire {
	return then(m, func() { panic(ended{}) })
}

// seal lets a refresh be granted and end with the answer sealed and nothing
// else done.
func (w *world) seal() {
	w.t.Helper()
	p := w.start(endAt(moment{call: "Seal", after: true}))
	if !p.run(func() { _, _ = p.Refresh(w.t.Context(), w.id, always) }) {
		w.t.Fatal("the process was not ended")
	}
	if d := w.disk(); len(d.journals) != 1 || !d.journals[0].Answered || d.state != grant.Interrupted {
		w.t.Fatalf("%s, journals %+v; want a sealed answer", d, d.journals)
	}
}

// home is the home of the world's secrets, for what no process does.
func (w *world) home() vault.Home { return w.start(nil).home }

// A home that is locked between the request and the write costs nothing: the
// answer waits in the journal, and no other is asked for.
func TestSealedAnswerIsPutInPlaceByALaterProcess(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"Put", "home.Get item", "home.Put item"} {
		t.Run(call, func(t *testing.T) {
			w := newWorld(t)
			before := w.authorize()
			w.pass(2 * time.Hour)
			sent := false
			locked := func(m moment) error {
				sent = sent || m.call == "Seal"
				if sent && m == (moment{call: call}) {
					return errLocked
				}
				return nil
			}
			for range 2 { // it may stay locked for a while
				_, err := w.start(locked).Token(t.Context(), w.id, 0)
				wantError(errLocked)(t, err)
				d := w.disk()
				w.wantKept(before, d)
				if d.state != grant.Interrupted || len(d.journals) != 1 || !d.journals[0].Answered {
					t.Fatalf("%s, journals %+v; want a sealed answer", d, d.journals)
				}
				w.pass(time.Minute)
			}
			g, err := w.start(nil).Token(t.Context(), w.id, 0)
			if err != nil || !w.works(g.AccessToken) {
				t.Fatalf("the token of the sealed answer: %v", err)
			}
			if n := w.front.counted("refresh"); n != 1 {
				t.Errorf("%d requests were sent, want the one whose answer was sealed", n)
			}
			d := w.disk()
			w.wantRenewed(before, d)
			w.wantSettled(d, grant.Authorized)
			if !d.Requested.Equal(before.Requested.Add(2 * time.Hour)) {
				t.Errorf("the token counts from %s, not from its own request", d.Requested)
			}
			w.wantNextRefresh()
		})
	}
}

// A write that timed out may still happen. Until the process is no more nobody
// else may write there; what comes after finds either what it wrote or the
// sealed answer.
func TestAWriteThatTimedOut(t *testing.T) {
	t.Parallel()
	timedOut := &vault.HomeError{Home: "file", What: "No answer.", TimedOut: true}
	for _, landed := range []bool{true, false} {
		name := "and never happened"
		if landed {
			name = "and happened late"
		}
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			before := w.authorize()
			w.pass(2 * time.Hour)
			p := w.start(func(m moment) error {
				if m == (moment{"home.Put item", landed}) {
					return timedOut
				}
				return nil
			})
			for range 2 {
				_, err := p.Token(t.Context(), w.id, 0)
				wantTimedOut(t, err)
				w.pass(time.Minute)
			}

			runtime.GC() // a lock that is not referred to any more would be let go
			runtime.GC()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if _, err := w.start(nil).Token(ctx, w.id, 0); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v, want that the lock is held as long as the process is there", err)
			}
			runtime.KeepAlive(p)

			// The process's locks end with it, and are not in a copy.
			w.place = w.clone(t)
			if g, err := w.start(nil).Token(t.Context(), w.id, 0); err != nil || !w.works(g.AccessToken) {
				t.Fatalf("the token: %v", err)
			}
			if n := w.front.counted("refresh"); n != 1 {
				t.Errorf("%d requests were sent, want 1", n)
			}
			d := w.disk()
			w.wantRenewed(before, d)
			w.wantSettled(d, grant.Authorized)
			w.wantNextRefresh()
		})
	}
}

// clone is a copy of a place, without locks.
func (p place) clone(t *testing.T) place {
	t.Helper()
	if p.memory != nil {
		return place{memory: p.memory.Clone()}
	}
	disk := tempDir(t)
	if err := os.CopyFS(disk, os.DirFS(p.dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(disk, "vault"), 0o700); err != nil {
		t.Fatal(err)
	}
	return place{dir: disk}
}

func wantTimedOut(t *testing.T, err error) {
	t.Helper()
	var home *vault.HomeError
	if !errors.As(err, &home) || !home.TimedOut {
		t.Errorf("error %v, want that the home gave no answer", err)
	}
}

// A journal that the item has overtaken is of no use, and a record that the
// item has overtaken is written again.
func TestStaleJournalIsDroppedAndTheRecordHealed(t *testing.T) {
	t.Parallel()
	for _, m := range []moment{
		{call: "home.Put item", after: true}, // before the record
		{call: "Put", after: true},           // before the journal
	} {
		t.Run(m.String(), func(t *testing.T) {
			w := newWorld(t)
			before := w.authorize()
			w.pass(2 * time.Hour)
			p := w.start(endAt(m))
			if !p.run(func() { _, _ = p.Refresh(t.Context(), w.id, always) }) {
				t.Fatal("the process was not ended")
			}
			w.pass(time.Second)
			var result keeper.Result
			var err error
			sent := w.requests(func() { result, err = w.start(nil).Refresh(t.Context(), w.id, keeper.Need{}) })
			if sent != 0 || err != nil || result.Refreshed || !w.works(result.AccessToken) {
				t.Fatalf("%d requests were sent, refreshed %t, %v", sent, result.Refreshed, err)
			}
			d := w.disk()
			w.wantRenewed(before, d)
			w.wantSettled(d, grant.Authorized)
			w.wantNextRefresh()
		})
	}
}

// A journal of an earlier grant of the company says nothing about this one.
func TestJournalOfAnotherTokenVaultKeyIsDropped(t *testing.T) {
	t.Parallel()
	for _, answered := range []bool{false, true} {
		w := newWorld(t)
		before := w.authorize()
		w.pass(time.Second)
		j := grant.Journal{ID: w.id, Purpose: grant.Refreshing, TokenVaultKey: "0B9F2C55-3C21-4F7E-B122-8BF55EA80CDA",
			Generation: 7, Attempt: 1, Fate: grant.Fate{Time: w.clock.Now()}, Home: "file", Recipient: before.JournalRecipient}
		v := w.start(nil).vault
		if err := v.Claim(t.Context(), &j); err != nil {
			t.Fatal(err)
		}
		if answered {
			if err := v.Seal(t.Context(), &j, nil, []byte(`{"status":200,"body":"e30="}`)); err != nil {
				t.Fatal(err)
			}
		}
		w.wantNextRefresh()
		if d := w.disk(); d.Generation != 2 {
			t.Errorf("answered %t: %s", answered, d)
		}
	}
}

// An item that is gone, as a keychain can be reset, is made again out of the
// sealed answer.
func TestVanishedItemIsRescuedFromASealedAnswer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		call func(p *process, w *world) (grant.Grant, error)
		age  time.Duration // of the access token at the refresh
	}{
		{"by refresh", func(p *process, w *world) (grant.Grant, error) {
			result, err := p.Refresh(w.t.Context(), w.id, keeper.Need{})
			return result.Grant, err
		}, 2 * time.Hour},
		{"by token", func(p *process, w *world) (grant.Grant, error) { return p.Token(w.t.Context(), w.id, 0) }, 2 * time.Hour},
		{"by token, though the record says that its access token is good", func(p *process, w *world) (grant.Grant, error) {
			return p.Token(w.t.Context(), w.id, 0)
		}, time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			before := w.authorize()
			w.pass(tt.age)
			w.seal()
			if err := w.home().Delete(t.Context(), before.TokenVaultKey); err != nil {
				t.Fatal(err)
			}
			var g grant.Grant
			var err error
			sent := w.requests(func() { g, err = tt.call(w.start(nil), w) })
			if sent != 0 || err != nil || !w.works(g.AccessToken) {
				t.Fatalf("%d requests were sent, %v", sent, err)
			}
			d := w.disk()
			w.wantRenewed(before, d)
			w.wantSettled(d, grant.Authorized)
			w.wantNextRefresh()
		})
	}
}

// An item that vanished is made again of the latest answer, which the journal keeps
// until the next one is sealed: nothing is sent for that, and what an exchange left open
// stays open.
func TestVanishedItemIsMadeOfTheLatestAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.authorize()
	for refreshes := range 3 {
		want := w.disk().item
		if err := w.home().Delete(t.Context(), want.TokenVaultKey); err != nil {
			t.Fatal(err)
		}
		sent := w.requests(func() {
			if g, err := w.start(nil).Token(t.Context(), w.id, 0); err != nil || g.AccessToken != want.AccessToken {
				t.Fatalf("after %d refreshes: generation %d, %v", refreshes, g.Generation, err)
			}
		})
		if d := w.disk(); sent != 0 || d.item.RefreshToken != want.RefreshToken || d.RefreshCount != want.RefreshCount || d.TokenVaultKey != before.TokenVaultKey {
			t.Errorf("after %d refreshes: %d requests were sent, %s", refreshes, sent, d)
		}
		w.pass(time.Second)
		w.wantNextRefresh()
	}
	// One that is older than its record, as from a backup, counts for nothing either.
	w.pass(time.Second)
	old, err := w.home().Get(t.Context(), before.TokenVaultKey)
	if err != nil {
		t.Fatal(err)
	}
	w.wantNextRefresh()
	if err := w.home().Put(t.Context(), before.TokenVaultKey, 0, old); err != nil {
		t.Fatal(err)
	}
	w.pass(2 * time.Hour)
	if g, err := w.start(nil).Token(t.Context(), w.id, 0); err != nil || !w.works(g.AccessToken) {
		t.Fatalf("with an older item: %v", err)
	}

	w.pass(2 * time.Hour)
	w.lose()
	if err := w.home().Delete(t.Context(), before.TokenVaultKey); err != nil {
		t.Fatal(err)
	}
	var pending *keeper.PendingError
	sent := w.requests(func() {
		if _, err := w.start(nil).Refresh(t.Context(), w.id, always); !errors.As(err, &pending) {
			t.Errorf("error %v, want that the refresh is pending", err)
		}
	})
	if d := w.disk(); sent != 0 || d.state != grant.Interrupted || d.item.AccessToken == "" {
		t.Errorf("%d requests were sent, %s", sent, d)
	}
	if n := w.outcomes(sandbox.Reused); n != 0 {
		t.Errorf("%d double spends", n)
	}
}

// A loss of power can take back item and record of one refresh while the next one has
// begun: the sealed answer is put in place, and what was sent with it is not sent again.
func TestAnAnswerBehindAnAttemptThatUsedIt(t *testing.T) {
	onDisk(t, "what lies in its directories is changed")
	t.Parallel()
	w := newWorld(t)
	w.authorize()
	keep := map[string][]byte{}
	for _, part := range []string{"records", "vault"} {
		err := filepath.WalkDir(filepath.Join(w.dir, part), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				keep[path], err = os.ReadFile(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	w.pass(time.Second)
	w.wantNextRefresh()
	w.pass(time.Second)
	w.lose()
	for path, data := range keep {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sent := w.requests(func() {
		var pending *keeper.PendingError
		if _, err := w.start(nil).Refresh(t.Context(), w.id, always); !errors.As(err, &pending) {
			t.Errorf("error %v, want that the refresh is pending", err)
		}
	})
	if d := w.disk(); sent != 0 || d.item.Generation != 2 || d.Generation != 2 || d.state != grant.Interrupted {
		t.Errorf("%d requests were sent, %s", sent, d)
	}
	if n := w.outcomes(sandbox.Reused); n != 0 {
		t.Errorf("%d double spends", n)
	}
}

// Where there is nothing to make it of, the error says that it is gone, nothing
// is sent, and what the journal has is kept.
func TestVanishedItem(t *testing.T) {
	t.Parallel()
	noJournal := (*world).loseJournalsNow
	for _, tt := range []struct {
		name  string
		leave func(w *world)
	}{
		{"without journal", noJournal},
		{"with a journal without answer", func(w *world) {
			noJournal(w)
			w.lose()
		}},
		{"with a journal whose key is gone too", func(w *world) {
			w.seal()
			if err := w.home().Delete(w.t.Context(), w.disk().TokenVaultKey+"/journal"); err != nil {
				w.t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			before := w.authorize()
			tt.leave(w)
			if err := w.home().Delete(t.Context(), before.TokenVaultKey); err != nil {
				t.Fatal(err)
			}
			journals := len(w.disk().journals)
			sent := w.requests(func() {
				_, err := w.start(nil).Refresh(t.Context(), w.id, always)
				wantError(grant.ErrNoSecrets)(t, err)
				_, err = w.start(nil).Token(t.Context(), w.id, 0)
				wantError(grant.ErrNoSecrets)(t, err)
			})
			if sent != 0 {
				t.Errorf("%d requests were sent", sent)
			}
			if d := w.disk(); len(d.journals) != journals || d.TokenVaultKey != before.TokenVaultKey {
				t.Errorf("%s, want all kept", d)
			}
			w.authorize()
			w.wantNextRefresh()
		})
	}
}

// damage spoils the sealed answer.
func (w *world) damage() {
	w.t.Helper()
	if w.memory != nil {
		w.memory.DamageAnswer(w.disk().journals[0].Nonce)
		return
	}
	path := w.disk().journals[0].Path
	data, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	at := bytes.LastIndex(data, []byte("age-encryption.org"))
	if at < 0 {
		w.t.Fatal("there is no sealed answer in the journal")
	}
	data[at+400] ^= 0xFF
	if err := os.WriteFile(path, data, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// A refresh that an earlier process left without an answer that can be used is
// of unknown fate, whatever is in its journal, and so it is told; also where the
// clock was set back since, for no longer than retryUnknownAfter from then.
func TestUnknownFateLeftByAnEarlierProcess(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		leave func(*world)
		what  string // in the error
	}{
		{"cut off while it waited", func(w *world) {
			p := w.start(endAt(moment{call: "send refresh", after: true}))
			p.run(func() { _, _ = p.Refresh(w.t.Context(), w.id, always) })
		}, "cut off"},
		{"a sealed answer that is damaged", func(w *world) { w.seal(); w.damage() }, "completely"},
		{"a sealed answer that is a web page", func(w *world) {
			if err := w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Body: "html", Times: 1}); err != nil {
				w.t.Fatal(err)
			}
			w.seal()
		}, "web page"},
		{"an answer that was lost", (*world).lose, "lost"},
		{"an answer that was lost, on a disk that was full by then", func(w *world) {
			if err := w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Drop: "after", Times: 1}); err != nil {
				w.t.Fatal(err)
			}
			_, err := w.start(func(m moment) error {
				if m == (moment{call: "Mark"}) {
					return errFull
				}
				return nil
			}).Refresh(w.t.Context(), w.id, always)
			checkKind(w.t, err, ups.Lost)
		}, "cut off"},
	}
	for _, back := range []time.Duration{0, 1000 * time.Hour} {
		all := newWorld(t)
		for _, tt := range tests {
			name := tt.name
			if back > 0 {
				name += ", the clock set back"
			}
			t.Run(name, func(t *testing.T) {
				w := all.of(t, name)
				before := w.authorize()
				w.pass(time.Second)
				tt.leave(w)
				w.clock.move(-back)
				defer w.clock.move(back)

				var err error
				sent := w.requests(func() {
					for _, wait := range []time.Duration{retryUnknownAfter, 1} {
						_, err = w.start(nil).Refresh(t.Context(), w.id, always)
						var pending *keeper.PendingError
						if !errors.As(err, &pending) || pending.Again != wait || !strings.Contains(pending.What, tt.what) {
							t.Errorf("error %v, want that %q happened and to wait for %s", err, tt.what, wait)
						}
						w.pass(wait - 1)
					}
				})
				if sent != 0 {
					t.Errorf("%d requests were sent too early", sent)
				}
				w.pass(1)
				sent = w.requests(func() { _, err = w.start(nil).Refresh(t.Context(), w.id, always) })
				if sent != 1 {
					t.Errorf("%d requests were sent, want 1", sent)
				}
				w.wantVoid(before, err)
				if err == nil || !strings.Contains(err.Error(), "attempt 2") {
					t.Errorf("the error does not tell of the first attempt: %v", err)
				}
			})
		}
	}
}
