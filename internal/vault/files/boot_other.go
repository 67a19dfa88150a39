//go:build !linux && !windows

package files

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// bootID is the moment at which the kernel started, as in sysctl(3).
func bootID() string {
	at, err := unix.SysctlTimeval("kern.boottime")
	if err != nil {
		return ""
	}
	return fmt.Sprint(at.Sec)
}
