// Package files keeps invitations in this machine's files: one for each, and one for each
// grant that says which is its latest.
package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/safefile"
)

// Store is a directory of files. Several goroutines and processes may use it at once.
type Store struct {
	dir     string
	places  *safefile.Places
	turns   *safefile.Turns
	listing *safefile.Listing
	memory  map[invitation.Part]*safefile.Memory[invitation.Row] // of what List returns
}

// New returns the store in a directory. Nothing is read or made before it is used.
// Places is the rule for who else may change the files; whoever opens the store checks
// the directory.
func New(dir string, places *safefile.Places) *Store {
	return &Store{dir: dir, places: places, turns: safefile.NewTurns(dir, "the list of invitations"), listing: safefile.NewListing(dir)}
}

// Remember keeps in memory what List reads, for a process that does it again and again.
// What any process changes is read all the same. It is called before the store is used,
// and EndMemory ends it.
func (s *Store) Remember() {
	s.memory = map[invitation.Part]*safefile.Memory[invitation.Row]{
		invitation.Invitations: safefile.NewMemory[invitation.Row](s.dir), invitation.Latest: safefile.NewMemory[invitation.Row](s.dir),
	}
}

// EndMemory ends what Remember began. The store may be in use.
func (s *Store) EndMemory() {
	for _, memory := range s.memory {
		memory.End()
	}
}

const patience = 10 * time.Second

// ending is how the names of a part's files end, behind the key.
func ending(p invitation.Part) string {
	if p == invitation.Latest {
		return ".latest"
	}
	return ".json"
}

func (s *Store) path(key invitation.RowKey) string {
	return filepath.Join(s.dir, string(key.Key)+ending(key.Part))
}

// Get reads a file; see invitation.Store.
func (s *Store) Get(ctx context.Context, key invitation.RowKey) (invitation.Row, error) {
	if err := ctx.Err(); err != nil {
		return invitation.Row{}, err
	}
	path := s.path(key)
	row := invitation.Row{RowKey: key, Place: path}
	data, err := s.places.Read(path, nil)
	if errors.Is(err, os.ErrNotExist) {
		return row, nil
	}
	if err != nil {
		return invitation.Row{}, &invitation.FileError{Path: path, Err: err}
	}
	row.Version = "=" + invitation.Version(data) // an empty file has a version too
	if err := row.ReadText(data); err != nil {
		return invitation.Row{}, err
	}
	return row, nil
}

// List reads the files of a part; see invitation.Store.
func (s *Store) List(ctx context.Context, part invitation.Part) (rows []invitation.Row, problems []error, err error) {
	all, err := s.names()
	if err != nil {
		return nil, nil, fmt.Errorf("the invitations can't be read: %w", err)
	}
	var names []string
	for _, name := range all {
		if letters, ok := strings.CutSuffix(name, ending(part)); ok && invitation.Key(letters).Valid() {
			names = append(names, name)
		}
	}
	read, errs := s.memory[part].Read(names, func(i int, buf []byte) (row invitation.Row, _ []byte, err error) {
		if ctx.Err() != nil {
			return row, buf, ctx.Err()
		}
		row, err = s.Get(ctx, invitation.RowKey{Part: part, Key: invitation.Key(strings.TrimSuffix(names[i], ending(part)))})
		if err == nil && row.Version == "" {
			err = errGone
		}
		return row, buf, err
	})
	// Where there is nothing to read, nobody has to be asked whether to go on.
	if len(names) > 0 && ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	for i, err := range errs {
		switch {
		case errors.Is(err, errGone):
		case errors.As(err, new(*invitation.FileError)):
			problems = append(problems, err)
		case err != nil:
			return nil, nil, err
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

// Any reports whether there is any file; see invitation.Store.
func (s *Store) Any(ctx context.Context) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	names, err := s.names()
	if err != nil {
		return false, fmt.Errorf("the invitations can't be read: %w", err)
	}
	return slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(name, ending(invitation.Latest)) }), nil
}

// Commit writes files and removes others, one after another; see invitation.Store.
func (s *Store) Commit(ctx context.Context, put, remove []invitation.Row) error {
	unlock, err := s.turns.Take(ctx, patience)
	if err != nil {
		return err
	}
	defer unlock()
	for _, row := range slices.Concat(put, remove) {
		now, err := s.Get(ctx, row.RowKey)
		if err != nil {
			return err
		}
		if now.Version != row.Version {
			return &invitation.ConflictError{Row: now}
		}
	}
	// From here on nothing stops it: the files are a whole again at the end.
	for _, row := range put {
		text, err := row.Text()
		if err == nil {
			err = safefile.Write(s.path(row.RowKey), append(text, '\n'))
		}
		if err != nil {
			return err
		}
	}
	var failed []error
	for _, row := range remove {
		failed = append(failed, safefile.Remove(s.path(row.RowKey)))
	}
	return errors.Join(failed...)
}

// Reading is that of the directory's names, as files are replaced; see invitation.Store.
func (s *Store) Reading(ctx context.Context) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return s.listing.Reading()
}
