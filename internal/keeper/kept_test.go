package keeper_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/ups"
)

// damageRefreshToken makes the refresh token in answers unusable.
func damageRefreshToken(w *world) {
	w.front.set(func() {
		w.front.change = func(_ string, a *answer) {
			a.fields(w.t, func(f map[string]any) { f["refresh_token"], f["access_token"] = "half\x00of", "\x1b[31mit" })
		}
	})
}

// An answer with tokens that nobody can use is kept where somebody can look at it:
// while its token is tried again, when UPS refuses that, and when the company is
// authorized anew.
func TestAnAnswerThatNobodyCanUseIsKeptAndNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.authorize()
	w.pass(10 * time.Minute)
	damageRefreshToken(w)
	_, err := w.start(nil).Refresh(t.Context(), w.id, always)
	var unread *keeper.UnreadError
	if !errors.As(err, &unread) || !strings.Contains(err.Error(), unread.Path) {
		t.Fatalf("error %v, want that it names the kept answer", err)
	}
	w.front.set(func() { w.front.change = nil })
	w.wantKept(before, w.disk())

	_, err = w.start(nil).Refresh(t.Context(), w.id, always)
	var pending *keeper.PendingError
	if !errors.As(err, &pending) || pending.Kept != unread.Path || !strings.Contains(err.Error(), unread.Path) {
		t.Errorf("error %v, want that it names %s", err, unread.Path)
	}
	w.pass(retryUnknownAfter)
	sent := w.requests(func() {
		for range 3 {
			_, err = w.start(nil).Refresh(t.Context(), w.id, always)
			var gone *keeper.GoneError
			if !errors.As(err, &gone) || gone.Void || !strings.Contains(err.Error(), unread.Path) {
				t.Errorf("error %v, want to authorize again, and the kept answer", err)
			}
			w.pass(retryUnknownAfter)
		}
	})
	if d := w.disk(); sent != 1 || d.state != grant.Interrupted || d.Void {
		t.Errorf("%d requests were sent, %s; want one, and interrupted", sent, d)
	}

	after := w.authorize()
	if kept, problems, err := w.start(nil).vault.Kept(t.Context()); err != nil || len(problems) > 0 || len(kept) != 1 || kept[0].Path != unread.Path {
		t.Fatalf("kept after a new authorization: %+v, %v %v", kept, problems, err)
	}
	w.wantItems(after.TokenVaultKey, after.TokenVaultKey+"/journal", before.TokenVaultKey+"/journal")
	w.wantNoOrphans()
	kept, _, _ := w.start(nil).vault.Kept(t.Context())
	if answer, err := w.start(nil).vault.Answer(t.Context(), kept[0]); err != nil || !bytes.Contains(answer.Text, []byte(`"body"`)) {
		t.Errorf("the kept answer can't be opened any more: %v", err)
	}
	w.wantNextRefresh()

	if err := w.start(nil).Revoke(t.Context(), w.id); err != nil {
		t.Fatal(err)
	}
	w.wantItems()
	if kept, _, err := w.start(nil).vault.Kept(t.Context()); err != nil || len(kept) > 0 {
		t.Errorf("a removal leaves the kept answer: %+v, %v", kept, err)
	}
	if _, err := os.Stat(unread.Path); !os.IsNotExist(err) {
		t.Errorf("a removal leaves the kept answer's file: %v", err)
	}
}

// wantNoOrphans checks that records and journals speak of all that the home has.
func (w *world) wantNoOrphans() {
	w.t.Helper()
	v := w.start(nil).vault
	survey, err := v.Survey(w.t.Context(), "")
	if err != nil {
		w.t.Fatal(err)
	}
	if orphans, err := v.Orphans(w.t.Context(), v.ListHomes(w.t.Context()), survey.Records); err != nil || len(orphans) > 0 {
		w.t.Errorf("there are orphans: %v, %v", orphans, err)
	}
}

// wantItems checks that the home has those items and no others.
func (w *world) wantItems(want ...string) {
	w.t.Helper()
	have := map[string]bool{}
	for _, name := range w.items() {
		have[name] = true
	}
	for _, name := range want {
		if !have[name] {
			w.t.Errorf("the home lacks %s", name)
		}
		delete(have, name)
	}
	if len(have) > 0 {
		w.t.Errorf("the home has also %v", have)
	}
}

// A later upsauth that understands a kept answer puts it in place by itself, also
// when UPS has refused the token that was spent for it.
func TestAKeptAnswerThatIsUnderstoodLaterIsPutInPlace(t *testing.T) {
	t.Parallel()
	for _, refused := range []bool{false, true} {
		w := newWorld(t)
		before := w.authorize()
		w.pass(2 * time.Hour)
		w.seal()
		// As an upsauth leaves it that can't read the answer: put aside, and the
		// same token is to be tried again, or was.
		v := w.start(nil).vault
		j := w.disk().journals[0]
		j.Outcome = "the answer is not in UPS's form"
		if err := v.Mark(t.Context(), &j); err != nil {
			t.Fatal(err)
		}
		if refused {
			j.Over = true
			err := v.Note(t.Context(), w.id, func(l *grant.Local) {
				l.Void, l.LastError = true, &grant.LastError{Code: "10400", Message: "refused", Time: w.clock.Now()}
			})
			if err := errors.Join(err, v.Mark(t.Context(), &j)); err != nil {
				t.Fatal(err)
			}
		}
		var g grant.Grant
		var err error
		sent := w.requests(func() { g, err = w.start(nil).Token(t.Context(), w.id, 0) })
		if sent != 0 || err != nil || !w.works(g.AccessToken) {
			t.Fatalf("refused %t: %d requests were sent, %v", refused, sent, err)
		}
		d := w.disk()
		w.wantRenewed(before, d)
		w.wantSettled(d, grant.Authorized)
		if kept, _, err := v.Kept(t.Context()); err != nil || len(kept) != 0 {
			t.Errorf("refused %t: kept all the same: %v, %v", refused, kept, err)
		}
		w.wantNextRefresh()
	}
}

// A later attempt that UPS grants makes a kept answer useless.
func TestAKeptAnswerGoesWithTheNextTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.authorize()
	w.pass(2 * time.Hour)
	if err := w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Status: 503, Times: 1}); err != nil {
		t.Fatal(err)
	}
	w.front.set(func() {
		w.front.change = func(_ string, a *answer) { a.status, a.body = 200, []byte("<title>Log in to the network</title>") }
	})
	if _, err := w.start(nil).Refresh(t.Context(), w.id, always); err == nil {
		t.Fatal("a web page counts as tokens")
	}
	w.front.set(func() { w.front.change = nil })
	w.pass(retryUnknownAfter)
	if kept, _, err := w.start(nil).vault.Kept(t.Context()); len(kept) != 1 {
		t.Errorf("%d answers are kept, %v; want the one", len(kept), err)
	}
	w.wantNextRefresh()
	if kept, _, err := w.start(nil).vault.Kept(t.Context()); len(kept) != 0 {
		t.Errorf("%d answers are kept, %v", len(kept), err)
	}
}

// Any refusal that says nothing known, after an attempt of unknown fate, would
// leave a grant interrupted for ever: a person has to sign in again, and is told.
func TestAnUnknownRefusalAfterAnUnknownFateAsksForASignIn(t *testing.T) {
	t.Parallel()
	for _, fault := range []sandbox.Fault{
		{Status: 400, Code: "10400", Message: "Something new"},
		{Status: 400, Code: "10499", Message: "Token family ended"},
		{Status: 400, Body: "empty"},
	} {
		w := newWorld(t)
		before := w.authorize()
		w.pass(10 * time.Minute)
		if err := w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Drop: "before", Times: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.start(nil).Refresh(t.Context(), w.id, always); err == nil {
			t.Fatal("a lost answer is none")
		}
		w.pass(retryUnknownAfter)
		fault.Endpoint, fault.Times = "refresh", 1
		if err := w.ups.AddFault(fault); err != nil {
			t.Fatal(err)
		}
		_, err := w.start(nil).Refresh(t.Context(), w.id, always)
		var gone *keeper.GoneError
		if !errors.As(err, &gone) || gone.Void || !strings.Contains(err.Error(), "must be authorized again") {
			t.Errorf("%+v: error %v, want to authorize again", fault, err)
		}
		d := w.disk()
		w.wantKept(before, d)
		if d.state != grant.Interrupted || d.LastError == nil || !strings.Contains(d.LastError.Message, "previous attempt") {
			t.Errorf("%+v: %s", fault, d)
		}
		w.wantNextRefresh() // the one that was lost had spent nothing
	}
}

// Gateways compress, wrap and recode answers. The old token is spent by then.
func TestStrangelyWrappedAnswersAreSaved(t *testing.T) {
	t.Parallel()
	quote := func(text []byte) string { q, _ := json.Marshal(string(text)); return string(q) }
	var before grant.Grant
	spent := func() string { return before.RefreshToken }
	shapes := map[string]func(body []byte) []byte{
		"gzip without a header": func(body []byte) []byte {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			_, _ = z.Write(body)
			_ = z.Close()
			return b.Bytes()
		},
		"an envelope":    func(body []byte) []byte { return []byte(`{"response":` + string(body) + `}`) },
		"JSON in a text": func(body []byte) []byte { return []byte(`{"body":` + quote(body) + `}`) },
		"200 KB around": func(body []byte) []byte {
			return []byte(`{"x":"` + strings.Repeat("x", 200<<10) + `","y":` + string(body) + `}`)
		},
		"the spent one last": func(body []byte) []byte { return append(body[:len(body)-1], `,"refresh_token":"`+spent()+`"}`...) },
		"in a list": func(body []byte) []byte {
			return regexp.MustCompile(`"refresh_token":("[^"]*")`).ReplaceAll(body, []byte(`"refresh_token":[$1]`))
		},
		"an empty one last": func(body []byte) []byte { return append(body[:len(body)-1], `,"refresh_token":""}`...) },
	}
	all := newWorld(t)
	for name, shape := range shapes {
		w := all.of(t, name)
		before = w.authorize()
		w.pass(10 * time.Minute)
		w.front.set(func() { w.front.change = func(_ string, a *answer) { a.body = shape(a.body) } })
		result, err := w.start(nil).Refresh(t.Context(), w.id, always)
		w.front.set(func() { w.front.change = nil })
		if err != nil || !result.Refreshed {
			t.Errorf("%s: refreshed %t, %v", name, result.Refreshed, err)
			continue
		}
		w.wantRenewed(before, w.disk())
		w.wantNextRefresh()
	}
}

// A key of the journals that is lost is made anew before anything is sent: it is
// the only one that opens the answer, should the process be cut off behind it.
func TestALostJournalKeyIsMadeAnewBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(w *world, account string) error{
		"removed": func(w *world, account string) error { return w.home().Delete(w.t.Context(), account) },
		"damaged": func(w *world, account string) error { return w.home().Put(w.t.Context(), account, 0, []byte("{}")) },
		"of another grant": func(w *world, account string) error {
			other := w.of(w.t, "another company")
			key, err := other.home().Get(w.t.Context(), other.authorize().TokenVaultKey+"/journal")
			if err != nil {
				return err
			}
			return w.home().Put(w.t.Context(), account, 0, key)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			before := w.authorize()
			w.pass(2 * time.Hour)
			if err := spoil(w, before.TokenVaultKey+"/journal"); err != nil {
				t.Fatal(err)
			}
			w.seal()
			var g grant.Grant
			var err error
			sent := w.requests(func() { g, err = w.start(nil).Token(t.Context(), w.id, 0) })
			if sent != 0 || err != nil || !w.works(g.AccessToken) {
				t.Fatalf("%d requests were sent, %v", sent, err)
			}
			w.wantRenewed(before, w.disk())
			w.wantNextRefresh()
			if err := w.start(nil).vault.Check(t.Context(), w.id); err != nil {
				t.Error(err)
			}
		})
	}
}

// A key that can neither be read nor made anew keeps the token from being spent.
func TestAJournalKeyThatCanNotBeReadSpendsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.authorize()
	w.pass(2 * time.Hour)
	sent := w.requests(func() {
		_, err := w.start(func(m moment) error {
			if m == (moment{call: "home.Get journal"}) {
				return errLocked
			}
			return nil
		}).Token(t.Context(), w.id, 0)
		wantError(errLocked)(t, err)
	})
	if sent != 0 {
		t.Errorf("%d requests were sent", sent)
	}
	w.wantKept(before, w.disk())
}

// The state directory can go away between a request and its answer: moved, or no
// longer to be written. The answer is then sealed elsewhere on the machine, that
// is said, and the next use finds it there.
func TestAnAnswerThatCanNotBePutInPlaceIsSealedElsewhere(t *testing.T) {
	onDisk(t, "another directory for the answer")
	t.Parallel()
	for name, do := range map[string]func(w *world) (undo func()){
		"the state directory is moved away": func(w *world) func() {
			away := w.dir + ".moved"
			if err := os.Rename(w.dir, away); err != nil {
				w.t.Error(err)
			}
			return func() {
				if err := errors.Join(os.RemoveAll(w.dir), os.Rename(away, w.dir)); err != nil {
					w.t.Error(err)
				}
			}
		},
		"the journal and the homes are moved away": func(w *world) func() {
			names := []string{"journals", "vault"}
			for _, name := range names {
				if err := os.Rename(filepath.Join(w.dir, name), filepath.Join(w.dir, name+".moved")); err != nil {
					w.t.Error(err)
				}
				if err := os.WriteFile(filepath.Join(w.dir, name), nil, 0o600); err != nil {
					w.t.Error(err)
				}
			}
			return func() {
				for _, name := range names {
					path := filepath.Join(w.dir, name)
					if err := errors.Join(os.Remove(path), os.Rename(path+".moved", path)); err != nil {
						w.t.Error(err)
					}
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			before := w.authorize()
			w.pass(2 * time.Hour)
			elsewhere := filepath.Join(tempDir(t), "elsewhere")
			start := func() *process {
				p := w.start(nil)
				p.disk.Elsewhere = []string{filepath.Join(w.identity, "no directory"), elsewhere}
				return p
			}
			var undo func()
			w.front.set(func() { w.front.served = func(string) { undo = do(w) } })
			_, err := start().Token(t.Context(), w.id, 0)
			w.front.set(func() { w.front.served = nil })
			var sealed *keeper.ElsewhereError
			if !errors.As(err, &sealed) || filepath.Dir(sealed.Path) != elsewhere || !strings.Contains(err.Error(), sealed.Path) {
				t.Fatalf("error %v, want that it names the place", err)
			}
			if data, err := os.ReadFile(sealed.Path); err != nil || bytes.Contains(data, []byte(before.RefreshToken)) || bytes.Contains(data, []byte("refresh_token")) {
				t.Errorf("what lies there is not sealed: %v", err)
			}
			undo()
			if all, _ := start().disk.SealedElsewhere(t.Context()); len(all) != 1 || all[0].ID != w.id {
				t.Errorf("sealed elsewhere: %+v", all)
			}
			var g grant.Grant
			sent := w.requests(func() { g, err = start().Token(t.Context(), w.id, 0) })
			if sent != 0 || err != nil || !w.works(g.AccessToken) {
				t.Fatalf("%d requests were sent, %v", sent, err)
			}
			w.wantRenewed(before, w.disk())
			w.wantSettled(w.disk(), grant.Authorized)
			if all, _ := start().disk.SealedElsewhere(t.Context()); len(all) != 0 {
				t.Errorf("left elsewhere: %+v", all)
			}
			w.wantNextRefresh()
		})
	}
}

// The places for answers that could not be sealed in theirs are the user's, and one
// user can have several state directories, with the same company. One of them must
// not take the other's only answer for a trace of an earlier grant of its own.
func TestAnAnswerSealedElsewhereIsItsStateDirectorysAlone(t *testing.T) {
	onDisk(t, "another directory for the answer")
	t.Parallel()
	for name, use := range map[string]func(p *process, id grant.ID) error{
		"a refresh": func(p *process, id grant.ID) error {
			_, err := p.Refresh(p.w.t.Context(), id, always)
			return err
		},
		"a removal": func(p *process, id grant.ID) error { return p.Revoke(p.w.t.Context(), id) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			before := w.authorize()
			other := w.elsewhere()
			other.authorize()
			w.pass(2 * time.Hour)
			elsewhere := filepath.Join(tempDir(t), "elsewhere")
			start := func(w *world) *process {
				p := w.start(nil)
				p.disk.Elsewhere = []string{elsewhere}
				return p
			}
			away := w.dir + ".moved"
			w.front.set(func() {
				w.front.served = func(string) {
					if err := os.Rename(w.dir, away); err != nil {
						t.Error(err)
					}
				}
			})
			_, err := start(w).Token(t.Context(), w.id, 0)
			w.front.set(func() { w.front.served = nil })
			if !errors.As(err, new(*keeper.ElsewhereError)) {
				t.Fatal(err)
			}
			if err := errors.Join(os.RemoveAll(w.dir), os.Rename(away, w.dir)); err != nil {
				t.Fatal(err)
			}
			if err := use(start(other), w.id); err != nil {
				t.Errorf("in the other state directory: %v", err)
			}
			g, err := start(w).Token(t.Context(), w.id, 0)
			if err != nil || !w.works(g.AccessToken) {
				t.Fatalf("the answer is lost: %v", err)
			}
			w.wantRenewed(before, w.disk())
			w.wantNextRefresh()
		})
	}
}

// goAway makes the place one that can't be reached, until back is called.
func (w *world) goAway() (back func()) {
	if w.memory != nil {
		w.memory.Break(errors.New("the database can't be reached"))
		return func() { w.memory.Break(nil) }
	}
	away := w.dir + ".moved"
	if err := os.Rename(w.dir, away); err != nil {
		w.t.Error(err)
	}
	w.t.Cleanup(func() { os.RemoveAll(away) })
	return func() {
		if err := errors.Join(os.RemoveAll(w.dir), os.Rename(away, w.dir)); err != nil {
			w.t.Error(err)
		}
	}
}

// A trouble that passes while the answer waits costs nothing and leaves nothing.
func TestAnAnswerIsTriedAgainForAWhile(t *testing.T) {
	t.Parallel()
	for _, elsewhere := range []bool{true, false} {
		w := newWorld(t)
		if elsewhere && w.memory != nil {
			continue
		}
		before := w.authorize()
		w.pass(2 * time.Hour)
		p := w.start(nil)
		dir := filepath.Join(tempDir(t), "elsewhere")
		if elsewhere {
			p.disk.Elsewhere = []string{dir}
		}
		var back func()
		w.front.set(func() { w.front.served = func(string) { back = w.goAway() } })
		waits := 0
		p.during = func() {
			if waits++; waits != 3 {
				return
			}
			back()
		}
		g, err := p.Token(t.Context(), w.id, 0)
		w.front.set(func() { w.front.served = nil })
		if err != nil || !w.works(g.AccessToken) {
			t.Fatalf("elsewhere %t: %v", elsewhere, err)
		}
		w.wantRenewed(before, w.disk())
		w.wantSettled(w.disk(), grant.Authorized)
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("elsewhere %t: left there: %v", elsewhere, left)
		}
		w.wantNextRefresh()
	}
}

// Where no place at all takes the answer, the truth is said.
func TestAnAnswerThatNothingTakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.authorize()
	w.pass(2 * time.Hour)
	w.front.set(func() { w.front.served = func(string) { w.goAway() } })
	_, err := w.start(nil).Token(t.Context(), w.id, 0)
	w.front.set(func() { w.front.served = nil })
	var lost *keeper.LostError
	if !errors.As(err, &lost) || !strings.Contains(err.Error(), "are lost") {
		t.Errorf("error %v, want the truth", err)
	}
}

// An access token with control characters was stored and printed. The refresh token
// beside it is the only one, and is saved; the answer stays sealed until the next
// use, which asks for other tokens.
func TestAnAccessTokenWithControlCharactersIsNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.authorize()
	w.pass(10 * time.Minute)
	w.front.set(func() {
		w.front.change = func(_ string, a *answer) {
			a.fields(t, func(f map[string]any) { f["access_token"] = "ab\r\nX-Evil: 1\x1b[31m" })
		}
	})
	_, err := w.start(nil).Refresh(t.Context(), w.id, always)
	checkKind(t, err, ups.Unusable)
	if err == nil || !strings.Contains(err.Error(), "invalid characters") {
		t.Errorf("the error does not say what is wrong: %v", err)
	}
	w.front.set(func() { w.front.change = nil })
	d := w.disk()
	if d.state != grant.Refreshable || d.Void || d.item.AccessToken != "" || d.item.RefreshToken == "" || d.LastError == nil {
		t.Errorf("%s; want the refresh token saved, and no access token", d)
	}
	g, err := w.start(nil).Token(t.Context(), w.id, 0)
	if err != nil || !w.works(g.AccessToken) {
		t.Fatal(err)
	}
	w.wantSettled(w.disk(), grant.Authorized)
	w.wantNextRefresh()
	if n := w.outcomes(sandbox.Reused); n != 0 {
		t.Errorf("%d double spends", n)
	}
}
