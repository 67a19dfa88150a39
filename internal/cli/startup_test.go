package cli

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/process"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/files"
)

// nothing is what a command must not touch yet.
type nothing struct{ t *testing.T }

func (n nothing) RoundTrip(*http.Request) (*http.Response, error) {
	n.t.Error("UPS is asked")
	return nil, io.EOF
}

func (n nothing) Get(string, string) (string, error) {
	n.t.Error("the keychain is asked")
	return "", io.EOF
}
func (n nothing) Set(string, string, string) error { _, err := n.Get("", ""); return err }
func (n nothing) Delete(string, string) error      { _, err := n.Get("", ""); return err }

// Whatever a command does before it is asked for it, all others wait for as well.
func TestNothingIsTouchedBeforeItIsNeeded(t *testing.T) {
	for _, test := range []struct {
		line     string
		mayRead  bool // the configuration and the records
		wantCode int
		signals  bool // asks for them first of all
	}{
		{"version", false, exitDone, false},
		{"version -o json", false, exitDone, false},
		{"help", false, exitDone, false},
		{"help exit-codes", false, exitDone, false},
		{"status --help", false, exitDone, false},
		{"completion bash", false, exitDone, false},
		{"no-such-command", false, exitUsage, false},
		{"status", true, exitDone, false},
		{"status -o json", true, exitDone, false},
		{"company list", true, exitDone, true},
	} {
		t.Run(test.line, func(t *testing.T) {
			dir := t.TempDir()
			env := &Env{
				In: strings.NewReader(""), Out: io.Discard, Err: io.Discard,
				Getenv: func(name string) string {
					if !test.mayRead {
						t.Errorf("%s is looked up", name)
					}
					if name == "UPSAUTH_CONFIG_DIR" || name == "UPSAUTH_STATE_DIR" {
						return filepath.Join(dir, name)
					}
					return ""
				},
				Environ: os.Environ, Now: time.Now, Zone: time.UTC,
				Transport: nothing{t}, Keychain: nothing{t},
			}
			asked := false
			ctx := process.Interruptible{Start: func() context.Context {
				asked = true
				return context.Background()
			}}
			if code := Run(ctx, env, strings.Fields(test.line)); code != test.wantCode {
				t.Errorf("exit code %d", code)
			}
			if asked != test.signals {
				t.Errorf("signals were asked for: %t", asked)
			}
			if made, err := os.ReadDir(dir); err != nil || len(made) > 0 {
				t.Errorf("it made %v, %v", made, err)
			}
		})
	}
}

// TestAGoodTokenNeedsNoSignals prevents that what scripts ask for most asks for 60 signals
// first: that takes as long as all that it reads.
func TestAGoodTokenNeedsNoSignals(t *testing.T) {
	dir, now := t.TempDir(), time.Now().UTC().Truncate(time.Second)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{
		"UPSAUTH_CONFIG_DIR": filepath.Join(dir, "config"), "UPSAUTH_STATE_DIR": filepath.Join(dir, "state"),
		"UPSAUTH_VAULT": "file", "UPSAUTH_IDENTITY": filepath.Join(dir, "identity.txt"),
	}
	if err := os.WriteFile(names["UPSAUTH_IDENTITY"], []byte(identity.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := grant.Grant{
		Record: grant.Record{Facts: grant.Facts{
			ID:            grant.ID{Company: "Acme", Application: "intelligent-rating", Environment: "sandbox"},
			TokenVaultKey: "00000000-0000-4000-8000-000000000001", Generation: 1, Home: "file", ClientID: "id", BaseURL: "http://127.0.0.1:9",
			Issued: now, Requested: now, Expires: now.Add(time.Hour), AccessUntil: now.Add(time.Hour),
		}},
		Secrets: grant.Secrets{AccessToken: "good", TokenType: "Bearer", RefreshToken: "another"},
	}
	v := vault.New(files.New(names["UPSAUTH_STATE_DIR"], vault.Homes{agefile.New(filepath.Join(names["UPSAUTH_STATE_DIR"], "vault"), names["UPSAUTH_IDENTITY"])}))
	j := grant.Journal{ID: g.ID, Purpose: grant.Authorizing, TokenVaultKey: g.TokenVaultKey, Generation: 1, Home: g.Home}
	if err := v.Claim(t.Context(), &j); err != nil {
		t.Fatal(err)
	}
	g.JournalRecipient = j.Recipient
	if err := v.Put(t.Context(), g, 0, &j); err != nil {
		t.Fatal(err)
	}
	// On a busy machine to read takes so long that a person might end it.
	for try := 1; ; try++ {
		asked := false
		token(t, names, &asked)
		if !asked {
			return
		}
		if try == 20 {
			t.Fatal("signals were asked for")
		}
	}
}

// token prints the token of Acme, and notes whether signals were asked for.
func token(t *testing.T, names map[string]string, asked *bool) {
	t.Helper()
	var out strings.Builder
	env := &Env{
		In: strings.NewReader(""), Out: &out, Err: io.Discard, Getenv: func(name string) string { return names[name] },
		Environ: os.Environ, Now: time.Now, Zone: time.UTC, Transport: nothing{t}, Keychain: nothing{t},
	}
	ctx := process.Interruptible{Start: func() context.Context {
		*asked = true
		return context.Background()
	}}
	if code := Run(ctx, env, []string{"token", "--company", "Acme"}); code != exitDone || out.String() != "good\n" {
		t.Errorf("exit code %d, %q", code, out.String())
	}
}
