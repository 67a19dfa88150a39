// Package process is what upsauth does as a process of the system: it hears its
// signals, keeps its memory and its secrets to itself, tells systemd of its state, and
// starts other programs or makes way for them.
package process

import (
	"os"
	"slices"
	"strings"
)

// TakeVariables moves variables, such as those with secrets, out of the process's
// environment, which every program that is started inherits, also those that
// libraries start, and returns a Getenv that still knows them.
func TakeVariables(names ...string) (getenv func(string) string) {
	taken := map[string]string{}
	for _, name := range names {
		taken[name] = os.Getenv(name)
		_ = os.Unsetenv(name)
	}
	return func(name string) string {
		if value, ok := taken[name]; ok {
			return value
		}
		return os.Getenv(name)
	}
}

// Without returns an environment without some variables.
func Without(environ []string, names ...string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
	})
}
