package process

import (
	"runtime"
	"syscall"
	"unsafe"
)

const lastSignal = syscall.Signal(64)

var harmlessHere []syscall.Signal

// ignoreUnaskable ignores the one signal that ends a process and that Go leaves to
// the C library: SIGRTMIN, as glibc counts.
func ignoreUnaskable() { handleUnaskable(1) } // SIG_IGN

// restoreUnaskable is for a program that takes this process's place, and would
// inherit what is ignored.
func restoreUnaskable() { handleUnaskable(0) } // SIG_DFL

func handleUnaskable(handler uint64) {
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		return // the structure is another
	}
	const sigrtmin = 34
	action := [4]uint64{handler} // flags, restorer and mask are zero
	//nolint:gosec // rt_sigaction(2) takes an address
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, sigrtmin, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
}
