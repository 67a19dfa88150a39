package keys_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/serve/keys"
	"github.com/upsauth/upsauth/internal/serve/keys/postgres"
	"github.com/upsauth/upsauth/internal/vault/postgres/tablestest"
)

var start = time.Date(2026, 11, 21, 16, 5, 3, 0, time.UTC)

// process is a process with a clock that the test sets ahead.
type process struct {
	*keys.Book
	ahead atomic.Int64
}

func (p *process) advance(d time.Duration) { p.ahead.Add(int64(d)) }

func (p *process) add(t *testing.T, name string, scope keys.Scope) string {
	t.Helper()
	secret, err := p.Add(t.Context(), name, scope)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// world has the keys in one of the stores.
type world struct {
	// book is the keys as another process has them.
	book func(keys.Options) *keys.Book
	// text is all that is kept.
	text func(*testing.T) string
}

func (w *world) open(t *testing.T) *process {
	t.Helper()
	p := &process{}
	p.Book = w.book(keys.Options{Now: func() time.Time { return start.Add(time.Duration(p.ahead.Load())) }, Log: t.Logf})
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// eachStore runs a test of the rules over every store.
func eachStore(t *testing.T, test func(*testing.T, *world)) {
	t.Run("file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "state", "keys.json")
		test(t, &world{func(o keys.Options) *keys.Book {
			o.Places = &safefile.Places{Trusted: []string{filepath.Dir(path), filepath.Dir(filepath.Dir(path))}}
			return keys.Open(path, o)
		}, func(t *testing.T) string {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
				t.Errorf("%v, %v", info.Mode(), err)
			}
			return string(text)
		}})
	})
	t.Run("database", func(t *testing.T) {
		tables := tablestest.New(t)
		test(t, &world{func(o keys.Options) *keys.Book { return keys.Over(postgres.New(tables.Open(), tablestest.Code), o) }, func(*testing.T) string {
			return fmt.Sprint(tables.SQL("SELECT * FROM upsauth.keys"))
		}})
	})
}

func TestLifeOfAKey(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		s, other := w.open(t), w.open(t)
		ctx := t.Context()
		if _, err := s.Find(ctx, "upsauth_x"); !errors.Is(err, keys.ErrWrong) {
			t.Errorf("without keys: %v", err)
		}
		scope := keys.Scope{Companies: []string{"id-1"}, Application: "rating", Environment: "cie", Rights: []keys.Right{keys.Token, keys.Refresh}}
		secret := s.add(t, "web-shop", scope)
		if !regexp.MustCompile(`^upsauth_[a-z2-7]{52}$`).MatchString(secret) {
			t.Errorf("the key %q is not recognized as one", secret)
		}
		if again := s.add(t, "all", keys.Scope{}); again == secret {
			t.Error("two keys are the same")
		}
		if text := w.text(t); !strings.Contains(text, "web-shop") || strings.Contains(text, secret) || strings.Contains(text, strings.TrimPrefix(secret, "upsauth_")) {
			t.Errorf("the key itself is kept, or nothing: %s", text)
		}
		for _, s := range []*process{s, other} {
			key, err := s.Find(ctx, secret)
			if err != nil || key.Name != "web-shop" || !slices.Equal(key.Companies, scope.Companies) || key.Application != "rating" || key.Environment != "cie" || !key.Allows(keys.Refresh) || key.Allows(keys.Invite) {
				t.Errorf("%+v, %v", key, err)
			}
			list, err := s.List(ctx)
			if err != nil || len(list) != 2 || list[0].Name != "all" || !slices.Equal(list[0].Rights, []keys.Right{keys.Token}) || list[0].Companies != nil {
				t.Errorf("%+v, %v", list, err)
			}
			for _, wrong := range []string{"", "upsauth_", secret[:len(secret)-1], secret + "a", strings.ToUpper(secret), strings.TrimPrefix(secret, "upsauth_")} {
				if _, err := s.Find(ctx, wrong); !errors.Is(err, keys.ErrWrong) {
					t.Errorf("%q: %v", wrong, err)
				}
			}
		}
		if _, err := other.Add(ctx, "WEB-shop", keys.Scope{}); !errors.As(err, new(*keys.ExistsError)) {
			t.Errorf("a name that is taken: %v", err)
		}
		if err := other.Remove(ctx, "web-shop"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Find(ctx, secret); !errors.Is(err, keys.ErrWrong) {
			t.Errorf("another process has removed it: %v", err)
		}
		if err := s.Remove(ctx, "web-shop"); !errors.As(err, new(*keys.NotFoundError)) {
			t.Errorf("removed twice: %v", err)
		}
	})
}

func TestNamesAndScopes(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		s := w.open(t)
		for _, name := range []string{"", " ", "a b", "-a", "a/b", "a\n", "é", strings.Repeat("a", 65)} {
			if _, err := s.Add(t.Context(), name, keys.Scope{}); !errors.As(err, new(*keys.NameError)) {
				t.Errorf("%q: %v", name, err)
			}
		}
		for _, scope := range []keys.Scope{
			{Companies: []string{}}, {Companies: []string{""}}, {Application: "A"}, {Environment: "a/b"},
			{Rights: []keys.Right{"all"}}, {Rights: []keys.Right{keys.Token, keys.Token}},
		} {
			if _, err := s.Add(t.Context(), "a", scope); !errors.As(err, new(*keys.ScopeError)) {
				t.Errorf("%+v: %v", scope, err)
			}
		}
		if rights, err := keys.ParseRights("token, refresh"); err != nil || !slices.Equal(rights, []keys.Right{keys.Token, keys.Refresh}) {
			t.Errorf("%v, %v", rights, err)
		}
		for _, text := range []string{"", "token,", "token,token", "Token", "root"} {
			if rights, err := keys.ParseRights(text); err == nil {
				t.Errorf("%q: %v", text, rights)
			}
		}
	})
}

// When a key was used is written once a minute, at the end, and by no request.
func TestWhenAKeyWasUsed(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		s, reader := w.open(t), w.open(t)
		secret := s.add(t, "a", keys.Scope{})
		used := func(s *process) time.Time {
			t.Helper()
			list, err := s.List(t.Context())
			if err != nil || len(list) != 1 {
				t.Fatalf("%v, %v", list, err)
			}
			return list[0].Used
		}
		find := func() {
			t.Helper()
			if _, err := s.Find(t.Context(), secret); err != nil {
				t.Fatal(err)
			}
		}
		if !used(s).IsZero() {
			t.Error("it was never used")
		}
		find()
		s.Settle()
		if got := used(reader); !got.Equal(start) {
			t.Errorf("the first use: %v", got)
		}
		s.advance(30 * time.Second)
		find()
		s.Settle()
		if got := used(reader); !got.Equal(start) {
			t.Errorf("written again after 30 s: %v", got)
		}
		if got := used(s); !got.Equal(start.Add(30 * time.Second)) {
			t.Errorf("this process knows better: %v", got)
		}
		s.advance(31 * time.Second)
		find()
		s.Settle()
		if got := used(reader); !got.Equal(start.Add(61 * time.Second)) {
			t.Errorf("after a minute: %v", got)
		}
		s.advance(time.Second)
		find()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if got := used(reader); !got.Equal(start.Add(62 * time.Second)) {
			t.Errorf("at the end: %v", got)
		}
	})
}

// Two processes that change the keys at once lose nothing of each other.
func TestTwoProcessesAtOnce(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		var all sync.WaitGroup
		for p := range 2 {
			s := w.open(t)
			for i := range 20 {
				all.Go(func() {
					secret, err := s.Add(t.Context(), fmt.Sprintf("key-%d-%d", p, i), keys.Scope{})
					if err == nil {
						_, err = s.Find(t.Context(), secret)
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
		}
		all.Wait()
		if list, err := w.open(t).List(t.Context()); err != nil || len(list) != 40 {
			t.Errorf("%d keys, %v", len(list), err)
		}
	})
}

// A request that is over asks for nothing.
func TestCanceled(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		s := w.open(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Find(ctx, "x"); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if _, err := s.Add(ctx, "x", keys.Scope{}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
