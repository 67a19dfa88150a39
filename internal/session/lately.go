package session

import (
	"cmp"
	"context"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/lately"
	"github.com/upsauth/upsauth/internal/vault"
)

// Lately is what was read of the database that hosts share, nil where none do. A service
// gives it to the sessions that it opens later.
func (s *Session) Lately() *lately.Memory { return s.lately }

// Identified are the companies that have identities. For whoever is content with what was
// known some minutes ago, and while a shared database is away, they are those that were read
// last. A company without an identity there may have one by now: see vault.Latest.
func (s *Session) Identified(ctx context.Context) (*company.Identified, error) {
	if s.identified == nil {
		return s.Companies.Identified(ctx)
	}
	return s.identified.Read(ctx, struct{}{}, s.Companies.Identified)
}

// keptRegister is a Register of which a service keeps what it has read.
type keptRegister struct {
	Register
	kept *lately.Of[struct{}, config.Applications]
}

// Applications are the applications; see Register.
func (r keptRegister) Applications(ctx context.Context) (config.Applications, error) {
	return r.kept.Read(ctx, struct{}{}, r.Register.Applications)
}

// Edit changes them; see Register.
func (r keptRegister) Edit(ctx context.Context, edit func(a *config.Applications, save func() error) error) error {
	err := r.Register.Edit(ctx, edit)
	return cmp.Or(err, r.kept.Changed())
}

// toldCompanies is a company.Store that tells of each change.
type toldCompanies struct {
	company.Store
	changed func() error
}

// Commit makes a change; see company.Store.
func (c toldCompanies) Commit(ctx context.Context, put, remove []company.Row) error {
	err := c.Store.Commit(ctx, put, remove)
	return cmp.Or(err, c.changed())
}

// AwayError is why the database that hosts share can't be reached, as far as somebody has just
// found that out; nil where it can, or where there is none. Nobody waits for the answer.
func (s *Session) AwayError() error {
	if s.lately == nil {
		return nil
	}
	return s.lately.AwayError()
}

// LookForDatabase asks the database, where hosts share one, whether it is there: at most every
// few seconds while it is not.
func (s *Session) LookForDatabase(ctx context.Context) error {
	if s.lately == nil {
		return nil
	}
	_, _ = s.Applications(vault.Latest(ctx)) // what is wrong with them, others say
	return s.lately.AwayError()
}
