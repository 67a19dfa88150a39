package serve

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/session"
)

// sessions has the session of all requests: one, whose homes are opened once, until
// what it goes by changes.
type sessions struct {
	open   func() (*session.Session, error)
	getenv func(string) string

	now func() time.Time

	mu      sync.Mutex
	opened  time.Time // when the current one was
	current *session.Session
	files   []stamp // what the current one goes by
	stale   bool    // somebody asks for another one
	// earlier are those that requests may still be working with.
	earlier []*session.Session
}

// stamp is a file as it was.
type stamp struct {
	path string
	info os.FileInfo // nil where there was none
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		info = nil
	}
	return stamp{path, info}
}

func (s stamp) changed() bool {
	now, err := os.Stat(s.path)
	switch {
	case err != nil || s.info == nil:
		return (err == nil) != (s.info != nil)
	}
	return !os.SameFile(now, s.info) || !now.ModTime().Equal(s.info.ModTime()) || now.Size() != s.info.Size()
}

// get returns the session of the configuration as it is now. Nobody closes it. While a
// write to the keychain is owed its answer it stays the same: what that is about is
// known to this session alone.
func (s *sessions) get(context.Context) (*session.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil && (s.current.Vault.Stuck() || !s.outdated()) {
		return s.current, nil
	}
	// As they are before it is opened: what changes meanwhile is seen next time.
	before := []stamp{}
	if paths, err := config.FindPaths(s.getenv); err == nil {
		before = append(before, stampOf(filepath.Join(paths.Config, "config.toml")))
	}
	opened, err := s.open()
	if err != nil {
		return nil, err
	}
	for _, path := range opened.OpensWith() {
		before = append(before, stampOf(path))
	}
	if s.current != nil {
		s.current.EndMemory()
		s.earlier = append(s.earlier, s.current)
	}
	s.current, s.files, s.stale, s.opened = opened, before, false, s.now()
	return opened, nil
}

// tryAgain is how long a home that could not be opened is left alone: to try a
// passphrase takes a second and 128 MB.
const tryAgain = 10 * time.Second

// outdated reports whether the current session no longer fits.
func (s *sessions) outdated() bool {
	return s.stale || s.changed() || s.current.Files.Failed() && s.now().Sub(s.opened).Abs() >= tryAgain
}

// all are the sessions that may be at work.
func (s *sessions) all() []*session.Session {
	all := slices.Clone(s.earlier)
	if s.current != nil {
		all = append(all, s.current)
	}
	return all
}

func (s *sessions) changed() bool {
	for _, f := range s.files {
		if f.changed() {
			return true
		}
	}
	return false
}

// renew lets the next request have a session of its own.
func (s *sessions) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stale = true
}

// stuck reports whether a write to the keychain is owed its answer.
func (s *sessions) stuck() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current != nil && s.current.Vault.Stuck() || slices.ContainsFunc(s.earlier, func(one *session.Session) bool { return one.Vault.Stuck() })
}

// close ends all of them, once no request is under way.
func (s *sessions) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all() {
		one.Close()
	}
	s.current, s.earlier = nil, nil
}
