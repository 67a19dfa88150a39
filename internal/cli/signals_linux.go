package cli

import (
	"runtime"
	"syscall"
	"unsafe"
)

const lastSignal = syscall.Signal(64)

var harmlessHere []syscall.Signal

// ignoreUnaskable ignores the one signal that ends a process and that Go leaves to
// the C library: SIGRTMIN, as glibc counts.
func ignoreUnaskable() {
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		return // the structure is another
	}
	const sigrtmin, sigIgn = 34, 1
	action := [4]uint64{sigIgn}                                                                                     // handler, flags, restorer, mask
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, sigrtmin, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0) //nolint:gosec // rt_sigaction(2) takes an address
}
