package vault_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"github.com/google/uuid"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
)

// TestMakeLargeVault makes a file vault of UPSAUTH_LARGE_VAULT=COUNT:DIR, with an
// identity in DIR/id.txt and the state in DIR/state, to measure commands with.
func TestMakeLargeVault(t *testing.T) {
	text, dir, ok := strings.Cut(os.Getenv("UPSAUTH_LARGE_VAULT"), ":")
	if !ok {
		t.Skip("UPSAUTH_LARGE_VAULT=COUNT:DIR is not set")
	}
	count, err := strconv.Atoi(text)
	check(t, err)
	identity, err := age.GenerateX25519Identity()
	check(t, err)
	check(t, os.MkdirAll(dir, 0o700))
	file := filepath.Join(dir, "id.txt")
	check(t, os.WriteFile(file, []byte(identity.String()+"\n"), 0o600))
	state := filepath.Join(dir, "state")
	v := vault.New(state, vault.Homes{agefile.New(filepath.Join(state, "vault"), file)})
	var makers sync.WaitGroup
	next := make(chan int)
	for range 4 {
		makers.Go(func() {
			for n := range next {
				id := grant.ID{Company: fmt.Sprint("Company ", n), Application: "intelligent-rating", Environment: "sandbox"}
				g := grantOf(id, strings.ToUpper(uuid.NewString()), 1)
				j := login(id, g.TokenVaultKey)
				if err := v.Begin(t.Context(), &j); err != nil {
					t.Error(err)
					return
				}
				g.JournalRecipient = j.Recipient
				if err := v.Put(t.Context(), g, 0); err != nil {
					t.Error(err)
				}
				if err := v.Settle(j); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for n := range count {
		next <- n
	}
	close(next)
	makers.Wait()
}
