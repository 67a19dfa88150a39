package sandbox

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/upsauth/upsauth/internal/realpart"
)

// TestNode runs the programs for Node.js, with the npm packages that
// package-lock.json names.
func TestNode(t *testing.T) {
	npm, node := realpart.Program(t, "npm", "npm"), realpart.Program(t, "node", "nodejs")
	programs := map[string][]string{
		"life.mjs": {
			"exchanged: expires in 3599 seconds", "verified: RS384 jane", "tracked: 1Z999AA10123456784",
			"refreshed: refresh_count 1", "refused: 400 10400 Invalid Refresh Token", "voided: 401 250002",
		},
		"passport.mjs": {
			"basic: expires in 3599 seconds", "basic: refresh_count 1", "basic: refused: 400 Invalid Refresh Token",
			"pkce: expires in 3599 seconds", "pkce: refresh_count 1", "pkce: refused: 400 Invalid Refresh Token",
			"without HTTP Basic: Invalid/Missing Authorization Header",
		},
	}
	dir := t.TempDir()
	for _, name := range append(slices.Collect(maps.Keys(programs)), "package.json", "package-lock.json") {
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
	base := startSandbox(t)
	for name, lines := range programs {
		t.Run(name, func(t *testing.T) {
			program := exec.CommandContext(t.Context(), node, name, base)
			program.Dir = dir
			wantLines(t, program, lines...)
		})
	}
}

// TestLockNamesNoHost keeps the packages' addresses out of package-lock.json:
// npm takes them from whichever registry it is told to use.
func TestLockNamesNoHost(t *testing.T) {
	text, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), `"resolved"`) {
		t.Error("package-lock.json names a host: npm install --omit-lockfile-registry-resolved")
	}
}

func wantLines(t *testing.T, program *exec.Cmd, lines ...string) {
	t.Helper()
	out, err := program.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range lines {
		if !strings.Contains(string(out), want) {
			t.Errorf("there is no %q in\n%s", want, out)
		}
	}
}
