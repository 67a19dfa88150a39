package keychain

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/zalando/go-keyring"
	"go.uber.org/goleak"

	"github.com/upsauth/upsauth/internal/vault"
)

func TestMain(m *testing.M) {
	runChild()
	goleak.VerifyTestMain(m)
}

const (
	windowsLimit = 2560
	darwinLimit  = 2048
	key          = "FD4C8DB3-3C21-4F7E-B122-8BF55EA80CDA"
)

// ring is a keychain in memory. It has no lock of its own on purpose, like
// go-keyring's: the race detector tells when two calls run at once.
type ring struct {
	items map[string]string
	calls []string // "set KEY", in order
	// before, where set, is asked before a call has its effect, after is told
	// when it had it; an error ends the call.
	before, after func(op, account string) error
	lossy         bool // Set drops what it is given and says nothing
	clinging      bool // Delete keeps what it is told to remove and says nothing
}

func newRing() *ring { return &ring{items: map[string]string{}} }

func (r *ring) call(op, account string, effect func() error) error {
	r.calls = append(r.calls, op+" "+account)
	if r.before != nil {
		if err := r.before(op, account); err != nil {
			return err
		}
	}
	if err := effect(); err != nil {
		return err
	}
	if r.after != nil {
		return r.after(op, account)
	}
	return nil
}

func (r *ring) Get(service, account string) (secret string, err error) {
	err = r.call("get", account, func() error {
		item, ok := r.items[account]
		if service != Service || !ok {
			return keyring.ErrNotFound
		}
		secret = item
		return nil
	})
	if err != nil {
		return "", err
	}
	return secret, nil
}

func (r *ring) Set(service, account, secret string) error {
	return r.call("set", account, func() error {
		if service != Service {
			return errors.New("the item is of another service")
		}
		if !r.lossy {
			r.items[account] = secret
		}
		return nil
	})
}

func (r *ring) Delete(service, account string) error {
	return r.call("delete", account, func() error {
		if _, ok := r.items[account]; service != Service || !ok {
			return keyring.ErrNotFound
		}
		if !r.clinging {
			delete(r.items, account)
		}
		return nil
	})
}

// lister is a ring that can list.
type lister struct{ *ring }

func (l lister) List(service string) (accounts []string, err error) {
	err = l.call("list", service, func() error {
		if service != Service {
			return errors.New("the items are of another service")
		}
		accounts = slices.Collect(maps.Keys(l.items))
		return nil
	})
	return accounts, err
}

func (r *ring) accounts() []string { return slices.Sorted(maps.Keys(r.items)) }

func (r *ring) clone() *ring { return &ring{items: maps.Clone(r.items)} }

var errEnded = errors.New("the process has ended")

// end cuts the nth call off, counted from 1, and all that follow: as if the
// process had ended before the call had its effect, or right after it.
func (r *ring) end(n int, effect bool) {
	seen := 0
	count := func(string, string) error {
		if seen++; seen >= n {
			return errEnded
		}
		return nil
	}
	if effect {
		r.after = count
		r.before = func(string, string) error {
			if seen >= n {
				return errEnded
			}
			return nil
		}
	} else {
		r.before = count
	}
}

func mustGet(t *testing.T, h *Home, account string) string {
	t.Helper()
	got, err := h.Get(t.Context(), account)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

func mustPut(t *testing.T, h *Home, account string, generation int64, secret string) {
	t.Helper()
	if err := h.Put(t.Context(), account, generation, []byte(secret)); err != nil {
		t.Fatal(err)
	}
}

func homeError(t *testing.T, err error) *vault.HomeError {
	t.Helper()
	var e *vault.HomeError
	if !errors.As(err, &e) {
		t.Fatalf("got %v (%T), want a *vault.HomeError", err, err)
	}
	if e.Home != "keychain" || e.What == "" {
		t.Errorf("the error says %+v", e)
	}
	return e
}

var _ vault.Home = New(newRing(), 0, 0, nil)

func background() context.Context { return context.Background() }
