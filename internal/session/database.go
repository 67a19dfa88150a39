package session

import (
	"context"

	"github.com/upsauth/upsauth/internal/vault/postgres"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// NoDatabaseError says that nothing names the database that hosts share.
type NoDatabaseError struct{}

func (e *NoDatabaseError) Error() string { return "no database is configured for a shared vault" }

// Database is the database that hosts share, without a connection. It is the same one for
// as long as the session lasts, which closes it. The error is a *NoDatabaseError where
// neither the configuration nor libpq's variables name one.
func (s *Session) Database() (*postgres.DB, error) {
	s.databaseMu.Lock()
	defer s.databaseMu.Unlock()
	if s.database != nil {
		return s.database, nil
	}
	shared := s.Config.Shared
	// Without any of these it would be a database that is named as this user, on whatever
	// socket libpq tries first. Nobody has meant that.
	if shared.URL == "" && s.Getenv("PGHOST") == "" && s.Getenv("PGSERVICE") == "" && s.Getenv("PGDATABASE") == "" {
		return nil, &NoDatabaseError{}
	}
	s.database = postgres.Open(postgres.Settings{URL: shared.URL, Private: shared.Private, Host: shared.Host})
	return s.database, nil
}

// sharedDatabase is Database once it is known that a vault can be in it.
func (s *Session) sharedDatabase(ctx context.Context) (*postgres.DB, error) {
	db, err := s.Database()
	if err != nil {
		return nil, err
	}
	state, err := db.Look(ctx)
	if err != nil {
		return nil, err
	}
	return db, state.Check()
}

func (s *Session) closeDatabase() {
	s.databaseMu.Lock()
	defer s.databaseMu.Unlock()
	if s.database != nil {
		s.database.Close()
	}
}

// HostID is this machine's ID among the hosts that share the vault, empty where it has
// none yet.
func (s *Session) HostID() (string, error) { return shared.HostID(s.sharedDir()) }
