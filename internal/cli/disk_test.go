//go:build unix

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
)

// A disk that is full or read-only has one exit code, whichever step meets it;
// what is not the state's own keeps 1.
func TestExitCodeOfADisk(t *testing.T) {
	at := func(path string, errno syscall.Errno) error {
		return &fs.PathError{Op: "write", Path: path, Err: errno}
	}
	tests := []struct {
		name string
		err  error
		want int
	}{
		{"full", fmt.Errorf("the journal can't be written: %w", at("/s/j", syscall.ENOSPC)), exitVault},
		{"over the quota", at("/s/j", syscall.EDQUOT), exitVault},
		{"read-only", at("/s/j", syscall.EROFS), exitVault},
		{"failing", at("/s/j", syscall.EIO), exitVault},
		{"beside another error", errors.Join(errors.New("another"), at("/s/j", syscall.ENOSPC)), exitVault},
		{"no locks", &vault.LockError{Of: "A", Err: syscall.ENOLCK}, exitVault},
		{"locks that can't be opened", &vault.LockError{Of: "A", Err: at("/s/l", syscall.EROFS)}, exitVault},
		{"a rehearsal", &vault.RehearsalError{Dir: "/s", Step: "x", Err: errors.New("y")}, exitVault},
		{"immutable", &safefile.WriteError{What: "the journal can't be written", Err: at("/s/j", syscall.EPERM)}, exitVault},
		{"another's", &safefile.WriteError{What: "/s/r can't be written", Err: at("/s/r", syscall.EACCES)}, exitVault},
		{"a directory in the file's place", &safefile.WriteError{What: "/s/r can't be written", Err: at("/s/r", syscall.EISDIR)}, exitVault},
		{"locks in another's directory", &vault.LockError{Of: "A", Err: at("/s/l", syscall.EACCES)}, exitVault},
		{"an export into another's directory", &outputError{&safefile.WriteError{What: "/e can't be written", Err: at("/e", syscall.EACCES)}}, exitFailed},
		{"the configuration's", &config.Error{Path: "/c/a", Err: at("/c/a", syscall.ENOSPC)}, exitFailed},
		{"an export", &outputError{at("/e", syscall.ENOSPC)}, exitFailed},
		{"standard output", at("/dev/stdout", syscall.ENOSPC), exitFailed},
		{"another error", at("/s/j", syscall.ENOENT), exitFailed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := exitCode(test.err); got != test.want {
				t.Errorf("exit code %d, want %d", got, test.want)
			}
		})
	}
}
