//go:build !windows

package cli

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// replaceProcess returns only where it failed.
func replaceProcess(program string, args, environ []string) error {
	restoreUnaskable()
	return syscall.Exec(program, args, environ)
}

// detach keeps the terminal's signals from a program.
func detach(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

// childName is what a program finds as its own name.
func childName(_, written string) string { return written }

// nobodyReads says that a write failed because the reader has gone.
func nobodyReads(err error) bool { return errors.Is(err, syscall.EPIPE) }

// takeEscapes makes a terminal obey escape sequences; those here always do.
func takeEscapes(*os.File) bool { return true }
