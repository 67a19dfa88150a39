package vault

import (
	"context"
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
	return flock.New(path, flock.SetPermissions(0o600)), nil
}

// Lock takes the lock of a grant, waiting for it as long as the context lasts.
// The lock's file is never deleted: whoever waits must wait for the same file.
func (v *Vault) Lock(ctx context.Context, id grant.ID) (unlock func(), err error) {
	lock, err := v.openLock(id.Slot())
	if err != nil {
		return nil, err
	}
	if _, err := lock.TryLockContext(ctx, lockPoll); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("the lock of %s can't be taken: %w", id, err)
	}
	return func() {
		// The lock of a stuck grant ends with the process.
		if !v.isStuck(id.Slot()) {
			_ = lock.Close()
		}
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

// LockLogin takes a company's login lock, or returns a *LoginBusyError at once.
func (v *Vault) LockLogin(company string) (unlock func(), err error) {
	name := loginLock(company)
	lock, err := v.openLock(name)
	if err != nil {
		return nil, err
	}
	got, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("the login lock of %s can't be taken: %w", company, err)
	}
	// Who holds it is written beside the lock and not into it: on Windows a
	// locked file can't be read.
	holder := v.lockPath(name) + ".pid"
	if !got {
		text, _ := os.ReadFile(holder)
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		return nil, &LoginBusyError{Company: company, PID: pid}
	}
	if err := safefile.Write(holder, []byte(strconv.Itoa(os.Getpid()))); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return func() {
		_ = os.Remove(holder)
		_ = lock.Close()
	}, nil
}

// busy reports whether somebody holds a lock.
func (v *Vault) busy(name string) bool {
	path := v.lockPath(name)
	if _, err := os.Stat(path); err != nil {
		return false
	}
	lock := flock.New(path, flock.SetPermissions(0o600))
	got, err := lock.TryRLock()
	if err != nil {
		return false
	}
	_ = lock.Close()
	return !got
}
