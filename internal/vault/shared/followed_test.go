package shared_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// Somebody signs in again for a company, and another host renames the company before the grant is
// in place. The sign-in belongs to the company, whatever its name.
func TestASignInFollowsItsCompany(t *testing.T) {
	for _, when := range []string{"while somebody signs in", "while the host is down"} {
		t.Run(when, func(t *testing.T) {
			w := newWorld(t)
			dir := t.TempDir()
			a, b := w.host(dir, "web-1"), w.host(t.TempDir(), "web-2")
			first := a.authorize()
			_, err := b.Token(t.Context(), id, 0)
			must(t, err)
			renamed := named("Acme Inc")
			if when == "while the host is down" {
				if !a.until("after Seal", func() { a.authorize() }) {
					t.Fatal("it was not ended")
				}
				must(t, b.Rename(t.Context(), id, renamed.Company))
			} else {
				client, err := a.Client(t.Context(), id)
				must(t, err)
				s, err := a.Begin(t.Context(), keeper.Request{ID: id, Home: shared.HomeName, Client: client, Lasts: time.Minute})
				must(t, err)
				back, err := sandbox.Person{User: jane, Password: "pw"}.Callback(t.Context(), s.Address(s.State()))
				must(t, err)
				u, err := url.Parse(back)
				must(t, err)
				must(t, b.Rename(t.Context(), id, renamed.Company))
				_, err = s.Finish(t.Context(), grant.Callback{Code: u.Query().Get("code")})
				must(t, err)
				if _, err = s.Keep(t.Context()); err == nil {
					t.Error("it is kept under a name that no company has")
				}
				s.Close(t.Context())
			}
			w.host(dir, "web-1").deliver()
			g, err := w.host(t.TempDir(), "web-3").Refresh(t.Context(), renamed, keeper.Need{Always: true})
			if err != nil || g.TokenVaultKey == first.TokenVaultKey {
				t.Errorf("it has the grant from before: %v", err)
			}
		})
	}
}
