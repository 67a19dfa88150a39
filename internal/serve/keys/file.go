package keys

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

const format = 1

// document is what the file has in it.
type document struct {
	Version int     `json:"version"`
	Keys    []entry `json:"keys"`
}

// entry is the text of one key. Whoever reads it refuses what it does not know: a member
// could be a limit.
type entry struct {
	Name        string    `json:"name"`
	SHA256      string    `json:"sha256"`
	Added       time.Time `json:"added"`
	Used        time.Time `json:"used,omitzero"`
	Companies   []string  `json:"companies,omitzero"` // an empty list is not everything
	Application string    `json:"application,omitempty"`
	Environment string    `json:"environment,omitempty"`
	Rights      []Right   `json:"rights"`

	digest Digest
}

// kept is the entry as others know it.
func (e *entry) kept() Entry {
	return Entry{Digest: e.digest, Key: Key{Name: e.Name, Added: e.Added, Used: e.Used, Scope: Scope{
		Companies: e.Companies, Application: e.Application, Environment: e.Environment, Rights: e.Rights,
	}}}
}

func entryOf(e Entry) entry {
	return entry{
		Name: e.Name, SHA256: hex.EncodeToString(e.Digest[:]), Added: e.Added, Used: e.Used, digest: e.Digest,
		Companies: e.Companies, Application: e.Application, Environment: e.Environment, Rights: e.Rights,
	}
}

// single is the text of one key by itself.
type single struct {
	Version int `json:"version"`
	entry
}

// Text is the key as a store keeps it that has a row for each, in JSON.
func (e Entry) Text() ([]byte, error) {
	return jsonv2.Marshal(single{Version: format, entry: entryOf(e)})
}

// ReadEntry reads such a text. The error is a *FileError of the place.
func ReadEntry(place string, text []byte) (Entry, error) {
	var s single
	err := understand(text, &s, &s.Version)
	if err == nil && s.Version != format {
		err = errors.New("it is damaged: it has no format")
	}
	if err == nil {
		if err = s.check(); err != nil {
			err = fmt.Errorf("it is damaged: %w", err)
		}
	}
	if err != nil {
		return Entry{}, &FileError{Path: place, Err: err, Damaged: !errors.As(err, new(newerError))}
	}
	return s.kept(), nil
}

// file is the Store in a file.
type file struct {
	path   string
	places *safefile.Places

	mu    sync.Mutex
	text  []byte  // of the file, as it was read last
	known []entry // what is in it; nobody changes that
}

// Find compares all keys, each in the same time; see Store.
func (f *file) Find(ctx context.Context, sum Digest) (Entry, error) {
	entries, err := f.latest(ctx)
	if err != nil {
		return Entry{}, err
	}
	at := -1
	for i := range entries {
		at = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(entries[i].digest[:], sum[:]), i, at)
	}
	if at < 0 {
		return Entry{}, ErrWrong
	}
	return entries[at].kept(), nil
}

// List returns all keys; see Store.
func (f *file) List(ctx context.Context) ([]Entry, error) {
	entries, err := f.latest(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Entry, len(entries))
	for i := range entries {
		list[i] = entries[i].kept()
	}
	return list, nil
}

// Add adds a key; see Store.
func (f *file) Add(ctx context.Context, e Entry) error {
	return f.edit(ctx, func(entries []entry) ([]entry, error) {
		if i := find(entries, e.Name); i >= 0 {
			return nil, &ExistsError{Name: entries[i].Name}
		}
		return append(entries, entryOf(e)), nil
	})
}

// Remove removes a key; see Store.
func (f *file) Remove(ctx context.Context, name string) error {
	return f.edit(ctx, func(entries []entry) ([]entry, error) {
		i := find(entries, name)
		if i < 0 {
			return nil, &NotFoundError{Name: name}
		}
		return slices.Delete(entries, i, i+1), nil
	})
}

// Use notes when keys were used; see Store.
func (f *file) Use(ctx context.Context, used map[Digest]time.Time) error {
	known := errors.New("it is known")
	err := f.edit(ctx, func(entries []entry) ([]entry, error) {
		news := known
		for i := range entries {
			if at := used[entries[i].digest]; at.After(entries[i].Used) {
				entries[i].Used, news = at, nil
			}
		}
		return entries, news
	})
	if errors.Is(err, known) {
		return nil
	}
	return err
}

// find is where the key of a name stands, -1 for nowhere. Names that differ only in case
// are one.
func find(entries []entry, name string) int {
	return slices.IndexFunc(entries, func(e entry) bool { return strings.EqualFold(e.Name, name) })
}

// latest are the keys of the file as it is now, which is taken apart where it has changed.
// Its text is compared each time: inode, time and size may all come round again.
func (f *file) latest(ctx context.Context) ([]entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	text, err := f.places.Read(f.path, nil)
	if errors.Is(err, os.ErrNotExist) {
		f.text, f.known = nil, nil
		return nil, nil
	}
	if err != nil {
		return nil, &FileError{Path: f.path, Err: err}
	}
	if f.text != nil && bytes.Equal(text, f.text) {
		return f.known, nil
	}
	known, err := parse(text)
	if err != nil {
		return nil, &FileError{Path: f.path, Err: err, Damaged: !errors.As(err, new(newerError))}
	}
	f.text, f.known = text, known
	return known, nil
}

// newerError is the format of a file that a newer upsauth wrote.
type newerError int

func (e newerError) Error() string {
	return fmt.Sprintf("a newer upsauth wrote them (format %d, this one knows %d)", int(e), format)
}

// parse reads the text of the file. What is not wholly understood is an error: keys that
// are thought to be none, or to have no limits, would both be wrong.
func parse(text []byte) ([]entry, error) {
	var d document
	if err := understand(text, &d, &d.Version); err != nil {
		return nil, err
	}
	if d.Version != format || d.Keys == nil {
		return nil, errors.New("it is damaged: it is no list of keys")
	}
	for i := range d.Keys {
		if err := d.Keys[i].check(); err != nil {
			return nil, fmt.Errorf("it is damaged: its key no. %d: %w", i+1, err)
		}
		for _, other := range d.Keys[:i] {
			if strings.EqualFold(other.Name, d.Keys[i].Name) || other.digest == d.Keys[i].digest {
				return nil, fmt.Errorf("it is damaged: its key no. %d comes twice", i+1)
			}
		}
	}
	return d.Keys, nil
}

// understand takes a text apart that says its format in a member of version. It refuses
// what it does not know.
func understand(text []byte, into any, version *int) error {
	err := jsonv2.Unmarshal(text, into, jsonv2.RejectUnknownMembers(true))
	if version := max(*version, grant.FormatOf(text)); version > format {
		return newerError(version)
	}
	if err == nil {
		err = refuseNull(text)
	}
	if err != nil {
		return fmt.Errorf("it is damaged: %s", strings.TrimPrefix(err.Error(), "jsontext: "))
	}
	return nil
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
	text, err := jsonv2.Marshal(document{Version: format, Keys: entries}, jsontext.WithIndent(" "))
	return append(text, '\n'), err
}

// patience is how long another process is waited for that changes the file.
const patience = 10 * time.Second

// edit changes the file and lets no other process change it meanwhile.
func (f *file) edit(ctx context.Context, change func([]entry) ([]entry, error)) error {
	if err := safefile.MkdirAll(filepath.Dir(f.path)); err != nil {
		return err
	}
	path := f.path + ".lock"
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
	known, err := f.latest(ctx)
	if err != nil {
		return err
	}
	entries, err := change(slices.Clone(known))
	if err != nil {
		return err
	}
	text, err := encode(entries)
	if err == nil {
		err = safefile.Write(f.path, text)
	}
	if err != nil {
		return &FileError{Path: f.path, Err: err}
	}
	return nil
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
