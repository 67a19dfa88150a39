package loopback

import (
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// answerer writes the answers of a handler.
type answerer struct {
	limits limits
	pages  *pages

	logMu sync.Mutex
	log   func(string)
}

func newAnswerer(home string, lim limits, log func(string)) (*answerer, error) {
	pages, err := newPages(home)
	if err != nil {
		return nil, err
	}
	return &answerer{limits: lim, pages: pages, log: log}, nil
}

// refuse answers with an error page and changes nothing. why must be fixed words.
func (s *answerer) refuse(w http.ResponseWriter, status int, why string) {
	s.refuseWith(w, status, why, s.pages.refusal(status, why))
}

// refuseWith is refuse with a page of its own.
func (s *answerer) refuseWith(w http.ResponseWriter, status int, why string, page Page) {
	s.logf("refused a request (" + strconv.Itoa(status) + "): " + why)
	body, err := s.pages.render("refusal", "Refused", page)
	if err != nil {
		body = nil
	}
	_ = s.answer(w, status, body)
}

// answer writes a whole answer out to the connection, or returns why it could not.
func (s *answerer) answer(w http.ResponseWriter, status int, body []byte) error {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", s.pages.policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))

	rc := http.NewResponseController(w)
	now := time.Now()
	// net/http reads on through a body nobody asked for; without a deadline it
	// would do so for as long as the client likes.
	for _, set := range []error{rc.SetReadDeadline(now.Add(s.limits.body)), rc.SetWriteDeadline(now.Add(s.limits.write))} {
		if set != nil && !errors.Is(set, http.ErrNotSupported) {
			return set
		}
	}
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		return err
	}
	return rc.Flush()
}

func (s *answerer) logf(line string) {
	if s.log == nil {
		return
	}
	s.logMu.Lock()
	defer s.logMu.Unlock()
	s.log(line)
}
