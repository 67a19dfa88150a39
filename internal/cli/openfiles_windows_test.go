package cli

import (
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"
)

// openFiles counts the files, pipes and sockets that this process has open. Other
// handles are left out: each thread has some, and when Go starts another thread is
// a matter of how busy the machine is. For the same reason /proc is of no use
// under wine, where a thread takes three files of Linux that no program on Windows
// knows.
func openFiles(t *testing.T) int {
	t.Helper()
	here, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	type handle struct {
		_     uintptr
		pid   uintptr
		value uintptr
		_     uint32
		_     uint16
		kind  uint16
		_, _  uint32
	}
	type list struct {
		count, _ uintptr
		handles  [1]handle
	}
	for size := uint32(1 << 20); ; size *= 2 {
		buf := make([]uintptr, uintptr(size)/unsafe.Sizeof(uintptr(0)))
		err := windows.NtQuerySystemInformation(windows.SystemExtendedHandleInformation, unsafe.Pointer(&buf[0]), size, nil)
		if err == windows.STATUS_INFO_LENGTH_MISMATCH && size < 1<<28 {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		l := (*list)(unsafe.Pointer(&buf[0]))
		kinds, mine := map[uint16]int{}, uint16(0)
		for _, h := range unsafe.Slice(&l.handles[0], l.count) {
			if h.pid != uintptr(os.Getpid()) {
				continue
			}
			kinds[h.kind]++
			if h.value == here.Fd() {
				mine = h.kind
			}
		}
		if kinds[mine] == 0 {
			t.Fatalf("this process has no open file among %d handles", l.count)
		}
		return kinds[mine] - 1
	}
}
