package service

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

// kindOf is what an error is, without what differs from one time to the next: ports,
// times, what is left to wait. Two errors of one kind are the same trouble. Of what
// wraps an error the type says enough, and the innermost says what happened.
func kindOf(err error) string {
	var (
		fromUPS *ups.Error
		home    *vault.HomeError
		path    *fs.PathError
	)
	switch {
	case err == nil:
		return ""
	case errors.As(err, &fromUPS):
		return fmt.Sprintf("UPS %s %s %d %s %s", fromUPS.Endpoint, fromUPS.Kind, fromUPS.Status, fromUPS.Code, fromUPS.Message)
	case errors.As(err, &home):
		// The sentence may have the name of a file in it, another for each grant.
		return fmt.Sprintf("home %s %t %s %s", home.Home, home.TimedOut, home.Advice, kindOf(home.Err))
	case errors.As(err, &path):
		return fmt.Sprintf("%s %s %v", path.Op, path.Path, path.Err)
	}
	kind := fmt.Sprintf("%T", err)
	if within := errors.Unwrap(err); within != nil {
		return kind + " " + kindOf(within)
	}
	several, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return kind + " " + err.Error()
	}
	for _, within := range several.Unwrap() {
		kind += " " + kindOf(within)
	}
	return kind
}
