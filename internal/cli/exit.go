package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/render"
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

// exitCode is the exit code of an error: its class's, but for what is of a command
// line alone.
func exitCode(err error) int {
	var (
		status *statusError
		child  *childError
	)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &status):
		return status.code
	case errors.As(err, &child):
		return child.code
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, new(*usageError)):
		return exitUsage
	case errors.As(err, new(*notFoundError)):
		return exitNotFound
	}
	class := explain.Error(err).Class
	if class == explain.Vault && errors.As(err, new(*outputError)) && explain.IsStorage(err) {
		return exitFailed // a disk that somebody named, and not upsauth's own
	}
	return exitCodeOf(class)
}

func exitCodeOf(class explain.Class) int {
	switch class {
	case explain.Usage:
		return exitUsage
	case explain.NotFound:
		return exitNotFound
	case explain.Authorize:
		return exitAuthorize
	case explain.Vault:
		return exitVault
	case explain.UPS:
		return exitUPS
	case explain.Refused:
		return exitRefused
	case explain.Interrupted:
		return exitInterrupted
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
	e := explain.Error(err)
	text := inTerminal(e.What, err)
	for _, r := range e.Do {
		if r.Join == "" {
			break
		}
		text += r.Join + r.Words(inWords)
	}
	return text
}

// advice is what to do about an error, empty where it says so itself.
func advice(err error) string {
	var (
		notFound *notFoundError
		advised  *advisedError
	)
	switch {
	case errors.As(err, &advised):
		return advised.advice
	case errors.As(err, &notFound):
		return notFound.advice
	case errors.As(err, new(*outputError)) && explain.IsStorage(err):
		return ""
	}
	e := explain.Error(err)
	text := remedyWords(e.Do)
	if e.Contact != "" {
		text += "\n  Contact: " + render.Text(e.Contact)
	}
	return text
}

// remedyWords are what to do in the words of a terminal, without what stands in the
// message.
func remedyWords(do []explain.Remedy) string {
	var text strings.Builder
	begun := false
	for _, r := range do {
		switch {
		case r.Join != "" && !begun:
			continue // it stands in the message
		case r.Join == "" && begun:
			text.WriteString("\n  ")
		default:
			text.WriteString(r.Join)
		}
		text.WriteString(r.Words(inWords))
		begun = true
	}
	return text.String()
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
