package company

import (
	"context"
	"fmt"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

// Store keeps the rows that a Book is made of: this machine's files, or a database.
// A store knows no rule but this one: nothing is replaced or removed unless its
// version is the one that was read. An error about a single row is a *FileError.
type Store interface {
	// Get returns a row. A row that does not exist has no version. A row that can't be
	// read is an error.
	Get(ctx context.Context, key Key) (Row, error)
	// List returns all rows of a part, in no order, without those in the slots that are
	// left out. A row of a history has no version and only the last event that Sound is
	// true for, if there is one. The problems are the rows that can't be read.
	List(ctx context.Context, part Part, without map[string]bool) (rows []Row, problems []error, err error)
	// Append adds an event behind all others of a history, whoever added those. Append
	// returns the size of the history, in bytes of JSON.
	Append(ctx context.Context, slot string, e grant.Event) (size int, err error)
	// Commit puts rows and removes others. If one of them has another version by now,
	// Commit changes nothing and returns a *ConflictError. A Commit that is interrupted
	// has put before it has removed; the same change, made again, completes it.
	Commit(ctx context.Context, put, remove []Row) error
	// Reading is a number that is another one once rows may have been put or removed,
	// whoever did. Zero is where that can't be told.
	Reading(ctx context.Context) (uint64, error)
}

// Part is what a row has of a company.
type Part int

const (
	Added   Part = iota // Row.Entry
	History             // Row.Events
)

// Key names a row. The slot is that of the company's name.
type Key struct {
	Slot string
	Part Part
}

func keyOf(name string, part Part) Key { return Key{Slot: grant.CompanySlot(name), Part: part} }

// Version is the state of a row when it was read. Only its store understands it; it
// is empty for a row that does not exist.
type Version string

// Row is one part of what is known of a company.
type Row struct {
	Key
	Version Version
	// Damaged says why the row was read completely and is still no entry. Such a row
	// may be replaced.
	Damaged error
	Entry   Entry
	Events  []grant.Event // as they were appended, or put
	// Place is where the row is, for errors.
	Place string
}

// Entry says that a company was added, and whom to ring.
type Entry struct {
	Company string
	Added   time.Time
	Details
	// IDs are the company's identities: none until somebody needs one, and several where
	// companies became one.
	IDs []string
}

// ConflictError says that somebody else changed a row after it was read.
type ConflictError struct {
	Row Row // as it is now
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("another process changed %s at the same time", e.Row.Place)
}
