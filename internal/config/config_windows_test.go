package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/adrg/xdg"
)

// A path that leads somewhere must not be taken for one beside config.toml, and
// people write home directories with Windows' own separator.
func TestPathsAsWindowsWritesThem(t *testing.T) {
	for text, want := range map[string]string{
		`'C:\keys\id.txt'`:        `C:\keys\id.txt`,
		`'\keys\id.txt'`:          `\keys\id.txt`,
		`'C:id.txt'`:              `C:id.txt`,
		`'\\server\share\id.txt'`: `\\server\share\id.txt`,
		`'~\keys\id.txt'`:         filepath.Join(xdg.Home, "keys", "id.txt"),
		`"C:/keys/id.txt"`:        `C:/keys/id.txt`,
		`'keys\id.txt'`:           `config\keys\id.txt`,
	} {
		getenv, paths := newUser(t, nil)
		write(t, filepath.Join(paths.Config, "config.toml"), "identity = "+text)
		got, err := Load(getenv)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if rest, ok := strings.CutPrefix(want, `config\`); ok {
			want = filepath.Join(paths.Config, rest)
		}
		if got.Identity != want {
			t.Errorf("%s is %s, want %s", text, got.Identity, want)
		}
	}
}

// What a user's programs keep is in the local part of the profile, which does not
// follow the user to other machines, as the locks in it would.
func TestDirectoriesOfTheProfile(t *testing.T) {
	if os.Getenv("XDG_CONFIG_HOME") != "" || os.Getenv("XDG_STATE_HOME") != "" {
		t.Skip("the variables of XDG come first")
	}
	local := os.Getenv("LOCALAPPDATA")
	if local == "" {
		local = filepath.Join(xdg.Home, "AppData", "Local")
	}
	paths, err := FindPaths(func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{paths.Config, paths.State} {
		if path != filepath.Join(local, "upsauth") {
			t.Errorf("%s is not in %s", path, local)
		}
	}
}
