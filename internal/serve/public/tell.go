package public

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"

	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/serve/page"
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
	// Return leads back to where the customer came from, empty for nowhere.
	Return string
}

// handleOf names the page about a sign-in. Whoever knows it knows nothing of the state.
func handleOf(r keeper.Remembered) string {
	sum := sha256.Sum256([]byte("done " + r.State()))
	return hex.EncodeToString(sum[:16])
}

// over tells why an invitation has ended, or that its sign-in waits.
func (p *public) over(w http.ResponseWriter, q request, i session.Invited) {
	contact := q.s.Config.Serve.Contact
	if i.State(p.Now()) == invitation.StateHeld {
		p.write(w, http.StatusOK, "after", page.Page{Heading: wordsHeld.Heading, Body: after{Text: wordsHeld.Text, Contact: contact}})
		return
	}
	said := ended(*i.End)
	p.write(w, http.StatusGone, "after", page.Page{Heading: said.Heading, Body: after{Text: said.Text, Contact: contact}})
}

// tell says what came of a sign-in.
func (p *public) tell(w http.ResponseWriter, q request, i session.Invited, handle string, err error) {
	var (
		other    *keeper.OtherUserError
		declined *keeper.DeclinedError
		stale    *keeper.StaleError
		refused  *ups.Error
	)
	state := i.State(p.Now())
	switch {
	case state == invitation.StateCompleted:
		p.completed(w, q, i)
	case state == invitation.StateHeld, state == invitation.StateEnded:
		p.over(w, q, i)
	case err == nil:
		p.begin(w, q, handle, wordsNotYet, nil)
	case errors.As(err, &other):
		said := "UPS does not say who signed in."
		if other.User != "" {
			said = mask(other.User) + " signed in."
		}
		if other.Expect != "" {
			said += " We expected " + mask(other.Expect) + "."
		}
		p.begin(w, q, handle, wordsWrongUser, []string{said})
	case errors.As(err, &declined):
		p.begin(w, q, handle, wordsDeclined, nil)
	case errors.As(err, &refused) && (refused.Kind == ups.Unreachable || refused.Status >= 500 || refused.Status == http.StatusTooManyRequests):
		p.Log("a sign-in for %s: %v", i.GrantID(), err)
		p.begin(w, q, handle, wordsUPSDown, nil)
	case errors.As(err, &stale), errors.As(err, new(*keeper.AwaitedError)), errors.As(err, &refused):
		p.Log("a sign-in for %s: %v", i.GrantID(), err)
		p.begin(w, q, handle, wordsTooLate, nil)
	default:
		p.Log("a sign-in for %s: %v", i.GrantID(), err)
		p.begin(w, q, handle, words{Heading: wordsTrouble.Heading, Text: wordsTrouble.Text, Button: wordsTooLate.Button}, nil)
	}
}

// begin is a page after which the customer begins anew.
func (p *public) begin(w http.ResponseWriter, q request, handle string, said words, first []string) {
	p.write(w, http.StatusOK, "after", page.Page{Heading: said.Heading, Body: after{
		Text: append(first, said.Text...), Contact: q.s.Config.Serve.Contact,
		Again: q.at("again"), Handle: handle, Button: said.Button,
	}})
}

// completed says that all is done.
func (p *public) completed(w http.ResponseWriter, q request, i session.Invited) {
	name := i.Application
	if registration, err := q.s.Registration(q.Context(), i.Application, i.Environment); err == nil {
		name = displayName(registration)
	}
	record, err := q.s.Vault.Record(q.Context(), i.GrantID())
	if err != nil {
		p.Log("%v", err)
	}
	said := completed(i.End.User, name, record.RefreshTokenExpires)
	p.write(w, http.StatusOK, "after", page.Page{Heading: said.Heading, Body: after{Text: said.Text, Contact: q.s.Config.Serve.Contact, Return: i.ReturnURL}})
}
