// Package realpart is for tests that drive a real program, keychain or browser:
// where that is missing, a test is skipped for a user and fails in CI. With go
// test -short, no real part is driven, whether it is there or not.
package realpart

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// Program returns the path of a program that a test drives, which Debian has in a
// package.
func Program(tb testing.TB, name, debianPackage string) string {
	tb.Helper()
	Wanted(tb)
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(tb, fmt.Errorf("%w (Debian: apt-get install %s)", err, debianPackage))
	}
	return path
}

// Missing ends a test whose real part is not there.
func Missing(tb testing.TB, err error) {
	tb.Helper()
	if os.Getenv("CI") != "" {
		tb.Fatal(err)
	}
	tb.Skip(err)
}

// Wanted skips a test of a real part where none is to be driven.
func Wanted(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("with -short no real program, keychain or browser is driven")
	}
}
