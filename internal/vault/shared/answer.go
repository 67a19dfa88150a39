package shared

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// sealedHead is the line before a sealed answer: the place that the attempt had when it was
// claimed. The database may have lost the claim once the answer is put in place.
type sealedHead struct {
	Place int `json:"place"`
}

// Seal puts a sealed answer on this host's disk; see vault.Store.
func (s *Store) Seal(ctx context.Context, j *grant.Journal, sealed []byte) error {
	head := sealedHead{Place: s.runningPlace(j.Nonce)}
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

// place is an attempt's whose answer is sealed here, as the database had it last.
func (s *Store) place(ctx context.Context, j grant.Journal) (int, error) {
	if j.Place > 0 {
		return j.Place, nil
	}
	head, _, err := s.sealed(ctx, j)
	return head.Place, err
}

// put puts the answer to a refresh in place. Where a later attempt's token stands, this one is
// a spare or of no use, and grant.ErrOvertaken says so.
func (s *Store) put(ctx context.Context, c vault.Change, item func(ledger.Made) postgres.Item) (grant.Record, error) {
	j := *c.Settles
	place, err := s.place(ctx, j)
	if claimed := s.runningPlace(j.Nonce); err != nil && claimed > 0 {
		place, err = claimed, nil // it could be sealed nowhere
	}
	if err != nil {
		return c.Record, err
	}
	mine := ledger.Made{Generation: j.Generation, Attempt: place}
	var done postgres.Delivered
	err = s.certain(ctx, func(db *postgres.Session) (err error) {
		done, err = db.Deliver(ctx, intentOf(j), c.Record.Slot(), mine,
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
	if now := done.Claim.Makes.Attempt; now != place {
		if err := s.disk.Place(j.TokenVaultKey, j.Nonce, now); err != nil {
			return c.Record, err
		}
	}
	if done.Claim.Makes == done.Grant.Token && mine != done.Grant.Token {
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

// runningPlace is that of an attempt of this process which has no end yet.
func (s *Store) runningPlace(nonce string) int {
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
