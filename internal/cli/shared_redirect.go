package cli

import (
	"context"
	"fmt"

	"github.com/upsauth/upsauth/internal/config"
)

// warnOfSharedRedirect warns where another environment's application has the same
// redirect URI.
func (s *job) warnOfSharedRedirect(ctx context.Context, r config.Registration) error {
	sharing, err := s.SharedRedirect(ctx, r)
	if err != nil || len(sharing) == 0 {
		return err
	}
	fmt.Fprintf(s.env.Err, "Warning: the environments %s share the redirect URI %s. If one of them is hostile, "+
		"it can get a code of another. Give each environment a redirect URI of its own.\n", joined(sharing), r.RedirectURI)
	return nil
}
