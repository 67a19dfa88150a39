//go:build unix

package config

import (
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

// A service without User= has no HOME, and must find what the same user has.
func TestHomeIsThatOfTheUserDatabase(t *testing.T) {
	self, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(self.HomeDir); err != nil {
		t.Skip("this user has no home directory")
	}
	paths, err := FindPaths(func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{paths.Config, paths.State} {
		if !strings.HasPrefix(path, self.HomeDir+"/") {
			t.Errorf("%s is not in %s", path, self.HomeDir)
		}
	}
}

func TestDirectoriesThatAreNoFullPath(t *testing.T) {
	home := t.TempDir()
	for _, variable := range []string{EnvConfigDir, EnvStateDir, "XDG_CONFIG_HOME", "XDG_STATE_HOME", "HOME", EnvTrust} {
		for _, value := range []string{"rel", "./rel", "~", "~/x", ".."} {
			getenv := func(name string) string {
				return map[string]string{"HOME": home, variable: value}[name]
			}
			_, err := Load(getenv)
			refused(t, err, variable, "full path")
		}
	}
	for _, value := range []string{filepath.Join(home, "none"), os.DevNull} {
		_, err := Load(func(name string) string { return map[string]string{"HOME": value}[name] })
		refused(t, err, "HOME", value)
	}
}
