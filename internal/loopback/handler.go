package loopback

import (
	"errors"
	"net/http"
	"strings"
)

// ServeHTTP answers everything that arrives where the login's answer does.
func (s *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 {
		// A login needs three requests, and answer leaves deadlines on the connection:
		// one that ends with its answer can neither idle nor multiply.
		w.Header().Set("Connection", "close")
	}
	path := pathOf(r.URL)
	// The redirect URI's path is the user's to choose: it goes before the
	// server's own, which nobody can guess.
	callback := path == s.login.redirect.path
	begins := !callback && s.isStart(path)
	done := s.doneAt(path)
	switch {
	case !s.hosts[strings.ToLower(r.Host)]:
		s.refuse(w, http.StatusNotFound, "it was not addressed to the redirect URI's host")
	case path == "/favicon.ico" && !callback:
		_ = s.answer(w, http.StatusNotFound, nil) // browsers ask unbidden: not worth a line
	case !callback && !begins && done == nil:
		s.refuse(w, http.StatusNotFound, "its path is not the redirect URI's")
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		s.refuse(w, http.StatusMethodNotAllowed, "only GET is answered")
	case len(r.RequestURI) > s.limits.url:
		s.refuse(w, http.StatusRequestURITooLong, "its address is too long")
	case r.ContentLength != 0:
		s.refuse(w, http.StatusBadRequest, "it has a body")
	case callback:
		s.callback(w, r)
	case begins:
		s.start(w, r, path)
	default:
		s.done(w, done)
	}
}

// done shows what came of an answer, or that the terminal asks about it.
func (s *Handler) done(w http.ResponseWriter, r *round) {
	s.mu.Lock()
	page, question := r.page, r.question
	s.mu.Unlock()
	if page == nil {
		// Without a script a page can't do it.
		refresh := "1" // seconds
		if s.pages.home != "" {
			refresh = "0; url=" + s.pages.home // where the question is asked
		}
		w.Header().Set("Refresh", refresh)
		_ = s.answer(w, http.StatusOK, question)
		return
	}
	if s.answer(w, http.StatusOK, page) == nil {
		s.markServed(r)
	}
}

// callback takes an answer of the authorization server and holds the request
// until the caller has said what came of it.
func (s *Handler) callback(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	l, guarded := s.login, s.guard
	l.state = s.state
	s.mu.Unlock()
	guards := guarded != nil && guarded.cookies
	if guards && !s.fromThisUser(w, r, guarded.User) {
		return
	}
	cb, err := l.read(r.URL.RawQuery)
	switch {
	case errors.Is(err, errIssuer):
		s.notice(Notice{Kind: OtherIssuer})
	case err == nil && guards && !guarded.knows(r):
		s.notice(Notice{Kind: OtherBrowser})
		err = errBrowser
	}
	if errors.Is(err, errBrowser) && s.hasEnded() {
		s.refuseEnded(w)
		return
	}
	if errors.Is(err, errBrowser) {
		s.refuseWith(w, http.StatusBadRequest, err.Error(), s.pages.otherBrowser())
		return
	}
	if err != nil {
		s.refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	answered, status, why := s.take(cb)
	switch why {
	case "":
	case whyEnded:
		s.refuseEnded(w)
		return
	default:
		s.refuse(w, status, why)
		return
	}
	defer s.leave()

	select {
	case <-answered.finished:
	case <-answered.asked:
	case <-s.ended:
	case <-r.Context().Done():
		s.refuse(w, http.StatusRequestTimeout, "the browser went away while it waited")
		return
	}

	s.mu.Lock()
	page, closed := answered.page, s.closed
	asked := answered.question != nil
	s.mu.Unlock()
	switch {
	case page == nil && asked && !closed:
		w.Header().Set("Location", answered.path)
		_ = s.answer(w, http.StatusSeeOther, nil)
	case page == nil:
		s.refuseEnded(w)
	case closed:
		// Nothing listens any more for the request that would follow a redirect.
		_ = s.answer(w, http.StatusOK, page)
	default:
		w.Header().Set("Location", answered.path)
		_ = s.answer(w, http.StatusSeeOther, nil)
	}
}
