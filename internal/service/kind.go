package service

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

// kindOf is what an error is, without what differs from one time to the next: ports,
// times, what is left to wait. Two errors of one kind are the same trouble.
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
		return fmt.Sprintf("home %s %t %t %s", home.Home, home.TimedOut, home.Damaged, kindOf(home.Err))
	case errors.As(err, &path):
		return fmt.Sprintf("%s %s %v", path.Op, path.Path, path.Err)
	}
	var kinds []string
	for e := err; e != nil; e = errors.Unwrap(e) {
		kind := fmt.Sprintf("%T", e)
		if errors.Unwrap(e) == nil && (kind == "*errors.errorString" || kind == "syscall.Errno") {
			kind = e.Error() // its text is all that it is
		}
		kinds = append(kinds, kind)
	}
	return strings.Join(kinds, " ")
}
