package soak

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/files"
)

// spend is a refresh token that arrived at UPS.
type spend struct {
	host    *sharedHost
	run     *deed // nil where its process was gone when the token arrived
	company string
	family  string
	token   string // the digest of the one that was sent
	made    string // of the one that it brought
	at      time.Time
	outcome sandbox.Outcome
	lost    bool // the answer was
	// sealed says that the answer was on the host's disk once the process had ended.
	sealed bool
}

func digestOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:4])
}

// serve is UPS as a host reaches it.
func (w *sharedWorld) serve(h *sharedHost, rw http.ResponseWriter, r *http.Request) {
	refresh := strings.HasSuffix(r.URL.Path, "/oauth/refresh")
	if !refresh && !strings.HasSuffix(r.URL.Path, "/oauth/token") {
		w.sandbox.ServeHTTP(rw, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // it did not arrive whole
	}
	form, _ := url.ParseQuery(string(body))
	s := &spend{host: h, token: digestOf(form.Get("refresh_token")), at: time.Now()}
	s.run = h.whose(r.RemoteAddr)
	if s.run == nil && !h.isolated() {
		for _, other := range w.hosts {
			if s.run = other.whose(r.RemoteAddr); s.run != nil {
				s.host = other
				break
			}
		}
	}
	w.atStep(s, "request")
	r.Body = io.NopCloser(bytes.NewReader(body))
	answer := httptest.NewRecorder()
	w.upsMu.Lock()
	w.sandbox.ServeHTTP(answer, r)
	events := w.sandbox.Refreshes()
	if len(events) > 0 {
		event := events[len(events)-1]
		s.company, s.family, s.outcome = event.User, event.Family, event.Outcome
		if !refresh && s.outcome == sandbox.Committed {
			w.families[s.company] = append(w.families[s.company], family{s.family, s.at})
		}
	}
	if refresh {
		if answer.Code == http.StatusOK {
			var said struct {
				RefreshToken string `json:"refresh_token"`
			}
			_ = json.Unmarshal(answer.Body.Bytes(), &said)
			s.made = digestOf(said.RefreshToken)
			w.first[s.token] = s
		}
		w.spends = append(w.spends, s)
	}
	w.upsMu.Unlock()
	w.atStep(s, "spent")
	maps.Copy(rw.Header(), answer.Header())
	rw.WriteHeader(answer.Code)
	_, err = rw.Write(answer.Body.Bytes())
	if f, ok := rw.(http.Flusher); ok {
		f.Flush()
	}
	s.host.ups.mu.Lock()
	s.lost = err != nil || s.host.ups.state != whole
	s.host.ups.mu.Unlock()
	w.atStep(s, "answer")
}

// atStep strikes a process whose fate is to be struck there.
func (w *sharedWorld) atStep(s *spend, step string) {
	if s.run == nil {
		return
	}
	s.host.mu.Lock() // its host may be restarted just now
	f := s.run.fate
	s.host.mu.Unlock()
	if f == nil || f.step != step {
		return
	}
	if step == "answer" {
		time.AfterFunc(f.after, func() { s.host.strike(s.run) })
		return
	}
	s.host.strike(s.run)
}

// ended notes what a process left behind.
func (w *sharedWorld) ended(r *deed) {
	if strings.Contains(r.out, "panic") || strings.Contains(r.out, "goroutine ") {
		w.t.Errorf("%s:\n%s", r, r.out)
	}
	w.upsMu.Lock()
	defer w.upsMu.Unlock()
	w.runs = append(w.runs, r)
	if r.code == 0 && r.args[0] == "refresh" && r.company != "" && r.struck.IsZero() {
		w.took = append(w.took, r.ended.Sub(r.began))
		if len(w.took) > 32 {
			w.took = w.took[1:]
		}
		slices.Sort(w.took)
	}
	for _, s := range w.spends {
		if s.run == r && s.outcome == sandbox.Committed {
			s.sealed = r.code == 0
			switch {
			case s.sealed:
			case w.signedInSince(s):
				// What is on the disk is of the later sign-in.
				s.sealed = strings.Contains(r.out, id(companyOf(s.company)).String()+": refreshed")
			default:
				s.sealed = r.host.sealed(s.company)
			}
		}
	}
}

// signedInSince reports whether somebody signed in for the company after a request.
func (w *sharedWorld) signedInSince(s *spend) bool {
	return slices.ContainsFunc(w.families[s.company], func(f family) bool { return f.since.After(s.at) })
}

// sealed reports whether the latest attempt of a host for a company has its answer on disk, or
// is settled.
func (h *sharedHost) sealed(user string) bool {
	id := id(companyOf(user))
	dir := filepath.Join(h.state(), "shared")
	text, err := os.ReadFile(filepath.Join(dir, "copies", id.Slot()+".json"))
	if err != nil {
		return false
	}
	var copied struct {
		Key        string `json:"token_vault_key"`
		Generation int64  `json:"generation"`
	}
	if err := json.Unmarshal(text, &copied); err != nil {
		return false
	}
	// A copy of the journal: nothing of the host's own is touched.
	there, err := os.ReadFile(filepath.Join(dir, "journals", "slots", copied.Key))
	if err != nil {
		return false
	}
	work, err := os.MkdirTemp(h.home, "look")
	if err != nil {
		return false
	}
	defer os.RemoveAll(work)
	if err := os.MkdirAll(filepath.Join(work, "journals", "slots"), 0o700); err != nil {
		return false
	}
	if err := os.WriteFile(filepath.Join(work, "journals", "slots", copied.Key), there, 0o600); err != nil {
		return false
	}
	disk := files.New(work, vault.Homes{})
	disk.Elsewhere = []string{filepath.Join(h.config(), "answers")}
	attempts, err := disk.Attempts(h.w.t.Context(), id.Slot(), copied.Key)
	if err != nil || len(attempts) == 0 {
		return false
	}
	latest := slices.MaxFunc(attempts, grant.Journal.Later)
	return latest.Answered || latest.Generation <= copied.Generation
}

// judge explains each token that was spent twice by a window that can't be avoided, and each
// loss by such a token.
func (w *sharedWorld) judge() {
	w.upsMu.Lock()
	defer w.upsMu.Unlock()
	dead := map[string]bool{}
	for _, s := range w.spends {
		if s.outcome != sandbox.Reused {
			continue
		}
		dead[s.family] = true
		first := w.first[s.token]
		window := "unexplained"
		if first != nil {
			window = w.window(first, s)
		}
		w.kinds["~ sent twice: "+window]++
		if window == "unexplained" {
			from := s.at
			if first != nil {
				from = first.at
			}
			w.t.Errorf("a refresh token of %s was sent twice:\n%s", s.company, w.historyOf(s.company, from.Add(-10*time.Second), s.at.Add(2*time.Second)))
		}
	}
	lost := map[string]bool{}
	defer func() { w.kinds["~ grants lost"] = len(lost) }()
	for _, l := range w.losses {
		explained := false
		all := w.families[userOf(l.company)]
		for _, f := range all {
			if dead[f.id] && w.usedUntil(f).After(l.run.began) {
				explained = true
				lost[f.id] = true
			}
		}
		if !explained && w.signInTakenBack(all) {
			w.kinds["~ lost: a sign-in was taken back with the last commits"]++
			continue
		}
		if !explained {
			w.t.Errorf("%s is told to be void, and UPS refused nothing: %s\n%s\n%s", l.company, l.run, l.run.out, w.historyOf(userOf(l.company), l.run.began.Add(-time.Minute), l.run.ended))
		}
	}
}

// usedUntil is when a later sign-in was used in place of a family: the sign-in that UPS granted
// last need not be the one that is kept.
func (w *sharedWorld) usedUntil(f family) time.Time {
	for _, s := range w.spends {
		for _, later := range w.families[s.company] {
			if s.outcome == sandbox.Committed && later.id == s.family && later.since.After(f.since) && slices.Contains(w.families[s.company], f) {
				return s.at
			}
		}
	}
	return time.Now()
}

// signInTakenBack reports whether the database lost a sign-in that had been completed.
func (w *sharedWorld) signInTakenBack(all []family) bool {
	return slices.ContainsFunc(all, func(f family) bool {
		return slices.ContainsFunc(w.tookBack, func(at time.Time) bool { return f.since.Before(at) && at.Sub(f.since) < 10*time.Second })
	})
}

// window is the reason for which a token was sent twice, and could be.
func (w *sharedWorld) window(first, second *spend) string {
	struck := func(s *spend) bool { return s.run == nil || !s.run.struck.IsZero() && s.run.struck.Before(second.at) }
	stopped := func(s *spend) bool { return s.run != nil && !s.run.resumed.IsZero() }
	switch {
	case first.run == nil:
		return "(a) killed before UPS had the request"
	case !first.sealed && first.run.killed() && struck(first):
		return "(a) killed before the answer was sealed"
	case !first.sealed && first.lost:
		return "(a) the answer was lost"
	case stopped(first) && first.run.struck.Before(second.at) && second.at.Sub(first.at) > shortCallEnd/2:
		return "(a) stopped before the answer was sealed or delivered"
	case !first.sealed && first.run.code == 6 && first.run.ended.Sub(first.at) > shortCall-time.Second:
		return "(a) the answer was late"
	case !first.sealed && first.run.faulty:
		return "(a) the disk was full"
	case stopped(second) && second.run.resumed.Before(second.at) && second.at.Sub(second.run.resumed) < 250*time.Millisecond:
		return "(b) stopped after the last look"
	case first.sealed && first.host != second.host && first.run.code != 0 && second.at.Sub(first.at) > shortCallEnd-time.Second:
		return "(d) taken over before the answer was delivered"
	}
	for _, at := range w.tookBack {
		for _, s := range []*spend{first, second} {
			for _, born := range s.host.cloned {
				if born.Before(at) && at.Sub(born) < 10*time.Second && at.Before(second.at) && second.at.Sub(at) < 20*time.Second {
					return "(e) a new host was forgotten"
				}
			}
		}
	}
	return "unexplained"
}

// history is what happened to a company lately, and what the ledger says of it.
func (w *sharedWorld) history(company string) string {
	rows, err := w.primary.SQL("postgres", fmt.Sprintf(`SELECT g.state, g.generation, g.attempt, c.generation, c.attempt, c.sends_attempt, h.name, c.nonce, c.epoch, c.time, c.outcome
		FROM upsauth.grants g JOIN upsauth.claims c USING (token_vault_key) LEFT JOIN upsauth.hosts h ON h.id = c.host
		WHERE g.slot = '%s' AND c.generation >= g.generation ORDER BY c.number`, id(company).Slot()))
	ledger := fmt.Sprintln("the claims can't be read:", err)
	if err == nil {
		ledger = ""
		for _, row := range rows {
			ledger += strings.Join(row, " ") + "\n"
		}
	}
	w.upsMu.Lock()
	defer w.upsMu.Unlock()
	return w.historyOf(userOf(company), time.Now().Add(-time.Minute), time.Now()) + ledger
}

// historyOf is all that happened to a company between two moments.
func (w *sharedWorld) historyOf(user string, from, to time.Time) string {
	type line struct {
		at   time.Time
		text string
	}
	var lines []line
	for _, s := range w.spends {
		if s.company != user {
			continue
		}
		by := "nobody"
		if s.run != nil {
			by = fmt.Sprintf("%s (%d)", s.run, s.run.process.Pid)
		}
		lines = append(lines, line{s.at, fmt.Sprintf("UPS: %s -> %s %s, from %s by %s, family %.4s, lost %v, sealed %v", s.token, s.made, s.outcome, s.host.name, by, s.family, s.lost, s.sealed)})
	}
	for _, f := range w.families[user] {
		lines = append(lines, line{f.since, fmt.Sprintf("UPS: signed in, family %.4s", f.id)})
	}
	for _, r := range w.runs {
		if userOf(r.company) != user && r.company != "" {
			continue
		}
		what := fmt.Sprintf("%s (%d): exit code %d since %s", r, r.process.Pid, r.code, w.since(r.began))
		if !r.struck.IsZero() {
			what += fmt.Sprintf(", %v %s at %s", r.fate.signal, r.fate.step, w.since(r.struck))
		}
		if !r.resumed.IsZero() {
			what += ", resumed at " + w.since(r.resumed)
		}
		if r.faulty {
			what += ", disk full"
		}
		if r.code != 0 {
			what += r.about(user)
		}
		lines = append(lines, line{r.ended, what})
	}
	for _, at := range w.tookBack {
		lines = append(lines, line{at, "the database's last commits were taken back"})
	}
	slices.SortFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
	lines = slices.DeleteFunc(lines, func(l line) bool { return l.at.Before(from) || l.at.After(to) })
	var text strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&text, "%8s %s\n", w.since(l.at), l.text)
	}
	return text.String()
}

// about is what a command said of one company, a line each.
func (r *deed) about(user string) (text string) {
	theirs := r.company != ""
	for line := range strings.Lines(strings.TrimSpace(r.out)) {
		if r.company == "" && !strings.HasPrefix(line, " ") {
			theirs = strings.HasPrefix(line, companyOf(user))
		}
		if theirs {
			text += "\n\t\t" + strings.TrimRight(line, "\n")
		}
	}
	return text
}

func (w *sharedWorld) report(chaos time.Duration) {
	w.upsMu.Lock()
	defer w.upsMu.Unlock()
	granted := 0
	for _, s := range w.spends {
		if s.outcome == sandbox.Committed {
			granted++
		}
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%d faults in %.0f s, %d commands, %d refreshes\n", w.faults.Load(), chaos.Seconds(), len(w.runs), granted)
	for _, kind := range slices.Sorted(maps.Keys(w.kinds)) {
		fmt.Fprintf(&text, "%-60s %5d\n", kind, w.kinds[kind])
	}
	w.t.Log("\n" + text.String())
}
