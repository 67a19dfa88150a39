//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// runOnTerminal is how long a command takes whose output goes to a terminal of
// 120 columns, until the last byte has come out of it.
func runOnTerminal(env, command []string) (time.Duration, error) {
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return 0, err
	}
	defer screen.Close()
	fd := int(screen.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return 0, err
	}
	n, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 120}); err != nil {
		return 0, err
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return 0, err
	}
	c := exec.Command(command[0], command[1:]...)
	c.Env, c.Stdout, c.Stderr = env, terminal, terminal
	start := time.Now()
	err = c.Start()
	terminal.Close()
	if err != nil {
		return 0, err
	}
	// Its end is an error of the read: nobody has the terminal open any more.
	_, _ = io.Copy(io.Discard, screen)
	err = c.Wait()
	return time.Since(start), err
}
