//go:build !windows

package process

import (
	"errors"
	"os/exec"
	"syscall"
)

// Replace returns only where it failed.
func Replace(program string, args, environ []string) error {
	restoreUnaskable()
	return syscall.Exec(program, args, environ)
}

// Detach keeps the terminal's signals from a program.
func Detach(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

// ChildName is what a program finds as its own name.
func ChildName(_, written string) string { return written }

// NobodyReads says that a write failed because the reader has gone.
func NobodyReads(err error) bool { return errors.Is(err, syscall.EPIPE) }
