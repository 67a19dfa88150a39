package cli

import (
	"context"
	"fmt"
	"strings"
)

// about puts what an error is about before it, unless it says so itself.
func about(what string, err error) string {
	text := message(err)
	if strings.HasPrefix(text, what) {
		return text
	}
	return what + ": " + text
}

// failures tells what went wrong with each of several, and remembers the worst.
type failures struct {
	env   *Env
	worst int
}

func (f *failures) add(what string, err error) {
	fmt.Fprintln(f.env.Err, about(what, err))
	if text := advice(err); text != "" {
		fmt.Fprintf(f.env.Err, "  %s\n", text)
	}
	f.worst = worse(f.worst, exitCode(err))
}

// end is the error of the whole command.
func (f *failures) end(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case f.worst != exitDone:
		return &statusError{code: f.worst}
	}
	return nil
}
