package cli

import (
	"context"
	"io"

	"github.com/upsauth/upsauth/internal/safefile"
)

// openNamed opens what a person named on the command line: a file, a pipe, a device,
// or - for standard input. Every read ends with the context. Who reads bounds it.
func openNamed(ctx context.Context, env *Env, path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(safefile.Reader(ctx, env.In)), nil
	}
	return safefile.OpenNamed(ctx, path)
}

// readNamed is openNamed for what is read as a whole, of at most so many bytes.
func readNamed(ctx context.Context, env *Env, path string, most int64) ([]byte, error) {
	in, err := openNamed(ctx, env, path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	name := path
	if path == "-" {
		name = "standard input"
	}
	return safefile.ReadAll(in, name, most)
}
