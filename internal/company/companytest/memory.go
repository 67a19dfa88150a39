// Package companytest has a company.Store in memory, for tests: what a second store
// can't do, the rules must not need.
package companytest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/grant"
)

// Memory is a store whose rows have numbers for versions, as those of a database.
type Memory struct {
	mu     sync.Mutex
	last   int
	rows   map[company.Key]company.Row
	sizes  map[company.Key]int // of histories, in bytes of JSON
	broken map[company.Key]error
}

// New returns a store without rows.
func New() *Memory {
	return &Memory{rows: map[company.Key]company.Row{}, sizes: map[company.Key]int{}, broken: map[company.Key]error{}}
}

// Break makes a row one that can't be read.
func (m *Memory) Break(key company.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken[key] = &company.FileError{Path: place(key), Err: fmt.Errorf("it can't be read")}
}

// Damage makes a row one that can be read and is no entry.
func (m *Memory) Damage(key company.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(company.Row{Key: key, Damaged: &company.FileError{Path: place(key), Err: fmt.Errorf("it is no entry"), Damaged: true}})
}

func place(key company.Key) string { return fmt.Sprintf("memory:%s/%d", key.Slot, key.Part) }

// set gives a row its next version. Its events are the store's alone.
func (m *Memory) set(row company.Row) {
	m.last++
	row.Version, row.Place = company.Version(fmt.Sprint(m.last)), place(row.Key)
	m.rows[row.Key] = row
}

func (m *Memory) get(key company.Key) (company.Row, error) {
	if err := m.broken[key]; err != nil {
		return company.Row{}, err
	}
	row := m.rows[key]
	row.Key, row.Place, row.Events = key, place(key), slices.Clone(row.Events)
	return row, nil
}

// Get returns a row; see company.Store.
func (m *Memory) Get(ctx context.Context, key company.Key) (company.Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return company.Row{}, err
	}
	return m.get(key)
}

// List returns all rows of a part; see company.Store.
func (m *Memory) List(ctx context.Context, part company.Part, without map[string]bool) (rows []company.Row, problems []error, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	for key := range m.rows {
		row, err := m.get(key)
		if key.Part != part || without[key.Slot] || err != nil {
			continue
		}
		if part == company.History {
			row.Version, row.Events = "", slices.DeleteFunc(row.Events, func(e grant.Event) bool { return !company.Sound(e) })
			row.Events = row.Events[max(len(row.Events)-1, 0):]
		}
		rows = append(rows, row)
	}
	for key, err := range m.broken {
		if key.Part == part && !without[key.Slot] {
			problems = append(problems, err)
		}
	}
	return rows, problems, nil
}

// Append adds an event; see company.Store.
func (m *Memory) Append(ctx context.Context, slot string, e grant.Event) (size int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	key := company.Key{Slot: slot, Part: company.History}
	if err := m.broken[key]; err != nil {
		return 0, err
	}
	row := m.rows[key]
	row.Key, row.Events = key, append(row.Events, e)
	m.set(row)
	m.sizes[key] += sizeOf(e)
	return m.sizes[key], nil
}

// sizeOf is the size of one event, on a line of its own.
func sizeOf(e grant.Event) int {
	line, _ := json.Marshal(e)
	return len(line) + 1
}

// Commit puts and removes rows; see company.Store.
func (m *Memory) Commit(ctx context.Context, put, remove []company.Row) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, row := range slices.Concat(put, remove) {
		now, err := m.get(row.Key)
		if err != nil {
			return err
		}
		if now.Version != row.Version {
			return &company.ConflictError{Row: now}
		}
	}
	for _, row := range put {
		row.Damaged, row.Events, m.sizes[row.Key] = nil, slices.Clone(row.Events), 0
		for _, e := range row.Events {
			m.sizes[row.Key] += sizeOf(e)
		}
		m.set(row)
	}
	for _, row := range remove {
		delete(m.rows, row.Key)
		delete(m.sizes, row.Key)
		m.last++
	}
	return nil
}

// Reading is the number of the latest change; see company.Store.
func (m *Memory) Reading(ctx context.Context) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(m.last) + 1, ctx.Err()
}
