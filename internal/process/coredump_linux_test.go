package process

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The memory of a process that crashes has tokens in it.
func TestNoCoreDumps(t *testing.T) {
	before, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(before), 0, 0, 0) }()
	NoCoreDumps()
	if now, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || now != 0 {
		t.Errorf("the process can be dumped (%d, %v)", now, err)
	}
}
