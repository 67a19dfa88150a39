package checkup

import (
	"strings"
	"testing"
)

func TestPassing(t *testing.T) {
	for magic, want := range map[int64]string{0x01021994: "tmpfs", 0x858458f6: "ramfs", 0x794c7630: "overlay"} {
		if kind := kindOf(magic); !strings.Contains(kind, want) {
			t.Errorf("%#x is %q, want %s", magic, kind, want)
		}
	}
	if kind := kindOf(0xef53); kind != "" {
		t.Errorf("ext4 is %q", kind)
	}
	if kind := passing("/dev/shm/not/there/yet"); !strings.Contains(kind, "tmpfs") {
		t.Errorf("a directory that is to come below /dev/shm is on %q", kind)
	}
}
