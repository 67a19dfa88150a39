package vaulttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
)

// Noon is the moment that tests count from.
var Noon = time.Date(2026, 11, 21, 12, 0, 0, 123456789, time.UTC)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func access(key string, generation int64) string {
	return fmt.Sprintf("access-s3cret-%s-%d", key, generation)
}

func refresh(key string, generation int64) string {
	return fmt.Sprintf("refresh-s3cret-%s-%d", key, generation)
}

// GrantOf is a grant whose tokens tell which one they belong to.
func GrantOf(id grant.ID, key string, generation int64) grant.Grant {
	issued := Noon.Add(time.Duration(generation) * time.Hour)
	return grant.Grant{
		Record: grant.Record{
			Version: grant.RecordVersion,
			Facts: grant.Facts{
				ID:                  id,
				TokenVaultKey:       key,
				Generation:          generation,
				User:                "jane@acme.example",
				ClientID:            "client",
				BaseURL:             "https://ups.example",
				Issued:              issued,
				Expires:             issued.Add(time.Hour),
				RefreshTokenIssued:  issued,
				RefreshTokenExpires: issued.Add(1440 * time.Hour),
				Requested:           issued,
				AccessUntil:         issued.Add(time.Hour),
				RefreshUntil:        issued.Add(1440 * time.Hour),
				RefreshCount:        generation - 1,
				Home:                "file",
			},
		},
		Secrets: grant.Secrets{AccessToken: access(key, generation), TokenType: "Bearer", RefreshToken: refresh(key, generation), Scope: "scope"},
	}
}

// WantWhole checks that all of a grant is of one generation.
func WantWhole(t testing.TB, g grant.Grant) {
	t.Helper()
	if want := GrantOf(g.ID, g.TokenVaultKey, g.Generation); g.AccessToken != want.AccessToken || g.RefreshToken != want.RefreshToken || !g.Issued.Equal(want.Issued) {
		t.Errorf("the grant is a mix of several: %+v", g)
	}
}

// SameJSON checks that two values say the same where they are kept.
func SameJSON(t testing.TB, got, want any) {
	t.Helper()
	a, err := json.MarshalIndent(got, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.MarshalIndent(want, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Errorf("got %s\nwant %s", a, b)
	}
}

// Authorize makes a grant with all that belongs to it, by way of a journal.
func Authorize(t testing.TB, v *vault.Vault, g grant.Grant) grant.Grant {
	t.Helper()
	j := grant.Journal{ID: g.ID, Purpose: grant.Authorizing, TokenVaultKey: g.TokenVaultKey, Generation: g.Generation, Attempt: 1, Home: g.Home, Fate: grant.Fate{Time: Noon}}
	check(t, v.Claim(t.Context(), &j))
	g.JournalRecipient = j.Recipient
	check(t, v.Put(t.Context(), g, 0, &j))
	made, err := v.Get(t.Context(), g.ID)
	check(t, err)
	return made
}

// Refreshing is the journal of a refresh of a grant.
func Refreshing(g grant.Grant) grant.Journal {
	return grant.Journal{
		ID: g.ID, Purpose: grant.Refreshing, TokenVaultKey: g.TokenVaultKey, Generation: g.Generation + 1,
		ClientID: g.ClientID, BaseURL: g.BaseURL, Attempt: 1, Fate: grant.Fate{Time: Noon}, Home: g.Home, Recipient: g.JournalRecipient,
	}
}

// Login is the journal of an authorization.
func Login(id grant.ID, key string) grant.Journal {
	return grant.Journal{ID: id, Purpose: grant.Authorizing, TokenVaultKey: key, Generation: 1, ClientID: "client", BaseURL: "https://ups.example", Attempt: 1, Fate: grant.Fate{Time: Noon}, Home: "file"}
}

// Settle does what the next command does with journals: it puts their answers
// in place, or clears them away.
func Settle(t testing.TB, v *vault.Vault, id grant.ID) {
	t.Helper()
	unlock, err := v.Lock(t.Context(), id)
	check(t, err)
	defer unlock()
	attempts, err := v.Attempts(t.Context(), id)
	check(t, err)
	seen := map[string]bool{}
	for _, j := range attempts {
		if seen[j.TokenVaultKey] || j.Over {
			continue
		}
		seen[j.TokenVaultKey] = true
		g, err := v.Get(t.Context(), id)
		if err != nil && !errors.Is(err, grant.ErrNoGrant) {
			t.Fatal(err)
		}
		expected := g.Generation
		switch {
		case j.Purpose == grant.Authorizing && g.TokenVaultKey == j.TokenVaultKey:
			check(t, v.FinishReplacing(t.Context(), j))
			continue
		case j.Purpose == grant.Authorizing && !j.Answered:
			check(t, v.Abandon(t.Context(), j))
			continue
		case j.Purpose == grant.Authorizing:
			expected = 0
		case g.TokenVaultKey == "":
			continue
		case g.TokenVaultKey != j.TokenVaultKey:
			check(t, v.Forget(t.Context(), j))
			continue
		case g.Generation >= j.Generation:
			check(t, v.Align(t.Context(), g))
			continue
		case !j.Answered:
			// The keeper would send the token once more.
			j.Over = true
			check(t, v.Mark(t.Context(), &j))
			continue
		}
		answer, err := v.Answer(t.Context(), j)
		check(t, err)
		var fresh grant.Grant
		check(t, json.Unmarshal(answer.Text, &fresh))
		fresh.JournalRecipient = j.Recipient
		check(t, v.Put(t.Context(), fresh, expected, &j))
	}
}
