//go:build !windows

package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/upsauth/upsauth/internal/safefile"
)

// socket is a Unix socket that this process listens at.
type socket struct {
	net.Listener
	path string
	file os.FileInfo // what lies there since
}

// socketOptions say whose a socket is.
type socketOptions struct {
	path string
	// own says that the directory is upsauth's alone: it gets the mode that it should
	// have, whatever it had.
	own bool
	// group is whose members may connect too, empty for none.
	group  string
	places *safefile.Places
}

// listenSocket listens at a socket that nobody else may connect to. What an earlier
// service left there is removed: the caller holds the service's lock.
func listenSocket(ctx context.Context, o socketOptions) (s *socket, err error) {
	gid := -1
	if o.group != "" {
		if gid, err = groupOf(o.group); err != nil {
			return nil, err
		}
	}
	dir := filepath.Dir(o.path)
	if err := makeSocketDir(dir, o, gid); err != nil {
		return nil, err
	}
	if err := removeStale(ctx, o.path); err != nil {
		return nil, err
	}
	// The mask is the whole process's, which makes nothing for others meanwhile, and
	// what it makes is its own to read in any case.
	before := syscall.Umask(0o077)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", o.path)
	syscall.Umask(before)
	if err != nil {
		return nil, fmt.Errorf("can't listen at the socket %s: %w", o.path, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	s = &socket{Listener: l, path: o.path}
	if s.file, err = os.Lstat(o.path); err == nil {
		err = setMode(o.path, gid, 0o600, 0o660)
	}
	if err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

// remove ends the socket, and what lies there if it is still this one.
func (s *socket) remove() {
	_ = s.Close()
	if now, err := os.Lstat(s.path); err == nil && s.file != nil && os.SameFile(now, s.file) {
		_ = os.Remove(s.path)
	}
}

func makeSocketDir(dir string, o socketOptions, gid int) error {
	_, err := os.Lstat(dir)
	made := errors.Is(err, fs.ErrNotExist)
	if made {
		if err := safefile.MkdirAll(dir); err != nil {
			return err
		}
	}
	if err := o.places.Check(dir); err != nil {
		return err
	}
	if !o.own && !made {
		return nil
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return safefile.Explain(dir, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no directory, so no socket can lie there", dir)
	}
	return setMode(dir, gid, 0o700, 0o750)
}

// setMode makes a path this user's alone, or shares it with a group.
func setMode(path string, gid int, alone, shared os.FileMode) error {
	if gid < 0 {
		return os.Chmod(path, alone)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return safefile.Explain(path, err)
	}
	// Not where the group is right already: a system service may not call chown at all.
	// The group first: with the other order another group had the rights for a moment.
	if at, ok := info.Sys().(*syscall.Stat_t); !ok || int(at.Gid) != gid {
		if err := os.Chown(path, -1, gid); err != nil {
			return fmt.Errorf("%s can't be given to the group: %w. This user must be a member of that group", path, err)
		}
	}
	return os.Chmod(path, shared)
}

func groupOf(name string) (int, error) {
	group, err := user.LookupGroup(name)
	if err != nil {
		var number error
		if group, number = user.LookupGroupId(name); number != nil {
			return -1, fmt.Errorf("socket_group of [serve]: there is no group %q on this machine", name)
		}
	}
	return strconv.Atoi(group.Gid)
}

// removeStale removes a socket that nobody listens at any more.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return safefile.Explain(path, err)
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("%s is there and is no socket, so it is left alone. Remove it, or name another path", path)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = c.Close()
		return fmt.Errorf("another program listens at the socket %s. End it, or name another path", path)
	case ctx.Err() != nil:
		return ctx.Err()
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("the socket %s is there and can't be looked at: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("the socket %s of an earlier service can't be removed: %w", path, err)
	}
	return nil
}

// barrier is the first directory above a socket that members of a group can't enter,
// empty where they can enter all.
func barrier(path, group string) string {
	gid, err := groupOf(group)
	if err != nil {
		return ""
	}
	const enterOther, enterGroup = 0o001, 0o010
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return ""
		}
		owner := -1
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			owner = int(stat.Gid)
		}
		mode := info.Mode().Perm()
		if owner == gid && mode&enterGroup == 0 || owner != gid && mode&enterOther == 0 {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
}
