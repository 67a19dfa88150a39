package public

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/session"
)

// isCallback reports whether the request is at the public redirect URI of an application,
// or at the one that UPS was asked with for this browser: the application may have got
// another one since, or have gone.
func (p *public) isCallback(q request) bool {
	applications, err := q.s.Applications(q.Context())
	if err != nil {
		p.Log("", err.Error())
	}
	for _, r := range applications.Applications {
		if r.PublicRedirectURI != "" && leadsTo(r.PublicRedirectURI, q) {
			return true
		}
	}
	pressed, _ := p.pressed(q) // the callback says what is wrong
	for _, remembered := range pressed {
		if leadsTo(remembered.RedirectURI, q) {
			return true
		}
	}
	return false
}

// takesOthers reports whether UPS sends those here too who sign in without an invitation.
func (p *public) takesOthers(q request) bool {
	applications, err := q.s.Applications(q.Context())
	return err == nil && slices.ContainsFunc(applications.Applications, func(r config.Registration) bool {
		return r.RedirectURI == r.PublicRedirectURI && leadsTo(r.RedirectURI, q)
	})
}

// leadsTo reports whether a redirect URI leads to where the request is.
func leadsTo(redirectURI string, q request) bool {
	u, err := url.Parse(redirectURI)
	return err == nil && u.Path == q.URL.Path
}

// callback takes the browser's way back from ups.com. The address has the code in it, so
// another page tells what came of it.
func (p *public) callback(w http.ResponseWriter, q request) {
	state := loopback.StateOf(q.URL.RawQuery)
	if q.Method == http.MethodHead || state == "" {
		p.say(w, q, http.StatusBadRequest, wordsNoAnswer)
		return
	}
	remembered, found, err := p.find(q, state, keeper.Remembered.State)
	switch {
	case err != nil:
		p.trouble(w, q, err) // loading it again is another try
		return
	case !found:
		said := wordsOtherBrowser
		if p.takesOthers(q) {
			said.Text = append(slices.Clip(said.Text), wordsElsewhere)
		}
		p.say(w, q, http.StatusForbidden, said)
		return
	case !leadsTo(remembered.RedirectURI, q):
		p.Log(q.URL.Path, fmt.Sprintf("UPS sent a customer's browser to %s and was asked to send it to %s: look at the Callback URLs in UPS's portal, and at the proxy", q.URL.Path, remembered.RedirectURI))
		p.begin(w, q, handleOf(remembered), wordsOtherAddress, nil)
		return
	}
	callback, err := loopback.ReadCallback(loopback.Config{RedirectURI: remembered.RedirectURI, State: state, Issuer: p.issuer(q, remembered)}, q.URL.RawQuery)
	if err != nil {
		p.note(handleOf(remembered), failure{err: &unreadError{err}})
	} else {
		p.finish(q, remembered, callback)
	}
	http.Redirect(w, q.Request, q.at("done/"+handleOf(remembered)), http.StatusSeeOther)
}

// unreadError says that an answer of UPS's is none.
type unreadError struct{ error }

// finish exchanges what the browser brought back, and notes what came of it.
func (p *public) finish(q request, remembered keeper.Remembered, callback grant.Callback) {
	begun := p.Now()
	came, err := q.s.Return(q.Context(), remembered, callback)
	if said := cameTo(came, err); said != "" {
		p.Came(fmt.Sprintf("%s (invitation %s)", said, came.ID))
	}
	f := failure{err: err}
	if err != nil && mayPass(err) {
		f.callback, f.codeTill = callback, begun.Add(codeLasts)
	}
	p.note(handleOf(remembered), f)
}

// cameTo is what a sign-in came to, for the log of whoever sent the invitation; empty where
// nobody signed in.
func cameTo(came session.Came, err error) string {
	other := &keeper.OtherUserError{User: came.User}
	wrong := errors.As(err, &other)
	user := invitation.Visit{User: other.User}.Named()
	switch {
	case wrong:
		return fmt.Sprintf("%s signed in for %s, and %s is expected; nothing was changed", user, came.GrantID(), other.Expect)
	case err != nil:
		return ""
	case came.Held:
		return fmt.Sprintf("%s signed in for %s and waits to be confirmed", user, came.GrantID())
	}
	return fmt.Sprintf("%s is authorized by %s", came.GrantID(), user)
}

// issuer is the one that answers of an environment have to name, empty for any.
func (p *public) issuer(q request, r keeper.Remembered) string {
	environment, err := q.s.Environment(r.Environment)
	if err != nil {
		return ""
	}
	return environment.Issuer
}
