// Package terminal is what a person at a terminal sees and is asked: lines that fit it
// and do nothing to it, questions, hidden input, a bar. It knows no command and no flag;
// only the faces use it.
package terminal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// Is reports whether a file is a terminal.
func Is(file *os.File) bool { return term.IsTerminal(int(file.Fd())) }

// Columns is how wide the first of some files is that is a terminal, 0 where none is.
func Columns(files ...*os.File) int {
	for _, file := range files {
		if width, _, err := term.GetSize(int(file.Fd())); err == nil {
			return width
		}
	}
	return 0
}

// Person is somebody who is asked.
type Person struct {
	// Err is where questions are shown, and Lines is where the answers come from.
	Err   io.Writer
	Lines *Lines
	// ReadPassword reads a line without showing it.
	ReadPassword func(context.Context) (string, error)
}

// YesOrNo asks a question until it is answered. An answer that is neither asks again,
// however often: it may have been meant for another window, and a no can't always be
// taken back. Where no is the usual answer, which the prompt shows, an empty one is no.
// Where nothing more can be typed the answer is no, too.
func (p Person) YesOrNo(ctx context.Context, question string, usuallyNo bool) (yes bool, err error) {
	prompt := question + " [y/n] "
	if usuallyNo {
		prompt = question + " [y/N] "
	}
	fmt.Fprint(p.Err, prompt)
	for {
		answer, err := p.Lines.Read(ctx)
		if err != nil && !errors.Is(err, io.EOF) {
			fmt.Fprintln(p.Err) // the question stands on this line
			return false, err
		}
		switch strings.ToLower(strings.TrimSpace(answer)) {
		case "y", "yes":
			return true, nil
		case "n", "no":
			return false, nil
		case "":
			if usuallyNo {
				return false, nil
			}
		}
		if err != nil {
			return false, nil //nolint:nilerr // nothing more can be typed
		}
		fmt.Fprint(p.Err, "Type y for yes or n for no: ")
	}
}

// Tries is how often a passphrase is asked for that is wrong, or that differs from the
// same one typed again.
const Tries = 3

// ErrDiffer says that a new passphrase was never the same when it was typed again.
var ErrDiffer = errors.New("the two passphrases differ")

// NewPassphrase asks for a new passphrase twice, as nobody sees what is typed. An empty
// one is returned as it is.
func (p Person) NewPassphrase(ctx context.Context, prompt string) (string, error) {
	for try := 1; ; try++ {
		secret, err := p.Hidden(ctx, prompt)
		if err != nil || strings.TrimSpace(secret) == "" {
			return secret, err
		}
		again, err := p.Hidden(ctx, "The same again")
		switch {
		case err != nil:
			return secret, err
		case again == secret:
			p.WarnOfShort(secret)
			return secret, nil
		case try == Tries:
			return secret, ErrDiffer
		}
		fmt.Fprintln(p.Err, "The two passphrases differ. Type them again.")
	}
}

// shortPassphrase is how many characters a new passphrase should have at least.
const shortPassphrase = 8

// WarnOfShort warns of a new passphrase that can be guessed. It is taken all the
// same: the user may have other reasons.
func (p Person) WarnOfShort(passphrase string) {
	if utf8.RuneCountInString(passphrase) < shortPassphrase {
		fmt.Fprintf(p.Err, "Warning: the new passphrase has fewer than %d characters. Somebody who copies the file can guess it.\n", shortPassphrase)
	}
}

// Hidden asks for what nobody may see.
func (p Person) Hidden(ctx context.Context, prompt string) (string, error) {
	fmt.Fprintf(p.Err, "%s (not shown): ", prompt)
	secret, err := p.ReadPassword(ctx)
	fmt.Fprintln(p.Err)
	return withoutPasteMarks(secret), err
}
