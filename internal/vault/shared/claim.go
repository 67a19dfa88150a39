package shared

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// intentOf is an attempt of the journal as the ledger knows it.
func intentOf(j grant.Journal) ledger.Intent {
	in := ledger.Intent{Key: j.TokenVaultKey, Generation: j.Generation, Nonce: j.Nonce, Purpose: j.Purpose}
	if j.Shared != nil {
		in.Host, in.Incarnation, in.Epoch = j.Shared.Host, j.Shared.Incarnation, j.Shared.Epoch
		if j.Purpose == grant.Refreshing {
			in.Sends = ledger.Made{Generation: j.Generation - 1, Attempt: j.Shared.Sends}
		}
	}
	return in
}

// AwaitedError says that UPS refused the token that stands, and that another host may have an
// answer with its successor.
type AwaitedError struct{ ID grant.ID }

func (e *AwaitedError) Error() string {
	return fmt.Sprintf("UPS refused the refresh token of %s, and a host that has asked UPS has not told its answer yet; that may have the next one", e.ID)
}

// Claim writes an attempt to this host's disk; see vault.Store. Where another host's answer is
// awaited, it waits for that first. The right to send comes with Check.
func (s *Store) Claim(ctx context.Context, j *grant.Journal) error {
	if _, err := s.box(ctx); err != nil {
		return err
	}
	if err := s.answerCalls(ctx); err != nil {
		return err
	}
	self, err := s.self(ctx)
	if err != nil {
		return err
	}
	j.Shared = &grant.Shared{Host: self.ID, Incarnation: self.Incarnation, Epoch: self.Epoch}
	if j.Purpose == grant.Authorizing {
		return s.disk.Claim(ctx, j)
	}
	if s.isAwaiting(j.TokenVaultKey) {
		s.lookAgain(j.Slot())
		if err := s.await(ctx, *j); err != nil {
			return err
		}
	}
	// From the intent until the end of the attempt no roll call is answered.
	leave, err := s.inEpoch(ctx)
	if err != nil {
		return err
	}
	f, err := s.readHost()
	if err == nil && !s.isHere(f) {
		// Another process of this host has found that it is another host by now. It waits for
		// this one.
		err = s.call(&ledger.HostError{Host: self.ID, Name: self.Name, Reason: ledger.Stranger}, 0)
	}
	if err != nil {
		leave()
		return err
	}
	self = f.self(s.o.Host)
	row, err := s.row(ctx, j.TokenVaultKey)
	if err != nil {
		leave()
		return err
	}
	// What this host has seen is on its disk before it spends it.
	if row.Slot != "" {
		if err := s.copies.keep(ctx, row, postgres.Secret{}, s.o.Now(), ledger.Made{}); err != nil {
			leave()
			return err
		}
	}
	j.Shared = &grant.Shared{Host: self.ID, Incarnation: self.Incarnation, Epoch: self.Epoch, Sends: row.Grant.Token.Attempt}
	if j.Spare != "" {
		if j.Shared.Sends, err = s.placeOfSpare(ctx, *j); err != nil {
			leave()
			return err
		}
	}
	if err := s.disk.Claim(ctx, j); err != nil {
		leave()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[j.Nonce] = attempt{slot: j.Slot(), leave: leave}
	return nil
}

// placeOfSpare is the place of the answer whose token an attempt sends.
func (s *Store) placeOfSpare(ctx context.Context, j grant.Journal) (int, error) {
	attempts, err := s.disk.Peek(j.Slot(), j.TokenVaultKey)
	if err != nil {
		return 0, err
	}
	for _, other := range attempts {
		if other.Nonce == j.Spare {
			return s.place(ctx, other)
		}
	}
	return 0, grant.ErrNoAnswer
}

// attempt is one of this process's that has no end yet.
type attempt struct {
	slot string
	// place is the attempt's among all hosts' at the same generation, zero before it was
	// claimed.
	place int
	leave func() // lets the roll call go on
}

// answerCalls does what Check has found to be done first, and could not do with an attempt
// of its own under way.
func (s *Store) answerCalls(ctx context.Context) error {
	s.answering.Lock() // one goroutine does it for all
	defer s.answering.Unlock()
	s.mu.Lock()
	first, older := s.answerFirst, s.older
	s.mu.Unlock()
	if !first {
		return nil
	}
	if _, err := s.introduce(ctx, true); err != nil {
		return err
	}
	if older > 0 {
		if _, err := s.rollCall(ctx, older); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answerFirst, s.older = false, 0
	return nil
}

// call notes that a roll call is to be answered, and returns the error of an attempt that
// ends for it. Older is the epoch in which an older token was found, zero for none.
func (s *Store) call(err error, older int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answerFirst, s.older = true, older
	return fmt.Errorf("%w: %w", grant.ErrOvertaken, err)
}

func (s *Store) isAwaiting(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.awaiting[key]
}

func (s *Store) setAwaiting(key string, yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if yes {
		s.awaiting[key] = true
		return
	}
	delete(s.awaiting, key)
}

// askEvery is how often the database is asked whether another host's answer is there.
const askEvery = 150 * time.Millisecond

// await waits until another host's attempt has an end: grant.ErrOvertaken once its token is
// there, nil once another may follow, a *ledger.ClaimedError where that takes too long.
func (s *Store) await(ctx context.Context, j grant.Journal) error {
	began := s.o.Elapsed()
	for {
		self, err := s.self(ctx)
		if err != nil {
			return err
		}
		row, err := s.db.RowOf(ctx, j.TokenVaultKey)
		if err != nil {
			return err
		}
		if row.Slot == "" || row.Grant.Token.Generation >= j.Generation {
			s.setAwaiting(j.TokenVaultKey, false)
			return grant.ErrOvertaken
		}
		seen, err := s.sighting(self, row.Slot, row.Grant.Key)
		if err != nil {
			return err
		}
		in := intentOf(j)
		in.Host, in.Incarnation, in.Epoch, in.Sends = self.ID, self.Incarnation, self.Epoch, row.Grant.Token
		err = s.db.Session(ctx, func(db *postgres.Session) error {
			return db.Ask(ctx, self, postgres.Asked{Intent: in, Seen: seen, Terms: s.o.Terms})
		})
		var claimed *ledger.ClaimedError
		if !errors.As(err, &claimed) {
			s.setAwaiting(j.TokenVaultKey, false)
			return nil // whatever it is, the claim says it
		}
		if s.o.Elapsed()-began >= s.o.Patience {
			claimed.ID = j.ID
			return err
		}
		if err := s.o.Wait(ctx, askEvery); err != nil {
			return err
		}
	}
}

// sighting is the newest token of a grant that this host has seen, zero for none.
func (s *Store) sighting(self ledger.Self, slot, key string) (ledger.Sighting, error) {
	c, ok, err := s.copies.of(slot)
	if err != nil || !ok || c.Row.Grant.Key != key {
		return ledger.Sighting{}, err
	}
	return ledger.Sighting{Token: c.Row.Grant.Token, Epoch: self.Epoch}, nil
}

// Check takes the right to send, on one connection with the last look: a claim that is
// committed for sure, and is still the newest. See vault.Store.
func (s *Store) Check(ctx context.Context, j grant.Journal) error {
	defer s.lookAgain(j.Slot())
	began := s.o.Elapsed()
	elapsed := func() time.Duration { return s.o.Elapsed() - began }
	for tries := 0; ; tries++ {
		err := s.claim(ctx, j, elapsed)
		var (
			unknown *postgres.UnknownError
			claimed *ledger.ClaimedError
			differs *ledger.ConflictError
		)
		switch {
		case err == nil:
			return nil
		case errors.As(err, &unknown) && tries < 3 && ledger.InTime(elapsed()):
			// The same claim again: it is there, or it is made.
			continue
		case isToTell(err):
			// A refresh keeps the roll call waiting, so it ends first.
			err := s.call(err, 0)
			if j.Purpose != grant.Authorizing || tries > 0 {
				return err
			}
			if err := s.answerCalls(ctx); err != nil {
				return err
			}
			continue
		case errors.As(err, &claimed):
			s.setAwaiting(j.TokenVaultKey, true)
			claimed.ID = j.ID
			return fmt.Errorf("%w: %w", grant.ErrOvertaken, err)
		case errors.As(err, &differs):
			return s.differs(j, differs)
		}
		return err
	}
}

// differs says what a claim found instead of the grant that was read.
func (s *Store) differs(j grant.Journal, e *ledger.ConflictError) error {
	switch {
	case e.WentBack:
		return s.call(e, j.Shared.Epoch)
	case e.Missing:
		return &RolledBackError{ID: j.ID, Have: e.Grant.Token.Generation, Seen: j.Generation - 1}
	case e.Grant.Key == j.TokenVaultKey && e.Grant.Token.Generation == j.Generation-1 && e.Grant.State == ledger.Interrupted:
		awaited := &AwaitedError{ID: j.ID}
		if j.Spare == "" {
			return fmt.Errorf("%w: %w", grant.ErrOvertaken, awaited) // it was live a moment ago
		}
		return awaited
	}
	return fmt.Errorf("%w: %w", grant.ErrOvertaken, e)
}

func (s *Store) claim(ctx context.Context, j grant.Journal, elapsed func() time.Duration) error {
	f, err := s.readHost()
	if err != nil {
		return err
	}
	self := f.self(s.o.Host)
	asked := postgres.Asked{Intent: intentOf(j), Terms: s.o.Terms}
	if j.Purpose == grant.Refreshing {
		if asked.Seen, err = s.sighting(self, j.Slot(), j.TokenVaultKey); err != nil {
			return err
		}
		asked.Unsettled = s.unsettled(ctx, j)
	} else {
		asked.Intent.Epoch = self.Epoch // a sign-in may have begun in an earlier one
	}
	var right ledger.Claim
	err = s.db.Session(ctx, func(db *postgres.Session) (err error) {
		if right, err = db.Claim(ctx, self, asked); err != nil {
			return err
		}
		if j.Purpose == grant.Authorizing {
			return nil // a code is good once, whoever is late
		}
		if err := db.Check(ctx, self, right, elapsed); err != nil {
			return err
		}
		if after := elapsed(); !ledger.InTime(after) {
			return &ledger.LateError{After: after}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	if a, ok := s.running[j.Nonce]; ok {
		a.place = right.Makes.Attempt
		s.running[j.Nonce] = a
	}
	s.mu.Unlock()
	s.sawClaim(ctx, right)
	return nil
}

// unsettled are the nonces of this host's earlier attempts at the same: their processes are
// gone, as the grant's lock is this one's.
func (s *Store) unsettled(ctx context.Context, j grant.Journal) (nonces []string) {
	attempts, err := s.disk.Attempts(ctx, j.Slot(), j.TokenVaultKey)
	if err != nil {
		return nil
	}
	for _, other := range attempts {
		if other.TokenVaultKey == j.TokenVaultKey && other.Shared != nil && other.Nonce != j.Nonce {
			nonces = append(nonces, other.Nonce)
		}
	}
	return nonces
}

// runsIn reports whether this process has an attempt in a slot that has no end yet.
func (s *Store) runsIn(slot string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.running {
		if a.slot == slot {
			return true
		}
	}
	return false
}

func (s *Store) isRunning(nonce string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.running[nonce]
	return ok
}
