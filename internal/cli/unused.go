package cli

import (
	"fmt"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
)

const unusedAdvice = "Begin with: upsauth authorize --company NAME\n" +
	"  If companies are already authorized, run the command as the user who authorized them, with the same UPSAUTH_STATE_DIR."

// tellUnused says on standard error why there is no company.
func (s *job) tellUnused(records []grant.Record) {
	if len(records) > 0 || len(s.problems) > 0 {
		return
	}
	if text := s.NeverUsed(); text != "" {
		fmt.Fprintln(s.env.Err, legible.Sentence(text))
	}
}
