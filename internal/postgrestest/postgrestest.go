// Package postgrestest runs a real PostgreSQL for tests, with standbys and a pgbouncer
// before it, in directories and at addresses of its own: nothing of a database that runs
// on this machine is touched.
package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/realpart"
)

const (
	// Superuser is the user that owns a cluster. On the socket it needs no password.
	Superuser = "postgres"
	// Password is the superuser's, for connections over TCP.
	Password = "the superuser's password"

	// memoryFiles is a directory whose files are in memory.
	memoryFiles = "/dev/shm"

	// patience is for what must happen, on the slowest machine.
	patience = 60 * time.Second
)

// Options are what a server is started with.
type Options struct {
	// TLS has the server take connections over TCP with TLS only. Server.CA is the file
	// of the authority that its certificate is to be checked with. Passwords are SCRAM,
	// with or without TLS.
	TLS bool
	// Hasty has the server sync nothing. It then shows nothing about durability.
	Hasty bool
	// Disk has the server's files on the disk, for what is measured. Otherwise they are in
	// memory where there is room, and a server is there in a fifth of the time: a server that
	// is killed finds what its kernel has in both places, and no test here cuts the power.
	Disk bool
	// Settings are added to postgresql.conf. The values are quoted there.
	Settings map[string]string
}

// Start returns a server that runs and is stopped when the test ends. Where its programs
// are missing the test is skipped, in CI it fails.
func Start(tb testing.TB, o Options) *Server {
	tb.Helper()
	if runtime.GOOS != "linux" {
		tb.Skip("real databases are tested on Linux only")
	}
	realpart.Wanted(tb)
	s, err := Launch(o)
	realpart.Must(tb, err)
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("the server's log:\n%s", s.process.log())
		}
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// Launch is Start for where there is no test, as in TestMain. The caller closes the
// server. The error is a *realpart.MissingError where a program is missing.
func Launch(o Options) (*Server, error) {
	n, err := newNest(o.Disk)
	if err != nil {
		return nil, err
	}
	s := &Server{nest: n, options: o}
	if err := s.create(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// nest is what all that belongs to one cluster shares: where it is, whose it is, and what
// removes it.
type nest struct {
	dir  string
	user account
	bin  string // the directory of PostgreSQL's programs
	// reaper removes the directory once this process is gone, however it ended.
	reaper *reaper
	ca     *authority
	count  int // of the servers and poolers that were made
}

func newNest(disk bool) (*nest, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	user, err := unprivileged()
	if err != nil {
		return nil, err
	}
	// Not the test's own directory: the path of a socket has a hundred characters at most.
	parent := ""
	if !disk && hasRoom(memoryFiles, 1<<30) {
		parent = memoryFiles
	}
	dir, err := os.MkdirTemp(parent, "pg")
	if err != nil {
		return nil, err
	}
	n := &nest{dir: dir, user: user, bin: bin}
	if n.reaper, err = reap(dir); err == nil {
		err = user.own(dir)
	}
	if err == nil {
		n.ca, err = newAuthority()
	}
	if err == nil {
		err = n.write(n.caFile(), n.ca.pem)
	}
	if err != nil {
		return nil, errors.Join(err, n.remove())
	}
	return n, nil
}

func (n *nest) caFile() string { return filepath.Join(n.dir, "ca.pem") }

// write writes a file that the servers' user alone can read.
func (n *nest) write(path string, data []byte) error {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return err
	}
	return n.user.own(path)
}

// mkdir makes a directory of the servers' user, with a name of its own.
func (n *nest) mkdir(kind string) (string, error) {
	n.count++
	dir := filepath.Join(n.dir, kind+strconv.Itoa(n.count))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	return dir, n.user.own(dir)
}

func (n *nest) remove() error {
	return errors.Join(os.RemoveAll(n.dir), n.reaper.dismiss())
}

// programs returns the directory of the newest PostgreSQL. Debian has it on no PATH.
func programs() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		if path, err := exec.LookPath("postgres"); err == nil {
			return filepath.Dir(path), nil
		}
		return "", &realpart.MissingError{Program: "postgres", Package: "postgresql"}
	}
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
}

// version is the number in /usr/lib/postgresql/15/bin/postgres.
func version(path string) int {
	v, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return v
}

// run runs one of PostgreSQL's programs to its end as the servers' user.
func (n *nest) run(stdin []byte, program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(n.bin, program), args...)
	return runAs(n.user, n.dir, cmd, stdin)
}

// await returns once a program is ready, which is once ready has no error.
func await(p *process, name string, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %s", name, p.log())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %s", name, err, p.log())
		case <-tick.C:
		}
	}
}
