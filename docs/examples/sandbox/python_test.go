package sandbox

import (
	"errors"
	"os/exec"
	"testing"

	"github.com/upsauth/upsauth/internal/realpart"
)

// TestPython runs life.py, with whichever Python here has Authlib: the first in
// PATH may not be Debian's.
func TestPython(t *testing.T) {
	var python string
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(name, "-c", "import authlib.oauth2.client").Run() == nil {
			python = name
			break
		}
	}
	if python == "" {
		realpart.Missing(t, errors.New("no Python here has Authlib (Debian: apt-get install python3-authlib)"))
	}
	wantLines(t, exec.CommandContext(t.Context(), python, "-B", "life.py", startSandbox(t)),
		"basic expires in 3599 seconds", "basic code refused: 400 10400 Invalid Authorization Code", "basic tracked: 1Z999AA10123456784",
		"basic refresh_count 1", "basic refresh token refused: 400 10400 Invalid Refresh Token", "basic refreshed by itself",
		"pkce expires in 3599 seconds", "pkce tracked: 1Z999AA10123456784", "pkce refresh_count 1", "pkce refreshed by itself")
}
