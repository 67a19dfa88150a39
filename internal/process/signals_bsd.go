//go:build darwin || freebsd

package process

import "syscall"

const lastSignal = syscall.Signal(31)

// SIGINFO is what Ctrl-T sends.
var harmlessHere = []syscall.Signal{syscall.SIGINFO}

func ignoreUnaskable() {}

func restoreUnaskable() {}
