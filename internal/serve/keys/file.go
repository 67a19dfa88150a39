package keys

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

const format = 1

// file is the file of the keys.
type file struct {
	Version int     `json:"version"`
	Keys    []entry `json:"keys"`
}

// entry is one key in it. Whoever reads it refuses what it does not know: a member could
// be a limit.
type entry struct {
	Name        string    `json:"name"`
	SHA256      string    `json:"sha256"`
	Added       time.Time `json:"added"`
	Used        time.Time `json:"used,omitzero"`
	Companies   []string  `json:"companies,omitzero"` // an empty list is not everything
	Application string    `json:"application,omitempty"`
	Environment string    `json:"environment,omitempty"`
	Rights      []Right   `json:"rights"`

	digest digest
}

// key is what others may know of an entry, with when it was used since it was read.
func (e *entry) key(used map[digest]time.Time) Key {
	k := Key{Name: e.Name, Added: e.Added, Used: e.Used, Scope: Scope{
		Companies: e.Companies, Application: e.Application, Environment: e.Environment, Rights: e.Rights,
	}}
	if at := used[e.digest]; at.After(k.Used) {
		k.Used = at
	}
	return k
}

// find is where the key of a name stands, -1 for nowhere. Names that differ only in case
// are one.
func find(entries []entry, name string) int {
	return slices.IndexFunc(entries, func(e entry) bool { return strings.EqualFold(e.Name, name) })
}

// read takes the file apart where it has changed. Its text is compared each time: inode,
// time and size may all come round again. The caller holds the mutex.
func (s *Store) read() error {
	text, err := s.Places.Read(s.path, nil)
	if errors.Is(err, os.ErrNotExist) {
		s.text, s.known = nil, nil
		return nil
	}
	if err != nil {
		return &FileError{Path: s.path, Err: err}
	}
	if s.text != nil && bytes.Equal(text, s.text) {
		return nil
	}
	known, err := parse(text)
	if err != nil {
		return &FileError{Path: s.path, Err: err, Damaged: !errors.As(err, new(newerError))}
	}
	s.text, s.known = text, known
	return nil
}

// newerError is the format of a file that a newer upsauth wrote.
type newerError int

func (e newerError) Error() string {
	return fmt.Sprintf("a newer upsauth wrote the file (format %d, this one knows %d)", int(e), format)
}

// parse reads the text of the file. What is not wholly understood is an error: keys that
// are thought to be none, or to have no limits, would both be wrong.
func parse(text []byte) ([]entry, error) {
	var f file
	err := jsonv2.Unmarshal(text, &f, jsonv2.RejectUnknownMembers(true))
	if version := max(f.Version, grant.FormatOf(text)); version > format {
		return nil, newerError(version)
	}
	if err == nil {
		err = refuseNull(text)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("it is damaged: %s", strings.TrimPrefix(err.Error(), "jsontext: "))
	case f.Version != format || f.Keys == nil:
		return nil, errors.New("it is damaged: it is no list of keys")
	}
	for i := range f.Keys {
		if err := f.Keys[i].check(); err != nil {
			return nil, fmt.Errorf("it is damaged: its key no. %d: %w", i+1, err)
		}
		for _, other := range f.Keys[:i] {
			if strings.EqualFold(other.Name, f.Keys[i].Name) || other.digest == f.Keys[i].digest {
				return nil, fmt.Errorf("it is damaged: its key no. %d comes twice", i+1)
			}
		}
	}
	return f.Keys, nil
}

// refuseNull refuses what would be read as if it were not there: a limit that is null.
func refuseNull(text []byte) error {
	tokens := jsontext.NewDecoder(bytes.NewReader(text))
	for {
		token, err := tokens.ReadToken()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case token.Kind() == 'n':
			return errors.New("a value in it is null")
		}
	}
}

// check reports what makes an entry unfit for use, and reads its digest.
func (e *entry) check() error {
	if err := checkName(e.Name); err != nil {
		return err
	}
	sum, err := hex.DecodeString(e.SHA256)
	if err != nil || len(sum) != len(e.digest) {
		return errors.New("it has no SHA-256")
	}
	copy(e.digest[:], sum)
	return checkScope(Scope{Companies: e.Companies, Application: e.Application, Environment: e.Environment, Rights: e.Rights})
}

// encode is the text of the file.
func encode(entries []entry) ([]byte, error) {
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) })
	for i := range entries {
		entries[i].SHA256 = hex.EncodeToString(entries[i].digest[:])
	}
	if entries == nil {
		entries = []entry{}
	}
	text, err := jsonv2.Marshal(file{Version: format, Keys: entries}, jsontext.WithIndent(" "))
	return append(text, '\n'), err
}

// patience is how long another process is waited for that changes the file.
const patience = 10 * time.Second

// edit changes the file and lets no other process change it meanwhile.
func (s *Store) edit(ctx context.Context, change func([]entry) ([]entry, error)) error {
	if err := safefile.MkdirAll(filepath.Dir(s.path)); err != nil {
		return err
	}
	path := s.path + ".lock"
	lock := safefile.NewLock(path)
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := lock.TryLockContext(waiting, 5*time.Millisecond); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &FileError{Path: path, Err: fmt.Errorf("another process has locked them: %w", safefile.Explain(path, err))}
	}
	defer func() { _ = lock.Close() }()
	entries, err := s.latest()
	if err != nil {
		return err
	}
	if entries, err = change(entries); err != nil {
		return err
	}
	text, err := encode(entries)
	if err == nil {
		err = safefile.Write(s.path, text)
	}
	if err != nil {
		return &FileError{Path: s.path, Err: err}
	}
	return nil
}

// latest are the entries of the file as it is now, with what is known of their use, for
// whoever changes them.
func (s *Store) latest() ([]entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.read(); err != nil {
		return nil, err
	}
	entries := slices.Clone(s.known)
	there := make(map[digest]bool, len(entries))
	for i := range entries {
		there[entries[i].digest] = true
		entries[i].Used = entries[i].key(s.used).Used
	}
	for sum := range s.used {
		if !there[sum] {
			delete(s.used, sum) // of a key that was removed
		}
	}
	return entries, nil
}

// checkName says what is wrong with a key's name. It stands in command lines and logs.
func checkName(name string) error {
	if name == "" || len(name) > 64 {
		return errors.New("the name of a key has 1 to 64 characters")
	}
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("-_.", r)) {
			return fmt.Errorf("%q can't be the name of a key: use letters, digits, '-', '_' and '.', beginning with a letter or digit", name)
		}
	}
	return nil
}

func checkScope(s Scope) error {
	if s.Companies != nil && len(s.Companies) == 0 {
		return errors.New("the key covers no company")
	}
	if slices.Contains(s.Companies, "") {
		return errors.New("one of its companies has no identity")
	}
	if s.Application != "" {
		if _, err := grant.CleanName("application", s.Application); err != nil {
			return err
		}
	}
	if s.Environment != "" {
		if _, err := grant.CleanName("environment", s.Environment); err != nil {
			return err
		}
	}
	return checkRights(s.Rights)
}

func checkRights(rights []Right) error {
	if len(rights) == 0 {
		return errors.New("the key has no right")
	}
	for i, r := range rights {
		if !slices.Contains(Rights(), r) {
			return fmt.Errorf("%q is not a right: use token, refresh or invite", string(r))
		}
		if slices.Contains(rights[:i], r) {
			return fmt.Errorf("the right %s appears twice", r)
		}
	}
	return nil
}
