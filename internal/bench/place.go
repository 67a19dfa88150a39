//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/files"
)

const application, environment = "intelligent-rating", "lab"

// place is a configuration and a vault for upsauth.
type place struct {
	dir, server string
	vault       *vault.Vault
}

func newPlace(dir, server string) (*place, error) {
	if err := os.MkdirAll(filepath.Join(dir, "config"), 0o700); err != nil {
		return nil, err
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	p := &place{dir: dir, server: server}
	for path, text := range map[string]string{
		p.identity():                             identity.String() + "\n",
		filepath.Join(dir, "config/config.toml"): fmt.Sprintf("[environments.%s]\nbase_url = %q\n", environment, server),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	p.vault = vault.New(files.New(p.state(), vault.Homes{agefile.New(filepath.Join(p.state(), "vault"), p.identity())}))
	return p, nil
}

func (p *place) state() string    { return filepath.Join(p.dir, "state") }
func (p *place) identity() string { return filepath.Join(p.dir, "identity.txt") }

// env is the environment of a process that works there, and opener its browser.
func (p *place) env(opener string) []string {
	return append(os.Environ(), "NO_COLOR=", "TERM=xterm",
		"UPSAUTH_CONFIG_DIR="+filepath.Join(p.dir, "config"), "UPSAUTH_STATE_DIR="+p.state(),
		"UPSAUTH_VAULT=file", "UPSAUTH_IDENTITY="+p.identity(), "BROWSER="+opener,
		"UPSAUTH_CLIENT_ID=bench", "UPSAUTH_CLIENT_SECRET=secret", "UPSAUTH_REDIRECT_URI=http://127.0.0.1:0/callback")
}

// companies makes records of n companies, in every state that is usual, as
// status reads them.
func (p *place) companies(n int) error {
	return p.each(n, func(ctx context.Context, g grant.Grant) error { return p.vault.Align(ctx, g) })
}

// grants makes n whole grants in the home of files.
func (p *place) grants(n int) error {
	return p.each(n, func(ctx context.Context, g grant.Grant) error {
		j := grant.Journal{ID: g.ID, Purpose: grant.Authorizing, TokenVaultKey: g.TokenVaultKey, Generation: 1, Home: g.Home}
		if err := p.vault.Claim(ctx, &j); err != nil {
			return err
		}
		g.JournalRecipient = j.Recipient
		g.Local = grant.Local{} // none of these is void
		return p.vault.Put(ctx, g, 0, &j)
	})
}

func (p *place) each(n int, make func(context.Context, grant.Grant) error) error {
	group, ctx := errgroup.WithContext(context.Background())
	group.SetLimit(16)
	for i := range n {
		group.Go(func() error { return make(ctx, p.grant(i)) })
	}
	return group.Wait()
}

func (p *place) grant(i int) grant.Grant {
	name := fmt.Sprintf("Company %05d Shipping Ltd", i)
	if i%20 == 0 {
		name = fmt.Sprintf("Spedition %05d Zürich", i)
	}
	now := time.Now().UTC().Truncate(time.Second)
	issued := now.Add(-time.Duration(i%120) * time.Minute)
	refreshIssued := now.Add(-time.Duration(i%60) * 24 * time.Hour)
	g := grant.Grant{
		Record: grant.Record{
			Facts: grant.Facts{
				ID:                  grant.ID{Company: name, Application: application, Environment: environment},
				TokenVaultKey:       strings.ToUpper(uuid.NewString()),
				Generation:          1,
				User:                "jane@acme.example",
				ClientID:            "bench",
				BaseURL:             p.server,
				Issued:              issued,
				Expires:             issued.Add(time.Hour),
				RefreshTokenIssued:  refreshIssued,
				RefreshTokenExpires: refreshIssued.Add(60 * 24 * time.Hour),
				Requested:           issued,
				AccessUntil:         issued.Add(time.Hour),
				RefreshUntil:        refreshIssued.Add(60 * 24 * time.Hour),
				RefreshCount:        int64(i),
				Home:                "file",
				JournalRecipient:    "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
			},
		},
		Secrets: grant.Secrets{AccessToken: accessToken(), TokenType: "Bearer", RefreshToken: strings.Repeat("refresh-", 20)},
	}
	if i%50 == 7 {
		g.Void = true
		g.LastError = &grant.LastError{Code: "10400", Message: "UPS refused the refresh token: Invalid Refresh Token", Time: now}
	}
	return g
}
