package shared_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/files"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/shared"
	"github.com/upsauth/upsauth/internal/vault/vaulttest"
)

// both are a process's two vaults: this machine's and the shared one.
type both struct {
	local, shared           *vault.Vault
	localStore, sharedStore vault.Movable
	host                    *host
}

var errEnd = errors.New("the process ended")

// stopping is a store of a process that ends before or after one of its writes.
type stopping struct {
	vault.Movable
	left *int // how many writes are made yet
}

// write makes a write, unless the process has ended.
func (c stopping) write(do func() error) error {
	for _, late := range []bool{false, true} {
		if *c.left == 0 {
			return errEnd
		}
		*c.left--
		if late {
			return do()
		}
	}
	return nil
}

func (c stopping) Arrive(ctx context.Context, r grant.Record, item []byte, own bool) (done grant.Record, err error) {
	err = c.write(func() (err error) { done, err = c.Movable.Arrive(ctx, r, item, own); return err })
	return done, err
}

func (c stopping) Leave(ctx context.Context, r grant.Record, to grant.Moved) (done grant.Record, err error) {
	err = c.write(func() (err error) { done, err = c.Movable.Leave(ctx, r, to); return err })
	return done, err
}

func (c stopping) Arrived(ctx context.Context, r grant.Record) (done grant.Record, err error) {
	err = c.write(func() (err error) { done, err = c.Movable.Arrived(ctx, r); return err })
	return done, err
}

func (c stopping) Commit(ctx context.Context, change vault.Change) (done grant.Record, err error) {
	err = c.write(func() (err error) { done, err = c.Movable.Commit(ctx, change); return err })
	return done, err
}

func (c stopping) Forget(ctx context.Context, slot, key string, forGood bool) error {
	return c.write(func() error { return c.Movable.Forget(ctx, slot, key, forGood) })
}

// begin begins a process of a machine that has both vaults. It ends after so many writes; less
// than zero is never.
func (w *world) begin(dir string, writes int) *both {
	w.t.Helper()
	home := agefile.New(filepath.Join(dir, "vault"), w.identity)
	disk := files.New(dir, vault.Homes{home})
	h := w.host(filepath.Join(dir, "shared"), "web-1", func(o *shared.Options) {
		o.HasLeft = func(ctx context.Context, arriving grant.Record) (bool, error) {
			there, err := disk.Stands(ctx, arriving.Slot())
			if errors.Is(err, grant.ErrNoGrant) {
				return false, nil
			}
			return err == nil && vault.HasLeft(there, arriving), err
		}
	})
	disk.HasLeft = func(ctx context.Context, arriving grant.Record) (bool, error) {
		row, err := h.db.RowOf(ctx, arriving.TokenVaultKey)
		if err != nil || row.Slot == "" {
			return false, err
		}
		there, err := shared.LeftAs(row)
		return err == nil && vault.HasLeft(there, arriving), err
	}
	local, there := stopping{disk, &writes}, stopping{h.store, &writes}
	return &both{local: vault.New(local), shared: vault.New(there), localStore: disk, sharedStore: h.store, host: h}
}

func journeyAt(at time.Time) (there, back vault.Journey) {
	local := grant.Moved{Home: "file", Vault: "of web-1", Host: "web-1", At: at}
	db := grant.Moved{Home: "shared", Vault: "of all", At: at}
	return vault.Journey{From: local, To: db, Home: "shared"}, vault.Journey{From: db, To: local, Home: "file"}
}

// ends says which of the vaults a move goes from and to.
func (b *both) ends(back bool) (from, to *vault.Vault) {
	if back {
		return b.shared, b.local
	}
	return b.local, b.shared
}

// move moves the grant, and finishes what an earlier process left.
func (b *both) move(ctx context.Context, back bool, at time.Time) error {
	j, reverse := journeyAt(at)
	if back {
		j = reverse
	}
	from, to := b.ends(back)
	if _, err := from.FinishHandOver(ctx, to, j, false); err != nil {
		return err
	}
	g, err := from.Get(ctx, id)
	if errors.As(err, new(*vault.MovedError)) {
		return nil
	}
	if err != nil {
		return err
	}
	unlock, err := from.LockBoth(ctx, id, to)
	if err != nil {
		return err
	}
	defer unlock()
	return from.HandOver(ctx, g, to, j)
}

// has tells in which of the vaults a new process finds the grant: it must be exactly one.
func (w *world) has(dir string, whole ...func(testing.TB, grant.Grant)) (*both, bool) {
	w.t.Helper()
	b := w.begin(dir, -1)
	here, errHere := b.local.Get(w.t.Context(), id)
	there, errThere := b.shared.Get(w.t.Context(), id)
	gone := func(err error) bool {
		return errors.As(err, new(*vault.MovedError)) || errors.Is(err, grant.ErrNoGrant)
	}
	switch {
	case errHere == nil && gone(errThere):
		for _, check := range whole {
			check(w.t, here)
		}
		return b, false
	case errThere == nil && gone(errHere):
		for _, check := range whole {
			check(w.t, there)
		}
		return b, true
	}
	w.t.Fatalf("the grant is here: %v; there: %v", errHere, errThere)
	return nil, false
}

// A move that ends between any two of its writes leaves the grant in exactly one of the
// vaults, and the next one finishes it. What is left in the old vault tells nothing secret.
func TestMoveIsCutOffAnywhere(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "web-1")
	g := vaulttest.GrantOf(id, "AAAAAAAA-3C21-4F7E-B122-8BF55EA80CDA", 3)
	g.Home = "file"
	vaulttest.Authorize(t, w.begin(dir, -1).local, g)
	for _, back := range []bool{false, true, false} {
		whole := false
		for writes := 0; !whole; writes++ {
			t.Logf("back: %t, %d writes", back, writes)
			w.pass(time.Second)
			ending := w.begin(dir, writes)
			err := ending.move(t.Context(), back, w.clock())
			ending.host.db.Close()
			whole = err == nil
			if err != nil && !errors.Is(err, errEnd) {
				t.Fatal(err)
			}
			b, there := w.has(dir, vaulttest.WantWhole)
			if whole && there == back {
				t.Fatal("it was moved and is not there")
			}
			if there != back {
				// It goes on: what another process has not finished is finished by the move.
				w.pass(time.Second)
				must(t, b.move(t.Context(), back, w.clock()))
				b.host.db.Close()
				if b, there = w.has(dir, vaulttest.WantWhole); there == back {
					t.Fatal("it came back")
				}
				b.wantNothingLeft(t, back)
				if whole {
					break
				}
				// Once more from the beginning, cut off later.
				w.pass(time.Second)
				must(t, b.move(t.Context(), !back, w.clock()))
			}
			b.host.db.Close()
		}
	}
}

// wantNothingLeft checks that the vault that a grant has left has its tombstone and no secret.
func (b *both) wantNothingLeft(t *testing.T, back bool) {
	t.Helper()
	store := b.localStore
	if back {
		store = b.sharedStore
	}
	r, err := store.Stands(t.Context(), id.Slot())
	must(t, err)
	if r.Moved == nil || r.Moved.Arriving || len(r.Superseded) > 0 {
		t.Errorf("the tombstone is %+v", r)
	}
	for _, home := range store.Homes() {
		lister, ok := home.(interface {
			Accounts(context.Context) ([]string, error)
		})
		if !ok {
			t.Fatal("the home can't be listed")
		}
		if accounts, err := lister.Accounts(t.Context()); err != nil || len(accounts) > 0 {
			t.Errorf("there is left in the %s vault: %v, %v", home.Name(), accounts, err)
		}
	}
}

// A grant does not leave while another host may have asked UPS, and not as it was before that
// host refreshed it.
func TestNothingMovesBesideAnotherHost(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "web-1")
	b := w.begin(dir, -1)
	g := b.host.authorize()
	other := w.host(filepath.Join(t.TempDir(), "web-2"), "web-2")
	j := grant.Journal{
		ID: id, Purpose: grant.Refreshing, TokenVaultKey: g.TokenVaultKey, Generation: g.Generation + 1, ClientID: g.ClientID, BaseURL: g.BaseURL,
		Attempt: 1, Fate: grant.Fate{Time: w.clock()}, Home: shared.HomeName, Recipient: g.JournalRecipient,
	}
	unlock, err := other.vault.Lock(t.Context(), id)
	must(t, err)
	must(t, other.vault.Claim(t.Context(), &j))
	must(t, other.vault.LastLook(t.Context(), j))
	if err := b.move(t.Context(), true, w.clock()); !is[*ledger.ClaimedError](err) {
		t.Fatalf("it moved during a claim: %v", err)
	}
	if _, there := w.has(dir); !there {
		t.Fatal("it is not where it was")
	}
	j.Unsent = true
	must(t, other.vault.Mark(t.Context(), &j))
	unlock()

	// Between reading and leaving another host refreshes.
	from, to := b.ends(true)
	_, back := journeyAt(w.clock())
	read, err := from.Get(t.Context(), id)
	must(t, err)
	w.pass(2 * time.Hour)
	fresh, err := other.Token(t.Context(), id, time.Minute)
	must(t, err)
	if err := from.HandOver(t.Context(), read, to, back); !errors.Is(err, grant.ErrConflict) {
		t.Fatalf("an old token moved: %v", err)
	}
	if _, there := w.has(dir); !there {
		t.Fatal("it is not where it was")
	}
	w.pass(time.Second)
	must(t, b.move(t.Context(), true, w.clock()))
	here, err := w.begin(dir, -1).local.Get(t.Context(), id)
	if err != nil || here.RefreshToken != fresh.RefreshToken {
		t.Errorf("what moved is of generation %d, and %d was the newest: %v", here.Generation, fresh.Generation, err)
	}
	// The other host finds the tombstone, and spends nothing.
	w.pass(2 * time.Hour)
	moved := new(vault.MovedError)
	if _, err := other.Token(t.Context(), id, time.Minute); !errors.As(err, &moved) || moved.Moved().Host != "web-1" {
		t.Errorf("the other host: %v", err)
	}
}

// What is in the new vault is not replaced: another authorization, or the same one.
func TestNoGrantIsReplacedByAMove(t *testing.T) {
	w := newWorld(t)
	for name, same := range map[string]bool{"the same": true, "another": false} {
		dir := filepath.Join(t.TempDir(), name)
		b := w.begin(dir, -1)
		here := grant.ID{Company: fmt.Sprintf("Acme %s", name), Application: id.Application, Environment: id.Environment}
		g := b.host.authorizeFor(here)
		if !same {
			g.TokenVaultKey = "BBBBBBBB-3C21-4F7E-B122-8BF55EA80CDA"
		}
		g.Home, g.JournalRecipient, g.Revision = "file", "", 0
		vaulttest.Authorize(t, b.local, g)
		g, err := b.local.Get(t.Context(), here)
		must(t, err)
		j, _ := journeyAt(w.clock())
		err = b.local.HandOver(t.Context(), g, b.shared, j)
		if taken := new(vault.OtherHereError); !errors.As(err, &taken) || taken.Same != same {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := b.local.Get(t.Context(), here); err != nil {
			t.Errorf("%s: it left: %v", name, err)
		}
		if _, err := b.shared.Get(t.Context(), here); err != nil {
			t.Errorf("%s: what was there is gone: %v", name, err)
		}
	}
}

// A move that is given up leaves the grant where it is, and a tombstone in the other vault, as
// there may have been one before. It can be moved at any time again.
func TestMoveIsGivenUp(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "web-1")
	g := vaulttest.GrantOf(id, "AAAAAAAA-3C21-4F7E-B122-8BF55EA80CDA", 3)
	g.Home = "file"
	b := w.begin(dir, -1)
	vaulttest.Authorize(t, b.local, g)
	for _, back := range []bool{false, true} {
		w.pass(time.Second)
		// All has arrived, and nothing has left.
		if err := w.begin(dir, 4).move(t.Context(), back, w.clock()); !errors.Is(err, errEnd) {
			t.Fatal(err)
		}
		j, reverse := journeyAt(w.clock())
		arriving, store := "file vault of web-1", b.sharedStore
		if back {
			j, arriving, store = reverse, "shared vault", b.localStore
		}
		from, to := b.ends(back)
		moved := new(vault.MovedError)
		if _, err := to.Get(t.Context(), id); !errors.As(err, &moved) || !moved.Moved().Arriving {
			t.Fatalf("what has not arrived: %v", err)
		}
		_, err := from.FinishHandOver(t.Context(), to, j, true)
		must(t, err)
		r, err := store.Stands(t.Context(), id.Slot())
		must(t, err)
		if r.Moved == nil || r.Moved.Arriving || r.Moved.String() != arriving {
			t.Errorf("there is left %+v", r.Moved)
		}
		if _, there := w.has(dir, vaulttest.WantWhole); there != back {
			t.Error("it moved")
		}
		w.pass(time.Second)
		must(t, b.move(t.Context(), back, w.clock()))
		if _, there := w.has(dir, vaulttest.WantWhole); there == back {
			t.Error("it did not move")
		}
	}
}
