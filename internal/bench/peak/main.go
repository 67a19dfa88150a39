//go:build linux

// Command peak runs a command and writes the most memory that it had at a time,
// in KB, to a file. It is a program of its own as Linux counts the memory of
// whoever starts a program to that program: this one has little.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

func main() {
	command := exec.Command(os.Args[2], os.Args[3:]...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	err := command.Run()
	if err == nil {
		usage := command.ProcessState.SysUsage().(*syscall.Rusage)
		err = os.WriteFile(os.Args[1], fmt.Append(nil, usage.Maxrss), 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
