package shared

import (
	"context"
	"errors"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// Mark notes what became of an attempt, here and in the database; see vault.Store. What can't
// be told to the database now, the next use tells: it is news until then.
func (s *Store) Mark(ctx context.Context, j *grant.Journal) error {
	if err := s.disk.Mark(ctx, j); err != nil {
		return err
	}
	s.ended(j.Nonce)
	outcome, ok := outcomeOf(*j)
	if !ok || j.Shared == nil {
		return nil
	}
	err := s.certain(ctx, func(db *postgres.Session) error {
		_, err := db.Told(ctx, intentOf(*j), outcome)
		return err
	})
	s.forget(j.TokenVaultKey)
	if err != nil || outcome == ledger.NoAnswer {
		return err
	}
	return s.Settle(ctx, j.Slot(), j.TokenVaultKey, j.Generation-1)
}

// outcomeOf is what an attempt's fate tells all hosts; not ok is nothing yet.
func outcomeOf(j grant.Journal) (ledger.Outcome, bool) {
	switch {
	case j.Purpose != grant.Refreshing:
		return "", false
	case j.Unsent:
		return ledger.Unsent, true
	case j.Over, j.Refused:
		return ledger.Refused, true
	case j.Outcome != "": // an answer that is here all the same has no token that can be read
		return ledger.NoAnswer, true
	}
	return "", false
}

// Attempts returns the attempts beside a grant that this host has made; see vault.Store. What
// the database does not know of them yet, it is told first. The claims of other hosts are none
// of them: who may send decides Check.
func (s *Store) Attempts(ctx context.Context, slot, key string) ([]grant.Journal, error) {
	attempts, err := s.disk.Attempts(ctx, slot, key)
	if err != nil || !s.worksOn(slot) {
		return attempts, err
	}
	// Of a grant that is contested all is told again: a database that went back may have an open
	// claim of what was settled here long ago.
	told := s.isContested(key)
	for _, j := range attempts {
		if j.News && j.TokenVaultKey == key && j.Purpose == grant.Refreshing && j.Shared != nil {
			told = true
		}
	}
	if !told {
		return attempts, nil
	}
	return attempts, s.tell(ctx, key, attempts)
}

// isContested reports whether UPS has refused the token of a grant that this process works
// on, and nobody knows yet whether there is another.
func (s *Store) isContested(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	row, ok := s.rows[key]
	return ok && row.Grant.State == ledger.Interrupted
}

// tell says of this host's attempts under a key what became of them. Their processes are gone
// or are this one, as it has the grant's lock.
func (s *Store) tell(ctx context.Context, key string, attempts []grant.Journal) error {
	for _, j := range attempts {
		s.lookAgain(j.Slot())
	}
	self, err := s.self(ctx)
	if err != nil {
		return err
	}
	open, err := s.db.Open(ctx, self.ID, key)
	if err != nil {
		return err
	}
	var row postgres.Row
	var standing map[string]postgres.Standing
	err = s.db.Session(ctx, func(db *postgres.Session) error {
		if row, err = db.RowOf(ctx, key); err == nil {
			standing, err = db.Standing(ctx, key)
		}
		return err
	})
	if err != nil {
		return err
	}
	for i := range attempts {
		j := &attempts[i]
		if j.TokenVaultKey != key || j.Shared == nil || j.Shared.Host != self.ID || j.Purpose != grant.Refreshing || s.isRunning(j.Nonce) {
			continue
		}
		outcome, known := outcomeOf(*j)
		if !known && j.Answered && j.Generation <= row.Grant.Token.Generation {
			outcome, known = ledger.Granted, true
		}
		var err error
		if s.isUntold(ctx, self, *j, standing[key]) {
			err = s.certain(ctx, func(db *postgres.Session) error { return s.reinsert(ctx, db, self, *j) })
			open[j.Nonce] = err == nil
		}
		switch {
		case err != nil:
		case known && open[j.Nonce]:
			err = s.certain(ctx, func(db *postgres.Session) error {
				_, err := db.Told(ctx, intentOf(*j), outcome)
				return err
			})
		case known, j.Answered, !open[j.Nonce] && j.Generation <= row.Grant.Token.Generation:
			continue
		default:
			var said ledger.Claim
			err = s.certain(ctx, func(db *postgres.Session) (err error) {
				said, err = db.Settle(ctx, self, intentOf(*j))
				return err
			})
			if err == nil && said.Outcome == ledger.Unsent && !j.Unsent {
				j.Unsent = true
				err = s.disk.Mark(ctx, j)
			}
		}
		var frozen *ledger.FrozenError
		if errors.As(err, &frozen) && frozen.Answer {
			if s.runsIn(j.Slot()) {
				return nil // this process keeps the roll call waiting; it is told the next time
			}
			_, err = s.rollCall(ctx, 0)
			if err == nil {
				return grant.ErrOvertaken
			}
		}
		if err != nil {
			return err
		}
	}
	if row.Slot == "" {
		return nil
	}
	if row.Grant.State == ledger.Interrupted {
		if err := s.disown(ctx, self, key, attempts); err != nil {
			return err
		}
	}
	return s.Settle(ctx, row.Slot, key, row.Grant.Token.Generation)
}

// disown ends the claims of this host that keep others waiting for what is not on its disk. A
// journal that was damaged may have it.
func (s *Store) disown(ctx context.Context, self ledger.Self, key string, attempts []grant.Journal) error {
	if aside, err := s.disk.IsSetAside(key); err != nil || aside {
		return err
	}
	var held ledger.Held
	for _, j := range attempts {
		held.Attempts = append(held.Attempts, j.Nonce)
		if j.Answered && !j.Dead && j.Outcome == "" {
			held.Answers = append(held.Answers, j.Nonce)
		}
	}
	s.mu.Lock()
	for nonce := range s.running {
		held.Attempts = append(held.Attempts, nonce)
	}
	s.mu.Unlock()
	err := s.certain(ctx, func(db *postgres.Session) error { return db.Disown(ctx, self, key, held, s.o.Terms) })
	if errors.As(err, new(*ledger.FrozenError)) {
		return nil // the roll call comes first
	}
	return err
}

// Settle says that a grant has all up to a generation; see vault.Store. It is news until the
// copy of the grant has its token: should the database go back, this host may be the only one that
// knows of it.
func (s *Store) Settle(ctx context.Context, slot, key string, generation int64) error {
	row, err := s.row(ctx, key)
	if err == nil && row.Slot != "" && row.Grant.Token.Generation < generation {
		row, err = s.db.RowOf(ctx, key)
	}
	if err == nil && row.Slot != "" && row.Grant.Token.Generation < generation {
		return nil // the database has just gone back
	}
	if err == nil && row.Slot != "" && row.Grant.State != ledger.Removing && row.Grant.State != ledger.Moved {
		var there copied
		var ok bool
		if there, ok, err = s.copies.of(row.Slot); err == nil && (!ok || there.Row.Grant.Key != key || there.Row.Grant.Token.Before(row.Grant.Token)) {
			err = s.copies.keep(ctx, row, postgres.Secret{}, s.o.Now(), ledger.Made{})
		}
	}
	if err != nil {
		return nil //nolint:nilerr // the next use tries again
	}
	return s.disk.Settle(ctx, slot, key, generation)
}

// Forget removes this host's attempts under a key; see vault.Store. Those of an earlier grant stay
// while that may come back.
func (s *Store) Forget(ctx context.Context, slot, key string, forGood bool) error {
	if !forGood {
		if stays, err := s.mayComeBack(ctx, slot, key); err != nil || stays {
			return err
		}
	}
	return s.disk.Forget(ctx, slot, key, forGood)
}

// mayComeBack reports whether this host has an answer for a grant that the database does not have
// now, and may get back: its sign-in was lost, and the host that signed in has not told it yet.
func (s *Store) mayComeBack(ctx context.Context, slot, key string) (bool, error) {
	attempts, err := s.disk.Peek(slot, key)
	if errors.As(err, new(*vault.JournalDamageError)) {
		return true, nil // there may be one
	}
	if err != nil {
		return false, err
	}
	if !slices.ContainsFunc(attempts, func(j grant.Journal) bool { return j.TokenVaultKey == key && j.Answered && j.Shared != nil }) {
		return false, nil
	}
	f, err := s.readHost()
	if err != nil || !s.isHere(f) {
		return true, err
	}
	over := false
	err = s.db.Session(ctx, func(db *postgres.Session) error {
		gone, err := db.Gone(ctx)
		if over = gone[key]; err == nil && !over {
			over, err = db.IsWhole(ctx, f.self(s.o.Host))
		}
		return err
	})
	if IsAway(err) {
		return true, nil // nobody is kept from anything
	}
	return !over, err
}
