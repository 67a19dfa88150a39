package keeper_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/vault"
)

// A revoke that was cut off right after its tombstone has begun: the journals that still
// lie there make no grant of it again.
func TestATombstoneIsNotMadeAGrantAgain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		prepare func(*world)
	}{
		{"after the sign-in", func(*world) {}},
		{"beside a sealed answer", (*world).seal},
		{"beside an attempt of unknown fate", (*world).lose},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.authorize()
			w.pass(2 * time.Hour)
			tt.prepare(w)
			p := w.start(nil)
			record, err := p.vault.Record(t.Context(), w.id)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.vault.Note(t.Context(), record.ID, func(l *grant.Local) { l.Removing = true }); err != nil {
				t.Fatal(err)
			}
			w.pass(2 * time.Hour)
			sent := w.requests(func() {
				if _, err := w.start(nil).Refresh(t.Context(), w.id, keeper.Need{}); !errors.Is(err, grant.ErrNoGrant) {
					t.Errorf("error %v, want that there is no such grant", err)
				}
			})
			if sent != 0 {
				t.Errorf("%d requests were sent", sent)
			}
			if _, err := w.start(nil).vault.FinishRemovals(t.Context()); err != nil {
				t.Error(err)
			}
			if d := w.disk(); d.state != "" || len(d.journals) != 0 {
				t.Errorf("after the removal: %s", d)
			}
			w.wantItems()
		})
	}
}

// An answer without a new refresh token leaves the old one: where the item is lost then, or
// older than its record, it is made again of that answer all the same.
func TestAnItemIsMadeAgainOfAnAnswerWithoutARefreshToken(t *testing.T) {
	t.Parallel()
	for _, older := range []bool{false, true} {
		w := newWorld(t)
		before := w.authorize()
		w.pass(2 * time.Hour)
		old, err := w.home().Get(t.Context(), before.TokenVaultKey)
		if err != nil {
			t.Fatal(err)
		}
		w.front.set(func() {
			w.front.change = func(_ string, a *answer) {
				a.fields(t, func(f map[string]any) { delete(f, "refresh_token") })
			}
		})
		if _, err := w.start(nil).Refresh(t.Context(), w.id, always); err != nil {
			t.Fatal(err)
		}
		w.front.set(func() { w.front.change = nil })
		want := w.disk().item
		if err := w.home().Delete(t.Context(), before.TokenVaultKey); err != nil {
			t.Fatal(err)
		}
		if older {
			if err := w.home().Put(t.Context(), before.TokenVaultKey, 0, old); err != nil {
				t.Fatal(err)
			}
		}
		sent := w.requests(func() {
			g, err := w.start(nil).Token(t.Context(), w.id, 0)
			if err != nil || g.AccessToken != want.AccessToken || g.RefreshToken != want.RefreshToken || g.Generation != want.Generation {
				t.Errorf("older %t: generation %d of %d, %v", older, g.Generation, want.Generation, err)
			}
		})
		if sent != 0 {
			t.Errorf("older %t: %d requests were sent", older, sent)
		}
	}
}

// Details of an attempt that are damaged after its answer was sealed are damage: the slot
// is no empty one, and the token is not sent again without a word.
func TestDamagedDetailsBesideASealedAnswerAreTold(t *testing.T) {
	onDisk(t, "what lies in its directories is changed")
	t.Parallel()
	w := newWorld(t)
	before := w.authorize()
	w.pass(2 * time.Hour)
	w.seal()
	path := filepath.Join(w.dir, "journals", "slots", before.TokenVaultKey)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(data[16<<10:], []byte(`"purpose"`))
	if at < 0 {
		t.Fatal("the second slot has no details")
	}
	data[16<<10+at] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	sent := w.requests(func() {
		if _, err := w.start(nil).Refresh(t.Context(), w.id, always); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("error %v, want that the journal is damaged", err)
		}
	})
	if sent != 0 {
		t.Errorf("%d requests were sent", sent)
	}
	aside, err := os.ReadFile(path + ".damaged")
	if err != nil || !bytes.Equal(aside, data) {
		t.Errorf("it is not set aside: %v", err)
	}
}

// A kept answer of a company's earlier grant goes with the company to its new name.
func TestAKeptAnswerOfAnEarlierGrantIsRenamedToo(t *testing.T) {
	onDisk(t, "what lies in its directories is changed")
	t.Parallel()
	w := newWorld(t)
	before := w.authorize()
	w.pass(10 * time.Minute)
	damageRefreshToken(w)
	if _, err := w.start(nil).Refresh(t.Context(), w.id, always); !errors.As(err, new(*keeper.UnreadError)) {
		t.Fatal(err)
	}
	w.front.set(func() { w.front.change = nil })
	w.pass(retryUnknownAfter)
	_, _ = w.start(nil).Refresh(t.Context(), w.id, always)
	after := w.authorize()
	w.wantItems(after.TokenVaultKey, after.TokenVaultKey+"/journal", before.TokenVaultKey+"/journal")
	if err := w.start(nil).Rename(t.Context(), w.id, "Other Name"); err != nil {
		t.Fatal(err)
	}
	w.id.Company = "Other Name"
	// Nor does a start of the system bring it back under the old one.
	if err := os.Remove(filepath.Join(w.dir, "journals", ".boot")); err != nil {
		t.Fatal(err)
	}
	kept, problems, err := w.start(nil).vault.Kept(t.Context())
	if err != nil || len(problems) > 0 || len(kept) != 1 || kept[0].Company != "Other Name" {
		t.Errorf("kept after the rename: %+v, %v %v", kept, problems, err)
	}
	w.wantNoOrphans()
	if err := w.start(nil).Revoke(t.Context(), w.id); err != nil {
		t.Fatal(err)
	}
	w.wantItems()
	if left, _ := filepath.Glob(filepath.Join(w.dir, "journals", "*", "*")); len(left) > 0 {
		t.Errorf("a removal leaves %q", left)
	}
}

// An answer that nobody can use stays with its key although the process ended before it
// could say so.
func TestAnUnusableAnswerStaysBehindACutOff(t *testing.T) {
	t.Parallel()
	sealed := endAt(moment{call: "Seal", after: true})
	t.Run("of a refresh, when the company is authorized again", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		before := w.authorize()
		w.pass(10 * time.Minute)
		damageRefreshToken(w)
		p := w.start(sealed)
		if !p.run(func() { _, _ = p.Refresh(t.Context(), w.id, always) }) {
			t.Fatal("the process was not ended")
		}
		w.front.set(func() { w.front.change = nil })
		after := w.authorize()
		w.wantItems(after.TokenVaultKey, after.TokenVaultKey+"/journal", before.TokenVaultKey+"/journal")
		if kept, problems, err := w.start(nil).vault.Kept(t.Context()); err != nil || len(problems) > 0 || len(kept) != 1 {
			t.Errorf("kept: %+v, %v %v", kept, problems, err)
		}
	})
	t.Run("of a sign-in", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.front.set(func() {
			w.front.change = func(endpoint string, a *answer) {
				if endpoint == "token" {
					a.fields(t, func(f map[string]any) { f["refresh_token"], f["access_token"] = "half\x00of", "\x1b[31mit" })
				}
			}
		})
		p := w.start(sealed)
		if !p.run(func() { _, _ = p.Authorize(t.Context(), w.login(nil)) }) {
			t.Fatal("the process was not ended")
		}
		w.front.set(func() { w.front.change = nil })
		if err := w.start(nil).SettleLogins(t.Context(), w.id); err != nil {
			t.Fatal(err)
		}
		kept, problems, err := w.start(nil).vault.Kept(t.Context())
		if err != nil || len(problems) > 0 || len(kept) != 1 {
			t.Fatalf("kept: %+v, %v %v", kept, problems, err)
		}
		w.wantItems(kept[0].TokenVaultKey + "/journal")
	})
}

// What an authorization once replaced may have come back under another name, out of a
// backup: after a start of the system it is not removed for that.
func TestWhatWasReplacedAndImportedElsewhereStays(t *testing.T) {
	onDisk(t, "what lies in its directories is changed")
	t.Parallel()
	w := newWorld(t)
	w.authorize()
	export := w.exported()
	w.authorize()
	if err := w.start(nil).Rename(t.Context(), w.id, "Other Name"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.start(nil).Import(t.Context(), export); err != nil {
		t.Fatal(err)
	}
	imported := w.items()
	// The system starts anew.
	if err := os.Remove(filepath.Join(w.dir, "journals", ".boot")); err != nil {
		t.Fatal(err)
	}
	other := *w
	other.id.Company = "Other Name"
	for _, id := range []grant.ID{other.id, w.id} {
		if _, err := w.start(nil).Settle(t.Context(), id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	if items := w.items(); !slices.Equal(items, imported) {
		t.Errorf("the home has %q, had %q", items, imported)
	}
}

// Where the news can't be noted, the journals are looked at again by the next command.
func TestNewsThatCanNotBeNotedIsLookedForAgain(t *testing.T) {
	onDisk(t, "what lies in its directories is changed")
	t.Parallel()
	w := newWorld(t)
	w.authorize()
	p := w.start(endAt(moment{call: "Seal", after: true}))
	if !p.run(func() { _, _ = p.Authorize(t.Context(), w.login(nil)) }) {
		t.Fatal("the process was not ended")
	}
	// The power fails, and takes the notes.
	open := filepath.Join(w.dir, "journals", "open")
	if err := os.RemoveAll(open); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(w.dir, "journals", ".boot")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(w.dir, "nowhere", "at", "all"), open); err != nil {
		t.Fatal(err)
	}
	_, _ = w.start(nil).vault.Attempts(t.Context(), w.id)
	if err := os.Remove(open); err != nil {
		t.Fatal(err)
	}
	if logins, err := w.start(nil).vault.UnfinishedLogins(t.Context()); err != nil || len(logins) != 1 {
		t.Errorf("unfinished: %v, %v; want the one that was sealed", logins, err)
	}
}

// An import that can't write the journal's key takes nothing away of what the journal
// says: a refresh of unknown fate stays one.
func TestAFailedImportForgetsNoAttempt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.authorize()
	export := w.exported()
	w.pass(2 * time.Hour)
	w.lose()
	key := w.disk().TokenVaultKey
	for _, account := range []string{key, key + "/journal"} {
		if err := w.home().Delete(t.Context(), account); err != nil {
			t.Fatal(err)
		}
	}
	p := w.start(failing(errLocked, "home.Put journal"))
	if _, err := p.Import(t.Context(), export); err == nil {
		t.Fatal("the home was not locked")
	}
	if d := w.disk(); len(d.journals) == 0 {
		t.Errorf("%s: the attempt is forgotten", d)
	}
	if _, err := w.start(nil).Import(t.Context(), export); err != nil {
		t.Fatal(err)
	}
	sent := w.requests(func() {
		var pending *keeper.PendingError
		if _, err := w.start(nil).Refresh(t.Context(), w.id, always); !errors.As(err, &pending) {
			t.Errorf("error %v, want that the refresh is pending", err)
		}
	})
	if n := w.outcomes(sandbox.Reused); sent != 0 || n != 0 {
		t.Errorf("%d requests were sent, %d double spends", sent, n)
	}
}

// The sealed answer of a sign-in never takes the place of newer tokens, not even where
// record and journal are an earlier moment's, as out of a backup beside a keychain.
func TestASealedSignInTakesNoNewerTokensPlace(t *testing.T) {
	onDisk(t, "what lies in its directories is changed")
	t.Parallel()
	w := newWorld(t)
	before := w.authorize()
	path := filepath.Join(w.dir, "journals", "slots", before.TokenVaultKey)
	early, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	w.refresh()
	want := w.refresh()
	if err := os.WriteFile(path, early, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, remove := range []string{filepath.Join("records", w.id.Slot()+".json"), filepath.Join("journals", ".boot")} {
		if err := os.Remove(filepath.Join(w.dir, remove)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.start(nil).SettleLogins(t.Context(), w.id); err != nil {
		t.Fatal(err)
	}
	if d := w.disk(); d.item.RefreshToken != want.RefreshToken || d.Generation != want.Generation {
		t.Errorf("%s; want generation %d", d, want.Generation)
	}
	w.wantNextRefresh()
}

// A kept answer and any number of attempts behind it leave the answer that the grant was
// made of, in case the power fails.
func TestManyAttemptsLeaveTheKeptAnswer(t *testing.T) {
	onDisk(t, "what lies in its directories is changed")
	t.Parallel()
	w := newWorld(t)
	before := w.authorize()
	w.pass(10 * time.Minute)
	damageRefreshToken(w)
	if _, err := w.start(nil).Refresh(t.Context(), w.id, always); !errors.As(err, new(*keeper.UnreadError)) {
		t.Fatal(err)
	}
	w.front.set(func() { w.front.change = nil })
	if err := w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Status: 503, Times: 30}); err != nil {
		t.Fatal(err)
	}
	for range 30 {
		w.pass(retryUnknownAfter)
		if _, err := w.start(nil).Refresh(t.Context(), w.id, always); err == nil {
			t.Fatal("it was not refused")
		}
	}
	kept, problems, err := w.start(nil).vault.Kept(t.Context())
	if err != nil || len(problems) > 0 || len(kept) != 1 {
		t.Fatalf("kept: %+v, %v %v", kept, problems, err)
	}
	if answer, err := w.start(nil).vault.Answer(t.Context(), kept[0]); err != nil || !bytes.Contains(answer.Text, []byte(`"body"`)) {
		t.Errorf("the kept answer can't be opened any more: %v", err)
	}
	info, err := os.Stat(filepath.Join(w.dir, "journals", "slots", before.TokenVaultKey))
	if err != nil || info.Size() > 5*16<<10 {
		t.Errorf("the journal has %d bytes, %v", info.Size(), err)
	}
	// An item that is lost now is made again of the newest answer.
	if err := w.home().Delete(t.Context(), before.TokenVaultKey); err != nil {
		t.Fatal(err)
	}
	sent := w.requests(func() {
		g, err := w.start(nil).Token(t.Context(), w.id, 0)
		if err != nil || g.AccessToken != before.AccessToken {
			t.Errorf("generation %d, %v", g.Generation, err)
		}
	})
	if sent != 0 {
		t.Errorf("%d requests were sent", sent)
	}
}

// A grant whose refresh token UPS refused stays void, whatever of it is made again: one
// that looked alive would be refreshed, and refused, once more.
func TestAVoidGrantIsMadeAgainAsVoid(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(w *world, key string){
		"its item": func(w *world, key string) {
			if err := w.home().Delete(w.t.Context(), key); err != nil {
				w.t.Fatal(err)
			}
		},
		"its record, by a repair": func(w *world, key string) {
			w.loseRecord(true)
			place := grant.Place{TokenVaultKey: key, Home: w.home().Name()}
			if err := w.start(nil).vault.Rebuild(w.t.Context(), vault.Lost{ID: w.id, Place: place, Kind: vault.LostGrant}); err != nil {
				w.t.Fatal(err)
			}
		},
		"its record, by the next use after a start of the system": func(w *world, _ string) {
			onDisk(w.t, "the store in memory outlives no start of the system")
			w.loseRecord(false)
			if err := os.Remove(filepath.Join(w.dir, "journals", ".boot")); err != nil {
				w.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.authorize()
			w.pass(2 * time.Hour)
			before := w.refresh()
			if err := w.ups.ChangePassword(w.user); err != nil {
				t.Fatal(err)
			}
			w.pass(2 * time.Hour)
			if _, err := w.start(nil).Refresh(t.Context(), w.id, always); err == nil {
				t.Fatal("the refresh worked")
			}
			lose(w, before.TokenVaultKey)
			sent := w.requests(func() {
				if _, err := w.start(nil).Token(t.Context(), w.id, 0); !errors.As(err, new(*keeper.GoneError)) {
					t.Errorf("error %v, want that the company must be authorized again", err)
				}
			})
			if d := w.disk(); sent != 0 || d.state != grant.Void || d.item.Generation != before.Generation {
				t.Errorf("%d requests were sent; it is %s, generation %d of %d", sent, d.state, d.item.Generation, before.Generation)
			}
		})
	}
}

// Whether an item that is lost can be made again is told without making it.
func TestCanRescue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.authorize()
	w.pass(2 * time.Hour)
	before := w.refresh()
	if err := w.home().Delete(t.Context(), before.TokenVaultKey); err != nil {
		t.Fatal(err)
	}
	if can, err := w.start(nil).CanRescue(t.Context(), w.id); !can || err != nil {
		t.Errorf("beside the journal: %t, %v", can, err)
	}
	if d := w.disk(); d.item.Generation != 0 {
		t.Errorf("there is an item of generation %d", d.item.Generation)
	}
	w.loseItem()
	if can, err := w.start(nil).CanRescue(t.Context(), w.id); can || err != nil {
		t.Errorf("without the journal's key: %t, %v", can, err)
	}
}
