//go:build !windows

package cli

import (
	"os/exec"
	"syscall"
)

// replaceProcess returns only where it failed.
func replaceProcess(program string, args, environ []string) error {
	return syscall.Exec(program, args, environ)
}

// detach keeps the terminal's signals from a program.
func detach(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}
