package shared_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
)

// Who writes to the database knows what the vault is sealed to, and puts an item of their own into
// a grant's row. That a host renames the company, or notes something of the grant, makes the item
// no better.
func TestAForgedItemIsNotMadeGenuine(t *testing.T) {
	renamed := named("Acme Inc")
	for how, change := range map[string]func(*host) error{
		"rename": func(h *host) error { return h.Rename(t.Context(), id, renamed.Company) },
		"note":   func(h *host) error { return h.vault.Note(t.Context(), id, func(l *grant.Local) { l.LastError = nil }) },
	} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t)
			g := w.host(t.TempDir(), "web-1").authorize()
			recipient, err := age.ParseX25519Recipient(w.sql("SELECT recipient FROM upsauth.meta")[0][0])
			must(t, err)
			g.AccessToken, g.RefreshToken = "theirs", "theirs"
			text, err := json.Marshal(g)
			must(t, err)
			var sealed bytes.Buffer
			out, err := age.Encrypt(&sealed, recipient)
			must(t, err)
			_, err = out.Write(text)
			must(t, err)
			must(t, out.Close())
			w.sql(fmt.Sprintf(`UPDATE upsauth.grants SET item = '\x%x'`, sealed.Bytes()))
			asked := len(w.ups.Refreshes())
			t.Logf("the change: %v", change(w.host(t.TempDir(), "web-2")))
			h := w.host(t.TempDir(), "web-3")
			for _, which := range []grant.ID{id, renamed} {
				if g, err := h.Token(t.Context(), which, 0); err == nil {
					t.Errorf("it is served: %s", g.AccessToken)
				}
				if _, err := h.Refresh(t.Context(), which, keeper.Need{Always: true}); err == nil {
					t.Error("it is sent")
				}
			}
			if n := len(w.ups.Refreshes()); n > asked {
				t.Errorf("UPS was asked %d times", n-asked)
			}
		})
	}
}
