package keys

import (
	"cmp"
	"context"

	"github.com/upsauth/upsauth/internal/lately"
	"github.com/upsauth/upsauth/internal/vault"
)

// Lately returns a store that finds the keys it has found already for as long as a memory
// keeps them, also while the store behind it is away. A key that is removed through it is
// found by no process of this host any more.
func Lately(behind Store, m *lately.Memory) Store {
	return keptStore{behind, lately.Keep[Digest, Entry](m, "keys")}
}

type keptStore struct {
	Store
	kept *lately.Of[Digest, Entry]
}

// Find returns a key; see Store. One that was not found is looked for again.
func (s keptStore) Find(ctx context.Context, sum Digest) (Entry, error) {
	return s.kept.Read(vault.Recent(ctx), sum, func(ctx context.Context) (Entry, error) { return s.Store.Find(ctx, sum) })
}

// Remove removes a key; see Store.
func (s keptStore) Remove(ctx context.Context, name string) error {
	err := s.Store.Remove(ctx, name)
	return cmp.Or(err, s.kept.Changed())
}
