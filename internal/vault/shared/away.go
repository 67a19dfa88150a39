package shared

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// awayFor is how long nobody asks a database again that did not answer, and awayName the file
// by which this host's processes tell each other.
const (
	awayFor  = 15 * time.Second
	awayName = "away"
)

// IsAway reports whether an error says that the database can't be reached now.
func IsAway(err error) bool {
	var e *postgres.Error
	return errors.As(err, &e) && (e.Reason == postgres.Away || e.Reason == postgres.ReadOnly) || errors.Is(err, context.DeadlineExceeded)
}

// late says of a database that was not waited for any longer what that means.
func late(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &postgres.Error{
		Reason: postgres.Away, What: "the database did not answer in time", Err: err,
		Advice: "look whether it runs, and whether this machine reaches it",
	}
}

// Prepare tells the database's connections what other processes of this host have found: that
// it does not answer.
func (s *Store) Prepare() {
	if s.isKnownAway() {
		s.db.GivenUp()
	}
}

func (s *Store) noteAway() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = safefile.MkdirAll(s.dir)
	s.awayTill = s.o.Now().Add(awayFor)
	_ = safefile.WritePassing(filepath.Join(s.dir, awayName), []byte(s.awayTill.UTC().Format(time.RFC3339)))
}

// isKnownAway reports whether a process of this host has just found that the database does not
// answer.
func (s *Store) isKnownAway() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	till := s.awayTill
	if till.IsZero() {
		text, err := safefile.ReadFile(filepath.Join(s.dir, awayName))
		if err != nil {
			return false
		}
		if till, err = time.Parse(time.RFC3339, string(text)); err != nil {
			return false
		}
	}
	left := till.Sub(s.o.Now())
	return left > 0 && left <= awayFor
}

// StaleError says that what is told is what this host read earlier.
type StaleError struct {
	Read time.Time // the oldest of it
	Err  error     // why the database was not asked
}

func (e *StaleError) Error() string {
	if e.Read.IsZero() {
		return fmt.Sprintf("what is shown is what this host knew last: %v", e.Err)
	}
	return fmt.Sprintf("what is shown is what this host knew at %s or later: %v", e.Read.UTC().Format(time.RFC3339), e.Err)
}

func (e *StaleError) Unwrap() error { return e.Err }
