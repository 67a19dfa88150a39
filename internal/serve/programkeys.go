package serve

import (
	"context"
	"path/filepath"

	"github.com/upsauth/upsauth/internal/serve/control"
	"github.com/upsauth/upsauth/internal/serve/keys"
	"github.com/upsauth/upsauth/internal/session"
)

// KeysPath is the file of programs' keys in a state directory. It is not in the directory
// of the programs' socket, which may be mounted into a container.
func KeysPath(state string) string { return filepath.Join(state, "keys.json") }

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
	identified, err := s.Companies.Identified(ctx)
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
