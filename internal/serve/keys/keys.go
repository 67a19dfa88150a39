// Package keys keeps the keys of programs: what each of them may ask for, and of the key
// itself only its SHA-256. Several processes may change the file at once.
package keys

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/safefile"
)

// Right is something that a key allows.
type Right string

// What a key can allow. Any of them allows its holder to see the state of what the key
// covers.
const (
	Token   Right = "token"   // to get access tokens
	Refresh Right = "refresh" // to have tokens refreshed that are good
	Invite  Right = "invite"  // to make invitations
)

// Rights are all that there are.
func Rights() []Right { return []Right{Token, Refresh, Invite} }

// ParseRights reads rights that are parted by commas, each of them once.
func ParseRights(text string) ([]Right, error) {
	var rights []Right
	for part := range strings.SplitSeq(text, ",") {
		rights = append(rights, Right(strings.TrimSpace(part)))
	}
	if err := checkRights(rights); err != nil {
		return nil, &ScopeError{err}
	}
	return rights, nil
}

// Scope is what a key covers.
type Scope struct {
	// Companies are the identities of those that it covers, nil for all: see
	// company.Book. A key whose companies are all removed covers nothing.
	Companies []string
	// Application and Environment are those that it covers, each empty for any.
	Application, Environment string
	// Rights are never none.
	Rights []Right
}

// Allows reports whether a right is among the scope's.
func (s Scope) Allows(r Right) bool { return slices.Contains(s.Rights, r) }

// Key is what is known of a key.
type Key struct {
	Name  string
	Added time.Time
	// Used is when the key was last used, to the minute after a restart; zero for never.
	Used time.Time
	Scope
}

// Options are what a store works with.
type Options struct {
	Places *safefile.Places // who else may change the file
	Now    func() time.Time
	// Log, where set, is told what went wrong in the background.
	Log func(format string, args ...any)
}

// Store is the file of the keys. It may be used by several goroutines at once.
type Store struct {
	path string
	Options

	mu    sync.Mutex
	text  []byte  // of the file, as it was read last
	known []entry // what is in it; nobody changes that
	used  map[digest]time.Time
	// noted is when the last uses began to be written. One writer is enough.
	noted   time.Time
	noting  bool
	closed  bool
	writers sync.WaitGroup
}

// digest is the SHA-256 of a key.
type digest [sha256.Size]byte

// noteEvery is how often at most it is written when keys were used.
const noteEvery = time.Minute

// Open returns the store in a file, which need not exist. Nothing is read before it is
// used. The caller closes the store.
func Open(path string, o Options) *Store {
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	return &Store{path: path, Options: o, used: map[digest]time.Time{}}
}

// Close writes what is not yet written about the use of keys.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.writers.Wait()
	return s.note(context.Background())
}

const (
	prefix = "upsauth_"
	size   = 32 // bytes of a key
)

var letters = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Add makes a key and returns it, which nobody can do again. A name that is taken is an
// *ExistsError.
func (s *Store) Add(ctx context.Context, name string, scope Scope) (secret string, err error) {
	if err := checkName(name); err != nil {
		return "", &NameError{err}
	}
	if len(scope.Rights) == 0 {
		scope.Rights = []Right{Token}
	}
	if err := checkScope(scope); err != nil {
		return "", &ScopeError{err}
	}
	random := make([]byte, size)
	_, _ = rand.Read(random) // it never fails
	secret = prefix + letters.EncodeToString(random)
	err = s.edit(ctx, func(entries []entry) ([]entry, error) {
		if i := find(entries, name); i >= 0 {
			return nil, &ExistsError{Name: entries[i].Name}
		}
		return append(entries, entry{
			Name: name, digest: sha256.Sum256([]byte(secret)), Added: s.Now().UTC().Truncate(time.Second),
			Companies: scope.Companies, Application: scope.Application, Environment: scope.Environment, Rights: scope.Rights,
		}), nil
	})
	if err != nil {
		return "", err
	}
	return secret, nil
}

// Remove makes a key one that nobody can use any more. An unknown name is a
// *NotFoundError.
func (s *Store) Remove(ctx context.Context, name string) error {
	return s.edit(ctx, func(entries []entry) ([]entry, error) {
		i := find(entries, name)
		if i < 0 {
			return nil, &NotFoundError{Name: name}
		}
		return slices.Delete(entries, i, i+1), nil
	})
}

// List returns the keys in the order of their names.
func (s *Store) List(ctx context.Context) ([]Key, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.read(); err != nil {
		return nil, err
	}
	list := make([]Key, len(s.known))
	for i := range s.known {
		list[i] = s.known[i].key(s.used)
	}
	return list, nil
}

// ErrWrong is the error of what is no key, or none any more.
var ErrWrong = errors.New("the key is wrong, or it was removed")

// Find returns what is known of a key, and remembers that it was used. The file is as it
// is now, whoever changed it.
func (s *Store) Find(ctx context.Context, secret string) (Key, error) {
	if err := ctx.Err(); err != nil {
		return Key{}, err
	}
	sum := digest(sha256.Sum256([]byte(secret)))
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.read(); err != nil {
		return Key{}, err
	}
	// All are compared, each in the same time.
	at := -1
	for i := range s.known {
		at = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(s.known[i].digest[:], sum[:]), i, at)
	}
	if at < 0 {
		return Key{}, ErrWrong
	}
	now := s.Now()
	s.used[sum] = now.UTC().Truncate(time.Second)
	if past := now.Sub(s.noted); !s.noting && !s.closed && (past >= noteEvery || past < 0) {
		s.noting, s.noted = true, now
		s.writers.Go(s.noteLater)
	}
	return s.known[at].key(s.used), nil
}

// noteLater writes when keys were used while requests go on.
func (s *Store) noteLater() {
	if err := s.note(context.Background()); err != nil {
		s.Log("when keys were last used can't be saved: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noting = false
}

// note writes when keys were used, if that is news.
func (s *Store) note(ctx context.Context) error {
	s.mu.Lock()
	news := slices.ContainsFunc(s.known, func(e entry) bool { return s.used[e.digest].After(e.Used) })
	s.mu.Unlock()
	if !news {
		return nil
	}
	return s.edit(ctx, func(entries []entry) ([]entry, error) { return entries, nil })
}

// NameError says that a key can't have a name.
type NameError struct{ Err error }

func (e *NameError) Error() string { return e.Err.Error() }

func (e *NameError) Unwrap() error { return e.Err }

// ScopeError says that a key can't cover what it was to cover.
type ScopeError struct{ Err error }

func (e *ScopeError) Error() string { return e.Err.Error() }

func (e *ScopeError) Unwrap() error { return e.Err }

// ExistsError says that there is a key of a name already.
type ExistsError struct{ Name string }

func (e *ExistsError) Error() string { return fmt.Sprintf("a key %q exists already", e.Name) }

// NotFoundError says that there is no key of a name.
type NotFoundError struct{ Name string }

func (e *NotFoundError) Error() string { return fmt.Sprintf("there is no key %q", e.Name) }

// FileError says that the file of the keys can't be used, so that nobody knows which keys
// there are.
type FileError struct {
	Path string
	Err  error
	// Damaged says that it was read, and is no list of keys.
	Damaged bool
}

func (e *FileError) Error() string {
	return fmt.Sprintf("the keys of programs in %s can't be used: %v", e.Path, e.Err)
}

func (e *FileError) Unwrap() error { return e.Err }
