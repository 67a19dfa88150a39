package cli

import (
	"errors"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

// replaceProcess is nothing that Windows can do.
func replaceProcess(string, []string, []string) error { return errors.ErrUnsupported }

// detach keeps the console's Ctrl-C from a program.
func detach(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

// childName is the program's path: Windows runs a batch file by this name, and
// would look it up anew, in the current directory first.
func childName(program, _ string) string { return program }

// nobodyReads says that a write failed because the reader has gone.
func nobodyReads(err error) bool {
	return errors.Is(err, windows.ERROR_BROKEN_PIPE) || errors.Is(err, windows.ERROR_NO_DATA)
}

// takeEscapes makes a console obey escape sequences, which it does only for a
// program that asks for it, and before Windows 10 for none: then it is false.
func takeEscapes(file *os.File) bool {
	console := windows.Handle(file.Fd())
	var mode uint32
	if windows.GetConsoleMode(console, &mode) != nil {
		return true // it is no console
	}
	return windows.SetConsoleMode(console, mode|windows.ENABLE_PROCESSED_OUTPUT|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
