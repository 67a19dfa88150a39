package terminal

import (
	"os"

	"golang.org/x/sys/windows"
)

// TakeEscapes makes a console obey escape sequences, which it does only for a
// program that asks for it, and before Windows 10 for none: then it is false.
func TakeEscapes(file *os.File) bool {
	console := windows.Handle(file.Fd())
	var mode uint32
	if windows.GetConsoleMode(console, &mode) != nil {
		return true // it is no console
	}
	return windows.SetConsoleMode(console, mode|windows.ENABLE_PROCESSED_OUTPUT|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
