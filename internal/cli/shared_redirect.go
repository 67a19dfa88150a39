package cli

import (
	"context"
	"fmt"

	"github.com/upsauth/upsauth/internal/config"
)

// warnOfSharedRedirect warns where another environment's application has the same
// redirect URI.
func (s *job) warnOfSharedRedirect(ctx context.Context, r config.Registration) error {
	warning, err := s.SharedRedirectWarning(ctx, r)
	if err != nil || warning == "" {
		return err
	}
	fmt.Fprintf(s.env.Err, "Warning: %s\n", warning)
	return nil
}
