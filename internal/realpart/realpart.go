// Package realpart is for tests that drive a real program, keychain or browser:
// where that is missing, a test is skipped for a user and fails in CI. With go
// test -short, no real part is driven, whether it is there or not.
//
// CI is Debian here: .ci/test installs every part there and nowhere else. On the
// other systems a part that is missing is never an error, also where CI is set, as it
// is on all of GitHub's runners. Tests that need nothing but what macOS or Windows
// always has, as their keychains, do not ask this package.
package realpart

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"
)

// Program returns the path of a program that a test drives, which Debian has in a
// package. It skips the test where a program of that name is another one.
func Program(tb testing.TB, name, debianPackage string) string {
	tb.Helper()
	Wanted(tb)
	if isAnother(name, runtime.GOOS) {
		tb.Skipf("the %s of this system is not the one that Debian has", name)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(tb, fmt.Errorf("%w (Debian: apt-get install %s)", err, debianPackage))
	}
	return path
}

// isAnother reports whether a system has, by the name of a program of Debian's, one
// that takes other options. All that Windows has by these names are ports, such as the
// shell that comes with git.
func isAnother(name, goos string) bool {
	switch goos {
	case "linux":
		return false
	case "windows":
		return true
	}
	return name == "man" || name == "script"
}

// MissingError says that a program is not installed.
type MissingError struct {
	Program, Package string // the package is Debian's
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("there is no %s (Debian: apt-get install %s)", e.Program, e.Package)
}

// Must ends a test whose real part could not be started: as Missing does where the error
// is a *MissingError.
func Must(tb testing.TB, err error) {
	tb.Helper()
	if errors.As(err, new(*MissingError)) {
		Missing(tb, err)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// Missing ends a test whose real part is not there.
func Missing(tb testing.TB, err error) {
	tb.Helper()
	if mustBeThere(runtime.GOOS, os.Getenv("CI")) {
		tb.Fatal(err)
	}
	tb.Skip(err)
}

// mustBeThere reports whether a part that is missing is an error.
func mustBeThere(goos, ci string) bool { return goos == "linux" && ci != "" }

// Wanted skips a test of a real part where none is to be driven.
func Wanted(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("with -short no real program, keychain or browser is driven")
	}
}
