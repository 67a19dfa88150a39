//go:build !windows

package process

import (
	"errors"
	"os"
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

// Group lets a program and all that it starts be ended together.
func Group(command *exec.Cmd) { Detach(command) }

// EndGroup ends a program of Group with all that it has started: it tells them to end, or
// lets the system end them.
func EndGroup(leader *os.Process, kill bool) error {
	signal := syscall.SIGTERM
	if kill {
		signal = syscall.SIGKILL
	}
	if err := syscall.Kill(-leader.Pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// ChildName is what a program finds as its own name.
func ChildName(_, written string) string { return written }

// NobodyReads says that a write failed because the reader has gone.
func NobodyReads(err error) bool { return errors.Is(err, syscall.EPIPE) }
