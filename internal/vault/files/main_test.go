package files_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/files"
	"github.com/upsauth/upsauth/internal/vault/vaulttest"
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
	acme = grant.ID{Company: "Acme Corp", Application: "intelligent-rating", Environment: "production"}
	apex = grant.ID{Company: "Apex", Application: "batch-suite", Environment: "cie"}
)

// What tests of every store have grants by.
var (
	noon       = vaulttest.Noon
	grantOf    = vaulttest.GrantOf
	login      = vaulttest.Login
	refreshing = vaulttest.Refreshing
	authorize  = vaulttest.Authorize
	settle     = vaulttest.Settle
	wantWhole  = vaulttest.WantWhole
)

// world is a state directory and an identity, which outlive processes.
type world struct {
	t        testing.TB
	dir      string
	identity string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: filepath.Join(t.TempDir(), "state"), identity: filepath.Join(t.TempDir(), "identity")}
	identity, err := age.GenerateX25519Identity()
	check(t, err)
	check(t, os.WriteFile(w.identity, []byte(identity.String()+"\n"), 0o600))
	return w
}

// clone copies the state as it is on disk.
func (w *world) clone() *world {
	w.t.Helper()
	c := &world{t: w.t, dir: filepath.Join(w.t.TempDir(), "state"), identity: w.identity}
	check(w.t, os.CopyFS(c.dir, os.DirFS(w.dir)))
	// CopyFS gives modes of its own, which the file vault refuses.
	check(w.t, filepath.WalkDir(c.dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return err
	}))
	return c
}

func (w *world) home() *agefile.Home { return agefile.New(filepath.Join(w.dir, "vault"), w.identity) }

// open returns the vault as a new process has it.
func (w *world) open() *vault.Vault { return vault.New(w.disk()) }

// disk is what the vault has on this machine.
func (w *world) disk() *files.Store { return files.New(w.dir, vault.Homes{w.home()}) }

// files lists what lies in a part of the state directory, sorted.
func (w *world) files(part string) []string {
	w.t.Helper()
	names := []string{}
	root := filepath.Join(w.dir, part)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && entry.Name() != ".boot" {
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

func (w *world) journalPath(key string) string {
	return filepath.Join(w.dir, "journals", "slots", key)
}

func (w *world) read(path string) []byte {
	w.t.Helper()
	content, err := os.ReadFile(path)
	check(w.t, err)
	return content
}

func (w *world) write(path string, content []byte) {
	w.t.Helper()
	check(w.t, os.MkdirAll(filepath.Dir(path), 0o700))
	check(w.t, os.WriteFile(path, content, 0o600))
}

// list returns the companies that are there, and fails on any problem.
func (w *world) list(v *vault.Vault) []grant.Record {
	w.t.Helper()
	records, problems, err := v.List(w.t.Context(), "")
	if err != nil || len(problems) != 0 {
		w.t.Errorf("List: %v, %v", problems, err)
	}
	return records
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustPut(t testing.TB, v *vault.Vault, g grant.Grant, expected int64) {
	t.Helper()
	check(t, v.Put(t.Context(), g, expected, nil))
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

func finishRemovals(t testing.TB, v *vault.Vault) {
	t.Helper()
	_, err := v.FinishRemovals(t.Context())
	check(t, err)
}

// wantLocked checks that nobody else gets the lock for now.
func wantLocked(t *testing.T, v *vault.Vault, id grant.ID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if unlock, err := v.Lock(ctx, id); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the lock was to be had: %v", err)
		if err == nil {
			unlock()
		}
	}
}

func wantHomeError(t testing.TB, err error) *vault.HomeError {
	t.Helper()
	var e *vault.HomeError
	if !errors.As(err, &e) {
		t.Fatalf("got %v (%T), want a *vault.HomeError", err, err)
	}
	return e
}
