package process

import (
	"errors"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

// Replace is nothing that Windows can do.
func Replace(string, []string, []string) error { return errors.ErrUnsupported }

// Detach keeps the console's Ctrl-C from a program.
func Detach(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

// Group lets a program be ended without this one.
func Group(command *exec.Cmd) { Detach(command) }

// EndGroup ends a program. Windows has no signal that tells it to end.
func EndGroup(leader *os.Process, _ bool) error { return leader.Kill() }

// ChildName is the program's path: Windows runs a batch file by this name, and
// would look it up anew, in the current directory first.
func ChildName(program, _ string) string { return program }

// NobodyReads says that a write failed because the reader has gone.
func NobodyReads(err error) bool {
	return errors.Is(err, windows.ERROR_BROKEN_PIPE) || errors.Is(err, windows.ERROR_NO_DATA)
}
