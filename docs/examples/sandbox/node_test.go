package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/upsauth/upsauth/internal/realpart"
)

// TestNode runs life.mjs, with the npm packages that package-lock.json names.
func TestNode(t *testing.T) {
	npm, node := realpart.Program(t, "npm", "npm"), realpart.Program(t, "node", "nodejs")
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "life.mjs"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	install := exec.Command(npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Logf("%s", out)
		realpart.Missing(t, err)
	}
	life := exec.Command(node, "life.mjs", startSandbox(t))
	life.Dir = dir
	out, err := life.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"exchanged: expires in 3599 seconds", "verified: RS384 jane", "tracked: 1Z999AA10123456784",
		"refreshed: refresh_count 1", "refused: 400 10400 Invalid Refresh Token", "voided: 401 250002",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("there is no %q in\n%s", want, out)
		}
	}
}
