package invitation

import (
	"context"
	"fmt"
)

// Store keeps the rows that a Book is made of: this machine's files, or a database. A
// store knows no rule but this one: nothing is replaced or removed unless its version is
// the one that was read. An error about a single row is a *FileError.
type Store interface {
	// Get returns a row. A row that does not exist has no version. One that can't be
	// read, or is no invitation, is an error.
	Get(ctx context.Context, key RowKey) (Row, error)
	// List returns all rows of a part, in no order. The problems are the rows that can't
	// be read.
	List(ctx context.Context, part Part) (rows []Row, problems []error, err error)
	// Any reports whether there may be a row. It opens none.
	Any(ctx context.Context) (bool, error)
	// Commit puts rows and removes others. If one of them has another version by now,
	// Commit changes nothing and returns a *ConflictError. A Commit that is interrupted
	// has put in the order of the rows, before it has removed.
	Commit(ctx context.Context, put, remove []Row) error
	// Reading is a number that is another one once rows may have been put or removed,
	// whoever did. Zero is where that can't be told.
	Reading(ctx context.Context) (uint64, error)
}

// Part is what a row is.
type Part int

const (
	Invitations Part = iota // Row.Invitation, by the invitation's own key
	// Latest is which invitation of a grant was made last, by the grant's key: Row.Latest.
	// All others are replaced.
	Latest
)

// RowKey names a row.
type RowKey struct {
	Part Part
	Key  Key
}

// Version is the state of a row when it was read. Only its store understands it; it is
// empty for a row that does not exist.
type Version string

// Row is an invitation, or which one is a grant's latest.
type Row struct {
	RowKey
	Version    Version
	Invitation Invitation
	Latest     Key
	// Place is where the row is, for errors.
	Place string
}

// ConflictError says that somebody else changed a row after it was read.
type ConflictError struct {
	Row Row // as it is now
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("another process changed %s at the same time", e.Row.Place)
}

// FileError says that what a file has about an invitation can't be used, and why.
type FileError struct {
	Path string
	Err  error
	// Damaged says that what is in the file can't be used; otherwise the file can't be
	// read, or a newer upsauth wrote it.
	Damaged bool
}

func (e *FileError) Error() string { return fmt.Sprintf("%s can't be used: %v", e.Path, e.Err) }

func (e *FileError) Unwrap() error { return e.Err }
