package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

// Movable is a store that grants can leave for another vault, and in which they can arrive
// from one. What has not arrived, and what has left, its other methods answer with a
// *MovedError.
type Movable interface {
	Store
	// Standing are all records as they are, also those of what has left or has not arrived,
	// and what can't be read. Stands is the one in a slot, grant.ErrNoGrant where there is
	// none.
	Standing(ctx context.Context) (records []grant.Record, problems []error, err error)
	Stands(ctx context.Context, slot string) (grant.Record, error)
	// Arrive writes a record that says from where the grant comes, and with an item the
	// secrets, all of it durably. Nobody uses it. Its Revision is that of the record in its
	// slot. Own says that what is there was moved to where the grant comes from. What has
	// left under another name is removed.
	Arrive(ctx context.Context, r grant.Record, item []byte, own bool) (grant.Record, error)
	// Leave makes a tombstone of a record. Once it is there the grant is the other vault's:
	// it is there whole or not at all, and returns when it is durable.
	Leave(ctx context.Context, r grant.Record, to grant.Moved) (grant.Record, error)
	// Arrived makes a grant of what Arrive wrote.
	Arrived(ctx context.Context, r grant.Record) (grant.Record, error)
}

// MovedError says that grants live in another vault, or are on their way between two.
type MovedError struct {
	Records []grant.Record // at least one, each with where it is
	// Err is why nobody can say where a grant is that is on its way, nil where that is known.
	Err error
}

// Moved is where the grants are, of several where the one is that was moved last.
func (e *MovedError) Moved() grant.Moved {
	last := *e.Records[0].Moved
	for _, r := range e.Records {
		if r.Moved.At.After(last.At) {
			last = *r.Moved
		}
	}
	return last
}

func (e *MovedError) Error() string {
	m, who, was := e.Moved(), e.Records[0].ID.String(), "was"
	if len(e.Records) > 1 {
		who, was = fmt.Sprintf("%d authorizations", len(e.Records)), "were"
	}
	at := m.At.UTC().Format(time.RFC3339)
	switch {
	case e.Err != nil:
		return fmt.Sprintf("%s %s being moved here from the %s at %s, and nobody can say whether the move was finished: %v", who, was, m, at, e.Err)
	case m.Arriving:
		return fmt.Sprintf("%s %s being moved here from the %s at %s, and the move is not finished", who, was, m, at)
	}
	return fmt.Sprintf("%s %s moved to the %s at %s", who, was, m, at)
}

func (e *MovedError) Unwrap() error { return e.Err }

// MovedAway are the problems of a listing for what does not live in a vault: one for each
// grant of a company, and one for all where the whole vault is listed.
func MovedAway(away []*MovedError, whole bool) (problems []error) {
	if !whole {
		for _, e := range away {
			problems = append(problems, e)
		}
		return problems
	}
	var all MovedError
	for _, e := range away {
		if e.Err != nil || e.Moved().Arriving {
			problems = append(problems, e)
			continue
		}
		all.Records = append(all.Records, e.Records...)
	}
	if len(all.Records) > 0 {
		problems = append(problems, &all)
	}
	return problems
}

// OtherHereError says that a grant can't be moved, as the other vault has another one for the
// same company, application and environment, or the same one as new.
type OtherHereError struct {
	ID    grant.ID
	Where string // what a sentence calls that vault, behind "the"
	Same  bool   // it has the same Token Vault Key
}

func (e *OtherHereError) Error() string {
	if e.Same {
		return fmt.Sprintf("%s is in the %s already, with the same Token Vault Key; one of the two is a copy", e.ID, e.Where)
	}
	return fmt.Sprintf("%s has another authorization in the %s", e.ID, e.Where)
}

// Journey is how a grant goes from one vault to another.
type Journey struct {
	// From is what the new vault says of the old one, To what the old one says of the new.
	From, To grant.Moved
	// Home gets the secrets.
	Home string
}

// HandOver moves a grant to another vault. The caller holds the grant's locks in both and has
// settled its journals in the old one. At every instant one of the vaults has it:
//
//  1. All of it is written to the new vault, durably and marked as arriving.
//  2. The old vault makes a tombstone of its record, at once. Up to here the grant was the old
//     vault's; from here on whoever finds the mark in the new one and the tombstone in the old
//     one takes it for the new vault's.
//  3. The mark goes, and then the secrets in the old vault.
//
// What is cut off is finished by FinishHandOver, or begins anew.
func (v *Vault) HandOver(ctx context.Context, g grant.Grant, to *Vault, j Journey) error {
	from, target, err := bothMovable(v, to)
	if err != nil {
		return err
	}
	slot := g.Slot()
	if v.isStuck(slot) || to.isStuck(slot) {
		return stuckError(j.Home)
	}
	record, err := from.Stands(ctx, slot)
	if err != nil {
		return err
	}
	if record.Moved != nil || record.Removing || record.TokenVaultKey != g.TokenVaultKey || record.Generation != g.Generation {
		return grant.ErrConflict
	}
	if record, err = v.dropSuperseded(ctx, record); err != nil {
		return err // what is left of earlier grants is nobody's any more once this one has left
	}
	there, err := target.Stands(ctx, slot)
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return err
	}
	own := there.Moved != nil && there.Moved.Vault == j.From.Vault
	if err := canArrive(g, there, own); err != nil {
		return err
	}
	arrival, item, key, err := v.packed(ctx, g, record, j)
	if err != nil {
		return err
	}
	if there.Moved != nil && there.Moved.Arriving && there.Place() != arrival.Place() {
		// An earlier move was to bring it to another home.
		if err := to.dropItems(ctx, slot, there.Place(), false); err != nil {
			return err
		}
	}
	home, err := to.homes().Named(j.Home)
	if err != nil {
		return err
	}
	arrival.Revision = there.Revision
	// The record that tells of the secrets comes before them.
	if arrival, err = target.Arrive(ctx, arrival, nil, own); err != nil {
		return err
	}
	account := JournalAccount(g.TokenVaultKey)
	if err := to.watch(slot, home.Put(ctx, account, 0, key)); err != nil {
		return err
	}
	if err := Sync(ctx, home, account); err != nil {
		return err
	}
	arrival, err = target.Arrive(ctx, arrival, item, own)
	if to.watch(slot, err) != nil {
		return err
	}
	left, err := from.Leave(ctx, record, j.To)
	if err != nil {
		return err
	}
	if _, err := target.Arrived(ctx, arrival); err != nil {
		return err
	}
	return v.clear(ctx, left)
}

// canArrive says why a grant can't take the place of what the other vault has. Own says that a
// tombstone there tells of the vault that the grant comes from.
func canArrive(g grant.Grant, there grant.Record, own bool) error {
	same := there.TokenVaultKey == g.TokenVaultKey
	switch {
	case there.TokenVaultKey == "":
		return nil
	case there.Moved == nil:
		return &OtherHereError{ID: g.ID, Where: Describe(there.Home), Same: same}
	case same && there.Generation > g.Generation && !there.Moved.Arriving, !same && !own:
		return &OtherHereError{ID: g.ID, Where: there.Moved.String(), Same: same}
	}
	return nil
}

// packed is what a grant is in its new vault: the record, the item and the journals' key.
func (v *Vault) packed(ctx context.Context, g grant.Grant, record grant.Record, j Journey) (r grant.Record, item, key []byte, err error) {
	source, err := v.homes().Named(record.Home)
	if err != nil {
		return r, nil, nil, err
	}
	if key, err = source.Get(ctx, JournalAccount(g.TokenVaultKey)); errors.Is(err, ErrNoItem) {
		// Nobody could open the next journal without one.
		key, g.JournalRecipient, err = newJournalKey()
	}
	if err != nil {
		return r, nil, nil, err
	}
	mark := j.From
	mark.Arriving = true
	g.Home = j.Home
	g.Local = grant.Local{Void: record.Void, LastError: record.LastError}
	if item, err = encodeItem(g); err != nil {
		return r, nil, nil, err
	}
	g.Moved = &mark
	return g.Record, item, key, nil
}

// clear removes the secrets beside a tombstone. An answer that nobody could use stays, with
// its key.
func (v *Vault) clear(ctx context.Context, r grant.Record) error {
	kept := false
	for _, place := range r.Superseded {
		var err error
		if kept, err = v.keeps(ctx, r.Slot(), place.TokenVaultKey); err != nil {
			return err
		}
		if err := v.dropItems(ctx, r.Slot(), place, kept); err != nil {
			return err
		}
	}
	if !kept {
		if err := v.store.Forget(ctx, r.Slot(), r.TokenVaultKey, true); err != nil {
			return err
		}
	}
	r.Superseded = nil
	_, err := v.store.Commit(ctx, Change{Record: r})
	return err
}

// FinishHandOver finishes the moves to another vault that were cut off, and returns the grants
// of them. What has not left stays as it is; of what does not come any more a tombstone is left,
// which says where it was last. Journey says what is to be finished: the vaults, in the direction
// of the move. With giveUp that is also said of what has not left.
func (v *Vault) FinishHandOver(ctx context.Context, to *Vault, j Journey, giveUp bool) (finished []grant.ID, problems error) {
	from, target, err := bothMovable(v, to)
	if err != nil {
		return nil, err
	}
	gone, _, err := from.Standing(ctx)
	if err != nil {
		return nil, err
	}
	coming, _, err := target.Standing(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range gone {
		if r.Moved == nil || r.Moved.Arriving || r.Moved.Vault != j.To.Vault {
			continue
		}
		arriving := slices.ContainsFunc(coming, func(c grant.Record) bool { return isArriving(c, r) })
		if !arriving && len(r.Superseded) == 0 {
			continue
		}
		if err := v.finishOne(ctx, r.ID, to, func() error { return v.finishLeaving(ctx, r, from, target) }); err != nil {
			problems = errors.Join(problems, fmt.Errorf("%s: %w", r.ID, err))
			continue
		}
		if arriving {
			finished = append(finished, r.ID)
		}
	}
	for _, c := range coming {
		if c.Moved == nil || !c.Moved.Arriving || c.Moved.Vault != j.From.Vault {
			continue
		}
		if err := v.finishOne(ctx, c.ID, to, func() error { return to.giveUp(ctx, c, from, target, giveUp) }); err != nil {
			problems = errors.Join(problems, fmt.Errorf("%s: %w", c.ID, err))
		}
	}
	return finished, problems
}

func bothMovable(v, to *Vault) (from, target Movable, err error) {
	from, ok := v.store.(Movable)
	target, too := to.store.(Movable)
	if !ok || !too {
		return nil, nil, errors.New("a vault can't be moved to or from where it is")
	}
	return from, target, nil
}

// isArriving reports whether a record is the arrival of what has left as another.
func isArriving(c, left grant.Record) bool {
	return c.Moved != nil && c.Moved.Arriving && c.Slot() == left.Slot() && HasLeft(left, c)
}

// finishOne does something with a grant locked in both vaults.
func (v *Vault) finishOne(ctx context.Context, id grant.ID, to *Vault, do func() error) error {
	unlock, err := v.LockBoth(ctx, id, to)
	if err != nil {
		return err
	}
	defer unlock()
	return do()
}

// LockBoth takes the locks of a grant in two vaults.
func (v *Vault) LockBoth(ctx context.Context, id grant.ID, to *Vault) (unlock func(), err error) {
	here, err := v.Lock(ctx, id)
	if err != nil {
		return nil, err
	}
	there, err := to.Lock(ctx, id)
	if err != nil {
		here()
		return nil, err
	}
	return func() { there(); here() }, nil
}

func (v *Vault) finishLeaving(ctx context.Context, r grant.Record, from, target Movable) error {
	left, err := from.Stands(ctx, r.Slot())
	if err != nil {
		return err
	}
	if left.Moved == nil || left.Moved.Arriving {
		return nil // it has come back
	}
	there, err := target.Stands(ctx, r.Slot())
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return err
	}
	if err == nil && isArriving(there, left) {
		if _, err := target.Arrived(ctx, there); err != nil {
			return err
		}
	}
	if len(left.Superseded) == 0 {
		return nil
	}
	return v.clear(ctx, left)
}

// giveUp makes a tombstone of what does not arrive any more: its grant was revoked or replaced,
// or, with stays, is to stay where it is. The vault may have had one before it began to arrive.
func (v *Vault) giveUp(ctx context.Context, c grant.Record, from, target Movable, stays bool) error {
	there, err := target.Stands(ctx, c.Slot())
	if errors.Is(err, grant.ErrNoGrant) || err == nil && (there.Moved == nil || !there.Moved.Arriving) {
		return nil
	}
	if err != nil {
		return err
	}
	source, err := from.Stands(ctx, c.Slot())
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return err
	}
	if err == nil && source.TokenVaultKey == there.TokenVaultKey && !source.Removing && !stays {
		return nil // it begins anew, or is finished
	}
	if err := v.dropItems(ctx, c.Slot(), there.Place(), false); err != nil {
		return err
	}
	elsewhere := *there.Moved
	elsewhere.Arriving = false
	there.Moved = &elsewhere
	_, err = target.Arrive(ctx, there, nil, true)
	return err
}

// HasLeft reports whether what arrives is the new vault's by now: whether the old one has the
// tombstone of the very move that brings it.
func HasLeft(from, arriving grant.Record) bool {
	return from.Moved != nil && !from.Moved.Arriving && from.TokenVaultKey == arriving.TokenVaultKey &&
		from.Generation == arriving.Generation && from.Moved.At.Equal(arriving.Moved.At)
}
