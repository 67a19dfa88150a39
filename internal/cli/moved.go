package cli

import "github.com/upsauth/upsauth/internal/browser"

// doctor's own names for what browser reads out of $BROWSER.
var (
	browserPrograms = browser.Programs
	browserWords    = browser.Words
)
