package render

import (
	"strings"
	"testing"
)

func TestFindingLines(t *testing.T) {
	var out strings.Builder
	err := FindingLines(&out, []Finding{
		{Level: OK, Check: "vault", Found: "the keychain answers"},
		{Level: Failure, Check: "callback port", Found: "port 80 is\x1b[31m in use", Remedy: "End it.\n  Run: x"},
	}, 0)
	const want = "ok       vault           the keychain answers\n" +
		"failure  callback port   port 80 is[31m in use\n" +
		"                         End it.\n" +
		"                         Run: x\n"
	if got := out.String(); err != nil || got != want {
		t.Errorf("got\n%s\nwant\n%s(%v)", got, want, err)
	}
}
