package vault

import (
	"context"

	"github.com/upsauth/upsauth/internal/grant"
)

// Store is where a vault's grants are: on this machine, or where several hosts share
// them. Nothing that can't be read counts as absent, and no change is made to another
// revision of a record than the one that was read. The rules are the vault's.
type Store interface {
	// Lock takes a lock of this machine's processes by its name. With wait it waits as
	// long as the context lasts; without, held says that somebody has it, the process
	// holder where that is known. Look reports whether a lock is free, and keeps it so
	// until done is called.
	Lock(ctx context.Context, name string, wait bool) (release func(), held bool, holder int, err error)
	Look(ctx context.Context, name string) (done func(), free bool, err error)

	// Grant returns the record in a slot: grant.ErrNoGrant where there is none,
	// grant.ErrSetAside where that is because it was damaged. Grants returns those
	// whose slots begin with a prefix, also those that are being removed, and what can't
	// be read. Damaged tells what records that were set aside still say.
	Grant(ctx context.Context, slot string) (grant.Record, error)
	Grants(ctx context.Context, prefix string) (records []grant.Record, problems []error, err error)
	Damaged(ctx context.Context) (map[string]DamagedRecord, error)

	// Claim writes an attempt, with a nonce of its own, before anything is sent for it.
	// Seal puts the sealed answer into it and needs this machine's disk alone, Mark notes
	// what became of it. Each returns when that is on disk.
	Claim(ctx context.Context, j *grant.Journal) error
	// Check is the last look once there is a connection, before the first byte is sent:
	// grant.ErrConflict where the attempt is not the latest any more. Where several hosts
	// share the store, it takes the right to send, which one of them can have.
	Check(ctx context.Context, j grant.Journal) error
	Seal(ctx context.Context, j *grant.Journal, sealed []byte) error
	Mark(ctx context.Context, j *grant.Journal) error
	// Attempts are those under a Token Vault Key of a slot and those of the slot's
	// others that there is news of; News are all that there is news of, by the slots'
	// prefix. Sealed is an attempt's sealed answer, grant.ErrNoAnswer where there is none.
	Attempts(ctx context.Context, slot, tokenVaultKey string) ([]grant.Journal, error)
	News(ctx context.Context, slotPrefix string) ([]News, error)
	Sealed(ctx context.Context, j grant.Journal) ([]byte, error)
	// Still reports whether there is still the news.
	Still(ctx context.Context, n News) (bool, error)
	// Settle says that a grant has all up to a generation: what is older may go, the
	// attempt that made that generation stays with its answer, as the item may be lost
	// yet. Forget removes every attempt under a key.
	Settle(ctx context.Context, slot, tokenVaultKey string, generation int64) error
	// Should the power fail, what was forgotten may come back unless it is forgotten
	// for good.
	Forget(ctx context.Context, slot, tokenVaultKey string, forGood bool) error

	// Commit makes a change, and returns the record as it is then. Drop removes a
	// record, Rename gives it to another name of its company, FinishRename does what is
	// left of that. All fail with grant.ErrConflict where the record is another revision;
	// revisions of one Store are none of another's.
	Commit(ctx context.Context, c Change) (grant.Record, error)
	Drop(ctx context.Context, r grant.Record) error
	Rename(ctx context.Context, r grant.Record, company string) (grant.Record, error)
	FinishRename(ctx context.Context, r grant.Record) (grant.Record, error)

	// Homes keep the items, and beside them the journals' keys and client secrets.
	Homes() Homes
}

// A readier is a store that may be unable to take a new grant for a while.
type readier interface {
	Ready(ctx context.Context) error
}

// Ready says why the store could take no new grant now.
func (v *Vault) Ready(ctx context.Context) error {
	if s, ok := v.store.(readier); ok {
		return s.Ready(ctx)
	}
	return nil
}

type recentKey struct{}

// Recent marks the context of a call that is content with what a store knew some minutes
// ago, as is whoever wants a good token. Only a store that has to ask somebody else makes use
// of it.
func Recent(ctx context.Context) context.Context { return context.WithValue(ctx, recentKey{}, true) }

// Latest takes the mark of Recent away, for what has to be as it is now.
func Latest(ctx context.Context) context.Context { return context.WithValue(ctx, recentKey{}, false) }

// IsRecent reports whether Recent has marked a context.
func IsRecent(ctx context.Context) bool { return ctx.Value(recentKey{}) == true }

// Change is what is to become of a grant, all of it at once.
type Change struct {
	// Record is what the record says then. Its Revision is that of the record in its
	// slot that was read, zero where there was none.
	Record grant.Record
	// Item is what is put in the record's home first; nil leaves it as it is.
	Item []byte
	// Settles is the attempt whose sealed answer the change is made of: it can be made
	// again of that. First says that no earlier generation of the key was here.
	Settles *grant.Journal
	First   bool
	// Ends says that nothing is left to be done for the attempt once the change is made.
	// A store that makes all of a change at once ends the attempt with it; in any other
	// the Settle that follows does.
	Ends bool
}

// News is an attempt that somebody has to know of.
type News struct {
	Slot          string
	TokenVaultKey string
	Path          string // of the file, where it is one
	Journal       grant.Journal
	Err           error // why it can't be read
}

// DamagedRecord is what a damaged record still tells.
type DamagedRecord struct {
	Slot, Company string
	Generation    int64 // 0 where it does not tell
}

// syncer is a home whose items a loss of power can take away until it is synced.
type syncer interface {
	Sync(ctx context.Context, account string) error
}

// Sync returns when what was put into a home or removed from it under an account
// survives a loss of power.
func Sync(ctx context.Context, home Home, account string) error {
	if s, ok := home.(syncer); ok {
		return s.Sync(ctx, account)
	}
	return nil
}
