package serve

import (
	"context"

	"github.com/upsauth/upsauth/internal/peer"
	"github.com/upsauth/upsauth/internal/serve/manager"
	"github.com/upsauth/upsauth/internal/serve/signins"
)

// peopleSigningIn are the sign-ins as the company manager's pages know them.
type peopleSigningIn struct{ all *signins.SignIns }

func (p peopleSigningIn) Begin(ctx context.Context, r manager.Request) (manager.SignIn, error) {
	// Who has the browser may finish the sign-in: a service is often another user's.
	user := 0
	if uid, err := peer.Of(ctx).User(); err == nil {
		user = uid
	}
	one, err := p.all.Begin(ctx, signins.Request{ID: r.ID, Page: r.Page, Elsewhere: r.Elsewhere, User: user, Another: r.Another})
	if err != nil {
		return nil, err
	}
	return one, nil
}

func (p peopleSigningIn) Get(handle string) (manager.SignIn, bool) {
	one := p.all.Get(handle)
	return one, one != nil
}
