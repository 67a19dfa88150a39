package cli

import (
	"fmt"
	"slices"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/loopback"
)

// warnOfSharedRedirect warns where another environment's application has the same
// redirect URI: nothing in UPS's answer says which of the two it comes from, so a
// hostile environment could be given the other's code (RFC 9700 section 4.4).
func (s *session) warnOfSharedRedirect(r config.Registration) error {
	applications, err := config.LoadApplications(s.config.Paths.Config)
	if err != nil {
		return err
	}
	sharing := []string{r.Environment}
	for _, other := range applications.Applications {
		if loopback.SameRedirectURI(r.RedirectURI, other.RedirectURI) && !slices.Contains(sharing, other.Environment) {
			sharing = append(sharing, other.Environment)
		}
	}
	if len(sharing) == 1 {
		return nil
	}
	slices.Sort(sharing)
	fmt.Fprintf(s.env.Err, "Warning: the environments %s share the redirect URI %s. If one of them is hostile, "+
		"it can get a code of another. Give each environment a redirect URI of its own.\n", joined(sharing), r.RedirectURI)
	return nil
}
