package terminal

import (
	"strings"
	"testing"
)

func TestFittedKeepsWhatIsWrittenPieceByPiece(t *testing.T) {
	var out strings.Builder
	f := &fitted{w: &out, width: func() int { return 10 }}
	for _, text := range []string{"one two three? [y/N] ", "", "yes\n", "one two three\n", "\r 3 s left and more ", "one two\nthree four five"} {
		if n, err := f.Write([]byte(text)); n != len(text) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	if want := "one two\nthree?\n[y/N] yes\none two\nthree\n\r 3 s left and more one two\nthree four\nfive"; out.String() != want {
		t.Errorf("%q\nwant\n%q", out.String(), want)
	}
}
