package manager

import (
	"net/http"
	"time"

	"github.com/upsauth/upsauth/internal/checkup"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/serve/page"
)

// lookAround is what was found, and when.
type lookAround struct {
	at    time.Time
	found []checkup.Finding
}

// finding is one line of the page.
type finding struct {
	Level, Check string
	OK           bool
	failure
}

// check shows what the last look found.
func (m *manager) check(w http.ResponseWriter, r *http.Request) error {
	m.mu.Lock()
	last := m.checked
	m.mu.Unlock()
	body := struct {
		When     string
		Findings []finding
		Busy     bool
		Well     bool
	}{Busy: r.URL.Query().Has("busy")}
	if last != nil {
		body.When, body.Well = when(last.at), true
		for _, f := range last.found {
			if f.Again {
				continue
			}
			ok := f.Level == checkup.OK
			body.Well = body.Well && ok
			e := f.Explanation()
			// Its level stands before it, so it begins no sentence.
			body.Findings = append(body.Findings, finding{string(f.Level), legible.Line(f.Check), ok, m.failure(e, e.What)})
		}
	}
	m.write(w, r, http.StatusOK, "check", page.Page{Heading: "Is everything well?"}, body)
	return nil
}

// look looks at everything. It writes what it needs to try the vault, so it is no GET, and
// one look at a time is enough.
func (m *manager) look(w http.ResponseWriter, r *http.Request) error {
	if !m.checking.TryLock() {
		see(w, "/check?busy")
		return nil
	}
	defer m.checking.Unlock()
	ctx := r.Context()
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	found, err := m.Doctor(ctx, s)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.checked = &lookAround{m.Now(), found}
	m.mu.Unlock()
	see(w, "/check")
	return nil
}
