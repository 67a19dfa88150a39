package vault

import (
	"context"
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
)

// lockPoll is how often a lock that somebody holds is tried again.
const lockPoll = 10 * time.Millisecond

func (v *Vault) lockPath(name string) string {
	return filepath.Join(v.dir, "locks", name+".lock")
}

func (v *Vault) openLock(name string) (*flock.Flock, error) {
	path := v.lockPath(name)
	if err := safefile.MkdirAll(filepath.Dir(path)); err != nil {
		return nil, err
	}
	return safefile.NewLock(path), nil
}

// LockError says that a lock can't be taken, and that nobody has it: the files are
// where no lock works, or can't be written. Nothing is safe without locks.
type LockError struct {
	Of  string // what is locked
	Err error
}

func (e *LockError) Error() string { return fmt.Sprintf("%s can't be locked: %v", e.Of, e.Err) }

func (e *LockError) Unwrap() error { return e.Err }

// Lock takes the lock of a grant, waiting for it as long as the context lasts.
// The lock's file is never deleted: whoever waits must wait for the same file.
func (v *Vault) Lock(ctx context.Context, id grant.ID) (unlock func(), err error) {
	slot := id.Slot()
	if v.isStuck(slot) {
		return nil, stuckError("vault") // this process may hold the lock itself
	}
	lock, err := v.openLock(slot)
	if err != nil {
		return nil, &LockError{Of: id.String(), Err: err}
	}
	if _, err := lock.TryLockContext(ctx, lockPoll); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &LockError{Of: id.String(), Err: safefile.Explain(v.lockPath(slot), err)}
	}
	return func() {
		if v.isStuck(slot) {
			v.keep(lock)
			return
		}
		_ = lock.Close()
	}, nil
}

func loginLock(company string) string { return grant.CompanySlot(company) + ".login" }

// LoginBusyError says that a company is being authorized by another process.
type LoginBusyError struct {
	Company string
	PID     int // 0 where it is not known
}

func (e *LoginBusyError) Error() string {
	who := "another upsauth"
	if e.PID > 0 {
		who = fmt.Sprintf("another upsauth (process %d)", e.PID)
	}
	return fmt.Sprintf("%s is being authorized by %s right now", e.Company, who)
}

// Unwrap makes it a grant.ErrLoginBusy.
func (e *LoginBusyError) Unwrap() error { return grant.ErrLoginBusy }

// holderPath is where it is written who holds a lock: beside the lock and not in
// it, as on Windows a locked file can't be read.
func (v *Vault) holderPath(name string) string { return v.lockPath(name) + ".pid" }

// LockLogin takes a company's login lock, or returns a *LoginBusyError at once.
func (v *Vault) LockLogin(company string) (unlock func(), err error) {
	unlock, holder, err := v.hold(loginLock(company))
	switch {
	case err != nil:
		return nil, &LockError{Of: "the sign-in of " + company, Err: err}
	case unlock == nil:
		return nil, &LoginBusyError{Company: company, PID: holder}
	}
	return unlock, nil
}

// ServiceBusyError says that another process keeps the vault's grants alive.
type ServiceBusyError struct {
	Dir string // of the vault
	PID int    // 0 where it is not known
}

func (e *ServiceBusyError) Error() string {
	who := "another process"
	if e.PID > 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("%s already refreshes the grants in %s; one service is enough", who, e.Dir)
}

// LockService takes the lock of the one process that keeps the vault's grants
// alive, or returns a *ServiceBusyError at once.
func (v *Vault) LockService() (unlock func(), err error) {
	unlock, holder, err := v.hold("service")
	switch {
	case err != nil:
		return nil, &LockError{Of: "the vault's service", Err: err}
	case unlock == nil:
		return nil, &ServiceBusyError{Dir: v.dir, PID: holder}
	}
	return unlock, nil
}

func portLock(port int) string { return fmt.Sprintf("port-%d", port) }

// HoldPort says to other processes that this one listens on a port: the system
// does not tell whose a port is that a process without core dumps has. It is for a
// message, so nobody waits for it.
func (v *Vault) HoldPort(port int) (release func()) {
	unlock, _, err := v.hold(portLock(port))
	if err != nil || unlock == nil {
		return func() {}
	}
	return unlock
}

// PortHolder is the process that said that it listens on a port, 0 where none
// does.
func (v *Vault) PortHolder(port int) int {
	name := portLock(port)
	if !v.busy(name) {
		return 0
	}
	if pid := v.holder(name); pid != os.Getpid() {
		return pid
	}
	return 0
}

// hold takes a lock and writes beside it who has it. Unlock is nil where somebody
// else has it: the process holder, 0 where that is not known.
func (v *Vault) hold(name string) (unlock func(), holder int, err error) {
	lock, err := v.openLock(name)
	if err != nil {
		return nil, 0, err
	}
	path := v.holderPath(name)
	got, err := tryLock(lock)
	if err != nil || !got {
		_ = lock.Close()
	}
	if err != nil {
		return nil, 0, safefile.Explain(v.lockPath(name), err)
	}
	if !got {
		return nil, v.holder(name), nil
	}
	// It is for a message, and means nothing once this process has ended: it need
	// not survive a loss of power.
	if err := writeHolder(path); err != nil {
		_ = lock.Close()
		return nil, 0, fmt.Errorf("%s can't be written: %w", path, err)
	}
	return func() {
		_ = safefile.Remove(path)
		_ = lock.Close()
	}, 0, nil
}

// holder is the process that wrote beside a lock that it has it, 0 where that is
// not known.
func (v *Vault) holder(name string) int {
	text, err := v.Places.Read(v.holderPath(name), nil)
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

func writeHolder(path string) error {
	file, err := safefile.OpenOwn(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = file.WriteString(strconv.Itoa(os.Getpid()))
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

// look reports whether a lock is free, and keeps it so until done is called. A
// lock that can't be examined is not free, and an error.
func (v *Vault) look(name string) (done func(), free bool, err error) {
	path := v.lockPath(name)
	if _, err := os.Lstat(path); os.IsNotExist(err) {
		return func() {}, true, nil
	}
	lock := safefile.NewLock(path)
	got, err := lock.TryRLock()
	if err != nil {
		return nil, false, &LockError{Of: path, Err: safefile.Explain(path, err)}
	}
	if !got {
		return nil, false, nil
	}
	return func() { _ = lock.Close() }, true, nil
}

// busy reports whether somebody holds a lock, or nobody can tell.
func (v *Vault) busy(name string) bool {
	done, free, _ := v.look(name)
	if free {
		done()
	}
	return !free
}
