package keys

import (
	"context"
	"crypto/sha256"
	"time"
)

// Store keeps the keys that a Book is made of: this machine's file, or a database. It is as
// it is now, whoever changed it. What can't be read is a *FileError and never no key, or
// one without limits.
type Store interface {
	// Find returns the key with a digest, ErrWrong where there is none.
	Find(ctx context.Context, sum Digest) (Entry, error)
	// List returns all keys, in no order. The caller may sort them.
	List(ctx context.Context) ([]Entry, error)
	// Add adds a key, if none has its name. Names that differ only in case are one. A name
	// that is taken is an *ExistsError.
	Add(ctx context.Context, e Entry) error
	// Remove removes the key of a name. If there is none, it is a *NotFoundError.
	Remove(ctx context.Context, name string) error
	// Use notes when keys were used, unless a later use is noted already. Those that are
	// gone are left out.
	Use(ctx context.Context, used map[Digest]time.Time) error
}

// Digest is the SHA-256 of a key.
type Digest [sha256.Size]byte

// Entry is what a store keeps of a key.
type Entry struct {
	Digest Digest
	Key
}
