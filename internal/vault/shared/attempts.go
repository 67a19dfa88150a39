package shared

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
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
		head, _, err := s.sealed(ctx, grant.Journal{Version: grant.RecordVersion, TokenVaultKey: j.TokenVaultKey, Nonce: j.Spare})
		if err != nil {
			leave()
			return err
		}
		j.Shared.Sends = head.Place
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
	s.mu.Lock()
	first, older := s.answerFirst, s.older
	s.mu.Unlock()
	if !first {
		return nil
	}
	if _, err := s.introduce(ctx); err != nil {
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
		in := intentOf(j)
		in.Host, in.Incarnation, in.Epoch, in.Sends = self.ID, self.Incarnation, self.Epoch, row.Grant.Token
		err = s.db.Session(ctx, func(db *postgres.Session) error {
			return db.Ask(ctx, self, postgres.Asked{Intent: in, Seen: s.sighting(row.Slot, row.Grant.Key), Terms: s.o.Terms})
		})
		var claimed *ledger.ClaimedError
		if !errors.As(err, &claimed) {
			s.setAwaiting(j.TokenVaultKey, false)
			return nil // whatever it is, the claim says it
		}
		if s.o.Elapsed()-began >= s.o.Patience {
			return err
		}
		if err := s.o.Wait(ctx, askEvery); err != nil {
			return err
		}
	}
}

// sighting is the newest token of a grant that this host has seen.
func (s *Store) sighting(slot, key string) ledger.Sighting {
	c, ok, err := s.copies.of(slot)
	if err != nil || !ok || c.Row.Grant.Key != key {
		return ledger.Sighting{}
	}
	f, err := s.readHost()
	if err != nil {
		return ledger.Sighting{Token: c.Row.Grant.Token}
	}
	return ledger.Sighting{Token: c.Row.Grant.Token, Epoch: f.Epoch}
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
			frozen  *ledger.FrozenError
			host    *ledger.HostError
			claimed *ledger.ClaimedError
			differs *ledger.ConflictError
		)
		switch {
		case err == nil:
			return nil
		case errors.As(err, &unknown) && tries < 3 && ledger.InTime(elapsed()):
			// The same claim again: it is there, or it is made.
			continue
		case errors.As(err, &frozen) && frozen.Answer, errors.As(err, &host) && host.Reason == ledger.Stranger:
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
		asked.Seen = s.sighting(j.Slot(), j.TokenVaultKey)
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

// sealedHead is the line before a sealed answer: the place that the attempt had when it was
// claimed. The database may have lost the claim once the answer is put in place.
type sealedHead struct {
	Place int `json:"place"`
}

// Seal puts a sealed answer on this host's disk; see vault.Store.
func (s *Store) Seal(ctx context.Context, j *grant.Journal, sealed []byte) error {
	head := sealedHead{Place: s.placeOf(j.Nonce)}
	line, err := json.Marshal(head)
	if err != nil {
		return fmt.Errorf("the answer can't be sealed: %w", err)
	}
	return s.disk.Seal(ctx, j, append(append(line, '\n'), sealed...))
}

// Sealed returns an attempt's sealed answer; see vault.Store.
func (s *Store) Sealed(ctx context.Context, j grant.Journal) ([]byte, error) {
	_, sealed, err := s.sealed(ctx, j)
	return sealed, err
}

func (s *Store) sealed(ctx context.Context, j grant.Journal) (head sealedHead, sealed []byte, err error) {
	all, err := s.disk.Sealed(ctx, j)
	if err != nil {
		return head, nil, err
	}
	line, sealed, ok := bytes.Cut(all, []byte("\n"))
	if !ok || json.Unmarshal(line, &head) != nil {
		return head, nil, grant.ErrNoAnswer
	}
	return head, sealed, nil
}

// put puts the answer to a refresh in place. Where a later attempt's token stands, this one is
// a spare or of no use, and grant.ErrOvertaken says so.
func (s *Store) put(ctx context.Context, c vault.Change, item func(ledger.Made) postgres.Item) (grant.Record, error) {
	j := *c.Settles
	head, _, err := s.sealed(ctx, j)
	if place := s.placeOf(j.Nonce); err != nil && place > 0 {
		head, err = sealedHead{Place: place}, nil // it could be sealed nowhere
	}
	if err != nil {
		return c.Record, err
	}
	var done postgres.Delivered
	err = s.certain(ctx, func(db *postgres.Session) (err error) {
		done, err = db.Deliver(ctx, intentOf(j), c.Record.Slot(), ledger.Made{Generation: j.Generation, Attempt: head.Place},
			func(made ledger.Made) (postgres.Item, error) { return item(made), nil })
		return err
	})
	if err != nil {
		return c.Record, conflict(err)
	}
	s.ended(j.Nonce)
	slot := c.Record.Slot()
	if done.Gone {
		return c.Record, fmt.Errorf("%w: it is not in the database any more", grant.ErrConflict)
	}
	if mine := (ledger.Made{Generation: j.Generation, Attempt: head.Place}); done.Claim.Makes == done.Grant.Token && mine != done.Grant.Token {
		// An old primary that runs on may have given the token a later place. That is no newer
		// token.
		rows, err := s.db.Rows(ctx, slot)
		if err == nil && len(rows) == 1 && rows[0].Grant.Token == done.Grant.Token {
			err = s.copies.keep(ctx, rows[0], postgres.Secret{}, s.o.Now(), mine)
		}
		if err != nil {
			return c.Record, err
		}
	}
	record, err := s.changed(ctx, slot)
	if err != nil || done.Stands || record.TokenVaultKey == c.Record.TokenVaultKey && record.Generation == c.Record.Generation && done.Grant.Token == done.Claim.Makes {
		return record, err
	}
	return record, grant.ErrOvertaken
}

func (s *Store) placeOf(nonce string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[nonce].place
}

func (s *Store) ended(nonce string) {
	s.mu.Lock()
	a, ok := s.running[nonce]
	delete(s.running, nonce)
	s.mu.Unlock()
	if ok {
		a.leave()
	}
}

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
	case j.Outcome != "" && !j.Answered:
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
	row, err := s.db.RowOf(ctx, key)
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
		switch {
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
		if j.Answered {
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

// News are the attempts of this host that there is news of, and those of others whose answers
// are awaited; see vault.Store.
func (s *Store) News(ctx context.Context, prefix string) ([]vault.News, error) {
	news, err := s.disk.News(ctx, prefix)
	if err != nil || vault.IsRecent(ctx) {
		return news, err
	}
	awaited, err := s.db.Awaited(ctx, prefix)
	if err != nil {
		if IsAway(err) {
			return news, nil // what is known is told; the list says that it is not all
		}
		return nil, err
	}
	known := map[string]bool{}
	for _, n := range news {
		known[n.Journal.Nonce] = true
	}
	for _, a := range awaited {
		if known[a.Claim.Nonce] {
			continue
		}
		news = append(news, vault.News{Slot: a.Slot, TokenVaultKey: a.Claim.Key, Journal: s.awaited(a)})
	}
	return news, nil
}

// Undelivered are the grants whose answers are sealed on this host and not in the database
// yet, as far as nobody is at work on them.
func (s *Store) Undelivered(ctx context.Context) (grants []grant.ID, err error) {
	news, err := s.disk.News(ctx, "")
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, n := range news {
		if n.Err != nil || seen[n.Slot] || !n.Journal.Answered || n.Journal.Over || n.Journal.Purpose != grant.Refreshing {
			continue
		}
		seen[n.Slot] = true
		done, free, err := s.disk.Look(ctx, n.Slot)
		if err != nil || !free {
			continue
		}
		done()
		record, err := s.Grant(ctx, n.Slot)
		if err != nil {
			return grants, err
		}
		grants = append(grants, record.ID)
	}
	return grants, nil
}

// tidyEvery is how often a host looks for claims that say nothing any more.
const tidyEvery = 24 * time.Hour

// Tidy removes claims from the database that say nothing any more, and has the journals looked at
// of grants that other hosts have replaced: once a day, and where this host is one of the vault's.
// What a call does not come to, the next one does.
func (s *Store) Tidy(ctx context.Context) error {
	f, err := s.readHost()
	if err != nil || !s.isHere(f) {
		return err
	}
	path := filepath.Join(s.dir, tidiedName)
	now := s.o.Now()
	if text, err := safefile.ReadFile(path); err == nil {
		if last, err := time.Parse(time.RFC3339, string(text)); err == nil && now.Sub(last).Abs() < tidyEvery {
			return nil
		}
	}
	err = s.db.Session(ctx, func(db *postgres.Session) error {
		_, err := db.DropClaims(ctx, f.self(s.o.Host))
		return err
	})
	if err == nil {
		err = s.disk.RenewNews()
	}
	if err != nil {
		return err
	}
	return safefile.WritePassing(path, []byte(now.UTC().Format(time.RFC3339)))
}

const tidiedName = "tidied"

// Still reports whether there is still the news; see vault.Store.
func (s *Store) Still(ctx context.Context, n vault.News) (bool, error) {
	f, err := s.readHost()
	if err == nil && n.Journal.Shared != nil && n.Journal.Shared.Host != f.ID {
		return true, nil
	}
	return s.disk.Still(ctx, n)
}

// Settle says that a grant has all up to a generation; see vault.Store. It is news until the
// copy of the grant has its token: should the database go back, this host may be the only one that
// knows of it.
func (s *Store) Settle(ctx context.Context, slot, key string, generation int64) error {
	row, err := s.row(ctx, key)
	if err == nil && row.Slot != "" && row.Grant.Token.Generation < generation {
		row, err = s.db.RowOf(ctx, key)
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

// Forget removes this host's attempts under a key; see vault.Store.
func (s *Store) Forget(ctx context.Context, slot, key string, forGood bool) error {
	return s.disk.Forget(ctx, slot, key, forGood)
}
