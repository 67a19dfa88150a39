package safefile

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

// maxSmall is the most bytes that ReadSmall takes.
const maxSmall = 64 << 10

// ReadSmall is ReadNamed for at most 64 KB.
func ReadSmall(ctx context.Context, path string) ([]byte, error) {
	return ReadNamed(ctx, path, maxSmall)
}

// ReadNamed reads a file that a person names, of at most so many bytes. It may be a
// pipe or a device: it is waited for no longer than the context lasts. A file with
// more is a *TooLongError.
func ReadNamed(ctx context.Context, path string, most int64) ([]byte, error) {
	file, err := OpenNamed(ctx, path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return ReadAll(file, path, most)
}

// OpenNamed opens a file that a person names. Opening it, as a pipe that nobody
// writes to takes for ever, and every read end with the context; those of a regular file
// end with it once they take long.
func OpenNamed(ctx context.Context, path string) (io.ReadCloser, error) {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		return nil, &os.PathError{Op: "read", Path: path, Err: fmt.Errorf("it is a directory")}
	}
	r := &endingReader{ctx: ctx}
	openIt := func() (*os.File, error) { return OpenFile(path, os.O_RDONLY) }
	if err == nil && info.Mode().IsRegular() {
		r.first = promptly
		openIt = func() (*os.File, error) { return openRegular(path) }
	}
	file, err := await(ctx, r.first, openIt, func(late *os.File) { late.Close() })
	if err != nil {
		return nil, err
	}
	r.r = file
	return closer{r, file}, nil
}

// closer leaves a file alone that a read may still wait for: closing it would wait
// too. The process is about to end.
type closer struct {
	*endingReader
	file *os.File
}

func (c closer) Close() error {
	if c.left {
		return nil
	}
	return c.file.Close()
}

// ReadAll reads at most so many bytes; more are a *TooLongError. Name is what the
// error calls the source.
func ReadAll(r io.Reader, name string, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, &TooLongError{Name: name, Most: most}
	}
	return data, nil
}

// TooLongError says that a file has more bytes than are read of it.
type TooLongError struct {
	Name string
	Most int64 // bytes
}

func (e *TooLongError) Error() string {
	if e.Most >= 1<<20 {
		return fmt.Sprintf("%s has more than %d MB", e.Name, e.Most>>20)
	}
	return fmt.Sprintf("%s has more than %d KB", e.Name, e.Most>>10)
}

// Reader is a reader whose reads end with the context. What a read brings later is
// dropped.
func Reader(ctx context.Context, r io.Reader) io.Reader { return &endingReader{ctx: ctx, r: r} }

type endingReader struct {
	ctx   context.Context
	r     io.Reader
	first time.Duration // before this, the context is not looked at
	buf   []byte        // never the caller's: a late read would write into it
	left  bool          // a read was left alone, and may go on
}

func (e *endingReader) Read(p []byte) (int, error) {
	if e.left {
		return 0, e.ctx.Err()
	}
	if e.buf == nil {
		e.buf = make([]byte, 64<<10)
	}
	buf := e.buf[:min(len(p), len(e.buf))]
	var readErr error
	n, err := await(e.ctx, e.first, func() (int, error) {
		n, err := e.r.Read(buf)
		readErr = err
		return n, nil
	}, func(int) {})
	if err != nil {
		e.left = true
		return 0, err
	}
	return copy(p, buf[:n]), readErr
}

// promptly is how long a file of a disk takes at most, as a rule.
const promptly = 20 * time.Millisecond

// await calls a function that may take for ever, and waits no longer than the context
// lasts. What it brings later goes to late. The context is not looked at before it takes
// longer than first: for upsauth's own, that is when signals are asked for, which takes
// longer than to read most files. Where first is zero, it is looked at before the call.
func await[T any](ctx context.Context, first time.Duration, call func() (T, error), late func(T)) (T, error) {
	var none T
	if first == 0 && ctx.Err() != nil {
		return none, ctx.Err()
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := call()
		done <- result{value, err}
	}()
	if first > 0 {
		long := time.NewTimer(first)
		defer long.Stop()
		select {
		case r := <-done:
			return r.value, r.err
		case <-long.C:
		}
	}
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				late(r.value)
			}
		}()
		return none, ctx.Err()
	}
}
