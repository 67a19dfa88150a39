package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestDarwin runs the scripts in testdata/darwin: what macOS does in its own way.
// They make another keychain the default one, of a home directory that is theirs.
// Should macOS ever take the person's own instead, it is done where nobody has one.
func TestDarwin(t *testing.T) {
	if os.Getenv("CI") == "" {
		t.Skip("it makes a keychain the default one, which is for a machine of CI")
	}
	testscript.Run(t, scriptParams(filepath.Join("testdata", "darwin")))
}

// launchd says nothing about a property list that it can't read: the job is not
// there, and nothing refreshes.
func TestPropertyList(t *testing.T) {
	list := filepath.Join("..", "..", "docs", "examples", "com.github.upsauth.refresh.plist")
	if out, err := exec.Command("plutil", "-lint", list).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
