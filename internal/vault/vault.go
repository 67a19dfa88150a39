// Package vault has the rules by which grants are kept: put, moved, imported, removed,
// renamed, checked and sealed. Where they lie is a Store's business.
package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/upsauth/upsauth/internal/grant"
)

// Vault keeps the grants of a store. It may be used by several goroutines at once.
type Vault struct {
	store Store

	// read are the items that were read last, by Token Vault Key: a knownItem each.
	read sync.Map

	mu sync.Mutex
	// stuck are the slots for which a write to a home timed out. It may still
	// land, so this process writes nothing more there and keeps the locks.
	stuck map[string]bool
	kept  []func() // releases of locks that are not let go: what nothing refers to is
}

// New returns the vault over a store. Nothing is read or made before it is used.
func New(store Store) *Vault { return &Vault{store: store, stuck: map[string]bool{}} }

func (v *Vault) homes() Homes { return v.store.Homes() }

// Record returns the record of a grant without opening its home; grant.ErrRemoving where
// a revoke has begun.
func (v *Vault) Record(ctx context.Context, id grant.ID) (grant.Record, error) {
	record, err := v.store.Grant(ctx, id.Slot())
	if err == nil && record.Removing {
		return grant.Record{}, grant.ErrRemoving
	}
	return record, err
}

// Get opens the home and returns the whole grant. What the item says counts
// before what the record says: a write may have been cut off between the two. An item
// that is older than its record is a grant.ErrOlder.
func (v *Vault) Get(ctx context.Context, id grant.ID) (grant.Grant, error) {
	record, err := v.Record(ctx, id)
	if err != nil {
		return grant.Grant{}, err
	}
	return v.GetOf(ctx, record)
}

// GetOf is Get for a record that was read before.
func (v *Vault) GetOf(ctx context.Context, record grant.Record) (grant.Grant, error) {
	g, err := v.item(ctx, record)
	if err != nil {
		return grant.Grant{}, err
	}
	g.Revision, g.Contested, g.Loss = record.Revision, record.Contested, record.Loss
	switch {
	case g.Generation < record.Generation:
		return grant.Grant{}, olderItem(record, g.Generation)
	case g.Generation == record.Generation:
		g.Local = record.Local
		// A key that was made anew is in the record before it is in an item.
		g.JournalRecipient = record.JournalRecipient
		// A store may have the clocks of several hosts to reconcile.
		g.Requested, g.AccessUntil, g.RefreshUntil = record.Requested, record.AccessUntil, record.RefreshUntil
	default:
		g.Superseded = record.Superseded
	}
	return g, nil
}

// olderItem is the error of an item that is older than its record: its refresh
// token was spent long ago, and sending it again could end the living grant.
func olderItem(record grant.Record, generation int64) error {
	return &HomeError{Home: record.Home, OfItem: true,
		What: fmt.Sprintf("The secrets of %s in the %s are older than its record (generation %d instead of %d), so their refresh token is spent.",
			record.ID, record.Home, generation, record.Generation),
		Advice: "Was an old backup restored? Put back the newer secrets, or authorize the company again[: {}].", Do: []Act{Authorize},
		Err: grant.ErrOlder}
}

func (v *Vault) item(ctx context.Context, record grant.Record) (grant.Grant, error) {
	home, err := v.homes().Named(record.Home)
	if err != nil {
		return grant.Grant{}, err
	}
	var secret []byte
	var revision uint64
	r, revised := home.(reviser)
	if revised {
		secret, revision, err = r.GetRevision(ctx, record.TokenVaultKey)
	} else {
		secret, err = home.Get(ctx, record.TokenVaultKey)
	}
	if errors.Is(err, ErrNoItem) {
		return grant.Grant{}, &MissingError{ID: record.ID, Home: record.Home}
	}
	if err != nil {
		return grant.Grant{}, err
	}
	g, err := decodeItem(secret, "the item "+record.TokenVaultKey)
	if errors.As(err, new(*NewerError)) {
		return grant.Grant{}, err
	}
	if err != nil {
		return grant.Grant{}, damagedItem(record.Home, fmt.Sprintf("The secrets of %s in the %s are damaged.", record.ID, Describe(record.Home)))
	}
	if g.TokenVaultKey != record.TokenVaultKey {
		return grant.Grant{}, damagedItem(record.Home, fmt.Sprintf("The item %s in the %s is not that of %s.", record.TokenVaultKey, Describe(record.Home), record.ID))
	}
	if revised {
		v.read.Store(record.TokenVaultKey, knownItem{record.Home, revision, g.Generation})
	}
	// The record's name and place are newer than the item's after a rename.
	g.ID, g.Home = record.ID, record.Home
	return g, nil
}

// reviser is a home that tells an item from all others without opening it.
type reviser interface {
	GetRevision(ctx context.Context, account string) (secret []byte, revision uint64, err error)
	Revision(ctx context.Context, account string) (uint64, error)
}

// knownItem is the generation that an item of a revision was found to have.
type knownItem struct {
	home       string
	revision   uint64
	generation int64
}

// generation is that of a grant's item as it is now. An item that still is as it was when
// it was read is not opened again.
func (v *Vault) generation(ctx context.Context, record grant.Record) (int64, error) {
	if last, ok := v.read.LoadAndDelete(record.TokenVaultKey); ok {
		last := last.(knownItem)
		home, err := v.homes().Named(record.Home)
		if r, ok := home.(reviser); ok && err == nil && last.home == record.Home {
			if revision, err := r.Revision(ctx, record.TokenVaultKey); err == nil && revision == last.revision {
				return last.generation, nil
			}
		}
	}
	g, err := v.item(ctx, record)
	return g.Generation, err
}

// Announced returns the grant whose item is already in the home that a journal
// names although no record speaks of it yet; grant.ErrNoSecrets where there is
// none, *TakenError where the record under another name does.
func (v *Vault) Announced(ctx context.Context, j grant.Journal) (grant.Grant, error) {
	// A sign-in has a key of its own. That of a refresh may have been renamed, and two
	// records would spend one token.
	if j.Purpose == grant.Refreshing {
		spoken, err := v.spokenOf(ctx)
		if err != nil {
			return grant.Grant{}, err
		}
		if id, ok := spoken.records[j.TokenVaultKey]; ok && id.Slot() != j.Slot() {
			return grant.Grant{}, &TakenError{ID: id}
		}
	}
	return v.item(ctx, grant.Record{Facts: grant.Facts{ID: j.ID, TokenVaultKey: j.TokenVaultKey, Home: j.Home}})
}

// Put stores a grant: its item, and its record with what the grant says of its state.
// Expected is the generation it replaces, 0 for the first of a new Token Vault Key;
// grant.ErrConflict where it is another, grant.ErrNoGrant where a grant that is put
// back is being removed. A new Token Vault Key takes the place of the company's earlier
// grant, whose items go last. Settles is the attempt whose answer the
// grant is made of, nil for none: then the item that it was made of may be lost. The
// caller holds the grant's lock.
func (v *Vault) Put(ctx context.Context, g grant.Grant, expected int64, settles *grant.Journal) error {
	slot := g.Slot()
	if v.isStuck(slot) {
		return stuckError(g.Home)
	}
	old, err := v.store.Grant(ctx, slot)
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return err
	}
	if expected > 0 {
		if err := v.expect(ctx, g, old, expected, settles != nil); err != nil {
			return err
		}
	} else if old.Removing && old.TokenVaultKey == g.TokenVaultKey {
		return grant.ErrNoGrant // what is revoked does not come back by what its journal has
	}
	superseded, problem := v.dropPlaces(ctx, old, old.Superseded)
	if problem != nil && !isHomeError(problem) {
		return problem
	}
	replaced := old.TokenVaultKey != "" && old.Place() != g.Place()
	// Where the attempt of an authorization names it, no record has to.
	told := replaced && settles != nil && old.Place() == grant.Place{TokenVaultKey: settles.Replaces, Home: settles.ReplacesIn}
	if replaced && !told {
		superseded = append(superseded, old.Place())
	}
	if g, err = v.commit(ctx, g, old, superseded, Change{Settles: settles, First: expected == 0, Ends: settles != nil && !told}); err != nil {
		return err
	}
	if replaced {
		if err := v.replace(ctx, g.Record, old.Place()); err != nil {
			return err
		}
	}
	return v.store.Settle(ctx, slot, g.TokenVaultKey, g.Generation)
}

// expect is grant.ErrConflict unless a grant stands at the generation that is to be
// replaced. Where an answer is put in place the item may be older, or lost: a loss of
// power can do that.
func (v *Vault) expect(ctx context.Context, g grant.Grant, old grant.Record, expected int64, settling bool) error {
	if old.TokenVaultKey != g.TokenVaultKey || old.Removing {
		return grant.ErrConflict
	}
	current, err := v.generation(ctx, g.Record)
	lost := errors.Is(err, grant.ErrNoSecrets)
	switch {
	case settling && lost:
		return nil
	case err != nil:
		return err
	case current == expected, settling && current < expected:
		return nil
	case current > expected:
		return grant.ErrOvertaken
	}
	return grant.ErrConflict
}

// commit writes item and record at once.
func (v *Vault) commit(ctx context.Context, g grant.Grant, old grant.Record, superseded []grant.Place, c Change) (grant.Grant, error) {
	item, err := encodeItem(g)
	if err != nil {
		return g, err
	}
	g.Local = grant.Local{Void: g.Void, LastError: g.LastError, Superseded: superseded}
	g.Revision = old.Revision
	c.Record, c.Item = g.Record, item
	record, err := v.store.Commit(ctx, c)
	g.Record = record
	return g, v.watch(g.Slot(), err)
}

// replace removes the grant whose place another has taken. What a home does not let go
// now, the record keeps for the next removal.
func (v *Vault) replace(ctx context.Context, r grant.Record, old grant.Place) error {
	left, err := v.dropPlaces(ctx, r, []grant.Place{old})
	if len(left) == 0 && !slices.Contains(r.Superseded, old) {
		return err
	}
	if err != nil && !isHomeError(err) {
		return err
	}
	r.Superseded = append(without(r.Superseded, old), left...)
	_, err = v.store.Commit(ctx, Change{Record: r})
	return err
}

// FinishReplacing removes what an authorization replaced, once its grant stands.
func (v *Vault) FinishReplacing(ctx context.Context, j grant.Journal) error {
	record, err := v.Record(ctx, j.ID)
	if err != nil {
		return err
	}
	old := grant.Place{TokenVaultKey: j.Replaces, Home: j.ReplacesIn}
	if old.Home != "" && old.TokenVaultKey != "" && record.TokenVaultKey == j.TokenVaultKey && !v.standsElsewhere(ctx, record, old) {
		if err := v.replace(ctx, record, old); err != nil {
			return err
		}
	}
	return v.store.Settle(ctx, record.Slot(), j.TokenVaultKey, record.Generation)
}

// standsElsewhere reports whether the grant in a place may be another company's by now, as
// an import can make it.
func (v *Vault) standsElsewhere(ctx context.Context, r grant.Record, place grant.Place) bool {
	home, err := v.homes().Named(place.Home)
	if err != nil || place.TokenVaultKey == r.TokenVaultKey {
		return false
	}
	if errors.Is(home.CanDelete(ctx, place.TokenVaultKey), ErrNoItem) {
		return false // most often it is gone, and no record is to be read
	}
	records, problems, err := v.store.Grants(ctx, "")
	if err != nil {
		return true
	}
	for _, problem := range problems {
		if !errors.As(problem, new(*DamagedError)) && !errors.As(problem, new(*MovedError)) {
			return true
		}
	}
	return slices.ContainsFunc(records, func(other grant.Record) bool {
		return other.TokenVaultKey == place.TokenVaultKey && other.Slot() != r.Slot()
	})
}

// Note changes what a record says of the grant's state, and nothing else. The caller
// holds the grant's lock.
func (v *Vault) Note(ctx context.Context, id grant.ID, change func(*grant.Local)) error {
	record, err := v.store.Grant(ctx, id.Slot())
	if err != nil {
		return err
	}
	change(&record.Local)
	_, err = v.store.Commit(ctx, Change{Record: record})
	return err
}

// Align brings a record up to its item, which was written before it. The caller holds
// the grant's lock.
func (v *Vault) Align(ctx context.Context, g grant.Grant) error {
	home, err := v.homes().Named(g.Home)
	if err != nil {
		return err
	}
	// Whoever wrote the item may not have come so far, and an answer that is sealed
	// elsewhere goes now.
	if err := Sync(ctx, home, g.TokenVaultKey); err != nil {
		return err
	}
	if _, err := v.store.Commit(ctx, Change{Record: g.Record}); err != nil {
		return err
	}
	return v.store.Settle(ctx, g.Slot(), g.TokenVaultKey, g.Generation)
}

// Prove shows that the home of a grant can be written, with an item of the
// grant's size beside its own, which is gone again afterwards. Size is in
// bytes.
func (v *Vault) Prove(ctx context.Context, id grant.ID, homeName, tokenVaultKey string, size int) error {
	slot := id.Slot()
	if v.isStuck(slot) {
		return stuckError(homeName)
	}
	home, err := v.homes().Named(homeName)
	if err != nil {
		return err
	}
	account := probeAccount(tokenVaultKey)
	if err := v.watch(slot, home.Put(ctx, account, 0, probeOf(size))); err != nil {
		return err
	}
	return v.watch(slot, home.Delete(ctx, account))
}

// roomy is a home that can keep the room which a probe takes for the item itself.
type roomy interface {
	Room(ctx context.Context, account string, probe []byte) (done func(), err error)
}

// MakeRoom is Prove for a grant whose next generation is about to be put: where its home
// can keep the room that it has proved to be there, it does until done is called.
func (v *Vault) MakeRoom(ctx context.Context, id grant.ID, homeName, tokenVaultKey string, size int) (done func(), err error) {
	home, err := v.homes().Named(homeName)
	if err != nil {
		return nil, err
	}
	r, ok := home.(roomy)
	if !ok {
		return func() {}, v.Prove(ctx, id, homeName, tokenVaultKey, size)
	}
	slot := id.Slot()
	if v.isStuck(slot) {
		return nil, stuckError(homeName)
	}
	done, err = r.Room(ctx, tokenVaultKey, probeOf(size))
	return done, v.watch(slot, err)
}

// probeOf is a probe of at least so many bytes.
func probeOf(size int) []byte { return []byte(`{"probe":"` + strings.Repeat("0", size) + `"}`) }

// watch marks a slot stuck when a write to its home timed out.
func (v *Vault) watch(slot string, err error) error {
	if timedOut(err) {
		v.mu.Lock()
		v.stuck[slot] = true
		v.mu.Unlock()
	}
	return err
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

// Unanswered returns an error where a write of a grant to its home timed out, else nil:
// the write may still land, so what is known of that grant may not be so any more.
func (v *Vault) Unanswered(id grant.ID) error {
	if v.isStuck(id.Slot()) {
		return stuckError("vault")
	}
	return nil
}

func stuckError(home string) error {
	return &HomeError{Home: home, TimedOut: true,
		What:   "An earlier write to the " + home + " got no answer and may still happen, so nothing more is written there.",
		Advice: "Make sure that the " + home + " answers, then {}.", Do: []Act{TryAgain}}
}

// Lock takes the lock of a grant, waiting for it as long as the context lasts.
func (v *Vault) Lock(ctx context.Context, id grant.ID) (unlock func(), err error) {
	slot := id.Slot()
	if v.isStuck(slot) {
		return nil, stuckError("vault") // this process may hold the lock itself
	}
	release, _, _, err := v.store.Lock(ctx, slot, true)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &LockError{Of: id.String(), Err: err}
	}
	return func() {
		if v.isStuck(slot) {
			v.mu.Lock()
			v.kept = append(v.kept, release)
			v.mu.Unlock()
			return
		}
		release()
	}, nil
}

// LoginLock is the name of the lock of a company's sign-ins, by the slot of any of its
// grants.
func LoginLock(slot string) string {
	company, _, _ := strings.Cut(slot, "-")
	return company + ".login"
}

func loginLock(company string) string { return LoginLock(grant.CompanySlot(company)) }

// LockLogin takes a company's login lock, or returns a *LoginBusyError at once.
func (v *Vault) LockLogin(ctx context.Context, company string) (unlock func(), err error) {
	release, held, holder, err := v.store.Lock(ctx, loginLock(company), false)
	switch {
	case err != nil:
		return nil, &LockError{Of: "the sign-in of " + company, Err: err}
	case held:
		return nil, &LoginBusyError{Company: company, PID: holder}
	}
	return release, nil
}

// busy reports whether somebody holds a lock, or nobody can tell.
func (v *Vault) busy(ctx context.Context, name string) bool {
	done, free, _ := v.store.Look(ctx, name)
	if free {
		done()
	}
	return !free
}
