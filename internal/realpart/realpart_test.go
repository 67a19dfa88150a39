package realpart

import "testing"

// CI is set on every runner of GitHub's. Where .ci/test installs nothing, a test of
// Debian's programs failed for no fault of the code.
func TestPartsAreDebians(t *testing.T) {
	for _, test := range []struct {
		goos, ci string
		want     bool
	}{
		{"linux", "true", true}, {"linux", "", false},
		{"darwin", "true", false}, {"windows", "true", false}, {"freebsd", "true", false}, {"darwin", "", false},
	} {
		if got := mustBeThere(test.goos, test.ci); got != test.want {
			t.Errorf("on %s with CI=%q a missing part is an error: %t", test.goos, test.ci, got)
		}
	}
}

// A Mac's script and man take other options than Debian's, a Windows' sh comes from
// somewhere else: what they do says nothing about upsauth.
func TestProgramsOfTheSameName(t *testing.T) {
	for _, test := range []struct {
		name, goos string
		want       bool
	}{
		{"script", "linux", false}, {"script", "darwin", true}, {"script", "freebsd", true},
		{"man", "darwin", true}, {"curl", "darwin", false}, {"age", "darwin", false}, {"sh", "darwin", false},
		{"sh", "windows", true}, {"curl", "windows", true},
	} {
		if got := isAnother(test.name, test.goos); got != test.want {
			t.Errorf("%s on %s is another program: %t", test.name, test.goos, got)
		}
	}
}
