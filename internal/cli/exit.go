package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"github.com/upsauth/upsauth/internal/backup"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/signin"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

// The exit codes; upsauth help exit-codes tells them to users.
const (
	exitDone         = 0
	exitFailed       = 1
	exitUsage        = 2
	exitNotFound     = 3
	exitAuthorize    = 4
	exitVault        = 5
	exitUPS          = 6
	exitRefused      = 7
	exitNotRun       = 126 // of exec, as shells have it
	exitNoProgram    = 127
	exitInterrupted  = 130
	exitCodesInOrder = "130 7 5 4 6 3 2 1"
)

// usageError is a command line that can't be meant.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }

func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// notFoundError names a company, application or grant that there is not.
type notFoundError struct{ what, advice string }

func (e *notFoundError) Error() string { return e.what }

// statusError carries an exit code; what is empty where all was said already.
type statusError struct {
	code int
	what string
}

func (e *statusError) Error() string { return e.what }

// exitCode is the one place where errors become exit codes.
func exitCode(err error) int {
	var (
		usage     *usageError
		notFound  *notFoundError
		status    *statusError
		child     *childError
		gone      *keeper.GoneError
		pending   *keeper.PendingError
		changed   *keeper.ClientChangedError
		tooShort  *keeper.TooShortError
		home      *vault.HomeError
		missing   *vault.MissingError
		noKey     *vault.JournalKeyError
		elsewhere *keeper.ElsewhereError
		lost      *keeper.LostError
		fromUPS   *ups.Error
		setting   *ups.SettingError
		cancelled = errors.Is(err, context.Canceled)
	)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &status):
		return status.code
	case errors.As(err, &child):
		return child.code
	case cancelled:
		return exitInterrupted
	case errors.As(err, &usage), errors.As(err, &tooShort), errors.As(err, &setting):
		return exitUsage
	case errors.As(err, &notFound), errors.Is(err, grant.ErrNoGrant):
		return exitNotFound
	case errors.As(err, &gone):
		return exitAuthorize
	case errors.As(err, &elsewhere), errors.As(err, &lost):
		return exitVault
	case errors.As(err, &home), errors.As(err, &missing), errors.As(err, &noKey):
		return exitVault
	case errors.As(err, &changed):
		return exitRefused
	case errors.As(err, new(*outputError)), errors.As(err, new(*config.Error)):
		return exitFailed
	case isStorage(err), errors.As(err, new(*vault.LockError)), errors.As(err, new(*vault.RehearsalError)):
		return exitVault
	case errors.As(err, &pending):
		return exitUPS
	case errors.As(err, &fromUPS):
		return exitCodeOf(fromUPS.Kind)
	}
	return exitFailed
}

func exitCodeOf(kind ups.Kind) int {
	switch kind {
	case ups.RefreshTokenRefused:
		return exitAuthorize
	case ups.ClientRefused, ups.HeaderMissing, ups.RedirectURIRefused, ups.Blocked:
		return exitRefused
	case ups.RateLimited, ups.Down, ups.Unreachable, ups.Lost, ups.Unusable:
		return exitUPS
	}
	return exitFailed
}

// worse returns the exit code of the two that a person should see first.
func worse(a, b int) int {
	rank := func(code int) int {
		if code == exitDone {
			return 1 << 10
		}
		return strings.Index(" "+exitCodesInOrder+" ", fmt.Sprintf(" %d ", code))
	}
	if rank(b) < rank(a) {
		return b
	}
	return a
}

// message is what an error says, on one line for each thing that went wrong.
func message(err error) string {
	var saved *keeper.SavedError
	switch {
	case errors.As(err, &saved):
		return "interrupted; the tokens were saved first, nothing is lost"
	case errors.Is(err, context.Canceled):
		return "interrupted"
	}
	return err.Error()
}

// advice is what to do about an error, empty where it says so itself.
func advice(err error) string {
	var (
		notFound *notFoundError
		gone     *keeper.GoneError
		changed  *keeper.ClientChangedError
		pending  *keeper.PendingError
		lost     *keeper.LostError
		home     *vault.HomeError
		missing  *vault.MissingError
		busy     *vault.LoginBusyError
		fromUPS  *ups.Error
		setting  *ups.SettingError
		tooSoon  *keeper.RetryTooSoonError
		contact  *contactError
	)
	switch {
	case errors.As(err, &contact):
		return advice(contact.error) + "\n  Contact: " + render.Text(contact.contact)
	case errors.As(err, &notFound):
		return notFound.advice
	case errors.As(err, &gone):
		run := "Run: " + companyCommand("authorize", gone.ID)
		if gone.Void {
			return "Was the ups.com password of the person who signed in changed? That voids every authorization of theirs.\n" +
				"  Or was another copy of this authorization refreshed (upsauth vault export)?\n  " + run
		}
		return run
	case errors.As(err, new(*keeper.ElsewhereError)):
		return "Nothing is lost: leave that file where it is, see that the state directory can be written, and run the command again. It puts the answer in place."
	case errors.As(err, &lost):
		return "See that the state directory can be written. Then run: " + companyCommand("authorize", lost.ID)
	case errors.As(err, &home):
		return home.Advice
	case errors.As(err, &missing) && missing.Vault == "file":
		return "Restore the vault's directory from a backup, or authorize the company again: " + companyCommand("authorize", missing.ID)
	case errors.As(err, &missing):
		return "If this session has another keychain than the one that authorized the company, use that one. Otherwise run: " + companyCommand("authorize", missing.ID)
	case errors.As(err, &changed):
		return "Register the application as it was (upsauth app show), or authorize the company anew: " + companyCommand("authorize", changed.ID)
	case errors.As(err, &pending):
		return "Run the command again then. Until then a good access token is served."
	case errors.As(err, new(*keeper.OtherUserError)):
		return "Sign out at ups.com in the browser, and run the command again: the right user has to sign in."
	case errors.As(err, new(*signin.NobodyError)):
		return "--timeout waits longer, --no-browser takes a pasted address. If the browser showed an error page, its words say what UPS refuses."
	case errors.As(err, new(*keeper.DeclinedError)):
		return "To authorize after all, sign in again, tick the agreement and continue: upsauth authorize."
	case errors.As(err, &busy):
		return "Wait until it is finished, or end it there with Ctrl-C."
	case errors.As(err, &setting):
		return setting.Remedy
	case errors.As(err, &tooSoon):
		return fmt.Sprintf("Set retry_unknown_after = %q or more in config.toml, or remove the line.", tooSoon.Least)
	case errors.As(err, new(*outputError)), errors.As(err, new(*config.Error)):
		return ""
	case isStorage(err) && !isLocking(err):
		return "Make room on the disk, or see why the directory can't be written: it may be mounted read-only."
	case isLocking(err):
		return "Put the state directory where file locks work, such as a local disk: set UPSAUTH_STATE_DIR."
	case errors.As(err, &fromUPS):
		return fromUPS.Advice()
	case errors.Is(err, backup.ErrNeedIdentity), errors.Is(err, backup.ErrOtherIdentity):
		return "Name it: upsauth vault import -i FILE EXPORT"
	case errors.Is(err, backup.ErrWrongPassphrase):
		return "Where UPSAUTH_PASSPHRASE is set to that of the vault, pipe in that of the export with --passphrase-stdin."
	}
	return ""
}

// outputError is about a file that somebody named for a command's output.
type outputError struct{ err error }

func (e *outputError) Error() string { return e.err.Error() }

func (e *outputError) Unwrap() error { return e.err }

// isStorage reports whether a disk is the cause: it is full, mounted read-only, or
// fails. What upsauth keeps on this machine can't be written then, at whichever
// step that came up.
func isStorage(err error) bool {
	var file *fs.PathError
	if errors.As(err, &file) && strings.HasPrefix(file.Path, "/dev/std") {
		return false // where a shell sent the output
	}
	return slices.ContainsFunc(diskErrors(), func(errno syscall.Errno) bool { return errors.Is(err, errno) })
}

// isLocking reports whether locks don't work where they have to.
func isLocking(err error) bool {
	if errors.As(err, new(*safefile.LinkError)) || errors.As(err, new(*safefile.PermissionError)) || errors.As(err, new(*safefile.AccessError)) {
		return false // it says itself what to do
	}
	return errors.As(err, new(*vault.LockError)) && !isStorage(err) || slices.ContainsFunc(lockErrors(), func(errno syscall.Errno) bool { return errors.Is(err, errno) })
}

// shellQuote makes a name fit to be pasted into a POSIX shell.
func shellQuote(s string) string {
	plain := strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}) < 0
	if plain && s != "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
