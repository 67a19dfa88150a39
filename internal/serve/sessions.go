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
	// earlier are those that requests may still be working with, the latest last.
	earlier []former
	shut    func(*session.Session)
	opens   func(*session.Session) // where set, is told of each that was opened
}

// former is a session that another one took the place of.
type former struct {
	*session.Session
	until time.Time // when nothing works with it any more
}

// mayWork is how long what began with a session may work with it: a sign-in waits for a
// person twice, and for UPS.
const mayWork = time.Hour

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
	if err != nil || s.info == nil {
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
	s.letGo()
	if s.current != nil {
		s.current.EndMemory()
		s.earlier = append(s.earlier, former{s.current, s.now().Add(mayWork)})
	}
	s.current, s.files, s.stale, s.opened = opened, before, false, s.now()
	if s.opens != nil {
		s.opens(opened)
	}
	return opened, nil
}

// letGo closes the earlier sessions that nothing works with any more. One whose write to
// the keychain is owed its answer stays: that is known to it alone. s.mu is held.
func (s *sessions) letGo() {
	now := s.now()
	s.earlier = slices.DeleteFunc(s.earlier, func(f former) bool {
		over := !now.Before(f.until) && !f.Vault.Stuck()
		if over {
			s.shut(f.Session)
		}
		return over
	})
	for i := range s.earlier { // the clock may have been put back
		if latest := now.Add(mayWork); s.earlier[i].until.After(latest) {
			s.earlier[i].until = latest
		}
	}
}

// tryAgain is how long a home that could not be opened is left alone: to try a
// passphrase takes a second and 128 MB.
const tryAgain = 10 * time.Second

// outdated reports whether the current session no longer fits.
func (s *sessions) outdated() bool {
	return s.stale || s.changed() || s.current.Files.Failed() && s.now().Sub(s.opened).Abs() >= tryAgain
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
	return s.current != nil && s.current.Vault.Stuck() || slices.ContainsFunc(s.earlier, func(f former) bool { return f.Vault.Stuck() })
}

// last is the session that was opened last, nil for none.
func (s *sessions) last() *session.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// close ends all of them, once no request is under way.
func (s *sessions) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.earlier {
		s.shut(f.Session)
	}
	if s.current != nil {
		s.shut(s.current)
	}
	s.current, s.earlier = nil, nil
}
