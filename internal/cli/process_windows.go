package cli

import (
	"errors"
	"os/exec"
	"syscall"
)

// replaceProcess is nothing that Windows can do.
func replaceProcess(string, []string, []string) error { return errors.ErrUnsupported }

// detach keeps the console's Ctrl-C from a program.
func detach(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
