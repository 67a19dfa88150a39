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

	"github.com/upsauth/upsauth/internal/company"
	companyfiles "github.com/upsauth/upsauth/internal/company/files"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
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
	return p.each(n, p.whole)
}

// whole puts a grant into the home of files, and its journal beside it.
func (p *place) whole(ctx context.Context, g grant.Grant) error {
	j := grant.Journal{ID: g.ID, Purpose: grant.Authorizing, TokenVaultKey: g.TokenVaultKey, Generation: 1, Home: g.Home}
	if err := p.vault.Claim(ctx, &j); err != nil {
		return err
	}
	g.JournalRecipient = j.Recipient
	g.Local = grant.Local{} // none of these is void
	return p.vault.Put(ctx, g, 0, &j)
}

// fresh makes n whole grants whose tokens need nothing for an hour.
func (p *place) fresh(n int) error {
	return p.each(n, func(ctx context.Context, g grant.Grant) error { return p.whole(ctx, renewed(g)) })
}

// freshCompanies makes the records of n companies of which none needs a refresh.
func (p *place) freshCompanies(n int) error {
	return p.each(n, func(ctx context.Context, g grant.Grant) error { return p.vault.Align(ctx, renewed(g)) })
}

// renewed is a grant as it is right after a sign-in.
func renewed(g grant.Grant) grant.Grant {
	now := time.Now().UTC().Truncate(time.Second)
	access, refresh := now.Add(time.Hour), now.Add(60*24*time.Hour)
	g.Issued, g.Requested, g.RefreshTokenIssued = now, now, now
	g.Expires, g.AccessUntil, g.RefreshTokenExpires, g.RefreshUntil = access, access, refresh, refresh
	return g
}

// entries makes what is known of the n companies beside their grants, and their histories,
// in the files that upsauth writes.
func (p *place) entries(n int) error {
	store := companyfiles.New(filepath.Join(p.state(), "companies"), &safefile.Places{})
	ctx := context.Background()
	now := time.Now().UTC()
	var put []company.Row
	for i := range n {
		id := p.grant(i).ID
		key := company.Key{Slot: grant.CompanySlot(id.Company)}
		put = append(put, company.Row{Key: key, Entry: company.Entry{Company: id.Company, Added: now, Details: company.Details{Contact: "Ada Miller, +44 20 7946 0000", Note: "invoices by post"}}})
		key.Part = company.History
		row := company.Row{Key: key}
		for day := range 20 {
			what := grant.EventRefreshed
			if day == 0 {
				what = grant.EventAuthorized
			}
			row.Events = append(row.Events, grant.Event{Time: now.AddDate(0, 0, day-20), What: what, ID: id})
		}
		put = append(put, row)
	}
	return store.Commit(ctx, put, nil)
}

// touch changes a record, as a command does beside a service.
func (p *place) touch() error {
	return p.vault.Note(context.Background(), p.grant(0).ID, func(l *grant.Local) {
		l.LastError = &grant.LastError{Message: "UPS can't be reached", Time: time.Now().UTC()}
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
