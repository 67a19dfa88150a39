// Package browser opens an address in the person's browser: with the programs that
// $BROWSER names, else as the system does.
package browser

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
	"unicode"

	"github.com/pkg/browser"

	"github.com/upsauth/upsauth/internal/process"
	"github.com/upsauth/upsauth/internal/safefile"
)

// Opener opens addresses.
type Opener struct {
	// Programs are what $BROWSER has, empty for the system's opener.
	Programs string
	// Environ is the environment of the programs that are started, and Output gets what
	// they say.
	Environ []string
	Output  io.Writer
	// Failed is told of the last program that ended with an error while the sign-in is
	// awaited.
	Failed func(program string, err error)
}

// openerPatience is how long an opener may take to fail before it counts as
// having opened something: some openers run the browser themselves and return
// when it is closed.
const openerPatience = 2 * time.Second

// Open opens an address with the programs that $BROWSER names, in their order, else
// with the system's opener. It does not wait for the browser, which outlives the
// context: that ends when nobody waits for the sign-in any more. Whether a window
// really opens, only the person sees.
func (o Opener) Open(ctx context.Context, address string) error {
	if o.Programs != "" {
		return o.openOneOf(ctx, Programs(o.Programs), address)
	}
	// The openers' own words would end up among the results.
	browser.Stdout, browser.Stderr = o.Output, o.Output
	failed := make(chan error, 1)
	go func() { failed <- browser.OpenURL(address) }()
	patience := time.NewTimer(openerPatience)
	defer patience.Stop()
	select {
	case err := <-failed:
		return err
	case <-patience.C:
	case <-ctx.Done():
	}
	return nil
}

// openOneOf starts the first program that can be started. Where one fails
// afterwards, the next one gets its turn while the sign-in is awaited.
func (o Opener) openOneOf(ctx context.Context, programs []string, address string) error {
	var failures []error
	for i, program := range programs {
		if strings.TrimSpace(program) == "" {
			continue
		}
		err := o.start(program, address, func(err error) {
			if ctx.Err() != nil {
				return // nobody waits for the sign-in any more
			}
			if next := o.openOneOf(ctx, programs[i+1:], address); next != nil {
				o.Failed(program, err)
			}
		})
		if err == nil {
			return nil
		}
		failures = append(failures, err)
	}
	if len(failures) == 0 {
		return errors.New("$BROWSER names no program")
	}
	return fmt.Errorf("none of the programs in $BROWSER can be started: %w", errors.Join(failures...))
}

// Programs are the entries of $BROWSER, parted as the system's lists of paths
// are, by colons or on Windows semicolons. One in quotes parts nothing.
func Programs(list string) []string {
	var programs []string
	start, quote, escaped := 0, rune(0), false
	for i, r := range list {
		switch {
		case escaped:
			escaped = false
		case r == '\\' && quote != '\'' && runtime.GOOS != "windows":
			escaped = true
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '"' || r == '\'' && runtime.GOOS != "windows":
			quote = r
		case r == filepath.ListSeparator:
			programs = append(programs, list[start:i])
			start = i + 1
		}
	}
	return append(programs, list[start:])
}

// Words are the words of one entry of $BROWSER, in quotes as a shell has
// them, or the one path that it is, which on Windows and macOS often has spaces in
// it. An & at the end, which has Python start the browser in the background, is
// left out: that is done in any case.
func Words(program string) ([]string, error) {
	if path := strings.TrimSpace(program); strings.ContainsAny(path, " \t") {
		if _, err := exec.LookPath(path); err == nil {
			return []string{path}, nil
		}
	}
	var words []string
	var word strings.Builder
	within, quote, escaped := false, rune(0), false
	for _, r := range program {
		switch {
		case escaped:
			// In double quotes a backslash is only special before these two.
			if quote == '"' && r != '"' && r != '\\' {
				word.WriteRune('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'' && runtime.GOOS != "windows":
			within, escaped = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'' && runtime.GOOS != "windows":
			within, quote = true, r
		case unicode.IsSpace(r):
			if within {
				words = append(words, word.String())
			}
			word.Reset()
			within = false
		default:
			within = true
			word.WriteRune(r)
		}
	}
	if quote != 0 || escaped {
		return nil, fmt.Errorf("the entry %s of $BROWSER has a quote that is not closed", program)
	}
	if within {
		words = append(words, word.String())
	}
	if n := len(words); n > 1 && words[n-1] == "&" {
		words = words[:n-1]
	}
	if len(words) == 0 || words[0] == "" {
		return nil, fmt.Errorf("the entry %s of $BROWSER names no program", program)
	}
	return words, nil
}

// start starts one entry of $BROWSER: a program with arguments, in which
// %s stands for the address, or else the address comes last. Failed is called
// when it ends with an error.
func (o Opener) start(program, address string, failed func(error)) error {
	words, err := Words(program)
	if err != nil {
		return err
	}
	placed := false
	for i := range words {
		if strings.Contains(words[i], "%s") {
			words[i] = strings.ReplaceAll(words[i], "%s", address)
			placed = true
		}
	}
	if !placed {
		words = append(words, address)
	}
	command := exec.Command(words[0], words[1:]...)
	command.Env = o.Environ
	command.Stdout, command.Stderr = o.Output, o.Output
	// Ctrl-C in the terminal is for upsauth and not for the browser.
	process.Detach(command)
	if err := command.Start(); err != nil {
		return err
	}
	go func() {
		if err := command.Wait(); err != nil {
			failed(err)
		}
	}()
	return nil
}

// PrivatePage makes a page that nobody else can read and that leads to an address,
// and returns the page's own; drop removes the page.
func PrivatePage(address string) (page string, drop func(), err error) {
	dir, err := os.MkdirTemp("", "upsauth-") // 0700
	if err != nil {
		return "", nil, fmt.Errorf("the page for the browser can't be made: %w", err)
	}
	drop = func() { _ = os.RemoveAll(dir) }
	path := filepath.Join(dir, "sign-in.html")
	quoted := html.EscapeString(address)
	text := "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"referrer\" content=\"no-referrer\">\n" +
		"<meta http-equiv=\"refresh\" content=\"0; url=" + quoted + "\">\n<title>Sign in at UPS</title>\n" +
		"<p><a href=\"" + quoted + "\">Sign in at UPS</a></p>\n"
	if err := safefile.Write(path, []byte(text)); err != nil { // 0600, on Windows by its access list
		drop()
		return "", nil, err
	}
	slashed := filepath.ToSlash(path)
	if !strings.HasPrefix(slashed, "/") { // C:/…
		slashed = "/" + slashed
	}
	return (&url.URL{Scheme: "file", Path: slashed}).String(), drop, nil
}
