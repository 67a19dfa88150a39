// Package vaulttest has a vault.Store in memory, for tests: what a second store can't
// do, the rules must not need.
package vaulttest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
)

// Memory is a small database: rows of records with a counter for their revisions, rows
// of attempts, and the homes whose items belong to it. Like a state directory it
// outlives the processes that use it.
type Memory struct {
	mu       sync.Mutex
	last     uint64 // the latest revision, and the latest attempt
	records  map[string]row
	aside    map[string]damage   // records that were damaged, by their slots
	attempts map[string]*attempt // by their nonces
	items    map[place][]byte
	failure  error // of whatever is asked, nil while all is well
	locks    locks
}

// row is a record as a column of JSON: what isn't kept doesn't come back.
type row struct {
	revision uint64
	text     []byte
}

// damage is what a row still tells that nobody can read.
type damage struct {
	tokenVaultKey string
	vault.DamagedRecord
}

type attempt struct {
	number        uint64 // in the order of the claims
	slot          string
	tokenVaultKey string
	text          []byte // of the grant.Journal
	sealed        []byte
	news          bool
}

type place struct{ home, account string }

// New returns an empty database.
func New() *Memory {
	return &Memory{records: map[string]row{}, aside: map[string]damage{}, attempts: map[string]*attempt{}, items: map[place][]byte{}}
}

// Clone copies all that is there. Locks aren't: they are of processes.
func (m *Memory) Clone() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := New()
	c.last, c.records, c.aside, c.items = m.last, maps.Clone(m.records), maps.Clone(m.aside), maps.Clone(m.items)
	for nonce, a := range m.attempts {
		copied := *a
		c.attempts[nonce] = &copied
	}
	return c
}

// Break has everything fail from now on, as where a database can't be reached; nil ends
// that.
func (m *Memory) Break(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failure = err
}

// Lose takes a record away, and nothing else.
func (m *Memory) Lose(slot string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.records, slot)
}

// LoseAttempts takes all attempts away.
func (m *Memory) LoseAttempts() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.attempts)
}

// Damage makes a record one that nobody can read.
func (m *Memory) Damage(slot string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.decode(m.records[slot])
	delete(m.records, slot)
	m.aside[slot] = damage{r.TokenVaultKey, vault.DamagedRecord{Slot: slot, Company: r.Company, Generation: r.Generation}}
}

// DamageAnswer changes a byte of an attempt's sealed answer.
func (m *Memory) DamageAnswer(nonce string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	sealed := slices.Clone(m.attempts[nonce].sealed)
	sealed[len(sealed)-1] ^= 0xFF
	m.attempts[nonce].sealed = sealed
}

// Texts are all that is there under names that look like paths, items below their
// home's.
func (m *Memory) Texts() map[string][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	texts := map[string][]byte{}
	for slot, r := range m.records {
		texts["records/"+slot+".json"] = r.text
	}
	for slot := range m.aside {
		texts["records/"+slot+".json.damaged"] = nil
	}
	for nonce, a := range m.attempts {
		texts["journals/slots/"+a.tokenVaultKey+"/"+nonce] = slices.Concat(a.text, a.sealed)
		if a.news {
			texts["journals/open/"+a.slot+"."+a.tokenVaultKey] = nil
		}
	}
	for at, item := range m.items {
		texts[at.home+"/"+at.account] = item
	}
	return texts
}

// ready is the reason why nothing can be asked; m.mu is held.
func (m *Memory) ready(ctx context.Context) error { return cmp.Or(ctx.Err(), m.failure) }

// next is a number that nothing else has; m.mu is held.
func (m *Memory) next() uint64 {
	m.last++
	return m.last
}

func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain structs
	}
	return text
}

func (m *Memory) decode(r row) (record grant.Record) {
	if r.text != nil && json.Unmarshal(r.text, &record) != nil {
		panic("a row has no record in it")
	}
	record.Revision = r.revision
	return record
}

// set gives a record its next revision, and returns it as it is then.
func (m *Memory) set(r grant.Record) grant.Record {
	r.Version = grant.RecordVersion
	m.records[r.Slot()] = row{m.next(), encode(r)}
	r.Revision = m.last
	return r
}

// under are the attempts under a Token Vault Key, the latest first.
func (m *Memory) under(tokenVaultKey string) []*attempt {
	return m.sorted(func(a *attempt) bool { return a.tokenVaultKey == tokenVaultKey })
}

// sorted are the attempts that are wanted, by their keys, the latest of each first.
func (m *Memory) sorted(wanted func(*attempt) bool) (all []*attempt) {
	for _, a := range m.attempts {
		if wanted(a) {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b *attempt) int {
		return cmp.Or(strings.Compare(a.slot, b.slot), strings.Compare(a.tokenVaultKey, b.tokenVaultKey),
			b.journal().Later(a.journal()), cmp.Compare(b.number, a.number))
	})
	return all
}

func (a *attempt) journal() (j grant.Journal) {
	if err := json.Unmarshal(a.text, &j); err != nil {
		panic(err)
	}
	j.Answered, j.News, j.Path = a.sealed != nil, a.news, pathOf(a.tokenVaultKey)
	return j
}

// pathOf is the place of attempts in a sentence.
func pathOf(tokenVaultKey string) string { return "memory:journals/slots/" + tokenVaultKey }

func journals(attempts []*attempt) (all []grant.Journal) {
	for _, a := range attempts {
		all = append(all, a.journal())
	}
	return all
}

// tidy ends the news of a key where its grant of a generation has all.
func (m *Memory) tidy(tokenVaultKey string, generation int64) {
	attempts := m.under(tokenVaultKey)
	if open, kept := grant.Unsettled(journals(attempts), generation); len(open)+len(kept) > 0 {
		return
	}
	for _, a := range attempts {
		a.news = false
	}
}

// Store is the database as a process has it, with the homes that it reaches.
type Store struct {
	*Memory
	homes vault.Homes
}

var _ vault.Store = Store{}

// With returns the store over the database and homes. The items of the database's own
// homes, however they are wrapped, are written in the same transaction as their record.
func (m *Memory) With(homes ...vault.Home) Store { return Store{m, homes} }

// Homes are those that the store was made with.
func (s Store) Homes() vault.Homes { return s.homes }

// Lock takes a lock; see vault.Store.
func (m *Memory) Lock(ctx context.Context, name string, wait bool) (release func(), held bool, holder int, err error) {
	m.mu.Lock()
	err = m.ready(ctx)
	m.mu.Unlock()
	if err != nil {
		return nil, false, 0, err
	}
	return m.locks.take(ctx, name, wait)
}

// Look keeps a lock free; see vault.Store.
func (m *Memory) Look(ctx context.Context, name string) (done func(), free bool, err error) {
	m.mu.Lock()
	err = m.ready(ctx)
	m.mu.Unlock()
	if err != nil {
		return nil, false, &vault.LockError{Of: "memory:locks/" + name, Err: err}
	}
	done, free = m.locks.look(name)
	return done, free, nil
}

// Grant returns a record; see vault.Store.
func (m *Memory) Grant(ctx context.Context, slot string) (grant.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.ready(ctx); err != nil {
		return grant.Record{}, err
	}
	return m.grant(slot)
}

func (m *Memory) grant(slot string) (grant.Record, error) {
	r, ok := m.records[slot]
	if _, aside := m.aside[slot]; !ok && aside {
		return grant.Record{}, grant.ErrSetAside
	}
	if !ok {
		return grant.Record{}, grant.ErrNoGrant
	}
	return m.decode(r), nil
}

// Grants returns records by a prefix of their slots; see vault.Store.
func (m *Memory) Grants(ctx context.Context, prefix string) (records []grant.Record, problems []error, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.ready(ctx); err != nil {
		return nil, nil, err
	}
	for _, slot := range slices.Sorted(maps.Keys(m.records)) {
		if strings.HasPrefix(slot, prefix) {
			records = append(records, m.decode(m.records[slot]))
		}
	}
	for slot := range m.aside {
		if _, there := m.records[slot]; !there && strings.HasPrefix(slot, prefix) {
			problems = append(problems, &vault.DamagedError{Path: "memory:records/" + slot, Cause: "it was damaged"})
		}
	}
	return records, problems, nil
}

// Damaged tells what is left of damaged records; see vault.Store.
func (m *Memory) Damaged(ctx context.Context) (map[string]vault.DamagedRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.ready(ctx); err != nil {
		return nil, err
	}
	all := map[string]vault.DamagedRecord{}
	for _, d := range m.aside {
		if d.tokenVaultKey != "" {
			all[d.tokenVaultKey] = d.DamagedRecord
		}
	}
	return all, nil
}

// Claim inserts an attempt; see vault.Store.
func (m *Memory) Claim(ctx context.Context, j *grant.Journal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.ready(ctx); err != nil {
		return fmt.Errorf("the journal can't be written: %w", err)
	}
	number := m.next()
	j.Version, j.Nonce, j.Answered, j.Elsewhere, j.Path = grant.RecordVersion, fmt.Sprintf("nonce-%d", number), false, false, pathOf(j.TokenVaultKey)
	m.attempts[j.Nonce] = &attempt{number: number, slot: j.Slot(), tokenVaultKey: j.TokenVaultKey, text: encode(j)}
	for _, a := range m.under(j.TokenVaultKey) {
		a.news = true
	}
	return nil
}

// find returns an attempt that was claimed; m.mu is held.
func (m *Memory) find(ctx context.Context, nonce string) (*attempt, error) {
	if err := m.ready(ctx); err != nil {
		return nil, err
	}
	if a, ok := m.attempts[nonce]; ok {
		return a, nil
	}
	return nil, errors.New("there is no such attempt")
}

// Check is the last look before the first byte is sent.
func (m *Memory) Check(ctx context.Context, j grant.Journal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if j.Purpose == grant.Authorizing {
		return m.ready(ctx)
	}
	if _, err := m.find(ctx, j.Nonce); err != nil {
		return err
	}
	for _, a := range m.attempts {
		if other := a.journal(); other.TokenVaultKey == j.TokenVaultKey && other.Later(j) > 0 && !other.Unsent {
			return grant.ErrConflict
		}
	}
	return nil
}

// Seal puts an answer into its attempt; see vault.Store.
func (m *Memory) Seal(ctx context.Context, j *grant.Journal, sealed []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, err := m.find(ctx, j.Nonce)
	if err != nil {
		return fmt.Errorf("the answer can't be sealed: %w", err)
	}
	a.sealed = slices.Clone(sealed)
	j.Answered = true
	return nil
}

// Mark changes an attempt's fate; see vault.Store.
func (m *Memory) Mark(ctx context.Context, j *grant.Journal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, err := m.find(ctx, j.Nonce)
	if err != nil {
		return fmt.Errorf("the journal can't be changed: %w", err)
	}
	there := a.journal()
	there.Fate = j.Fate
	a.text = encode(there)
	if j.Over || j.Unsent {
		m.tidy(j.TokenVaultKey, j.Generation-1)
	}
	return nil
}

// Attempts returns the attempts beside a grant; see vault.Store.
func (m *Memory) Attempts(ctx context.Context, slot, tokenVaultKey string) ([]grant.Journal, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.ready(ctx); err != nil {
		return nil, err
	}
	return journals(m.sorted(func(a *attempt) bool { return a.slot == slot && (a.news || a.tokenVaultKey == tokenVaultKey) })), nil
}

// News returns all attempts that there is news of; see vault.Store.
func (m *Memory) News(ctx context.Context, prefix string) (all []vault.News, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.ready(ctx); err != nil {
		return nil, err
	}
	for _, a := range m.sorted(func(a *attempt) bool { return a.news && strings.HasPrefix(a.slot, prefix) }) {
		all = append(all, vault.News{Slot: a.slot, TokenVaultKey: a.tokenVaultKey, Path: pathOf(a.tokenVaultKey), Journal: a.journal()})
	}
	return all, nil
}

// Still reports whether there is still the news; see vault.Store.
func (m *Memory) Still(ctx context.Context, n vault.News) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.ready(ctx); err != nil {
		return false, err
	}
	return slices.ContainsFunc(m.under(n.TokenVaultKey), func(a *attempt) bool { return a.news && a.slot == n.Slot }), nil
}

// Sealed returns an attempt's sealed answer; see vault.Store.
func (m *Memory) Sealed(ctx context.Context, j grant.Journal) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.ready(ctx); err != nil {
		return nil, err
	}
	if a, ok := m.attempts[j.Nonce]; ok && a.sealed != nil {
		return slices.Clone(a.sealed), nil
	}
	return nil, grant.ErrNoAnswer
}

// Settle ends the news up to a generation; see vault.Store. What is older than that goes.
func (m *Memory) Settle(ctx context.Context, _, tokenVaultKey string, generation int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.ready(ctx); err != nil {
		return err
	}
	m.settle(tokenVaultKey, generation)
	return nil
}

func (m *Memory) settle(tokenVaultKey string, generation int64) {
	m.tidy(tokenVaultKey, generation)
	maps.DeleteFunc(m.attempts, func(_ string, a *attempt) bool {
		return a.tokenVaultKey == tokenVaultKey && a.journal().Generation < generation
	})
}

// Forget deletes the attempts under a key; see vault.Store.
func (m *Memory) Forget(ctx context.Context, _, tokenVaultKey string, _ bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.ready(ctx); err != nil {
		return err
	}
	maps.DeleteFunc(m.attempts, func(_ string, a *attempt) bool { return a.tokenVaultKey == tokenVaultKey })
	return nil
}

// transaction collects what a change puts into the database's own homes.
type transaction struct {
	of    *Memory
	items map[place][]byte
}

type transactionKey struct{}

// Commit makes a change, all of it or nothing; see vault.Store. A home elsewhere, such as
// a keychain, is written before.
func (s Store) Commit(ctx context.Context, c vault.Change) (grant.Record, error) {
	if _, err := s.change(ctx, c.Record, func() (grant.Record, error) { return c.Record, nil }); err != nil {
		return c.Record, err // nothing is written to a home in vain
	}
	t := &transaction{s.Memory, map[place][]byte{}}
	if c.Item != nil {
		home, err := s.homes.Named(c.Record.Home)
		if err != nil {
			return c.Record, err
		}
		if err := home.Put(context.WithValue(ctx, transactionKey{}, t), c.Record.TokenVaultKey, c.Record.Generation, c.Item); err != nil {
			return c.Record, err
		}
	}
	return s.change(ctx, c.Record, func() (grant.Record, error) {
		maps.Copy(s.items, t.items)
		if c.First {
			delete(s.aside, c.Record.Slot())
		}
		if c.Ends {
			s.settle(c.Settles.TokenVaultKey, c.Record.Generation)
		}
		return s.set(c.Record), nil
	})
}

// change does something to a record that is the revision that was read.
func (m *Memory) change(ctx context.Context, r grant.Record, do func() (grant.Record, error)) (grant.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.ready(ctx); err != nil {
		return r, err
	}
	if m.records[r.Slot()].revision != r.Revision {
		return r, grant.ErrConflict
	}
	return do()
}

// Drop deletes a record; see vault.Store.
func (m *Memory) Drop(ctx context.Context, r grant.Record) error {
	_, err := m.change(ctx, r, func() (grant.Record, error) {
		delete(m.records, r.Slot())
		delete(m.aside, r.Slot())
		return r, nil
	})
	return err
}

// Rename gives a record and its attempts another slot; see vault.Store.
func (m *Memory) Rename(ctx context.Context, r grant.Record, company string) (grant.Record, error) {
	return m.change(ctx, r, func() (grant.Record, error) {
		from := r.Slot()
		r.Was, r.Company = "", company
		if there, err := m.grant(r.Slot()); from != r.Slot() && err == nil {
			return r, &vault.TakenError{ID: there.ID}
		}
		delete(m.records, from)
		for _, a := range m.under(r.TokenVaultKey) {
			a.slot = r.Slot()
		}
		return m.set(r), nil
	})
}

// FinishRename has nothing to do: Rename is done or not. See vault.Store.
func (m *Memory) FinishRename(ctx context.Context, r grant.Record) (grant.Record, error) {
	return m.change(ctx, r, func() (grant.Record, error) {
		r.Was = ""
		return m.set(r), nil
	})
}
