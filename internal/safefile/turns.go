package safefile

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// Turns let one goroutine of one process at a time change the files of a directory.
type Turns struct {
	dir, what string
	// turn is this process's: whoever finds the lock of all processes taken looks again
	// only after a while.
	turn chan struct{}
}

// NewTurns returns the turns of a directory, which is made when somebody takes one. What
// is the directory in errors, such as "the list of companies".
func NewTurns(dir, what string) *Turns {
	return &Turns{dir: dir, what: what, turn: make(chan struct{}, 1)}
}

// Take keeps everybody else from changing the files until unlock is called. It waits for
// its turn, but not longer than patience.
func (t *Turns) Take(ctx context.Context, patience time.Duration) (unlock func(), err error) {
	if err := MkdirAll(t.dir); err != nil {
		return nil, err
	}
	path := filepath.Join(t.dir, ".lock")
	lock := NewLock(path)
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case t.turn <- struct{}{}:
		if _, err = lock.TryLockContext(waiting, 5*time.Millisecond); err != nil {
			<-t.turn
		}
	case <-waiting.Done():
		err = waiting.Err()
	}
	switch {
	case ctx.Err() != nil && err != nil:
		return nil, ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("%s is locked by another process: %w", t.what, err)
	case err != nil:
		return nil, &WriteError{What: t.what + " can't be locked", Err: Explain(path, err)}
	}
	return func() {
		_ = lock.Close()
		<-t.turn
	}, nil
}
