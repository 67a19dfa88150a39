package render

import (
	"io"
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

// A check of more letters than usual moves all texts; nothing found leaves no blanks.
func TestFindingsStandInColumns(t *testing.T) {
	findings := []Finding{
		{Level: OK, Check: "a check of many words"},
		{Level: Warning, Check: "証明書", Found: "one", Remedy: "\n two\n\n"},
	}
	got := output(t, func(w io.Writer) error { return FindingLines(w, findings, 0) })
	same(t, got, "ok       a check of many words\n"+
		"warning  証明書                 one\n"+
		"                                two\n")
	got = output(t, func(w io.Writer) error { return FindingLines(w, findings, 40) })
	same(t, got, "ok  a check of many words\n\nwarning  証明書\n  one\n  two\n")
	if got := output(t, func(w io.Writer) error { return FindingLines(w, nil, 0) }); got != "" {
		t.Errorf("without findings it is %q", got)
	}
	if got := output(t, func(w io.Writer) error { return Rows(w, nil, 0) }); got != "" {
		t.Errorf("without rows it is %q", got)
	}
}
