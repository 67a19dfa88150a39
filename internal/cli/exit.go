package cli

import (
	"cmp"
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
	"github.com/upsauth/upsauth/internal/session"
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
	case errors.As(err, &usage), errors.As(err, &tooShort), errors.As(err, &setting), isSettings(err):
		return exitUsage
	case errors.As(err, &notFound), errors.As(err, new(*session.NotFoundError)), errors.Is(err, grant.ErrNoGrant):
		return exitNotFound
	case errors.As(err, &gone):
		return exitAuthorize
	case errors.As(err, &elsewhere), errors.As(err, &lost):
		return exitVault
	case errors.As(err, &home), errors.As(err, &missing), errors.As(err, &noKey), errors.As(err, new(*session.SecretGoneError)):
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
	var (
		saved    *keeper.SavedError
		several  *session.SeveralError
		notFound *session.NotFoundError
		clash    *session.ClashError
	)
	switch {
	case errors.As(err, &several):
		return severalWords(several)
	case errors.As(err, &notFound) && notFound.Kind == session.NoRegistration && len(notFound.Registered) > 0:
		return notFound.Error() + "; registered are: " + listedApplications(notFound.Registered)
	case errors.As(err, new(*session.SecretMissingError)):
		return fmt.Sprintf("the client secret is missing: set %s, or register the application with upsauth app add", config.EnvClientSecret)
	case errors.As(err, &clash):
		return fmt.Sprintf("%s. Remove the one that is not needed: %s, or %s", clash.Error(), companyCommand("revoke", clash.One), companyCommand("revoke", clash.Other))
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
		contact  *session.ContactError
		unknown  *session.NotFoundError
		secret   *session.SecretGoneError
		advised  *advisedError
	)
	switch {
	case errors.As(err, &advised):
		return advised.advice
	case errors.As(err, &contact):
		return advice(contact.Err) + "\n  Contact: " + render.Text(contact.Contact)
	case errors.As(err, &notFound):
		return notFound.advice
	case errors.As(err, &unknown):
		return notFoundAdvice(unknown)
	case errors.As(err, &secret):
		return fmt.Sprintf("Run: upsauth app set-secret %s --env %s", secret.Application, secret.Environment)
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

// isSettings reports whether what was asked for is not clear, or is missing.
func isSettings(err error) bool {
	return errors.As(err, new(*session.SeveralError)) || errors.As(err, new(*session.SettingError)) ||
		errors.As(err, new(*session.NameError)) || errors.As(err, new(*session.SecretMissingError))
}

// severalWords say how one of several is meant.
func severalWords(e *session.SeveralError) string {
	switch {
	case len(e.Grants) > 0:
		return fmt.Sprintf("%s: %s\n  Say which with --app and --env.", e.Error(), listed(e.Grants))
	case e.Name != "":
		var names []string
		for _, r := range e.Applications {
			names = append(names, r.Environment)
		}
		return fmt.Sprintf("%s: %s\n  Say which with --env.", e.Error(), joined(names))
	}
	return fmt.Sprintf("%s: %s\n  Say which with --app and --env, or once and for all with upsauth app set-default.", e.Error(), listedApplications(e.Applications))
}

// notFoundAdvice is what to do where something is not there as it was named.
func notFoundAdvice(e *session.NotFoundError) string {
	const companies = "upsauth company list shows all companies"
	switch e.Kind {
	case session.NoCompany:
		text := companies + "; upsauth authorize --company NAME authorizes one."
		if e.Unused != "" {
			text = sentence(e.Unused) + " " + text
		}
		if e.Near != "" {
			text = fmt.Sprintf("Did you mean %q? %s", e.Near, text)
		}
		return text
	case session.NoPattern, session.NothingFits:
		return companies + "."
	case session.NoAuthorization:
		return "Run: upsauth authorize --company " + shellQuote(e.Company)
	case session.NoGrant:
		return "It has: " + listed(e.Has)
	case session.NoApplication:
		return "upsauth app list shows all."
	case session.NoApplicationOfName:
		return "upsauth app list shows all; upsauth app add registers one."
	case session.NotRegistered:
		return fmt.Sprintf("Run: upsauth app add %s --env %s --client-id ID --redirect-uri URI", e.Application, e.Environment)
	case session.NoRegistration:
		return fmt.Sprintf("Run: upsauth app add %s --env %s --client-id ID --redirect-uri URI, with what UPS's developer portal shows. To try without an account: add --env sandbox.",
			cmp.Or(e.Application, config.IntelligentRating), cmp.Or(e.Environment, ups.Production))
	case session.NoEnvironment:
		return fmt.Sprintf("There are: %s. One of your own goes into %s as [environments.NAME] with a base_url.", joined(e.Environments), e.File)
	}
	return ""
}

func listedApplications(applications []config.Registration) string {
	var names []string
	for _, r := range applications {
		names = append(names, fmt.Sprintf("--app %s --env %s", r.Name, r.Environment))
	}
	return strings.Join(names, "; ")
}

// advisedError is an error of which the command knows best what to do about it.
type advisedError struct {
	error
	advice string
}

func (e *advisedError) Unwrap() error { return e.error }

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
