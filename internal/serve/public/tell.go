package public

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
)

// goOn is the body of the page that leads to UPS.
type goOn struct {
	Address string
	Words   words
}

// after is the body of a page of sentences.
type after struct {
	Text    []string
	Contact string
	// Again is the path of a form that begins anew, with the handle that it sends, empty
	// for none; Button is what stands on it.
	Again, Handle, Button string
	// Return leads back to where the customer came from, empty for nowhere; Back is what
	// stands on it.
	Return, Back string
}

// handleOf names the page about a sign-in. Whoever knows it knows nothing of the state.
func handleOf(r keeper.Remembered) string {
	sum := sha256.Sum256([]byte("done " + r.State()))
	return hex.EncodeToString(sum[:16])
}

// siteOf is what the window says behind the title: who invites.
func siteOf(q request) string {
	if q.s == nil {
		return site("")
	}
	return site(q.s.Config.Serve.From)
}

// over tells why an invitation has ended, or that its sign-in waits.
func (p *public) over(w http.ResponseWriter, q request, i session.Invited) {
	if i.State(p.Now()) == invitation.StateHeld {
		p.say(w, q, http.StatusOK, held("", q.s.Config.Serve.From))
		return
	}
	end := invitation.End{Why: invitation.Expired, At: i.Expires}
	if i.End != nil {
		end = *i.End
	}
	p.say(w, q, http.StatusGone, ended(end))
}

// tell says what came of a sign-in. Without an error, only what is kept of the
// invitation tells it, as after a restart.
func (p *public) tell(w http.ResponseWriter, q request, i session.Invited, remembered keeper.Remembered, err error) {
	handle := handleOf(remembered)
	var (
		other    *keeper.OtherUserError
		declined *keeper.DeclinedError
		stale    *keeper.StaleError
		refused  *ups.Error
	)
	// The wrong user's callback may come again, as when the page is loaded again: UPS takes
	// its code once.
	wrong := i.Wrong != nil && !i.Wrong.At.Before(remembered.Begun.Truncate(time.Second)) &&
		(err == nil || errors.As(err, &refused) && !mayPass(err) && !isOurs(err))
	switch state := i.State(p.Now()); {
	case state == invitation.StateCompleted:
		p.completed(w, q, i)
		return
	case state == invitation.StateHeld:
		p.say(w, q, http.StatusOK, held(i.SignIn.User, q.s.Config.Serve.From))
		return
	case state == invitation.StateEnded:
		p.over(w, q, i)
		return
	case wrong:
		p.begin(w, q, handle, wordsWrongUser, wrongUser(i.Wrong.User, remembered.ExpectUser))
		return
	case err == nil:
		p.begin(w, q, handle, wordsNotYet, nil)
		return
	case errors.As(err, &other):
		p.begin(w, q, handle, wordsWrongUser, wrongUser(other.User, other.Expect))
		return
	case errors.As(err, &declined) && declined.Code == "access_denied":
		p.begin(w, q, handle, wordsDeclined, nil)
		return
	}
	// The sender may have to mend it.
	p.Log(i.GrantID().String(), "a sign-in for "+i.GrantID().String()+": "+err.Error())
	said := wordsTroubleAfter
	switch {
	case errors.Is(err, grant.ErrLoginBusy):
		said = wordsBusy
	case isOurs(err):
		said = wordsNotOurs
	case mayPass(err):
		said = wordsUPSDownAfter
	case errors.As(err, &declined), errors.As(err, &stale), errors.As(err, &refused), errors.As(err, new(*unreadError)), errors.As(err, new(*keeper.AwaitedError)):
		said = wordsTooLate
	}
	p.begin(w, q, handle, said, nil)
}

// mayPass reports whether the same may be of use in a moment: UPS did not take what it
// was sent, or nobody had the time for it here.
func mayPass(err error) bool {
	if errors.Is(err, grant.ErrLoginBusy) {
		return true
	}
	var declined *keeper.DeclinedError
	if errors.As(err, &declined) {
		return declined.Code == "server_error" || declined.Code == "temporarily_unavailable"
	}
	var e *ups.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Kind {
	case ups.Unreachable, ups.Down, ups.Lost, ups.RateLimited:
		return true
	}
	return false
}

// isOurs reports whether UPS refuses the application, and not the customer.
func isOurs(err error) bool {
	var declined *keeper.DeclinedError
	if errors.As(err, &declined) {
		switch declined.Code { // RFC 6749 4.1.2.1: these are about the request
		case "invalid_request", "unauthorized_client", "unsupported_response_type", "invalid_scope":
			return true
		}
		return false
	}
	var e *ups.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Kind {
	case ups.ClientRefused, ups.RedirectURIRefused, ups.HeaderMissing, ups.Blocked:
		return true
	}
	return false
}

// begin is a page after which the customer begins anew.
func (p *public) begin(w http.ResponseWriter, q request, handle string, said words, first []string) {
	p.say(w, q, http.StatusOK, said, after{Text: first, Again: q.at("again"), Handle: handle})
}

// completed says that all is done.
func (p *public) completed(w http.ResponseWriter, q request, i session.Invited) {
	name := session.DisplayName(config.Registration{Name: i.Application})
	if registration, err := q.s.Registration(q.Context(), i.Application, i.Environment); err == nil {
		name = session.DisplayName(registration)
	}
	record, err := q.s.Vault.Record(q.Context(), i.GrantID())
	if err != nil || i.SignIn == nil || record.TokenVaultKey != i.SignIn.TokenVaultKey {
		record = grant.Record{} // removed, or authorized anew since
	}
	var body after
	// The settings may have changed since, and others may be able to change an invitation.
	if u, err := url.Parse(i.ReturnURL); err == nil && i.ReturnURL != "" && q.s.MayReturn(i.ReturnURL) {
		body.Return, body.Back = i.ReturnURL, backTo(u.Hostname())
	}
	said := completed(i.End.User, name, i.End.At, record.RefreshTokenExpires)
	p.say(w, q, http.StatusOK, said, body)
}
