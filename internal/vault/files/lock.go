package files

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
)

// lockPoll is how often a lock that somebody holds is tried again.
const lockPoll = 10 * time.Millisecond

func (s *Store) lockPath(name string) string {
	return filepath.Join(s.dir, "locks", name+".lock")
}

func (s *Store) openLock(name string) (*flock.Flock, error) {
	path := s.lockPath(name)
	// What the directory gets later must survive a loss of power, and no lock need.
	if err := safefile.MkdirAll(s.dir); err != nil {
		return nil, err
	}
	if err := safefile.MkdirAllCovered(filepath.Dir(path)); err != nil {
		return nil, err
	}
	return safefile.NewLock(path), nil
}

// Lock takes a lock. With wait it waits as long as the context lasts; else held says that
// somebody has it, and holder which process, 0 where that is not known. The lock's file
// is never deleted: whoever waits must wait for the same file.
func (s *Store) Lock(ctx context.Context, name string, wait bool) (release func(), held bool, holder int, err error) {
	if !wait {
		release, holder, err = s.hold(name)
		return release, err == nil && release == nil, holder, err
	}
	lock, err := s.openLock(name)
	if err != nil {
		return nil, false, 0, err
	}
	if _, err := lock.TryLockContext(ctx, lockPoll); err != nil {
		return nil, false, 0, safefile.Explain(s.lockPath(name), err)
	}
	return func() { _ = lock.Close() }, false, 0, nil
}

// holderPath is where it is written who holds a lock: beside the lock and not in
// it, as on Windows a locked file can't be read.
func (s *Store) holderPath(name string) string { return s.lockPath(name) + ".pid" }

// touchLock makes a lock's file, so that a command which only looks makes nothing.
func (s *Store) touchLock(name string) {
	if lock, err := s.openLock(name); err == nil {
		_, _ = lock.TryRLock()
		_ = lock.Close()
	}
}

// LockService takes the lock of the one process that keeps the vault's grants
// alive, or returns a *vault.ServiceBusyError at once.
func (s *Store) LockService() (unlock func(), err error) {
	unlock, holder, err := s.hold("service")
	switch {
	case err != nil:
		return nil, &vault.LockError{Of: "the vault's service", Err: err}
	case unlock == nil:
		return nil, &vault.ServiceBusyError{Dir: s.dir, PID: holder}
	}
	return unlock, nil
}

func portLock(port int) string { return fmt.Sprintf("port-%d", port) }

// HoldPort says to other processes that this one listens on a port, and for what: the
// system does not tell whose a port is that a process without core dumps has, and
// never what for. It is for a message, so nobody waits for it. Change says it anew.
// Release takes it back; with leave it stays there for LeftPorts, as it does where the
// process is killed.
func (s *Store) HoldPort(port int, use grant.PortUse) (change func(grant.PortUse), release func(leave bool)) {
	name := portLock(port)
	note := func(use grant.PortUse) string {
		text, err := json.Marshal(use)
		if err != nil {
			return ""
		}
		return "\n" + string(text)
	}
	lock, _, err := s.holdWith(name, note(use))
	if err != nil || lock == nil {
		return func(grant.PortUse) {}, func(bool) {}
	}
	change = func(use grant.PortUse) { _ = writeHolder(s.holderPath(name), note(use)) }
	release = func(leave bool) {
		if !leave {
			_ = safefile.RemoveCovered(s.holderPath(name))
		}
		_ = lock.Close()
	}
	return change, release
}

// PortHolder is what another process said about a port on which it listens. Its PID is
// 0 where none did.
func (s *Store) PortHolder(port int) grant.PortUse {
	name := portLock(port)
	if !s.busy(name) {
		return grant.PortUse{}
	}
	if use := s.portUse(port); use.PID != os.Getpid() {
		return use
	}
	return grant.PortUse{}
}

// LeftPorts are what processes said about ports that ended while they awaited a
// sign-in there.
func (s *Store) LeftPorts() []grant.PortUse {
	entries, err := os.ReadDir(filepath.Dir(s.lockPath("")))
	if err != nil {
		return nil
	}
	var left []grant.PortUse
	for _, entry := range entries {
		name, note := strings.CutSuffix(entry.Name(), ".lock.pid")
		number, ofPort := strings.CutPrefix(name, "port-")
		port, err := strconv.Atoi(number)
		if !note || !ofPort || err != nil || portLock(port) != name || s.busy(name) {
			continue
		}
		if use := s.portUse(port); use.PID != 0 && !use.Until.IsZero() {
			left = append(left, use)
		}
	}
	return left
}

// portUse is what is written beside a port's lock.
func (s *Store) portUse(port int) grant.PortUse {
	pid, text := s.holderText(portLock(port))
	var use grant.PortUse
	if json.Unmarshal([]byte(text), &use) != nil {
		use = grant.PortUse{} // of an older version, or cut off
	}
	use.PID, use.Port = pid, port
	return use
}

// hold takes a lock and writes beside it who has it. Unlock is nil where somebody
// else has it: the process holder, 0 where that is not known.
func (s *Store) hold(name string) (unlock func(), holder int, err error) {
	lock, holder, err := s.holdWith(name, "")
	if err != nil || lock == nil {
		return nil, holder, err
	}
	return func() {
		_ = safefile.RemoveCovered(s.holderPath(name))
		_ = lock.Close()
	}, 0, nil
}

// holdWith is hold with more to be written.
func (s *Store) holdWith(name, more string) (held *flock.Flock, holder int, err error) {
	lock, err := s.openLock(name)
	if err != nil {
		return nil, 0, err
	}
	path := s.holderPath(name)
	got, err := tryLock(lock)
	if err != nil || !got {
		_ = lock.Close()
	}
	if err != nil {
		return nil, 0, safefile.Explain(s.lockPath(name), err)
	}
	if !got {
		return nil, s.holder(name), nil
	}
	// It is for a message, and means nothing once this process has ended: it need
	// not survive a loss of power.
	if err := writeHolder(path, more); err != nil {
		_ = lock.Close()
		return nil, 0, &safefile.WriteError{What: path + " can't be written", Err: err}
	}
	return lock, 0, nil
}

// holder is the process that wrote beside a lock that it has it, 0 where that is
// not known.
func (s *Store) holder(name string) int {
	pid, _ := s.holderText(name)
	return pid
}

// holderText is what holder returns, with the rest that is written there.
func (s *Store) holderText(name string) (pid int, more string) {
	text, err := s.Places.Read(s.holderPath(name), nil)
	if err != nil {
		return 0, ""
	}
	first, more, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	pid, _ = strconv.Atoi(strings.TrimSpace(first))
	return pid, more
}

func writeHolder(path, more string) error {
	file, err := safefile.OpenOwn(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = file.WriteString(strconv.Itoa(os.Getpid()) + more)
	return errors.Join(err, file.Close())
}

// tryLock takes a lock unless somebody has it. A reader
// takes a shared lock for an instant; that does not count as holding it.
func tryLock(lock *flock.Flock) (bool, error) {
	for {
		if got, err := lock.TryLock(); got || err != nil {
			return got, err
		}
		shared, err := lock.TryRLock()
		if err != nil || !shared {
			return false, err
		}
		if err := lock.Close(); err != nil {
			return false, err
		}
	}
}

// Look reports whether a lock is free, and keeps it so until done is called. A
// lock that can't be examined is not free, and an error.
func (s *Store) Look(_ context.Context, name string) (done func(), free bool, err error) {
	return s.look(name)
}

func (s *Store) look(name string) (done func(), free bool, err error) {
	path := s.lockPath(name)
	if _, err := os.Lstat(path); os.IsNotExist(err) {
		return func() {}, true, nil
	}
	lock := safefile.NewLock(path)
	got, err := lock.TryRLock()
	if err != nil {
		return nil, false, &vault.LockError{Of: path, Err: safefile.Explain(path, err)}
	}
	if !got {
		return nil, false, nil
	}
	return func() { _ = lock.Close() }, true, nil
}

// busy reports whether somebody holds a lock, or nobody can tell.
func (s *Store) busy(name string) bool {
	done, free, _ := s.look(name)
	if free {
		done()
	}
	return !free
}
