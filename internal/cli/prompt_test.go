package cli

import (
	"context"
	"errors"
	"github.com/upsauth/upsauth/internal/explain"
	"io"
	"testing"
	"time"
)

// TestLineGoesToWhoeverStillWaits guards an answer at the terminal from being
// taken by a question that nobody waits for any more.
func TestLineGoesToWhoeverStillWaits(t *testing.T) {
	in, keyboard := io.Pipe()
	env := &Env{In: in, Err: io.Discard, InTerminal: true, ErrTerminal: true}
	ctx, cancel := context.WithCancel(t.Context())
	given := make(chan error, 1)
	go func() {
		_, err := readLine(ctx, env)
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
	if err := confirm(ctx, env, "Keep it?", false); err != nil {
		t.Errorf("the answer was taken by somebody else: %v", err)
	}
	if line, err := readLine(ctx, env); err != nil || line != "next" {
		t.Errorf("then %q, %v", line, err)
	}
	if err := <-typed; err != nil {
		t.Error(err)
	}
	keyboard.Close()
	if _, err := readLine(ctx, env); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestSentence(t *testing.T) {
	for in, want := range map[string]string{"": "", "a b": "A b.", "ümit": "Ümit.", "Done.": "Done.", "why?": "Why?", "株": "株."} {
		if got := explain.Sentence(in); got != want {
			t.Errorf("Sentence(%q) = %q", in, got)
		}
	}
}
