package keeper

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

// FuzzOpen guards against what a browser sends, and against what an earlier upsauth
// may have sealed: no text is taken that was not sealed, and whatever is in one that
// was, it is read whole or not at all.
func FuzzOpen(f *testing.F) {
	key := bytes.Repeat([]byte{7}, KeySize)
	now := time.Date(2026, 11, 21, 16, 5, 3, 0, time.UTC)
	whole := Remembered{
		ID: grant.ID{Company: "Acme", Application: "batch-suite", Environment: "cie"}, Home: "file", RedirectURI: "https://shop.example/",
		Begun: now, Ends: now.Add(time.Minute), secrets: newSecrets("state", "verifier"),
	}
	sealed, err := whole.Seal(key, "p")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed, []byte{})
	f.Add("AQ", bytes.Repeat([]byte{0, 1, 'a'}, 14))
	f.Add(strings.Repeat("A", 200), []byte(strings.Repeat("\x00", 12*2+2*2+17)))
	f.Fuzz(func(t *testing.T, text string, plain []byte) {
		// Each run of the target seals another text of the same.
		if r, err := Open(key, "p", text, now); err == nil && (r.ID != whole.ID || r.State() != "state") {
			t.Errorf("opened: %v", r)
		}
		r, err := readRemembered(plain, time.Time{})
		if err != nil {
			return
		}
		again, err := r.Seal(key, "p")
		if err != nil {
			return // too long
		}
		if read, err := Open(key, "p", again, time.Time{}); err != nil || read.ID != r.ID || read.State() != r.State() || !read.Ends.Equal(r.Ends) {
			t.Errorf("%+v became %+v, %v", r, read, err)
		}
	})
}
