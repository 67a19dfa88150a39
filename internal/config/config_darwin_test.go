package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/adrg/xdg"
)

// What belongs to the user's programs is in Application Support, for the
// configuration as well: Preferences is for what the system keeps itself.
func TestDirectoriesOfTheLibrary(t *testing.T) {
	if os.Getenv("XDG_CONFIG_HOME") != "" || os.Getenv("XDG_STATE_HOME") != "" {
		t.Skip("the variables of XDG come first")
	}
	paths, err := FindPaths(func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{paths.Config, paths.State} {
		if path != filepath.Join(xdg.Home, "Library", "Application Support", "upsauth") {
			t.Errorf("%s is not in Application Support", path)
		}
	}
}
