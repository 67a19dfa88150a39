package shared

import (
	"context"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

const (
	// sameClock is how far two clocks may differ and still be taken for one: what is less
	// comes of the way to the database too.
	sameClock = 2 * time.Second
	// offsetChange is by how much the difference has to change to be noted for processes that
	// do not reach the database.
	offsetChange = time.Second
)

func measured(database, now time.Time) time.Duration {
	if d := database.Sub(now).Round(time.Millisecond); d.Abs() >= sameClock {
		return d
	}
	return 0
}

// toDatabase is a record's facts with what was reckoned by this host's clock by the
// database's, and toHost the other way round.
func (s *Store) toDatabase(f grant.Facts) grant.Facts { return shifted(f, s.clockOffset()) }

func (s *Store) toHost(f grant.Facts) grant.Facts { return shifted(f, -s.clockOffset()) }

func shifted(f grant.Facts, by time.Duration) grant.Facts {
	for _, t := range []*time.Time{&f.Requested, &f.AccessUntil, &f.RefreshUntil} {
		if !t.IsZero() {
			*t = t.Add(by)
		}
	}
	return f
}

func (s *Store) clockOffset() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.offset
}

// measure finds out how far the database's clock is ahead for whoever only lists and has not
// opened the vault: another process has measured it, or the database is asked. That it can't
// tell does no harm: whoever needs a token opens the vault.
func (s *Store) measure(ctx context.Context) {
	s.mu.Lock()
	known := s.opened != nil || s.measured
	s.mu.Unlock()
	if known {
		return
	}
	f, err := s.readHost()
	offset := time.Duration(f.Offset) * time.Millisecond
	if err != nil || f.ID == "" {
		before := s.o.Now()
		v, err := s.db.Vault(ctx, "")
		if err != nil {
			return
		}
		offset = s.o.Offset(v.Now, before.Add(s.o.Now().Sub(before)/2))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened == nil {
		s.offset, s.measured = offset, true
	}
}
