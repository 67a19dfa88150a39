package vault_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
)

func TestMain(m *testing.M) {
	runChild()
	goleak.VerifyTestMain(m)
}

const (
	keyA = "AAAAAAAA-3C21-4F7E-B122-8BF55EA80CDA"
	keyB = "BBBBBBBB-3C21-4F7E-B122-8BF55EA80CDA"
	keyC = "CCCCCCCC-3C21-4F7E-B122-8BF55EA80CDA"
)

var (
	noon = time.Date(2026, 11, 21, 12, 0, 0, 123456789, time.UTC)
	acme = grant.ID{Company: "Acme Corp", Application: "intelligent-rating", Environment: "production"}
	apex = grant.ID{Company: "Apex", Application: "batch-suite", Environment: "cie"}
)

// world is a state directory and an identity, which outlive processes. Its
// home is a real one, of age files.
type world struct {
	t        testing.TB
	dir      string
	identity string
}

// oddName is added to a directory's name, where it is no pattern.
var oddName = map[bool]string{false: "/[state] *?", true: "/[state]"}[runtime.GOOS == "windows"]

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: filepath.Join(t.TempDir(), "state"), identity: filepath.Join(t.TempDir(), "identity")}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.identity, []byte(identity.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// clone copies the state as it is on disk.
func (w *world) clone() *world {
	w.t.Helper()
	c := &world{t: w.t, dir: filepath.Join(w.t.TempDir(), "state"), identity: w.identity}
	if err := os.CopyFS(c.dir, os.DirFS(w.dir)); err != nil {
		w.t.Fatal(err)
	}
	// CopyFS gives modes of its own, which the file vault refuses.
	err := filepath.WalkDir(c.dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) home() *agefile.Home { return agefile.New(filepath.Join(w.dir, "vault"), w.identity) }

// open returns the vault as a new process has it, with other homes where they
// are given.
func (w *world) open(homes ...vault.Home) *vault.Vault {
	if len(homes) == 0 {
		homes = []vault.Home{w.home()}
	}
	return vault.New(w.dir, vault.Homes(homes))
}

// files lists what lies in a part of the state directory, sorted.
func (w *world) files(part string) []string {
	w.t.Helper()
	names := []string{}
	root := filepath.Join(w.dir, part)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			name, _ := filepath.Rel(root, path)
			names = append(names, filepath.ToSlash(name))
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func (w *world) wantFiles(part string, want ...string) {
	w.t.Helper()
	slices.Sort(want)
	if got := w.files(part); !slices.Equal(got, append([]string{}, want...)) {
		w.t.Errorf("in %s there are %q, want %q", part, got, want)
	}
}

// wantNothing checks that not a trace of any grant is left, but for the locks,
// which stay for whoever waits for them.
func (w *world) wantNothing() {
	w.t.Helper()
	for _, part := range []string{"records", "journals", "vault"} {
		w.wantFiles(part)
	}
}

func (w *world) recordPath(id grant.ID) string {
	return filepath.Join(w.dir, "records", id.Slot()+".json")
}

func (w *world) journalPath(id grant.ID, key string) string {
	return filepath.Join(w.dir, "journals", id.Slot()+"."+key+".journal")
}

func (w *world) read(path string) []byte {
	w.t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	return content
}

func (w *world) write(path string, content []byte) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// list returns the companies that are there, and fails on any problem.
func (w *world) list(v *vault.Vault) []grant.Record {
	w.t.Helper()
	records, problems, err := v.List("")
	if err != nil || len(problems) != 0 {
		w.t.Errorf("List: %v, %v", problems, err)
	}
	return records
}

func access(key string, generation int64) string {
	return fmt.Sprintf("access-s3cret-%s-%d", key, generation)
}

func refresh(key string, generation int64) string {
	return fmt.Sprintf("refresh-s3cret-%s-%d", key, generation)
}

// grantOf is a grant whose tokens tell which one they belong to.
func grantOf(id grant.ID, key string, generation int64) grant.Grant {
	issued := noon.Add(time.Duration(generation) * time.Hour)
	return grant.Grant{
		Record: grant.Record{
			Version: grant.RecordVersion, ID: id, TokenVaultKey: key, Generation: generation,
			User: "jane@acme.example", ClientID: "client", BaseURL: "https://ups.example",
			Issued: issued, Expires: issued.Add(time.Hour), RefreshTokenIssued: issued, RefreshTokenExpires: issued.Add(1440 * time.Hour),
			Requested: issued, AccessUntil: issued.Add(time.Hour), RefreshUntil: issued.Add(1440 * time.Hour),
			RefreshCount: generation - 1, Home: "file",
		},
		Secrets: grant.Secrets{AccessToken: access(key, generation), TokenType: "Bearer", RefreshToken: refresh(key, generation), Scope: "scope"},
	}
}

// wantWhole checks that all of a grant is of one generation.
func wantWhole(t testing.TB, g grant.Grant) {
	t.Helper()
	if want := grantOf(g.ID, g.TokenVaultKey, g.Generation); g.AccessToken != want.AccessToken || g.RefreshToken != want.RefreshToken || !g.Issued.Equal(want.Issued) {
		t.Errorf("the grant is a mix of several: %+v", g)
	}
}

func sameJSON(t testing.TB, got, want any) {
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

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustPut(t testing.TB, v *vault.Vault, g grant.Grant, expected int64) {
	t.Helper()
	check(t, v.Put(t.Context(), g, expected))
}

func mustGet(t testing.TB, v *vault.Vault, id grant.ID) grant.Grant {
	t.Helper()
	g, err := v.Get(t.Context(), id)
	check(t, err)
	return g
}

func mustLock(t testing.TB, v *vault.Vault, id grant.ID) (unlock func()) {
	t.Helper()
	unlock, err := v.Lock(t.Context(), id)
	check(t, err)
	return unlock
}

// authorize makes a grant with all that belongs to it, by way of a journal.
func authorize(t testing.TB, v *vault.Vault, g grant.Grant) grant.Grant {
	t.Helper()
	j := grant.Journal{ID: g.ID, Purpose: grant.Authorizing, TokenVaultKey: g.TokenVaultKey, Generation: g.Generation, Home: g.Home, Time: noon}
	check(t, v.Begin(t.Context(), &j))
	g.JournalRecipient = j.Recipient
	mustPut(t, v, g, 0)
	check(t, v.DropJournal(j))
	return g
}

// refreshing is the journal of a refresh of a grant.
func refreshing(g grant.Grant) grant.Journal {
	return grant.Journal{
		ID: g.ID, Purpose: grant.Refreshing, TokenVaultKey: g.TokenVaultKey, Generation: g.Generation + 1,
		ClientID: g.ClientID, BaseURL: g.BaseURL, Attempt: 1, Time: noon, Home: g.Home, Recipient: g.JournalRecipient,
	}
}

// double is a home in whose way a test can stand.
type double struct {
	vault.Home
	name string
	// before is asked before a call, after is told when it had its effect.
	before, after func(op, account string) error
	calls         atomic.Int64
}

func (d *double) Name() string {
	if d.name != "" {
		return d.name
	}
	return d.Home.Name()
}

func (d *double) call(op, account string, effect func() error) error {
	d.calls.Add(1)
	if d.before != nil {
		if err := d.before(op, account); err != nil {
			return err
		}
	}
	if err := effect(); err != nil {
		return err
	}
	if d.after != nil {
		return d.after(op, account)
	}
	return nil
}

func (d *double) Get(ctx context.Context, account string) (secret []byte, err error) {
	err = d.call("get", account, func() error { secret, err = d.Home.Get(ctx, account); return err })
	return secret, err
}

func (d *double) Put(ctx context.Context, account string, generation int64, secret []byte) error {
	return d.call("put", account, func() error { return d.Home.Put(ctx, account, generation, secret) })
}

// CanDelete fails as Get does: as a keychain's, and unlike the file home's.
func (d *double) CanDelete(_ context.Context, account string) error {
	if d.before == nil {
		return nil
	}
	return d.before("get", account)
}

func (d *double) Delete(ctx context.Context, account string) error {
	return d.call("delete", account, func() error { return d.Home.Delete(ctx, account) })
}

var errLocked = &vault.HomeError{Home: "file", What: "The home is locked.", Advice: "Unlock it."}

// locked is a home that can't be opened.
func locked(h vault.Home) *double {
	return &double{Home: h, before: func(string, string) error { return errLocked }}
}

func wantHomeError(t testing.TB, err error) *vault.HomeError {
	t.Helper()
	var e *vault.HomeError
	if !errors.As(err, &e) {
		t.Fatalf("got %v (%T), want a *vault.HomeError", err, err)
	}
	if strings.Contains(e.What, "s3cret") {
		t.Errorf("the error has a secret in it: %s", e.What)
	}
	return e
}

// finishRemovals ends with an error where it waits for a grant that somebody is
// at work on.
func finishRemovals(ctx context.Context, v *vault.Vault) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := v.FinishRemovals(ctx)
	return err
}
