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

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/upsauth/upsauth/internal/grant"
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

const (
	format   = 1
	patience = 10 * time.Second
)

// file is what a file has in it. Whoever reads it refuses what it does not know: a member
// could be a limit.
type file struct {
	Version    int    `json:"version"`
	Latest     string `json:"latest,omitempty"`
	Invitation *entry `json:"invitation,omitempty"`
}

type entry struct {
	CompanyID     string    `json:"company_id"`
	Company       string    `json:"company"`
	Application   string    `json:"application"`
	Environment   string    `json:"environment"`
	ClientID      string    `json:"client_id"`
	TokenVaultKey string    `json:"token_vault_key,omitempty"` // of the grant that it is to replace
	ExpectUser    string    `json:"expect_user,omitempty"`
	AnyUser       bool      `json:"any_user,omitempty"`
	Note          string    `json:"note,omitempty"`
	ReturnURL     string    `json:"return_url,omitempty"`
	By            string    `json:"by,omitempty"`
	Made          time.Time `json:"made"`
	Expires       time.Time `json:"expires"`
	Wrong         *visit    `json:"wrong_user,omitempty"`
	SignIn        *signIn   `json:"sign_in,omitempty"`
	Ended         *ended    `json:"ended,omitempty"`
}

type visit struct {
	User string    `json:"user"`
	Time time.Time `json:"time"`
}

type signIn struct {
	User          string    `json:"user"`
	Time          time.Time `json:"time"`
	TokenVaultKey string    `json:"token_vault_key"`
	Home          string    `json:"vault,omitempty"`
	Held          bool      `json:"held,omitempty"`
	Doubts        []string  `json:"doubts,omitempty"`
}

type ended struct {
	Why  invitation.Why `json:"why"`
	Time time.Time      `json:"time"`
	User string         `json:"user,omitempty"`
}

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
	if err == nil {
		row.Version = "=" + invitation.Version(data) // an empty file has a version too
		err = parse(data, &row)
	}
	if err != nil {
		return invitation.Row{}, &invitation.FileError{Path: path, Err: err, Damaged: errors.As(err, new(*damagedError))}
	}
	return row, nil
}

// damagedError says what is wrong with the text of a file.
type damagedError struct{ why string }

func (e *damagedError) Error() string { return "it is damaged: " + e.why }

// parse reads the text of a file into a row with its key.
func parse(data []byte, row *invitation.Row) error {
	var f file
	err := jsonv2.Unmarshal(data, &f, jsonv2.RejectUnknownMembers(true))
	if version := max(f.Version, grant.FormatOf(data)); version > format {
		return fmt.Errorf("a newer upsauth wrote it (format %d, this one knows %d)", version, format)
	}
	damaged := func(why string) error { return &damagedError{why} }
	switch {
	case err != nil:
		return damaged(strings.TrimPrefix(err.Error(), "jsontext: "))
	case f.Version != format:
		return damaged("it has no format")
	case row.Part == invitation.Latest:
		if row.Latest = invitation.Key(f.Latest); f.Invitation != nil || !row.Latest.Valid() {
			return damaged("it names no invitation")
		}
		return nil
	case f.Invitation == nil || f.Latest != "":
		return damaged("it is no invitation")
	}
	row.Invitation = f.Invitation.invitation(row.Key)
	if why := row.Invitation.Check(); why != nil {
		return damaged(why.Error())
	}
	return nil
}

func (e *entry) invitation(key invitation.Key) invitation.Invitation {
	i := invitation.Invitation{
		ID: key.ID(), CompanyID: e.CompanyID, Company: e.Company, Application: e.Application, Environment: e.Environment,
		ClientID: e.ClientID, Replaces: e.TokenVaultKey, ExpectUser: e.ExpectUser, AnyUser: e.AnyUser,
		Note: e.Note, ReturnURL: e.ReturnURL, By: e.By, Made: e.Made, Expires: e.Expires,
	}
	if e.Wrong != nil {
		i.Wrong = &invitation.Visit{User: e.Wrong.User, At: e.Wrong.Time}
	}
	if s := e.SignIn; s != nil {
		i.SignIn = &invitation.SignIn{Visit: invitation.Visit{User: s.User, At: s.Time}, TokenVaultKey: s.TokenVaultKey, Home: s.Home, Held: s.Held, Doubts: s.Doubts}
	}
	if e.Ended != nil {
		i.End = &invitation.End{Why: e.Ended.Why, At: e.Ended.Time, User: e.Ended.User}
	}
	return i
}

// textOf is what the file of a row has in it.
func textOf(row invitation.Row) ([]byte, error) {
	f := file{Version: format, Latest: string(row.Latest)}
	if row.Part == invitation.Invitations {
		i := row.Invitation
		e := &entry{
			CompanyID: i.CompanyID, Company: i.Company, Application: i.Application, Environment: i.Environment,
			ClientID: i.ClientID, TokenVaultKey: i.Replaces, ExpectUser: i.ExpectUser, AnyUser: i.AnyUser,
			Note: i.Note, ReturnURL: i.ReturnURL, By: i.By, Made: i.Made.UTC(), Expires: i.Expires.UTC(),
		}
		if i.Wrong != nil {
			e.Wrong = &visit{User: i.Wrong.User, Time: i.Wrong.At.UTC()}
		}
		if s := i.SignIn; s != nil {
			e.SignIn = &signIn{User: s.User, Time: s.At.UTC(), TokenVaultKey: s.TokenVaultKey, Home: s.Home, Held: s.Held, Doubts: s.Doubts}
		}
		if i.End != nil {
			e.Ended = &ended{Why: i.End.Why, Time: i.End.At.UTC(), User: i.End.User}
		}
		f.Invitation = e
	}
	data, err := jsonv2.Marshal(f)
	return append(data, '\n'), err
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
		text, err := textOf(row)
		if err == nil {
			err = safefile.Write(s.path(row.RowKey), text)
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
