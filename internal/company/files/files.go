// Package files keeps what is known of companies in this machine's files: for each
// company one that says that it was added and whom to ring, and a log of what
// happened.
package files

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

// Store is a directory of files. Several goroutines and processes may use it at once.
type Store struct {
	dir     string
	places  *safefile.Places
	turns   *safefile.Turns
	listing *safefile.Listing
	memory  map[company.Part]*safefile.Memory[company.Row] // of what List returns
}

// New returns the store in a directory. Nothing is read or made before it is used.
// Places is the rule for who else may change the files; whoever opens the store
// checks the directory.
func New(dir string, places *safefile.Places) *Store {
	return &Store{dir: dir, places: places, turns: safefile.NewTurns(dir, "the list of companies"), listing: safefile.NewListing(dir)}
}

// Remember keeps in memory what List reads, for a process that does it again and again.
// What any process changes is read all the same. It is called before the store is used,
// and EndMemory ends it.
func (s *Store) Remember() {
	s.memory = map[company.Part]*safefile.Memory[company.Row]{
		company.Added: safefile.NewMemory[company.Row](s.dir), company.History: safefile.NewMemory[company.Row](s.dir),
	}
}

// EndMemory ends what Remember began. The store may be in use.
func (s *Store) EndMemory() {
	for _, memory := range s.memory {
		memory.End()
	}
}

const (
	// An event waits only this long for the lock, because nothing of value depends
	// on it. Changes that people make wait longer.
	eventPatience  = time.Second
	changePatience = 10 * time.Second
)

// ending is how the names of a part's files end, behind the slot.
func ending(p company.Part) string {
	if p == company.History {
		return ".log"
	}
	return ".json"
}

func (s *Store) path(key company.Key) string {
	return filepath.Join(s.dir, key.Slot+ending(key.Part))
}

// Get reads a file; see company.Store.
func (s *Store) Get(ctx context.Context, key company.Key) (company.Row, error) {
	if err := ctx.Err(); err != nil {
		return company.Row{}, err
	}
	row, _, err := s.get(key, nil)
	return row, err
}

// get is Get with a buffer for the file, which it returns, grown where it has to be.
func (s *Store) get(key company.Key, buf []byte) (company.Row, []byte, error) {
	path := s.path(key)
	row := company.Row{Key: key, Place: path}
	data, err := s.places.Read(path, buf)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return row, buf, nil
	case err != nil:
		return company.Row{}, buf, &company.FileError{Path: path, Err: err}
	}
	row.Version = versionOf(data)
	if key.Part == company.History {
		row.Events = parseLog(data)
		return row, data, nil
	}
	if err := row.ReadEntry(data); err != nil {
		return company.Row{}, data, err
	}
	return row, data, nil
}

// versionOf is the text of a file, marked because an empty file has a version too.
func versionOf(data []byte) company.Version { return "=" + company.Version(data) }

// parseLog reads the text of a company's history. Lines that can't be read are left
// out: a loss of power tears the last one.
func parseLog(data []byte) (events []grant.Event) {
	for line := range bytes.Lines(data) {
		var e grant.Event
		if json.Unmarshal(line, &e) == nil {
			events = append(events, e)
		}
	}
	return events
}

// List reads the files of a part; see company.Store.
func (s *Store) List(ctx context.Context, part company.Part, without map[string]bool) (rows []company.Row, problems []error, err error) {
	all, err := s.names()
	if err != nil {
		return nil, nil, fmt.Errorf("the companies can't be read: %w", err)
	}
	var names []string
	for _, name := range all {
		slot, ok := strings.CutSuffix(name, ending(part))
		if ok && !strings.HasPrefix(name, ".") && !without[slot] {
			names = append(names, name)
		}
	}
	read, errs := s.memory[part].Read(names, func(i int, buf []byte) (row company.Row, _ []byte, err error) {
		if ctx.Err() != nil {
			return row, buf, ctx.Err()
		}
		row, buf, err = s.get(company.Key{Slot: strings.TrimSuffix(names[i], ending(part)), Part: part}, buf)
		if err == nil && row.Version == "" {
			err = errGone
		}
		return listed(row), buf, err
	})
	// Where there is nothing to read, nobody has to be asked whether to go on.
	if len(names) > 0 && ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	for i, err := range errs {
		switch {
		case errors.Is(err, errGone):
		case err != nil:
			problems = append(problems, err)
		default:
			rows = append(rows, read[i])
		}
	}
	return rows, problems, nil
}

// names are the files that there are. Nobody may change them.
func (s *Store) names() ([]string, error) {
	if s.memory != nil {
		return s.listing.Below("")
	}
	return safefile.ReadDir(s.dir)
}

// errGone says that a file was removed after its name was read.
var errGone = errors.New("it was removed meanwhile")

// listed is what List returns of a row: a history may be long.
func listed(row company.Row) company.Row {
	if row.Part != company.History {
		return row
	}
	row.Version = ""
	events := slices.DeleteFunc(row.Events, func(e grant.Event) bool { return !company.Sound(e) })
	row.Events = slices.Clone(events[max(len(events)-1, 0):])
	return row
}

// Append writes a line behind a log; see company.Store.
func (s *Store) Append(ctx context.Context, slot string, e grant.Event) (size int, err error) {
	text, err := encode([]grant.Event{e})
	if err != nil {
		return 0, err
	}
	unlock, err := s.turns.Take(ctx, eventPatience)
	if err != nil {
		return 0, err
	}
	defer unlock()
	file, err := safefile.OpenOwn(s.path(company.Key{Slot: slot, Part: company.History}), os.O_CREATE|os.O_RDWR|os.O_APPEND)
	if err != nil {
		return 0, &safefile.WriteError{What: "the company's history can't be written", Err: err}
	}
	before, err := file.Stat()
	if err == nil && before.Size() > 0 {
		// A line that a loss of power tore takes no other with it.
		last := make([]byte, 1)
		if _, err = file.ReadAt(last, before.Size()-1); err == nil && last[0] != '\n' {
			text = slices.Insert(text, 0, '\n')
		}
	}
	if err == nil {
		size = int(before.Size()) + len(text)
		_, err = file.Write(text)
	}
	return size, errors.Join(err, file.Close())
}

// Commit writes files and removes others, one after another; see company.Store.
func (s *Store) Commit(ctx context.Context, put, remove []company.Row) error {
	unlock, err := s.turns.Take(ctx, changePatience)
	if err != nil {
		return err
	}
	defer unlock()
	for _, row := range slices.Concat(put, remove) {
		now, err := s.Get(ctx, row.Key)
		if err != nil {
			return err
		}
		if now.Version != row.Version {
			return &company.ConflictError{Row: now}
		}
	}
	// From here on nothing stops it: the files are a whole again at the end.
	for _, row := range put {
		text, err := textOf(row)
		if err == nil {
			err = safefile.Write(s.path(row.Key), text)
		}
		if err != nil {
			return err
		}
	}
	var failed []error
	for _, row := range remove {
		failed = append(failed, safefile.Remove(s.path(row.Key)))
	}
	return errors.Join(failed...)
}

// Reading is that of the directory's names: files are replaced, and a history that grows
// is no row that was put.
func (s *Store) Reading(ctx context.Context) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return s.listing.Reading()
}

// textOf is what the file of a row has in it.
func textOf(row company.Row) ([]byte, error) {
	if row.Part == company.History {
		return encode(row.Events)
	}
	text, err := row.Entry.Text()
	return append(text, '\n'), err
}

func encode(events []grant.Event) ([]byte, error) {
	var text bytes.Buffer
	for _, e := range events {
		line, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		text.Write(append(line, '\n'))
	}
	return text.Bytes(), nil
}
