package shared

import (
	"context"
	"time"

	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
)

// box opens the identity and asks the database whether that, and the vault, are the right
// ones. While the database is away, what this host knows of it counts.
func (s *Store) box(ctx context.Context) (*box, error) { return s.boxFor(ctx, true) }

// readingBox is box for whoever only reads. Where what this host knew some minutes ago will do,
// nobody is asked.
func (s *Store) readingBox(ctx context.Context) (*box, error) {
	return s.boxFor(ctx, !vault.IsRecent(ctx))
}

func (s *Store) boxFor(ctx context.Context, ask bool) (*box, error) {
	// Whoever only reads does not wait for one who asks a database that does not answer.
	if b := s.alreadyOpened(ask); b != nil {
		return b, nil
	}
	s.opening.Lock()
	defer s.opening.Unlock()
	if b := s.alreadyOpened(ask); b != nil {
		return b, nil
	}
	f, err := s.readHost()
	if err != nil {
		return nil, err
	}
	keys, err := s.o.Keys(ctx)
	if err != nil {
		return nil, err
	}
	known := f.ID != "" && f.Recipient == keys.Public
	if !ask && known {
		return s.openAs(keys, f.Vault, time.Duration(f.Offset)*time.Millisecond, false)
	}
	before := s.o.Now()
	v, err := s.db.Vault(ctx, keys.Public)
	switch {
	case err != nil && !IsAway(err), err != nil && f.ID == "":
		return nil, err
	case err != nil && !known:
		return nil, &IdentityError{Have: keys.Public, Want: f.Recipient}
	case err != nil:
		return s.openAs(keys, f.Vault, time.Duration(f.Offset)*time.Millisecond, false)
	case f.ID != "" && v.ID != f.Vault:
		return nil, &VaultError{Dir: s.dir}
	case v.Next != "":
		return nil, &RekeyError{Next: v.Next}
	case v.Recipient != keys.Public:
		return nil, &IdentityError{Have: keys.Public, Want: v.Recipient}
	}
	if f.ID != "" && !known {
		if err := s.forgetItems(ctx, keys.Public); err != nil {
			return nil, err
		}
	}
	offset := s.o.Offset(v.Now, before.Add(s.o.Now().Sub(before)/2))
	if f.ID != "" && (offset-time.Duration(f.Offset)*time.Millisecond).Abs() > offsetChange {
		if err := s.noteOffset(ctx, offset); err != nil {
			return nil, err
		}
	}
	return s.openAs(keys, v.ID, offset, true)
}

// alreadyOpened is the box if it was opened before, and with asked only if the database has said
// that it is the right one; otherwise nil.
func (s *Store) alreadyOpened(asked bool) *box {
	s.mu.Lock()
	defer s.mu.Unlock()
	if asked && !s.asked {
		return nil
	}
	return s.opened
}

// isStill returns an error where a box that was opened earlier is not the vault's any more: what it
// seals, nobody opens.
func (s *Store) isStill(ctx context.Context, b *box) error {
	v, err := s.db.Vault(ctx, "")
	switch {
	case err != nil:
		return err
	case v.Next != "":
		return &RekeyError{Next: v.Next}
	case v.Recipient != b.keys.Public:
		return &IdentityError{Have: b.keys.Public, Want: v.Recipient}
	}
	return nil
}

// openAs is called with s.opening locked.
func (s *Store) openAs(keys agefile.Keys, id string, offset time.Duration, asked bool) (*box, error) {
	b, err := newBox(keys, id)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened, s.offset, s.asked = b, offset, asked
	return b, nil
}
