package vaulttest

import (
	"context"
	"slices"

	"github.com/upsauth/upsauth/internal/vault"
)

// Home is a home whose items are rows of the database.
type Home struct {
	m    *Memory
	name string
}

// Home returns the database's home of a name.
func (m *Memory) Home(name string) Home { return Home{m, name} }

// Name is what records call the home.
func (h Home) Name() string { return h.name }

// do has f work on the items unless nothing can be asked.
func (h Home) do(ctx context.Context, f func() error) error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := h.m.failure; err != nil {
		return &vault.HomeError{Home: h.name, What: "The database can't be reached.", Err: err}
	}
	return f()
}

// Get returns an item; see vault.Home.
func (h Home) Get(ctx context.Context, account string) (item []byte, err error) {
	err = h.do(ctx, func() error {
		there, ok := h.m.items[place{h.name, account}]
		if !ok {
			return vault.ErrNoItem
		}
		item = slices.Clone(there)
		return nil
	})
	return item, err
}

// Put writes an item, or leaves that to the transaction of the context; see vault.Home.
func (h Home) Put(ctx context.Context, account string, _ int64, item []byte) error {
	return h.do(ctx, func() error {
		items := h.m.items
		if t, ok := ctx.Value(transactionKey{}).(*transaction); ok && t.of == h.m {
			items = t.items
		}
		items[place{h.name, account}] = slices.Clone(item)
		return nil
	})
}

// CanDelete reports what a Delete would; see vault.Home.
func (h Home) CanDelete(ctx context.Context, account string) error {
	_, err := h.Get(ctx, account)
	return err
}

// Delete removes an item; see vault.Home.
func (h Home) Delete(ctx context.Context, account string) error {
	return h.do(ctx, func() error {
		delete(h.m.items, place{h.name, account})
		return nil
	})
}

// Accounts lists the items of the home.
func (h Home) Accounts(ctx context.Context) (accounts []string, err error) {
	err = h.do(ctx, func() error {
		for at := range h.m.items {
			if at.home == h.name {
				accounts = append(accounts, at.account)
			}
		}
		slices.Sort(accounts)
		return nil
	})
	return accounts, err
}
