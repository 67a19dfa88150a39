// Package vault keeps grants on this machine: records in small files, a lock
// and a sealed journal for each grant, and the secrets in a home.
package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/gofrs/flock"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

// Vault is a directory of records, locks and journals with the homes of the
// secrets they speak of.
type Vault struct {
	dir   string
	homes Homes
	// Elsewhere are other directories of this user's on this machine, in the order
	// in which they are tried for an answer that can't be sealed in its place.
	Elsewhere []string
	// Places is the rule for who else may change its files. Its directories are
	// checked by whoever opens the vault.
	Places *safefile.Places

	mu sync.Mutex
	// stuck are the slots for which a write to a home timed out. It may still
	// land, so this process writes nothing more there and keeps the locks.
	stuck map[string]bool
	kept  []*flock.Flock // a lock that nothing refers to is let go
}

// New returns the vault in dir. Nothing is read or made before it is used.
func New(dir string, homes Homes) *Vault {
	return &Vault{dir: dir, homes: homes, Places: &safefile.Places{}, stuck: map[string]bool{}}
}

// NewerError says that a file was written by a newer upsauth. It is left alone.
type NewerError struct {
	Path    string
	Version int
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("%s was written by a newer upsauth (format %d, this one knows %d). It was left as it is. Use the newer upsauth.",
		e.Path, e.Version, grant.RecordVersion)
}

// FileError says that a record or a journal is there and can't be read. It is left
// alone.
type FileError struct {
	What string // "a record"
	Path string
	Err  error
}

func (e *FileError) Error() string { return fmt.Sprintf("%s can't be read: %v", e.What, e.Err) }

func (e *FileError) Unwrap() error { return e.Err }

// DamagedError says that a record or a journal can't be read and was set aside.
type DamagedError struct {
	Path    string // where it is now
	Cause   string
	Journal bool
}

func (e *DamagedError) Error() string {
	if e.Journal {
		return fmt.Sprintf("a damaged journal was set aside as %s (%s)", e.Path, e.Cause)
	}
	return fmt.Sprintf("a damaged record was set aside as %s (%s)", e.Path, e.Cause)
}

// MissingError says that a record's secrets are not in their home. It is a
// grant.ErrNoSecrets.
type MissingError struct {
	ID   grant.ID
	Home string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("the secrets of %s are not in the %s, where its record says they are", e.ID, Describe(e.Home))
}

func (e *MissingError) Unwrap() error { return grant.ErrNoSecrets }

// Get opens the home and returns the whole grant. What the item says counts
// before what the record says: a write may have been cut off between the two.
func (v *Vault) Get(ctx context.Context, id grant.ID) (grant.Grant, error) {
	record, err := v.Record(id)
	if err != nil {
		return grant.Grant{}, err
	}
	g, err := v.item(ctx, record)
	if err != nil {
		return grant.Grant{}, err
	}
	if g.Generation < record.Generation {
		return grant.Grant{}, olderItem(record, g.Generation)
	}
	if g.Generation == record.Generation {
		g.Void, g.LastError = record.Void, record.LastError
		// A key that was made anew is in the record before it is in an item.
		g.JournalRecipient = record.JournalRecipient
	}
	g.Superseded = record.Superseded
	return g, nil
}

// olderItem is the error of an item that is older than its record: its refresh
// token was spent long ago, and sending it again could end the living grant.
func olderItem(record grant.Record, generation int64) error {
	return &HomeError{Home: record.Home, OfItem: true,
		What: fmt.Sprintf("The secrets of %s in the %s are older than its record (generation %d instead of %d), so their refresh token is spent.",
			record.ID, record.Home, generation, record.Generation),
		Advice: "Was an old backup restored? Put back the newer secrets, or authorize the company again[: {}].", Do: []Act{Authorize}}
}

func (v *Vault) item(ctx context.Context, record grant.Record) (grant.Grant, error) {
	home, err := v.homes.named(record.Home)
	if err != nil {
		return grant.Grant{}, err
	}
	secret, err := home.Get(ctx, record.TokenVaultKey)
	if errors.Is(err, ErrNoItem) {
		return grant.Grant{}, &MissingError{ID: record.ID, Home: record.Home}
	}
	if err != nil {
		return grant.Grant{}, err
	}
	var g grant.Grant
	err = json.Unmarshal(secret, &g)
	version := g.Version
	if err != nil {
		version = versionOf(secret)
	}
	if version > grant.RecordVersion {
		return grant.Grant{}, &NewerError{Path: "the item " + record.TokenVaultKey, Version: version}
	}
	if err != nil {
		return grant.Grant{}, damagedItem(record.Home, fmt.Sprintf("The secrets of %s in the %s are damaged.", record.ID, Describe(record.Home)))
	}
	if g.TokenVaultKey != record.TokenVaultKey {
		return grant.Grant{}, damagedItem(record.Home, fmt.Sprintf("The item %s in the %s is not that of %s.", record.TokenVaultKey, Describe(record.Home), record.ID))
	}
	// The record's name and place are newer than the item's after a rename.
	g.ID, g.Home = record.ID, record.Home
	return g, nil
}

// Announced returns the grant whose item is already in the home that a journal
// names although no record speaks of it yet; grant.ErrNoSecrets where there is
// none.
func (v *Vault) Announced(ctx context.Context, j grant.Journal) (grant.Grant, error) {
	return v.item(ctx, grant.Record{ID: j.ID, TokenVaultKey: j.TokenVaultKey, Home: j.Home})
}

// Put stores a grant: its item, then its record. Expected is the generation it
// replaces, 0 for the first of a new Token Vault Key; grant.ErrConflict where it is
// another. A new Token Vault Key takes the place of the company's earlier
// grant, whose items go last. The caller holds the grant's lock.
func (v *Vault) Put(ctx context.Context, g grant.Grant, expected int64) error {
	slot := g.Slot()
	if v.isStuck(slot) {
		return stuckError(g.Home)
	}
	old, err := v.readRecord(slot)
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return err
	}
	if expected > 0 {
		if old.TokenVaultKey != g.TokenVaultKey || old.Removing {
			return grant.ErrConflict
		}
		current, err := v.item(ctx, g.Record)
		if err != nil {
			return err
		}
		if current.Generation != expected {
			return grant.ErrConflict
		}
	}
	superseded := old.Superseded
	if old.TokenVaultKey != "" && old.Place() != g.Place() {
		superseded = append(superseded, old.Place())
	}
	g.LastError, g.Void = nil, false
	if err := v.putItem(ctx, &g); err != nil {
		return err
	}
	g.Superseded = superseded
	if err := v.writeRecord(g.Record); err != nil {
		return err
	}
	if expected == 0 {
		if err := v.dropDamaged(slot); err != nil {
			return err
		}
	}
	// What a home does not let go now, the next removal finishes.
	if _, err := v.dropSuperseded(ctx, g.Record); err != nil && !isHomeError(err) {
		return err
	}
	return nil
}

// putItem writes a grant's item into the home that it names, without what is
// only a record's.
func (v *Vault) putItem(ctx context.Context, g *grant.Grant) error {
	g.Version = grant.RecordVersion
	g.Superseded, g.Removing, g.Was = nil, false, ""
	home, err := v.homes.named(g.Home)
	if err != nil {
		return err
	}
	secret, err := json.Marshal(g)
	if err != nil {
		return fmt.Errorf("the item of %s can't be made: %w", g.ID, err)
	}
	return v.watch(g.Slot(), home.Put(ctx, g.TokenVaultKey, g.Generation, secret))
}

// Prove shows that the home of a grant can be written, with an item of the
// grant's size beside its own, which is gone again afterwards. Size is in
// bytes.
func (v *Vault) Prove(ctx context.Context, id grant.ID, homeName, tokenVaultKey string, size int) error {
	slot := id.Slot()
	if v.isStuck(slot) {
		return stuckError(homeName)
	}
	home, err := v.homes.named(homeName)
	if err != nil {
		return err
	}
	account := probeAccount(tokenVaultKey)
	probe := []byte(`{"probe":"` + strings.Repeat("0", size) + `"}`)
	if err := v.watch(slot, home.Put(ctx, account, 0, probe)); err != nil {
		return err
	}
	return v.watch(slot, home.Delete(ctx, account))
}

// watch marks a slot stuck when a write to its home timed out.
func (v *Vault) watch(slot string, err error) error {
	if timedOut(err) {
		v.mu.Lock()
		v.stuck[slot] = true
		v.mu.Unlock()
	}
	return err
}

// keep holds a lock until the process ends.
func (v *Vault) keep(lock *flock.Flock) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.kept = append(v.kept, lock)
}

func (v *Vault) isStuck(slot string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.stuck[slot]
}

// Stuck reports whether a write to a home timed out. What it was about stays
// locked until this process ends.
func (v *Vault) Stuck() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.stuck) > 0
}

func stuckError(home string) error {
	return &HomeError{Home: home, TimedOut: true,
		What:   "An earlier write to the " + home + " got no answer and may still happen, so nothing more is written there.",
		Advice: "Make sure that the " + home + " answers, then {}.", Do: []Act{TryAgain}}
}
