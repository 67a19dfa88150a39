package keeper_test

import (
	"bytes"
	"context"
	"errors"
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

			// The process's locks end with it, and are not on a copy of the disk.
			disk := tempDir(t)
			if err := os.CopyFS(disk, os.DirFS(w.dir)); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(disk, "vault"), 0o700); err != nil {
				t.Fatal(err)
			}
			w.dir = disk
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
			Generation: 7, Attempt: 1, Time: w.clock.Now(), Home: "file", Recipient: before.JournalRecipient}
		v := w.start(nil).vault
		if err := v.Begin(t.Context(), &j); err != nil {
			t.Fatal(err)
		}
		if answered {
			if err := v.Seal(&j, []byte(`{"status":200,"body":"e30="}`)); err != nil {
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

// Where there is nothing to make it of, the error says that it is gone, nothing
// is sent, and what the journal has is kept.
func TestVanishedItem(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		leave func(w *world)
	}{
		{"without journal", func(*world) {}},
		{"with a journal without answer", (*world).lose},
		{"with a journal whose key is gone too", func(w *world) {
			w.seal()
			if err := w.home().Delete(w.t.Context(), w.disk().TokenVaultKey+"/journal"); err != nil {
				w.t.Fatal(err)
			}
		}},
		{"with an answer that has no refresh token", func(w *world) {
			if err := w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Omit: []string{"refresh_token"}, Times: 1}); err != nil {
				w.t.Fatal(err)
			}
			w.seal()
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

// damage spoils the sealed answer on the disk.
func (w *world) damage() {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(w.dir, "journals", "*.journal"))
	if err != nil || len(files) != 1 {
		w.t.Fatalf("%d journals: %v", len(files), err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		w.t.Fatal(err)
	}
	at := bytes.Index(data, []byte("age-encryption.org"))
	if at < 0 {
		w.t.Fatal("there is no sealed answer in the journal")
	}
	data[at+400] ^= 0xFF
	if err := os.WriteFile(files[0], data, 0o600); err != nil {
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
			begun := 0
			_, err := w.start(func(m moment) error {
				if m == (moment{call: "Begin"}) {
					if begun++; begun > 1 {
						return errFull
					}
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
