package files

import (
	"strings"

	"github.com/upsauth/upsauth/internal/safefile"
)

// bootID is what the kernel made up when it started, as in random(4).
func bootID() string {
	id, err := safefile.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
