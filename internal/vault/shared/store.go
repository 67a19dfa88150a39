// Package shared is a vault's store for several hosts: grants, their items and the right to
// send a refresh token are in a database, UPS's answers are sealed on this machine's disk
// before anything else, and good tokens are served from copies there.
package shared

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/files"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// Options are what a store works with.
type Options struct {
	DB *postgres.DB
	// Dir is this host's directory: who it is, its locks and journals, its copies.
	Dir string
	// Keys opens the team's identity, which may ask for a passphrase.
	Keys func(context.Context) (agefile.Keys, error)
	// Host is what people read of this machine.
	Host string
	// Terms are how long the open claims of others are respected.
	Terms ledger.Terms
	// Patience is how long a claim waits for another host's answer.
	Patience time.Duration
	// Elsewhere and Places are those of files.Store.
	Elsewhere []string
	Places    *safefile.Places
	// Machine tells this machine from others, empty where nothing does.
	Machine func() string
	Now     func() time.Time
	// Offset is how far the database's clock is ahead of Now; nil measures it.
	Offset func(database, now time.Time) time.Duration
	// HasLeft, where set, reports whether a grant that arrives here has left this machine's
	// vault, so that it is the shared one's.
	HasLeft func(context.Context, grant.Record) (bool, error)
	// Elapsed is a clock that runs on while the machine is suspended.
	Elapsed func() time.Duration
	Wait    func(context.Context, time.Duration) error
}

// usualPatience is how long a claim waits for another host's answer.
const usualPatience = 10 * time.Second

// Store implements vault.Store.
type Store struct {
	o      Options
	db     *postgres.DB
	dir    string
	disk   *files.Store
	copies copies

	opening   sync.Mutex // the box, by one goroutine for all
	answering sync.Mutex // the roll call

	mu     sync.Mutex
	opened *box
	asked  bool // the database has said that opened is the right one
	// offset is how far the database's clock is ahead. Measured says that it is known although
	// nothing was opened.
	offset   time.Duration
	measured bool
	// rows are the grants that were read last and are worked on, by their keys.
	rows map[string]postgres.Row
	// secrets are those of the grants' journals, by their accounts.
	secrets map[string]postgres.Secret
	// working are the slots whose locks this process has, each with its turn: a number that is
	// another whenever the slot's row must be read again. looked is what was read in that turn.
	working map[string]int
	looked  map[string]look
	turns   int
	// running are this process's own attempts that have no end yet, by their nonces. Each
	// keeps the roll call waiting.
	running map[string]attempt
	// awaiting are the keys whose last claim met another host's that is respected.
	awaiting map[string]bool
	// answerFirst says that this host has been told to answer a roll call. Older is the epoch
	// in which it has seen a newer token than the database has, zero for none.
	answerFirst bool
	older       int64

	seenAt   time.Time
	awayTill time.Time
}

var _ vault.Store = (*Store)(nil)

// New returns the store. Nothing is read, made or asked before it is used.
func New(o Options) *Store {
	if o.Patience == 0 {
		o.Patience = usualPatience
	}
	if o.Offset == nil {
		o.Offset = measured
	}
	s := &Store{
		o: o, db: o.DB, dir: o.Dir,
		rows: map[string]postgres.Row{}, secrets: map[string]postgres.Secret{}, working: map[string]int{}, looked: map[string]look{},
		running: map[string]attempt{}, awaiting: map[string]bool{},
	}
	s.disk = files.New(o.Dir, vault.Homes{Home{s}})
	s.disk.Elsewhere = o.Elsewhere
	if o.Places != nil {
		s.disk.Places = o.Places
	}
	s.disk.Records = s.knownRecords
	s.copies = copies{dir: filepath.Join(o.Dir, "copies"), disk: s.disk}
	return s
}

// TakeOver has open claims of other hosts respected no longer than a call to UPS can last. A
// person said so. It is called before the store is used.
func (s *Store) TakeOver() { s.o.Terms.TakeOver = true }

// Disk is what the store has on this machine.
func (s *Store) Disk() *files.Store { return s.disk }

// Homes are the one home: the database.
func (s *Store) Homes() vault.Homes { return vault.Homes{Home{s}} }

// Lock takes a lock of this machine's processes; see vault.Store. Once a grant's is released
// this process has come to an end with the grant.
func (s *Store) Lock(ctx context.Context, name string, wait bool) (release func(), held bool, holder int, err error) {
	unlock, held, holder, err := s.disk.Lock(ctx, name, wait)
	if err != nil || held {
		return unlock, held, holder, err
	}
	s.mu.Lock()
	s.nextTurn(name)
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		delete(s.working, name)
		delete(s.looked, name)
		var left []attempt
		for nonce, a := range s.running {
			if a.slot == name {
				left = append(left, a)
				delete(s.running, nonce)
			}
		}
		for key, row := range s.rows {
			if row.Slot == name {
				delete(s.rows, key)
			}
		}
		s.mu.Unlock()
		for _, a := range left {
			a.leave()
		}
		unlock()
	}, false, 0, nil
}

// Look reports whether a lock is free; see vault.Store.
func (s *Store) Look(ctx context.Context, name string) (done func(), free bool, err error) {
	return s.disk.Look(ctx, name)
}

// worksOn reports whether this process has the lock of a slot.
func (s *Store) worksOn(slot string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.working[slot] > 0
}

// Damaged has nothing: a row that can't be read is not set aside.
func (s *Store) Damaged(context.Context) (map[string]vault.DamagedRecord, error) { return nil, nil }

// conflict makes a conflict of the ledger's one of the vault's.
func conflict(err error) error {
	if errors.As(err, new(*ledger.ConflictError)) {
		return fmt.Errorf("%w: %w", grant.ErrConflict, err)
	}
	return err
}

// Commit makes a change; see vault.Store. The ledger's rules decide whether it is made.
func (s *Store) Commit(ctx context.Context, c vault.Change) (grant.Record, error) {
	box, err := s.box(ctx)
	if err != nil {
		return c.Record, err
	}
	item, err := s.itemOf(c.Record)
	if err != nil {
		return c.Record, err
	}
	if c.Item != nil {
		if err := s.isStill(ctx, box); err != nil {
			return c.Record, err
		}
		if item.Sealed, err = box.seal(c.Item); err != nil {
			return c.Record, err
		}
	}
	r, slot := c.Record, c.Record.Slot()
	s.lookAgain(slot)
	token := ledger.Made{Generation: r.Generation, Attempt: 1}
	code := func(token ledger.Made) postgres.Item {
		made := item
		made.MAC = box.codeOfGrant(slot, token, r.Facts, item.Sealed)
		return made
	}
	ask := func(do func(*postgres.Session) (ledger.Grant, error)) error {
		return s.certain(ctx, func(db *postgres.Session) error {
			_, err := do(db)
			return err
		})
	}
	version := int64(r.Revision)
	switch j := c.Settles; {
	case c.Item == nil && r.Removing:
		// Should the database go back, this host revokes again.
		if err := s.markRevoked(ctx, r); err != nil {
			return r, err
		}
		err = ask(func(db *postgres.Session) (ledger.Grant, error) { return db.Revoke(ctx, slot, version) })
	case c.Item == nil:
		err = ask(func(db *postgres.Session) (ledger.Grant, error) {
			return db.Note(ctx, slot, version, func(there postgres.Row) (made postgres.Item, err error) {
				made = item
				made.MAC, err = box.codeAnew(there, slot, r.Facts)
				return made, err
			})
		})
	case j != nil && j.Purpose == grant.Refreshing && j.Answered && !c.First:
		return s.put(ctx, c, code)
	case j != nil && j.Purpose == grant.Authorizing:
		err = ask(func(db *postgres.Session) (ledger.Grant, error) {
			return db.Flip(ctx, slot, j.Replaces, intentOf(*j), token, code(token), s.o.Terms)
		})
	default:
		err = s.asHost(ctx, slot, func(self ledger.Self) error {
			return ask(func(db *postgres.Session) (ledger.Grant, error) {
				return db.Import(ctx, self, slot, version, r.TokenVaultKey, token, code(token))
			})
		})
		if err == nil {
			err = s.unmarkRevoked(r.TokenVaultKey) // one that came to nothing takes no revoke back
		}
	}
	if err != nil {
		return r, conflict(err)
	}
	return s.changed(ctx, slot)
}

// changed reads a row that this process has just changed.
func (s *Store) changed(ctx context.Context, slot string) (grant.Record, error) {
	before := s.ticket(slot)
	rows, err := s.db.Rows(ctx, slot)
	if err != nil {
		return grant.Record{}, err
	}
	if len(rows) == 0 {
		return grant.Record{}, grant.ErrConflict
	}
	s.remember(rows[0], before)
	there, ok, err := s.copies.of(slot)
	if err == nil {
		s.copy(ctx, there, ok, rows[0])
	}
	return s.recordOf(rows[0])
}

// certain repeats a change whose commit is unknown, on another connection: each of them is the
// same when it is made again, or says that somebody has made it.
func (s *Store) certain(ctx context.Context, do func(*postgres.Session) error) error {
	var unknown *postgres.UnknownError
	for tries := 0; ; tries++ {
		err := s.db.Session(ctx, do)
		if !errors.As(err, &unknown) || tries == 3 {
			return err
		}
		if err := s.o.Wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// Drop removes a row for good; see vault.Store.
func (s *Store) Drop(ctx context.Context, r grant.Record) error {
	s.lookAgain(r.Slot())
	err := s.certain(ctx, func(db *postgres.Session) error { return db.Drop(ctx, r.Slot(), r.TokenVaultKey, int64(r.Revision)) })
	if errors.As(err, new(*ledger.ConflictError)) {
		rows, readErr := s.db.Rows(ctx, r.Slot())
		if readErr == nil && len(rows) == 0 {
			err = nil // it is gone
		}
	}
	if err != nil {
		return conflict(err)
	}
	s.forget(r.TokenVaultKey)
	return s.copies.drop(ctx, r.Slot(), r.TokenVaultKey)
}

// Rename gives a row another slot; see vault.Store.
func (s *Store) Rename(ctx context.Context, r grant.Record, company string) (grant.Record, error) {
	box, err := s.box(ctx)
	if err != nil {
		return r, err
	}
	from := r.Slot()
	s.lookAgain(from)
	renamed := r
	renamed.Company, renamed.Was = company, ""
	to := renamed.Slot()
	if from != to {
		if rows, err := s.db.Rows(ctx, to); err != nil {
			return r, err
		} else if len(rows) > 0 {
			if there, err := s.recordOf(rows[0]); err == nil {
				return r, &vault.TakenError{ID: there.ID}
			}
			return r, grant.ErrConflict
		}
	}
	row, err := s.db.RowOf(ctx, r.TokenVaultKey)
	if err != nil {
		return r, err
	}
	item, err := s.itemOf(renamed)
	if err != nil {
		return r, err
	}
	if item.MAC, err = box.codeAnew(row, to, renamed.Facts); err != nil {
		return r, err
	}
	err = s.certain(ctx, func(db *postgres.Session) error {
		_, err := db.Rename(ctx, from, int64(r.Revision), to, item, s.o.Terms)
		return err
	})
	if err != nil {
		return r, conflict(err)
	}
	if from != to {
		if err := s.disk.MoveNews(from, to, r.TokenVaultKey); err != nil {
			return r, err
		}
		if err := s.copies.drop(ctx, from, r.TokenVaultKey); err != nil {
			return r, err
		}
	}
	return s.changed(ctx, to)
}

// FinishRename has nothing to do in the database; see vault.Store.
func (s *Store) FinishRename(ctx context.Context, r grant.Record) (grant.Record, error) {
	r.Was = ""
	return s.Commit(ctx, vault.Change{Record: r})
}
