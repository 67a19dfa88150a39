package shared

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/gofrs/flock"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// rollCall is what a host does that is told that the database changed hands: it begins a new
// epoch where there is none yet, and says what it holds. Older is the epoch in which it has
// found a token there that is older than one that it saw, zero for none. Where this host is in
// another epoch by now, another process has answered since, and counted is false: what was
// found may be right again.
func (s *Store) rollCall(ctx context.Context, older int64) (counted bool, err error) {
	box := s.alreadyOpened(false)
	counted, err = s.rollCallWith(ctx, box, older)
	if errors.Is(err, errUnopened) {
		// Whoever only lists has not opened the identity, and is asked for it now. The epoch, if one
		// was begun, is on the disk already.
		if box, err = s.box(ctx); err != nil {
			return counted, err
		}
		_, err = s.rollCallWith(ctx, box, 0)
	}
	return counted, err
}

// errUnopened says that something is to be put back that needs the identity, and that is not open.
var errUnopened = errors.New("the identity is not open")

// rollCallWith is rollCall with the box, nil where it is not open. It can't be opened with the
// host's lock.
func (s *Store) rollCallWith(ctx context.Context, box *box, older int64) (counted bool, err error) {
	unlock, _, _, err := s.disk.Lock(ctx, hostLock, true)
	if err != nil {
		return false, &vault.LockError{Of: "what this host is", Err: err}
	}
	defer unlock()
	f, err := s.readHost()
	if err != nil {
		return false, err
	}
	self := f.self(s.o.Host)
	if counted = older > 0 && older == f.Epoch; counted {
		err := s.db.Session(ctx, func(db *postgres.Session) error {
			_, _, err := db.OpenEpoch(ctx, self, true)
			return err
		})
		if err != nil {
			return false, err
		}
	}
	_, err = s.answer(ctx, self, box)
	return counted, err
}

// answer answers the roll call of the database's epoch. The host's lock is held. Every process
// of this host that spends is waited for, so that no right of an earlier epoch is left.
func (s *Store) answer(ctx context.Context, self ledger.Self, box *box) (ledger.Self, error) {
	waiting, cancel := context.WithTimeout(ctx, ledger.CallEnds)
	defer cancel()
	unlock, _, _, err := s.disk.Lock(waiting, epochLock, true)
	if err != nil {
		return self, &vault.LockError{Of: epochLocked, Err: err}
	}
	defer unlock()
	// Before the session: it may ask the database for all records.
	if err := s.disk.AllNoted(); err != nil {
		return self, err
	}
	for tries := 0; ; tries++ {
		err := s.db.Session(ctx, func(db *postgres.Session) error {
			meta, _, err := db.OpenEpoch(ctx, self, false)
			if err != nil {
				return err
			}
			self, err = db.Answer(ctx, self, meta.Epoch, func(self ledger.Self) error { return s.deliver(ctx, db, self, box) })
			return err
		})
		var frozen *ledger.FrozenError
		if !errors.As(err, &frozen) || tries == 5 {
			return self, err
		}
	}
}

// deliver writes the new epoch, and then tells the database all that it may have lost: which
// of this host's requests have no end, which tokens it has seen, and which grants it moved away or
// revoked. Answers that are sealed here are put in place by the grant's next use; until then
// their claims are open.
func (s *Store) deliver(ctx context.Context, db *postgres.Session, self ledger.Self, box *box) error {
	f, err := s.readHost()
	if err != nil {
		return err
	}
	if err := s.writeHost(f.with(self)); err != nil {
		return err
	}
	news, err := s.disk.News(ctx, "")
	if err != nil {
		return err
	}
	gone, err := db.Gone(ctx)
	if err != nil {
		return err
	}
	for _, n := range news {
		if err := unlessDamaged(n.Err); err != nil {
			return err
		}
		if n.Err != nil {
			continue // whoever looks for its grant is told
		}
		j := n.Journal
		if j.Purpose != grant.Refreshing || j.Shared == nil || j.Shared.Host != self.ID || j.Unsent || j.Over || gone[j.TokenVaultKey] {
			continue
		}
		if err := s.reinsert(ctx, db, self, j); err != nil {
			return err
		}
	}
	copies, err := s.copies.all()
	if err != nil {
		return err
	}
	for _, c := range copies {
		row := c.Row
		if row.Grant.State == ledger.Removing || row.Grant.State == ledger.Moved || row.Item.Sealed == nil || gone[row.Grant.Key] {
			continue
		}
		known, err := s.revocation(row)
		if err != nil {
			return err
		}
		if known != isRevoked && s.o.Now().Sub(c.Read) <= tokenLasts {
			if err := s.flipBack(ctx, db, c); err != nil {
				return err
			}
			// Where there is none it was signed in for, imported or moved here since. A grant of which a host
			// says that it has revoked it or moved it away stays away, whoever answers first.
			if err := db.BringBack(ctx, row); err != nil {
				return err
			}
		}
		over := false
		err = db.PutBack(ctx, row.Grant.Key, row.Grant.Token, func(there postgres.Row) (postgres.Item, error) {
			item, err := itemIn(there, row, box)
			over = err == nil && recipientOf(there) != recipientOf(row)
			return item, err
		})
		if err == nil && over {
			err = putBackSecret(ctx, db, c, true)
		}
		if err != nil {
			return err
		}
	}
	standing, err := db.Standing(ctx, "")
	if err != nil {
		return err
	}
	for _, c := range copies {
		if gone[c.Row.Grant.Key] {
			continue
		}
		// Whoever has put the grant back may not know the key of its journals.
		if there, ok := standing[c.Row.Grant.Key]; ok && there.State != ledger.Removing && there.State != ledger.Moved {
			if err := putBackSecret(ctx, db, c, false); err != nil {
				return err
			}
		}
		if err := s.tellAnswers(ctx, db, self, c, standing); err != nil {
			return err
		}
	}
	left, err := s.left(self)
	if err != nil {
		return err
	}
	if err := s.leaveAgain(ctx, db, left); err != nil {
		return err
	}
	keys, err := s.revoked()
	if err != nil {
		return err
	}
	for _, c := range copies {
		if known, err := s.revocation(c.Row); err != nil {
			return err
		} else if known == isTakenIn {
			keys = slices.DeleteFunc(keys, func(key string) bool { return key == c.Row.Grant.Key })
		}
	}
	if err := s.revokeAgain(ctx, db, keys); err != nil {
		return err
	}
	return s.sayGone(ctx, db, gone, slices.Concat(keys, slices.Collect(maps.Keys(left))))
}

// unlessDamaged is an error of a journal that may be read later, and then have something to tell.
// Nobody reads a damaged one any more.
func unlessDamaged(err error) error {
	if errors.As(err, new(*vault.JournalDamageError)) {
		return nil
	}
	return err
}

// itemIn is the item of a copy for its grant's row, which may have another name than the copy: the
// company was renamed, or the database has lost that.
func itemIn(there, row postgres.Row, box *box) (postgres.Item, error) {
	if there.Slot == row.Slot {
		return row.Item, nil
	}
	if box == nil {
		return postgres.Item{}, errUnopened
	}
	now, err := factsOf(there)
	if err != nil {
		return postgres.Item{}, postgres.ErrNothing // whoever uses the grant is told
	}
	facts, err := factsOf(row)
	if err != nil {
		return postgres.Item{}, err
	}
	facts.ID = now.ID
	item := row.Item
	if item.MAC, err = box.codeAnew(row, there.Slot, facts); err != nil {
		return postgres.Item{}, postgres.ErrNothing // as before
	}
	item.Facts, err = json.Marshal(facts)
	return item, err
}

// reinsert inserts the claim of an attempt of this host again, and notes its place.
func (s *Store) reinsert(ctx context.Context, db *postgres.Session, self ledger.Self, j grant.Journal) error {
	there, err := db.Reinsert(ctx, self, intentOf(j), j.Answered)
	if err != nil || !j.Answered || there.Nonce == "" {
		return err
	}
	now := there.Makes.Attempt
	if was, err := s.place(ctx, j); err != nil || was == now {
		return nil //nolint:nilerr // an answer that can't be read is no spare
	}
	return s.disk.Place(j.TokenVaultKey, j.Nonce, now)
}

// tellAnswers inserts the claims of answers of which the database has lost what it was told: those
// that became spares, as nothing is void while they are untried, and those of a grant that is
// missing, as it may come back with an older token. The next use tells the rest.
func (s *Store) tellAnswers(ctx context.Context, db *postgres.Session, self ledger.Self, c copied, standing map[string]postgres.Standing) error {
	slot, key := c.Row.Slot, c.Row.Grant.Key
	there, ok := standing[key]
	attempts, err := s.disk.Peek(slot, key)
	if err != nil {
		return unlessDamaged(err) // whoever uses the grant is told
	}
	for _, j := range attempts {
		if ok && !s.isUntold(ctx, self, j, there) || !ok && !(isAnswered(self, j) && j.Generation >= c.Row.Grant.Token.Generation) {
			continue
		}
		if err := s.reinsert(ctx, db, self, j); err != nil {
			return err
		}
		if err := s.disk.AddNews(slot, key); err != nil {
			return err
		}
		if err := putBackSecret(ctx, db, c, false); err != nil {
			return err
		}
	}
	return nil
}

// putBackSecret gives a database that went back the key of a grant's journals again: it opens
// what every host has sealed for the grant. Over says that the database has an earlier one, as the
// grant was revoked and taken in again since.
func putBackSecret(ctx context.Context, db *postgres.Session, c copied, over bool) error {
	if c.Secret.Sealed == nil {
		return nil
	}
	return db.PutBackSecret(ctx, c.Secret, over)
}

// isAnswered reports whether an attempt is one of this host's at a refresh whose answer is here.
func isAnswered(self ledger.Self, j grant.Journal) bool {
	return j.Purpose == grant.Refreshing && j.Shared != nil && j.Shared.Host == self.ID && j.Answered && !j.Unsent && !j.Over
}

// isUntold reports whether an attempt of this host has an answer that is a spare, of which the
// database has no claim.
func (s *Store) isUntold(ctx context.Context, self ledger.Self, j grant.Journal, there postgres.Standing) bool {
	if !isAnswered(self, j) || j.Generation != there.Token.Generation {
		return false
	}
	place, err := s.place(ctx, j)
	return err == nil && ledger.IsUntold(there.Token, there.Claims, j.Nonce, place)
}

// flipBack puts a grant in its place again, where a database that went back has one of those before
// it.
func (s *Store) flipBack(ctx context.Context, db *postgres.Session, c copied) error {
	row := c.Row
	there, err := db.RowIn(ctx, row.Slot)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(row.Earlier, func(e postgres.Earlier) bool { return e.Key == there.Grant.Key }) {
		return nil
	}
	if err := db.FlipBack(ctx, there.Grant.Key, row); err != nil && !errors.As(err, new(*ledger.ConflictError)) {
		return err
	}
	return nil
}

// tokenLasts is how long a refresh token does: UPS says 60 days. A copy that is older brings nothing
// back: the database no longer knows what is gone so long.
const tokenLasts = 60 * 24 * time.Hour

// inEpoch keeps the roll call waiting until release is called.
func (s *Store) inEpoch(ctx context.Context) (release func(), err error) {
	lock, err := s.lockOfEpoch()
	if err != nil {
		return nil, err
	}
	if _, err := lock.TryRLockContext(ctx, lockPoll); err != nil {
		return nil, &vault.LockError{Of: epochLocked, Err: err}
	}
	return func() { _ = lock.Close() }, nil
}

// lockOfEpoch is held shared by those that spend, and alone by who answers the roll call.
func (s *Store) lockOfEpoch() (*flock.Flock, error) {
	path := filepath.Join(s.dir, "locks", epochLock+".lock")
	if err := safefile.MkdirAll(s.dir); err != nil {
		return nil, err
	}
	if err := safefile.MkdirAllCovered(filepath.Dir(path)); err != nil {
		return nil, err
	}
	return safefile.NewLock(path), nil
}

const epochLocked = "the epoch of the shared vault"

const lockPoll = 10 * time.Millisecond
