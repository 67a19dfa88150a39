package terminal

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"
)

// TestLineGoesToWhoeverStillWaits guards an answer at the terminal from being
// taken by a question that nobody waits for any more.
func TestLineGoesToWhoeverStillWaits(t *testing.T) {
	in, keyboard := io.Pipe()
	p := Person{Err: io.Discard, Lines: NewLines(in)}
	ctx, cancel := context.WithCancel(t.Context())
	given := make(chan error, 1)
	go func() {
		_, err := p.Lines.Read(ctx)
		given <- err
	}()
	cancel()
	if err := <-given; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	typed := make(chan error, 1)
	go func() {
		_, err := io.WriteString(keyboard, "y\nnext\n")
		typed <- err
	}()
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if yes, err := p.YesOrNo(ctx, "Keep it?", true); err != nil || !yes {
		t.Errorf("the answer was taken by somebody else: %t, %v", yes, err)
	}
	if line, err := p.Lines.Read(ctx); err != nil || line != "next" {
		t.Errorf("then %q, %v", line, err)
	}
	if err := <-typed; err != nil {
		t.Error(err)
	}
	keyboard.Close()
	if _, err := p.Lines.Read(ctx); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}
