package shared

import (
	"context"

	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// SignOff tells the database that this host holds nothing, where that is so: every request has its
// end, every answer is delivered, and no process of this host is at work. From then on no roll call
// waits for the host. Its next request answers the roll call first, and the host is back.
//
// A database that goes back to before that has the host as one that is awaited. One that goes back
// to a moment at which the host was signed off does not wait for what it did since.
func (s *Store) SignOff(ctx context.Context) (off bool, err error) {
	unlock, held, _, err := s.disk.Lock(ctx, hostLock, false)
	if err != nil || held {
		return false, lockError("what this host is", err)
	}
	defer unlock()
	f, err := s.readHost()
	if err != nil || !s.isHere(f) {
		return false, err
	}
	lock, err := s.lockOfEpoch()
	if err != nil {
		return false, err
	}
	defer func() { _ = lock.Close() }()
	if alone, err := lock.TryLock(); err != nil || !alone {
		return false, lockError(epochLocked, err)
	}
	if err := s.disk.AllNoted(); err != nil {
		return false, err
	}
	news, err := s.disk.News(ctx, "")
	if err != nil || len(news) > 0 {
		return false, err
	}
	err = s.db.Session(ctx, func(db *postgres.Session) error { return db.SignOff(ctx, f.self(s.o.Host)) })
	return err == nil, err
}

func lockError(of string, err error) error {
	if err == nil {
		return nil
	}
	return &vault.LockError{Of: of, Err: err}
}
