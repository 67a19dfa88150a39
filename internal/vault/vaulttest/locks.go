package vaulttest

import (
	"context"
	"os"
	"sync"
)

// locks are those of the processes of a test, which are all this one.
type locks struct {
	mu     sync.Mutex
	states map[string]*state
}

// state is a lock that somebody has, looks at or waits for.
type state struct {
	held    bool
	lookers int
	waiters int
	changed chan struct{} // closed when the lock is let go
}

// of returns a lock's state; l.mu is held.
func (l *locks) of(name string) *state {
	if l.states == nil {
		l.states = map[string]*state{}
	}
	if l.states[name] == nil {
		l.states[name] = &state{changed: make(chan struct{})}
	}
	return l.states[name]
}

// let has somebody let go of a lock, and wakes those who wait for it.
func (l *locks) let(name string, goOf func(*state)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.states[name]
	goOf(s)
	close(s.changed)
	s.changed = make(chan struct{})
	if !s.held && s.lookers+s.waiters == 0 {
		delete(l.states, name)
	}
}

// take takes a lock. Whoever looks at it does so for an instant and doesn't hold it.
func (l *locks) take(ctx context.Context, name string, wait bool) (release func(), held bool, holder int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := l.of(name); s.held || s.lookers > 0; s = l.of(name) {
		if s.held && !wait {
			return nil, true, os.Getpid(), nil
		}
		s.waiters++
		changed := s.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			err = ctx.Err()
		}
		l.mu.Lock()
		s.waiters--
		if err != nil {
			return nil, false, 0, err
		}
	}
	l.of(name).held = true
	return sync.OnceFunc(func() { l.let(name, func(s *state) { s.held = false }) }), false, 0, nil
}

// look keeps a lock free until done is called, if it is.
func (l *locks) look(name string) (done func(), free bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.of(name)
	if s.held {
		return nil, false
	}
	s.lookers++
	return sync.OnceFunc(func() { l.let(name, func(s *state) { s.lookers-- }) }), true
}
