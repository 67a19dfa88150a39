package keeper_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
)

// exported is what upsauth vault export writes of the grant, as an import finds
// it.
func (w *world) exported() grant.Grant {
	w.t.Helper()
	g, err := w.start(nil).Settle(w.t.Context(), w.id)
	if err != nil {
		w.t.Fatal(err)
	}
	g.JournalRecipient, g.Superseded = "", nil
	return g
}

// elsewhere is the same world in another place.
func (w *world) elsewhere() *world {
	other := *w
	other.place = newPlace(w.t)
	return &other
}

func (w *world) refresh() grant.Grant {
	w.t.Helper()
	w.pass(2 * time.Hour)
	result, err := w.start(nil).Refresh(w.t.Context(), w.id, always)
	if err != nil {
		w.t.Fatal(err)
	}
	return result.Grant
}

// An import gives the later of two generations a place, and never takes a place
// from it: with the earlier one the refresh token would be gone that UPS takes.
func TestImport(t *testing.T) {
	t.Parallel()
	type prepared struct {
		export grant.Grant
		here   *world
	}
	nothing := func(w *world) prepared { return prepared{w.exported(), w.elsewhere()} }
	tests := []struct {
		name    string
		prepare func(*world) prepared
		did     bool
		refused string // in the error
		works   bool   // the next refresh here
	}{
		{"nothing is here", nothing, true, "", true},
		{"the same is here", func(w *world) prepared { return prepared{w.exported(), w} }, false, "", true},
		{"a later one is here", func(w *world) prepared {
			g := w.exported()
			w.refresh()
			return prepared{g, w}
		}, false, "", true},
		{"an earlier one is here", func(w *world) prepared {
			there := w.elsewhere()
			if _, err := there.start(nil).Import(w.t.Context(), w.exported()); err != nil {
				w.t.Fatal(err)
			}
			there.refresh()
			return prepared{there.exported(), w}
		}, true, "", true},
		{"another authorization is here", func(w *world) prepared {
			g := w.exported()
			w.authorize()
			return prepared{g, w}
		}, false, "another authorization here", true},
		{"only the record is here", func(w *world) prepared {
			g := w.exported()
			w.loseItem()
			return prepared{g, w}
		}, true, "", true},
		{"only the record of a later one is here", func(w *world) prepared {
			g := w.exported()
			w.refresh()
			w.loseItem()
			return prepared{g, w}
		}, false, "is spent", false},
		{"only the record of another is here", func(w *world) prepared {
			g := w.exported()
			w.authorize()
			w.loseItem()
			return prepared{g, w}
		}, false, "another authorization here", false},
		{"the same without its record is here", func(w *world) prepared {
			g := w.exported()
			w.loseRecord(true)
			return prepared{g, w}
		}, false, "with a damaged record", false},
		{"the same without any record is here", func(w *world) prepared {
			g := w.exported()
			w.refresh()
			w.loseRecord(false)
			return prepared{g, w}
		}, false, "without a record", false},
		{"a journal of another home is here, and only the record", func(w *world) prepared {
			g := w.exported()
			w.loseItem()
			j := grant.Journal{ID: w.id, Purpose: grant.Authorizing, TokenVaultKey: "BBBBBBBB-3C21-4F7E-B122-8BF55EA80CDA", Home: "keychain",
				Recipient: "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", Replaces: g.TokenVaultKey, Generation: 1, Attempt: 1, Fate: grant.Fate{Time: w.clock.Now()}}
			if err := w.start(nil).vault.Claim(w.t.Context(), &j); err != nil {
				w.t.Fatal(err)
			}
			return prepared{g, w}
		}, true, "", true},
		{"a cut-off authorization is here", func(w *world) prepared {
			g := w.exported()
			there := w.elsewhere()
			p := there.start(endAt(moment{"Prove", true}))
			p.run(func() { _, _ = p.Authorize(w.t.Context(), there.login(nil)) })
			return prepared{g, there}
		}, true, "", true},
		{"a refresh of unknown fate is here", func(w *world) prepared {
			g := w.exported()
			w.pass(2 * time.Hour)
			if err := w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Status: 503, Times: 1}); err != nil {
				w.t.Fatal(err)
			}
			if _, err := w.start(nil).Refresh(w.t.Context(), w.id, always); err == nil {
				w.t.Fatal("the refresh worked")
			}
			w.loseItem()
			w.pass(retryUnknownAfter)
			return prepared{g, w}
		}, true, "", true},
		{"it was revoked here", func(w *world) prepared {
			g := w.exported()
			if err := w.start(nil).Revoke(w.t.Context(), w.id); err != nil {
				w.t.Fatal(err)
			}
			return prepared{g, w}
		}, true, "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.authorize()
			p := tt.prepare(w)
			home, err := p.here.start(nil).Import(t.Context(), p.export)
			if did := err == nil && home == "file"; did != tt.did {
				t.Errorf("imported: %t (%q), %v", did, home, err)
			}
			switch {
			case tt.refused == "" && err != nil:
				t.Error(err)
			case tt.refused != "" && (err == nil || !strings.Contains(err.Error(), tt.refused)):
				t.Errorf("got %v", err)
			}
			p.here.pass(2 * time.Hour)
			result, err := p.here.start(nil).Refresh(t.Context(), w.id, always)
			if works := err == nil && result.Refreshed; works != tt.works {
				t.Errorf("a refresh: %t, %v", result.Refreshed, err)
			}
			if tt.works {
				p.here.wantOnly(result.TokenVaultKey)
			}
		})
	}
}

// loseRecord takes the grant's record away, as a damaged one or without a trace.
func (w *world) loseRecord(damaged bool) {
	w.t.Helper()
	path := filepath.Join(w.dir, "records", w.id.Slot()+".json")
	var err error
	switch {
	case w.memory != nil && damaged:
		w.memory.Damage(w.id.Slot())
	case w.memory != nil:
		w.memory.Lose(w.id.Slot())
	case damaged:
		err = os.Rename(path, path+".damaged")
	default:
		err = os.Remove(path)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// loseItem takes away all that the home has of the grant.
func (w *world) loseItem() {
	w.t.Helper()
	key := w.disk().TokenVaultKey
	for _, account := range []string{key, key + "/journal"} {
		if err := w.home().Delete(w.t.Context(), account); err != nil {
			w.t.Fatal(err)
		}
	}
}

// A refused refresh token is refused again: an old copy must not make the grant
// look alive.
func TestImportDoesNotReviveAVoidGrant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.authorize()
	export := w.exported()
	if err := w.ups.ChangePassword(w.user); err != nil {
		t.Fatal(err)
	}
	w.pass(2 * time.Hour)
	if _, err := w.start(nil).Refresh(t.Context(), w.id, always); err == nil {
		t.Fatal("the refresh worked")
	}
	w.loseItem()
	if _, err := w.start(nil).Import(t.Context(), export); err != nil {
		t.Fatal(err)
	}
	if d := w.disk(); d.state != grant.Void {
		t.Errorf("it is %s", d.state)
	}
}

func TestImportKeepsThatAGrantIsVoid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.authorize()
	if err := w.ups.ChangePassword(w.user); err != nil {
		t.Fatal(err)
	}
	w.pass(2 * time.Hour)
	if _, err := w.start(nil).Refresh(t.Context(), w.id, always); err == nil {
		t.Fatal("the refresh worked")
	}
	there := w.elsewhere()
	if _, err := there.start(nil).Import(t.Context(), w.exported()); err != nil {
		t.Fatal(err)
	}
	if d := there.disk(); d.state != grant.Void || d.LastError == nil {
		t.Errorf("it is %s there: %+v", d.state, d.LastError)
	}
}

// What is newer takes the place of what is here with all that is known of it: a void
// grant that looked alive would be refreshed, and refused, again and again.
func TestImportOfALaterGenerationKeepsWhatIsKnownOfIt(t *testing.T) {
	t.Parallel()
	failure := &grant.LastError{Code: "250002", Message: "refused"}
	for name, known := range map[string]struct {
		void    bool
		failure *grant.LastError
		state   grant.State
	}{
		"void":                      {true, failure, grant.Void},
		"void, and nobody said why": {true, nil, grant.Void},
		"an error alone":            {false, failure, grant.Authorized},
		"nothing":                   {false, nil, grant.Authorized},
	} {
		for place, prepare := range map[string]func(w *world){
			"over an earlier generation": func(*world) {},
			"where only the record and the journal of a refresh are": func(w *world) {
				if err := w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Status: 503, Times: 1}); err != nil {
					w.t.Fatal(err)
				}
				if _, err := w.start(nil).Refresh(w.t.Context(), w.id, always); err == nil {
					w.t.Fatal("the refresh worked")
				}
				w.loseItem()
			},
		} {
			t.Run(name+" "+place, func(t *testing.T) {
				w := newWorld(t)
				w.authorize()
				early := w.exported()
				here := w.elsewhere()
				if _, err := here.start(nil).Import(t.Context(), early); err != nil {
					t.Fatal(err)
				}
				late := w.refresh()
				late.JournalRecipient, late.Superseded = "", nil
				late.Void, late.LastError = known.void, known.failure
				prepare(here)
				if home, err := here.start(nil).Import(t.Context(), late); err != nil || home == "" {
					t.Fatalf("imported into %q: %v", home, err)
				}
				if _, err := here.start(nil).Settle(t.Context(), w.id); err != nil {
					t.Fatal(err) // a journal of the refresh is over now
				}
				d := here.disk()
				if d.item.Generation != late.Generation || d.state != known.state {
					t.Errorf("generation %d is %s here, want %s", d.item.Generation, d.state, known.state)
				}
				if (d.LastError == nil) != (known.failure == nil) || d.LastError != nil && d.LastError.Code != known.failure.Code {
					t.Errorf("its last error is %+v, want %+v", d.LastError, known.failure)
				}
			})
		}
	}
}

// A grant whose refresh was cut off where it comes from is as interrupted here: its
// token is not sent again before it may be, and what happened is known. The journal
// that tells of the import once took that of the refresh away.
func TestImportKeepsThatARefreshWasCutOff(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(w *world) *world{
		"nothing is here": func(w *world) *world { return w.elsewhere() },
		"only the record is here": func(w *world) *world {
			w.loseItem()
			return w
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.authorize()
			g := w.exported()
			w.pass(2 * time.Hour)
			here := prepare(w)
			pending := grant.Journal{TokenVaultKey: g.TokenVaultKey, Generation: g.Generation + 1, Attempt: 1, Fate: grant.Fate{Time: w.clock.Now(), Outcome: "no answer came"}, Proxied: true}
			if _, err := here.start(nil).Import(t.Context(), g, pending); err != nil {
				t.Fatal(err)
			}
			if d := here.disk(); d.state != grant.Interrupted || len(d.journals) != 1 || d.journals[0].Purpose != grant.Refreshing {
				t.Errorf("%s, journals %+v; want interrupted", d, d.journals)
			}
			var early *keeper.PendingError
			sent := w.requests(func() {
				if _, err := here.start(nil).Token(t.Context(), w.id, 0); !errors.As(err, &early) {
					t.Errorf("error %v, want that it is too early", err)
				}
			})
			if sent != 0 {
				t.Errorf("%d requests were sent", sent)
			}
			if early != nil && early.Again != 10*time.Minute {
				t.Errorf("to be tried again in %s, and it went through a proxy", early.Again)
			}
			w.pass(10 * time.Minute)
			if got, err := here.start(nil).Token(t.Context(), w.id, 0); err != nil || !w.works(got.AccessToken) {
				t.Errorf("the retry: %v", err)
			}
			here.wantSettled(here.disk(), grant.Authorized)
		})
	}
}

// An import that is cut off leaves nothing that doctor does not finish or clear
// away, or the next import.
func TestImportCutOffAtEveryMoment(t *testing.T) {
	wantsAll(t)
	t.Parallel()
	w := newWorld(t)
	w.authorize()
	export := w.exported()
	here := w.elsewhere()
	prepare := func() {
		if err := here.start(nil).Revoke(t.Context(), here.id); err != nil && !errors.Is(err, grant.ErrNoGrant) {
			t.Fatal(err)
		}
	}
	cutOff(t, here, prepare, func(p *process) { _, _ = p.Import(t.Context(), export) }, func(t *testing.T, _ moment) {
		// What lies there without a record is spoken of by a journal.
		here.wantNoOrphans()
		if err := here.start(nil).SettleLogins(t.Context(), here.id); err != nil {
			t.Fatal(err)
		}
		switch d := here.disk(); {
		case len(d.journals) > 0:
			t.Errorf("%d journals are left", len(d.journals))
		case d.state == "":
			here.wantOnly("")
		case d.state != grant.Authorized || d.item.RefreshToken != export.RefreshToken:
			t.Errorf("%s", d)
		default:
			here.wantOnly(export.TokenVaultKey)
		}
		if _, err := here.start(nil).Import(t.Context(), export); err != nil {
			t.Fatal(err)
		}
		d := here.disk()
		if d.state != grant.Authorized || d.item.RefreshToken != export.RefreshToken || len(d.journals) != 0 {
			t.Errorf("%s, %d journals", d, len(d.journals))
		}
		here.wantOnly(export.TokenVaultKey)
	})
}
