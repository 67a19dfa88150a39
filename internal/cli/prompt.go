package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/safefile"
)

// errDeclined says that the answer to a question was no.
var errDeclined = errors.New("nothing was changed")

// confirm asks a yes-or-no question on a terminal; elsewhere only --yes will do.
// An answer that is neither asks again, however often: it may have been meant for
// another window, and a no can't always be taken back. An empty one is the no that
// the prompt shows as the usual answer.
func confirm(ctx context.Context, env *Env, question string, yes bool) error {
	if yes {
		return nil
	}
	if !env.InTerminal || !env.ErrTerminal {
		return usagef("%s This is no terminal to ask on: add --yes", question)
	}
	return ask(ctx, env, question+" [y/N] ", errDeclined)
}

// confirmKeeping is confirm where a no throws away what can't be got back: then no
// answer is the usual one, and an empty one asks again too.
func confirmKeeping(ctx context.Context, env *Env, question string) error {
	if !env.InTerminal || !env.ErrTerminal {
		return usagef("%s This is no terminal to ask on", question)
	}
	return ask(ctx, env, question+" [y/n] ", nil)
}

// ask asks until there is an answer. Empty is what an empty one means, nil for
// nothing.
func ask(ctx context.Context, env *Env, prompt string, empty error) error {
	fmt.Fprint(env.Err, prompt)
	for {
		answer, err := readLine(ctx, env)
		if err != nil && !errors.Is(err, io.EOF) {
			fmt.Fprintln(env.Err) // the question stands on this line
			return err
		}
		switch strings.ToLower(strings.TrimSpace(answer)) {
		case "y", "yes":
			return nil
		case "n", "no":
			return errDeclined
		case "":
			if empty != nil {
				return empty
			}
		}
		if err != nil {
			return errDeclined // nothing more can be typed
		}
		fmt.Fprint(env.Err, "Type y for yes or n for no: ")
	}
}

// lines reads standard input for whoever asks: who stops waiting leaves the line
// to the next one, as a read can't be taken back.
type lines struct {
	mu      sync.Mutex
	pending chan lineRead
}

type lineRead struct {
	text string
	err  error
}

// maxLine is the most bytes of one line.
const maxLine = 64 << 10

// readLine reads one line, or ends with the context.
func readLine(ctx context.Context, env *Env) (string, error) {
	if env.lines == nil {
		env.lines = &lines{}
	}
	l := env.lines
	l.mu.Lock()
	if l.pending == nil {
		l.pending = make(chan lineRead, 1)
		go func(pending chan<- lineRead) {
			text, err := nextLine(env.In)
			pending <- lineRead{text, err}
		}(l.pending)
	}
	pending := l.pending
	l.mu.Unlock()
	select {
	case read := <-pending:
		awaitCtrlC(ctx, read.err)
		if ctx.Err() != nil {
			pending <- read // it is for whoever still waits
			return "", ctx.Err()
		}
		l.mu.Lock()
		l.pending = nil
		l.mu.Unlock()
		return read.text, read.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// nextLine reads one byte at a time, so that whoever reads otherwise finds what
// is typed ahead.
func nextLine(in io.Reader) (string, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		n, err := in.Read(b)
		if n == 1 && b[0] != '\n' {
			if len(line) == maxLine {
				return "", &safefile.TooLongError{Name: "the line on standard input", Most: maxLine}
			}
			line = append(line, b[0])
		}
		if n == 1 && b[0] == '\n' || errors.Is(err, io.EOF) && len(line) > 0 {
			return withoutPasteMarks(string(line)), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// withoutPasteMarks takes away what a terminal puts around a paste where a program
// before this one left bracketed paste switched on (xterm's control sequences,
// mode 2004).
func withoutPasteMarks(text string) string {
	return strings.NewReplacer("\x1b[200~", "", "\x1b[201~", "").Replace(text)
}

// secretInput is a secret that comes from standard input or from a hidden
// prompt.
type secretInput struct {
	what  string // "client secret"
	flag  string // the flag that takes it from standard input
	twice bool   // a new passphrase: ask for it again, as nobody sees what is typed
	trim  bool   // spaces around it do not belong to it
}

func (in secretInput) read(ctx context.Context, env *Env, fromStdin bool) (string, error) {
	var secret string
	var err error
	switch {
	case fromStdin:
		secret, err = readLine(ctx, env)
		if errors.Is(err, io.EOF) {
			return "", usagef("standard input has no %s", in.what)
		}
	case env.InTerminal && env.ErrTerminal:
		secret, err = in.ask(ctx, env)
	default:
		return "", usagef("this is no terminal to ask for the %s on: pipe it in with --%s", in.what, in.flag)
	}
	if err != nil {
		return "", err
	}
	clean := legible.Secret
	if in.trim {
		clean = legible.Value
	}
	if secret, err = clean(secret); err != nil {
		return "", usagef("the %s can't be used: %v", in.what, err)
	}
	if strings.TrimSpace(secret) == "" {
		return "", usagef("the %s is empty", in.what)
	}
	if in.twice && fromStdin {
		warnOfShort(env, secret)
	}
	return secret, nil
}

// passphraseTries is how often a passphrase is asked for that is wrong, or that
// differs from the same one typed again.
const passphraseTries = 3

func (in secretInput) ask(ctx context.Context, env *Env) (string, error) {
	for try := 1; ; try++ {
		secret, err := hidden(ctx, env, strings.ToUpper(in.what[:1])+in.what[1:])
		if err != nil || !in.twice || strings.TrimSpace(secret) == "" {
			return secret, err
		}
		again, err := hidden(ctx, env, "The same again")
		switch {
		case err != nil:
			return secret, err
		case again == secret:
			warnOfShort(env, secret)
			return secret, nil
		case try == passphraseTries:
			return secret, usagef("the two passphrases differ; nothing was changed")
		}
		fmt.Fprintln(env.Err, "The two passphrases differ. Type them again.")
	}
}

// shortPassphrase is how many characters a new passphrase should have at least.
const shortPassphrase = 8

// warnOfShort warns of a new passphrase that can be guessed. It is taken all the
// same: the user may have other reasons.
func warnOfShort(env *Env, passphrase string) {
	if utf8.RuneCountInString(passphrase) < shortPassphrase {
		fmt.Fprintf(env.Err, "Warning: the new passphrase has fewer than %d characters. Whoever copies the file can guess it.\n", shortPassphrase)
	}
}

func hidden(ctx context.Context, env *Env, prompt string) (string, error) {
	fmt.Fprintf(env.Err, "%s (not shown): ", prompt)
	secret, err := env.ReadPassword(ctx)
	fmt.Fprintln(env.Err)
	return withoutPasteMarks(secret), err
}

func awaitInput(ctx context.Context, read func() (string, error)) (string, error) {
	type result struct {
		text string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := read()
		done <- result{text, err}
	}()
	select {
	case r := <-done:
		if awaitCtrlC(ctx, r.err); ctx.Err() != nil {
			return "", ctx.Err()
		}
		return r.text, r.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// awaitCtrlC gives a Ctrl-C the time to arrive: on Windows it also ends what is
// read from the console, and that may be known first.
func awaitCtrlC(ctx context.Context, err error) {
	if runtime.GOOS != "windows" || !errors.Is(err, io.EOF) {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(100 * time.Millisecond):
	}
}
