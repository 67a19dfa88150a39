package vault_test

import (
	"context"
	"errors"
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
	"github.com/upsauth/upsauth/internal/vault/files"
	"github.com/upsauth/upsauth/internal/vault/vaulttest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(vaulttest.Stores{M: m})
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
	sameJSON   = vaulttest.SameJSON
)

// world is a state directory and an identity, or a database, which outlive processes.
// On disk its homes are real ones, of age files.
type world struct {
	t        testing.TB
	dir      string
	identity string
	memory   *vaulttest.Memory // nil on disk
}

// oddName is added to a directory's name, where it is no pattern.
var oddName = map[bool]string{false: "/[state] *?", true: "/[state]"}[runtime.GOOS == "windows"]

func newWorld(t testing.TB) *world {
	t.Helper()
	t.Logf("the store is %s", vaulttest.StoreName())
	w := &world{t: t, dir: filepath.Join(t.TempDir(), "state"), identity: filepath.Join(t.TempDir(), "identity")}
	if vaulttest.InMemory() {
		w.memory = vaulttest.New()
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.identity, []byte(identity.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// onDisk skips what is of this machine's files alone.
func onDisk(t testing.TB, why string) {
	t.Helper()
	if vaulttest.InMemory() {
		t.Skip("of files alone: " + why)
	}
}

// clone copies the state as it is, without locks.
func (w *world) clone() *world {
	w.t.Helper()
	c := &world{t: w.t, dir: filepath.Join(w.t.TempDir(), "state"), identity: w.identity}
	if w.memory != nil {
		c.memory = w.memory.Clone()
		return c
	}
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

// itemsHome is a home that can tell which items it has.
type itemsHome interface {
	vault.Home
	Accounts(context.Context) ([]string, error)
}

func (w *world) home() itemsHome { return w.homeIn("vault") }

// homeIn is the home in a part of the state.
func (w *world) homeIn(part string) itemsHome {
	if w.memory != nil {
		return named{w.memory.Home(part), "file"}
	}
	return agefile.New(filepath.Join(w.dir, part), w.identity)
}

// named is a home that calls itself otherwise than its database does.
type named struct {
	vaulttest.Home
	name string
}

func (n named) Name() string { return n.name }

// open returns the vault as a new process has it, with other homes where they
// are given.
func (w *world) open(homes ...vault.Home) *vault.Vault {
	if w.memory == nil {
		return vault.New(w.disk(homes...))
	}
	if len(homes) == 0 {
		homes = []vault.Home{w.home()}
	}
	return vault.New(w.memory.With(homes...))
}

// disk is what the vault has on this machine.
func (w *world) disk(homes ...vault.Home) *files.Store {
	w.t.Helper()
	if w.memory != nil {
		w.t.Fatal("this world has no disk")
	}
	if len(homes) == 0 {
		homes = []vault.Home{w.home()}
	}
	return files.New(w.dir, vault.Homes(homes))
}

// files lists what lies in a part of the state directory, sorted. A database's rows are
// called as the files would be.
func (w *world) files(part string) []string {
	w.t.Helper()
	names := []string{}
	if w.memory != nil {
		for path := range w.memory.Texts() {
			name, ok := strings.CutPrefix(path, part+"/")
			switch {
			case !ok:
				continue
			case part == "vault" || part == "other":
				if key, kind, ok := strings.Cut(name, "/"); ok && grant.CheckTokenVaultKey(key) == nil {
					name = kind + "/" + key
				}
				name += ".age"
			}
			names = append(names, name)
		}
		slices.Sort(names)
		return slices.Compact(names)
	}
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

// loseRecord takes a record away without a trace.
func (w *world) loseRecord(id grant.ID) {
	w.t.Helper()
	if w.memory != nil {
		w.memory.Lose(id.Slot())
		return
	}
	check(w.t, os.Remove(w.recordPath(id)))
}

func (w *world) recordPath(id grant.ID) string {
	return filepath.Join(w.dir, "records", id.Slot()+".json")
}

func (w *world) journalPath(id grant.ID, key string) string {
	return filepath.Join(w.dir, "journals", "slots", key)
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

// over notes that nothing is to come of an attempt.
func over(t testing.TB, v *vault.Vault, j grant.Journal) {
	t.Helper()
	j.Over = true
	check(t, v.Mark(t.Context(), &j))
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
