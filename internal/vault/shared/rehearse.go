package shared

import (
	"context"

	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// Rehearse writes a claim to the database and takes it back, so that what would keep this host
// from sending a token is found out before.
func (s *Store) Rehearse(ctx context.Context) error {
	f, err := s.readHost()
	if err != nil {
		return err
	}
	self := f.self(s.o.Host)
	if self.ID == "" {
		self.ID = "not known yet"
	}
	return s.db.Session(ctx, func(db *postgres.Session) error { return db.Rehearse(ctx, self) })
}
