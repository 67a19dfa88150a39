package terminal

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/term"
)

// ReadPassword reads a line from the terminal without showing it. It leaves the terminal as it was, also when the context ends
// while it waits.
func ReadPassword(ctx context.Context) (string, error) {
	if ctx.Err() != nil { // from here on a signal must not end the process: it would leave the terminal mute
		return "", ctx.Err()
	}
	fd := int(os.Stdin.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("the terminal can't be read: %w", err)
	}
	secret, err := awaitInput(ctx, func() (string, error) {
		secret, err := term.ReadPassword(fd)
		return string(secret), err
	})
	if ctx.Err() != nil {
		_ = term.Restore(fd, state)
	}
	return secret, err
}
