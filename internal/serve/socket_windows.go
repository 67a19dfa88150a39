package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/upsauth/upsauth/internal/safefile"
)

// socket is a Unix socket that this process listens at. Who may connect to it, the
// access list of its directory says.
type socket struct {
	net.Listener
	path string
}

type socketOptions struct {
	path   string
	own    bool
	group  string
	places *safefile.Places
}

// listenSocket listens at a socket. What an earlier service left there is removed: the
// caller holds the service's lock.
func listenSocket(ctx context.Context, o socketOptions) (*socket, error) {
	dir := filepath.Dir(o.path)
	if err := safefile.MkdirAll(dir); err != nil {
		return nil, err
	}
	if err := o.places.Check(dir); err != nil {
		return nil, err
	}
	if err := os.Remove(o.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the socket %s of an earlier service can't be removed: %w", o.path, err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", o.path)
	if err != nil {
		return nil, fmt.Errorf("can't listen at the socket %s: %w", o.path, err)
	}
	return &socket{l, o.path}, nil
}

func (s *socket) remove() { _ = s.Close() } // which removes it

func barrier(string, string) string { return "" }
