package serve

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/serve/control"
	"github.com/upsauth/upsauth/internal/serve/keys"
	"github.com/upsauth/upsauth/internal/serve/keys/postgres"
	"github.com/upsauth/upsauth/internal/session"
)

// KeysPath is the file of programs' keys in a state directory. It is not in the directory
// of the programs' socket, which may be mounted into a container.
func KeysPath(state string) string { return filepath.Join(state, "keys.json") }

// KeyStore is where a session's keys of programs are: in the database that hosts share, or in
// the state directory.
func KeyStore(s *session.Session) (keys.Store, error) {
	if s.Shared == nil {
		return keys.File(KeysPath(s.Config.Paths.State), s.Places), nil
	}
	db, err := s.Database()
	if err != nil {
		return nil, err
	}
	return keys.Lately(postgres.New(db, s.Shared.Code), s.Lately()), nil
}

// currentKeys is the store of whichever session there is.
type currentKeys struct {
	session func(context.Context) (*session.Session, error)

	mu    sync.Mutex
	of    *session.Session
	store keys.Store
}

func (c *currentKeys) get(ctx context.Context) (keys.Store, error) {
	s, err := c.session(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of != s {
		store, err := KeyStore(s)
		if err != nil {
			return nil, err
		}
		c.of, c.store = s, store
	}
	return c.store, nil
}

// Find returns a key; see keys.Store.
func (c *currentKeys) Find(ctx context.Context, sum keys.Digest) (keys.Entry, error) {
	store, err := c.get(ctx)
	if err != nil {
		return keys.Entry{}, err
	}
	return store.Find(ctx, sum)
}

// List returns all keys; see keys.Store.
func (c *currentKeys) List(ctx context.Context) ([]keys.Entry, error) {
	store, err := c.get(ctx)
	if err != nil {
		return nil, err
	}
	return store.List(ctx)
}

// Add adds a key; see keys.Store.
func (c *currentKeys) Add(ctx context.Context, e keys.Entry) error {
	store, err := c.get(ctx)
	if err != nil {
		return err
	}
	return store.Add(ctx, e)
}

// Remove removes a key; see keys.Store.
func (c *currentKeys) Remove(ctx context.Context, name string) error {
	store, err := c.get(ctx)
	if err != nil {
		return err
	}
	return store.Remove(ctx, name)
}

// Use notes when keys were used; see keys.Store.
func (c *currentKeys) Use(ctx context.Context, used map[keys.Digest]time.Time) error {
	store, err := c.get(ctx)
	if err != nil {
		return err
	}
	return store.Use(ctx, used)
}

// Keys are the keys of programs, by the names of companies: those that commands speak of.
// The file may be changed by a service and by commands at once.
type Keys struct {
	Session func(context.Context) (*session.Session, error)
	Store   *keys.Book
}

// Add makes a key that covers companies by their identity, as they are called now.
func (k Keys) Add(ctx context.Context, name string, scope control.Scope) (string, error) {
	s, err := k.Session(ctx)
	if err != nil {
		return "", err
	}
	covered := keys.Scope{Application: scope.Application, Environment: scope.Environment}
	for _, right := range scope.Rights {
		covered.Rights = append(covered.Rights, keys.Right(right))
	}
	if scope.Application != "" || scope.Environment != "" {
		all, err := s.Records(ctx, "")
		if err != nil {
			return "", err
		}
		if err := s.CheckNames(ctx, all, scope.Application, scope.Environment); err != nil {
			return "", err
		}
	}
	for _, company := range scope.Companies {
		_, id, err := s.Identify(ctx, company)
		if err != nil {
			return "", err
		}
		covered.Companies = append(covered.Companies, id)
	}
	return k.Store.Add(ctx, name, covered)
}

// List lists the keys, with the names that their companies have now.
func (k Keys) List(ctx context.Context) ([]control.Key, error) {
	all, err := k.Store.List(ctx)
	if err != nil {
		return nil, err
	}
	s, err := k.Session(ctx)
	if err != nil {
		return nil, err
	}
	identified, err := s.Identified(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]control.Key, len(all))
	for i, one := range all {
		key := control.Key{Name: one.Name, Created: one.Added, Scope: control.Scope{Application: one.Application, Environment: one.Environment}}
		for _, right := range one.Rights {
			key.Rights = append(key.Rights, string(right))
		}
		for _, id := range one.Companies {
			if name := identified.Name(id); name != "" {
				key.Companies = append(key.Companies, name)
			} else {
				key.Removed++
			}
		}
		if !one.Used.IsZero() {
			key.LastUsed = &one.Used
		}
		list[i] = key
	}
	return list, nil
}

// Remove removes a key.
func (k Keys) Remove(ctx context.Context, name string) error { return k.Store.Remove(ctx, name) }
