package shared

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// tellLosses adds to grants that are void or interrupted how that came about, as far as the
// claims of all hosts tell. The grants' slots begin with a prefix. What can't be read is left
// out: it decides nothing.
func (s *Store) tellLosses(ctx context.Context, prefix string, records []grant.Record) {
	if !slices.ContainsFunc(records, func(r grant.Record) bool { return r.Void || r.Contested }) {
		return
	}
	lost, err := s.db.Lost(ctx, prefix)
	if err != nil {
		return
	}
	for i := range records {
		if l, ok := lost[records[i].TokenVaultKey]; ok {
			records[i].Loss = ledger.Loss(l.Grant, l.Sent)
		}
	}
}

// awaited is an attempt of another host's as it is told here.
func (s *Store) awaited(a postgres.Awaited) grant.Journal {
	c := a.Claim
	how := "; its answer has not arrived here"
	if c.Outcome == ledger.NoAnswer {
		how = " and got no answer"
	}
	until, _ := s.o.Terms.Until(c, "", nil, a.Removed)
	if !until.IsZero() {
		until = until.UTC()
	}
	return grant.Journal{
		Version: grant.RecordVersion, Nonce: c.Nonce, Purpose: c.Purpose, TokenVaultKey: c.Key, Generation: c.Makes.Generation,
		Attempt: c.Makes.Attempt, Home: HomeName,
		Shared: &grant.Shared{Host: c.Host, Incarnation: c.Incarnation, Epoch: c.Epoch, Name: a.Host, Until: until},
		Fate:   grant.Fate{Time: c.At.UTC(), Outcome: fmt.Sprintf("%s asked UPS at %s%s", a.Host, c.At.UTC().Format(time.TimeOnly), how)},
	}
}
