package shared

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/safefile"
)

// MachineID is a digest of what the system tells this machine from others by, as in
// machine-id(5), or of its name where there is nothing else.
func MachineID() string {
	for _, path := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if id, err := safefile.ReadFile(path); err == nil && len(strings.TrimSpace(string(id))) > 0 {
			return digest("machine-id " + strings.TrimSpace(string(id)))
		}
	}
	name, _ := os.Hostname() // an empty one is as good as any
	return digest("name " + name)
}

func digest(text string) string {
	sum := sha256.Sum256([]byte("upsauth " + text))
	return hex.EncodeToString(sum[:16])
}

// began is when this process did.
var began = time.Now()
