package events

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/process"
)

const (
	// Limit is how long a command may take for one event.
	Limit = 30 * time.Second
	// ending is how long a command that is told to end may take to do so.
	ending = 2 * time.Second
)

// limitError says that a command took too long, and was ended.
type limitError struct{ limit time.Duration }

func (e *limitError) Error() string {
	return fmt.Sprintf("the command took longer than %s, and was ended", e.limit)
}

// Runner runs the command.
type Runner struct {
	// Environ is the environment of this process, of which the command gets what
	// programs need to run, and no secret.
	Environ []string
	// Limit is how long the command may take, zero for what is usual.
	Limit time.Duration
}

// Run runs a command with an event on its standard input. It returns the last line of what
// the command said, without what looks like a secret. When the context ends, the command
// and all that it has started are ended first.
func (r Runner) Run(ctx context.Context, command []string, event []byte) (said string, err error) {
	limit := r.Limit
	if limit == 0 {
		limit = Limit
	}
	running, cancel := context.WithTimeoutCause(ctx, limit, &limitError{limit})
	defer cancel()
	var out tail
	c := exec.CommandContext(running, command[0], command[1:]...)
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(event), &out, &out
	c.Env = environ(r.Environ)
	process.Group(c)
	c.Cancel = func() error { return process.EndGroup(c.Process, false) }
	c.WaitDelay = ending
	err = c.Run()
	if running.Err() != nil && c.Process != nil {
		_ = process.EndGroup(c.Process, true) // whoever ignores being told to end
	}
	if errors.Is(err, exec.ErrWaitDelay) && running.Err() == nil {
		err = nil // it has ended well, and left something running that has its output
	}
	if limit := new(limitError); err != nil && ctx.Err() == nil && errors.As(context.Cause(running), &limit) {
		err = limit
	}
	return Mask(out.line()), err
}

// tail keeps the end of what is written.
type tail struct{ end []byte }

func (t *tail) Write(p []byte) (int, error) {
	const most = 4 << 10
	t.end = append(t.end, p...)
	if over := len(t.end) - most; over > 0 {
		t.end = slices.Delete(t.end, 0, over)
	}
	return len(p), nil
}

// line is the last line that has something in it.
func (t *tail) line() string {
	const most = 300 // characters
	last := ""
	for line := range strings.Lines(strings.ToValidUTF8(strings.ReplaceAll(string(t.end), "\r", "\n"), "?")) {
		if line = strings.TrimSpace(legible.Line(line)); line != "" {
			last = line
		}
	}
	if text := []rune(last); len(text) > most {
		last = string(text[:most]) + "…"
	}
	return last
}

var (
	afterName   = legible.Pattern(`(?i)\b((?:[\w-]*(?:secret|token|passw(?:or)?d|passphrase|api[_-]?key|signature)[\w-]*|authorization|cookie)["']?\s*[:=]\s*)(?:"[^"]*"?|'[^']*'?|(?:(?:bearer|basic)\s+)?[^\s"',;&]+)`)
	afterScheme = legible.Pattern(`(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}`)
	inAddress   = legible.Pattern(`(://)[^/\s@]+@`)
	inQuery     = legible.Pattern(`([?&][^=&\s]+=)[^&\s"']+`)
	longWord    = legible.Pattern(`[\w+/=.~-]{24,}`)
)

// Mask takes out of a line what looks like a secret: what stands behind the name of one,
// in an address, and every long word of letters and digits that is no ID, path or host.
func Mask(line string) string {
	const masked = "***"
	line = inAddress().ReplaceAllString(line, "${1}"+masked+"@")
	line = afterName().ReplaceAllString(line, "${1}"+masked)
	line = afterScheme().ReplaceAllString(line, "${1} "+masked)
	line = inQuery().ReplaceAllString(line, "${1}"+masked)
	return longWord().ReplaceAllStringFunc(line, func(word string) string {
		for _, part := range strings.FieldsFunc(word, func(r rune) bool { return strings.ContainsRune("/.-", r) }) {
			if len(part) >= 20 && strings.ContainsAny(part, "0123456789") {
				return masked
			}
		}
		return word
	})
}

// variables are those that a command gets, where they are set: where programs, files and
// the user's settings lie, the language, the time zone, and how to get out of this network.
var variables = [...]string{
	"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR",
	// Windows
	"SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "TEMP", "TMP", "USERPROFILE", "USERNAME",
	"APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "PROGRAMFILES",
}

// environ is the environment of a command.
func environ(all []string) []string {
	kept := []string{}
	for _, entry := range all {
		name, _, _ := strings.Cut(entry, "=")
		upper := strings.ToUpper(name)
		if slices.Contains(variables[:], upper) || strings.HasPrefix(upper, "LC_") {
			kept = append(kept, entry)
		}
	}
	if runtime.GOOS != "windows" && !slices.ContainsFunc(kept, func(e string) bool { return strings.HasPrefix(e, "PATH=") }) {
		kept = append(kept, "PATH=/usr/local/bin:/usr/bin:/bin")
	}
	return kept
}
