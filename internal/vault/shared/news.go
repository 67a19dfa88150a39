package shared

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// News are the attempts of this host that there is news of, and those of others whose answers
// are awaited; see vault.Store.
func (s *Store) News(ctx context.Context, prefix string) ([]vault.News, error) {
	news, err := s.disk.News(ctx, prefix)
	if err != nil || vault.IsRecent(ctx) {
		return news, err
	}
	awaited, err := s.db.Awaited(ctx, prefix)
	if err != nil {
		if IsAway(err) {
			return news, nil // what is known is told; the list says that it is not all
		}
		return nil, err
	}
	known := map[string]bool{}
	for _, n := range news {
		known[n.Journal.Nonce] = true
	}
	for _, a := range awaited {
		if known[a.Claim.Nonce] {
			continue
		}
		news = append(news, vault.News{Slot: a.Slot, TokenVaultKey: a.Claim.Key, Journal: s.awaited(a)})
	}
	return news, nil
}

// Undelivered are the grants whose answers are sealed on this host and not in the database
// yet, as far as nobody is at work on them. What can't be read of one keeps no other back. The
// journals of grants that were revoked or replaced go. A sign-in is among them where another host
// has renamed its company: nobody looks for it under the earlier name.
func (s *Store) Undelivered(ctx context.Context) (grants []grant.ID, err error) {
	news, err := s.disk.News(ctx, "")
	if err != nil || len(news) == 0 {
		return nil, err
	}
	var gone map[string]bool
	err = s.db.Session(ctx, func(db *postgres.Session) error {
		gone, err = db.Gone(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	var failed []error
	seen := map[string]bool{}
	for _, n := range news {
		key := n.TokenVaultKey
		if n.Err != nil || seen[key] || !gone[key] && (!n.Journal.Answered || n.Journal.Over || isSignIn(n.Journal) && n.Journal.Replaces == "") {
			continue
		}
		seen[key] = true
		id, err := s.undelivered(ctx, n, gone[key])
		switch {
		case errors.Is(err, errAtWork), errors.Is(err, grant.ErrNoGrant):
		case IsAway(err):
			return grants, err
		case err != nil:
			failed = append(failed, err)
		default:
			grants = append(grants, id)
		}
	}
	return grants, errors.Join(failed...)
}

// undelivered is the grant of news whose answer is to be delivered: grant.ErrNoGrant where there
// is none, as it is gone or comes back with the host that signed in.
func (s *Store) undelivered(ctx context.Context, n vault.News, gone bool) (id grant.ID, err error) {
	key, stands, lock := n.TokenVaultKey, n.TokenVaultKey, n.Slot
	if isSignIn(n.Journal) && !gone {
		stands, lock = n.Journal.Replaces, vault.LoginLock(n.Slot)
	}
	var row postgres.Row
	if !gone {
		if row, err = s.db.RowOf(ctx, stands); err != nil {
			return id, err
		}
		if row.Slot == "" || isSignIn(n.Journal) && row.Slot == n.Slot {
			return id, grant.ErrNoGrant
		}
	}
	done, free, err := s.disk.Look(ctx, lock)
	if err != nil {
		return id, err
	}
	if !free {
		return id, errAtWork
	}
	defer done()
	if gone {
		if err := s.disk.Forget(ctx, n.Slot, key, true); err != nil {
			return id, err
		}
		return id, grant.ErrNoGrant
	}
	if row.Slot != n.Slot { // another host has renamed it
		if err := s.disk.MoveNews(n.Slot, row.Slot, key); err != nil {
			return id, err
		}
	}
	record, err := s.recordOf(row)
	return record.ID, err
}

func isSignIn(j grant.Journal) bool { return j.Purpose == grant.Authorizing }

// errAtWork says that a process has a slot's lock: it sees to the grant.
var errAtWork = errors.New("a process is at work on it")

// tidyEvery is how often a host looks for claims that say nothing any more.
const tidyEvery = 24 * time.Hour

// Tidy removes claims from the database that say nothing any more: once a day, and where this
// host is one of the vault's. What a call does not come to, the next one does.
func (s *Store) Tidy(ctx context.Context) error {
	f, err := s.readHost()
	if err != nil || !s.isHere(f) {
		return err
	}
	path := filepath.Join(s.dir, tidiedName)
	now := s.o.Now()
	if text, err := safefile.ReadFile(path); err == nil {
		if last, err := time.Parse(time.RFC3339, string(text)); err == nil && now.Sub(last).Abs() < tidyEvery {
			return nil
		}
	}
	for range mostDrops {
		var dropped int64
		err = s.db.Session(ctx, func(db *postgres.Session) (err error) {
			dropped, err = db.DropClaims(ctx, f.self(s.o.Host))
			return err
		})
		if err != nil {
			return err
		}
		if dropped == 0 {
			return safefile.WritePassing(path, []byte(now.UTC().Format(time.RFC3339)))
		}
	}
	return nil
}

const (
	tidiedName = "tidied"
	// mostDrops is how often one call removes claims. A vault has thousands of new ones a day.
	mostDrops = 20
)

// Still reports whether there is still the news; see vault.Store.
func (s *Store) Still(ctx context.Context, n vault.News) (bool, error) {
	f, err := s.readHost()
	if err == nil && n.Journal.Shared != nil && n.Journal.Shared.Host != f.ID {
		return true, nil
	}
	return s.disk.Still(ctx, n)
}
