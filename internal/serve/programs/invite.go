package programs

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
)

// invite makes an invitation, and answers with its address, which nobody can have again.
// A company that is not known is added, for a caller that covers all companies.
func (p *Programs) invite(r asked) (answer, error) {
	target, err := r.body.company("field")
	if err != nil {
		return answer{}, err
	}
	request := session.InviteRequest{
		ExpectUser: strings.TrimSpace(r.body["expect_user"]), Note: r.body["note"], ReturnURL: r.body["return_url"], By: "key " + r.by.name, Lasts: invitation.Usual,
		Another: true, // nobody can be asked
	}
	if strings.EqualFold(request.ExpectUser, "any") {
		request.ExpectUser, request.AnyUser = "", true
	}
	if text, there := r.body["expires"]; there {
		if request.Lasts, err = legible.Span(text); err != nil {
			return answer{}, usage("the field expires: "+err.Error(), "Write a length of time as 7d or 36h.")
		}
	}
	s, covers, err := p.begin(r)
	if err != nil {
		return answer{}, err
	}
	if target, err = covers.narrow(target); err != nil {
		return answer{}, err
	}
	request.Target = target
	type made struct {
		session.Invited
		address string
	}
	one, err := detached(covers.in(r.Context()), p, func(ctx context.Context) (made, error) {
		invited, address, err := s.Invite(ctx, request)
		return made{invited, address}, err
	})
	switch {
	case errors.As(err, new(*invitation.LastingError)):
		return answer{}, usage("the field expires: "+err.Error(), "Choose a time in between.")
	case errors.As(err, new(*session.ReturnURLError)):
		return answer{}, usage("the field return_url: "+err.Error(), "Use an address below one of return_urls, or add the address to return_urls under [serve] in config.toml.")
	case errors.As(err, new(*invitation.DraftError)):
		return answer{}, usage(err.Error(), "Change the field, or leave the field out.")
	case err != nil:
		return answer{}, covers.told(err)
	}
	var body bytes.Buffer
	err = render.JSON(&body, render.NewInvite(one.Invitation, one.address))
	return answer{status: http.StatusCreated, kind: kindJSON, body: body.Bytes()}, err
}
