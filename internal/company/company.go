// Package company keeps what is known of companies beside their grants: that
// they were added, whom to ring about them, and what happened to them. It has no
// secrets.
package company

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

// Book is a directory with two files for each company: one that says that it
// was added and whom to ring, and a log of what happened.
type Book struct {
	dir string
	// Places is the rule for who else may change its files. The directory is
	// checked by whoever opens the book.
	Places *safefile.Places
	// turn is this process's: whoever finds the lock of all processes taken looks
	// again only after a while.
	turn chan struct{}
}

// Open returns the book in dir. Nothing is read or made before it is used.
func Open(dir string) Book {
	return Book{dir: dir, Places: &safefile.Places{}, turn: make(chan struct{}, 1)}
}

const (
	version = 1
	// A log that is larger than this many bytes is made shorter; maxEvents are
	// left then.
	maxLog    = 64 << 10
	maxEvents = 100
)

// entry is the file of a company that was added.
type entry struct {
	Version int       `json:"version"`
	Company string    `json:"company"`
	Added   time.Time `json:"added"`
	Details
}

// Details are what a person noted about a company, on one line each, empty for
// nothing.
type Details struct {
	// Contact is whom to ring when the company has to be authorized.
	Contact string `json:"contact,omitempty"`
	Note    string `json:"note,omitempty"`
}

// MaxDetail is how long a contact or a note may be, in characters.
const MaxDetail = 1000

// CleanDetail returns a contact or a note as it is kept, on one line, or an error
// that says what is wrong with it.
func CleanDetail(what, text string) (string, error) {
	if !utf8.ValidString(text) {
		return "", fmt.Errorf("the %s is not valid UTF-8 text", what)
	}
	text = norm.NFC.String(strings.Join(strings.Fields(text), " "))
	if n := utf8.RuneCountInString(text); n > MaxDetail {
		return "", fmt.Errorf("the %s has %d characters; at most %d are allowed", what, n, MaxDetail)
	}
	for _, r := range text {
		if unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp) {
			return "", fmt.Errorf("the %s has a control character (%U) in it", what, r)
		}
	}
	return text, nil
}

// Company is a company that was added.
type Company struct {
	Name string
	Details
}

func (b Book) path(name, ending string) string {
	return filepath.Join(b.dir, grant.CompanySlot(name)+ending)
}

// lock keeps other processes from changing the book. Nothing of value depends on
// it, so nobody waits for long.
func (b Book) lock() (unlock func(), err error) {
	if err := safefile.MkdirAll(b.dir); err != nil {
		return nil, err
	}
	path := filepath.Join(b.dir, ".lock")
	lock := safefile.NewLock(path)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	select {
	case b.turn <- struct{}{}:
		_, err = lock.TryLockContext(ctx, 5*time.Millisecond)
	case <-ctx.Done():
		return nil, fmt.Errorf("the list of companies is locked by another process: %w", ctx.Err())
	}
	if err != nil {
		<-b.turn
		return nil, fmt.Errorf("the list of companies is locked by another process: %w", safefile.Explain(path, err))
	}
	return func() {
		_ = lock.Close()
		<-b.turn
	}, nil
}

// read returns a company that was added; errors are os.ErrNotExist and *FileError.
func (b Book) read(path string) (entry, error) {
	data, err := b.Places.Read(path, nil)
	if errors.Is(err, os.ErrNotExist) {
		return entry{}, err
	}
	if err != nil {
		return entry{}, &FileError{Path: path, Err: err}
	}
	e, err := parse(data, filepath.Base(path))
	if err != nil {
		return entry{}, &FileError{Path: path, Err: err, Damaged: errors.As(err, new(*malformedError))}
	}
	return e, nil
}

// parse reads the text of a company's file of that name.
func parse(data []byte, name string) (entry, error) {
	var e entry
	if err := json.Unmarshal(data, &e); err != nil {
		return entry{}, &malformedError{err}
	}
	switch {
	case e.Version > version:
		return entry{}, &newerError{e.Version}
	case e.Company == "" || grant.CompanySlot(e.Company)+".json" != name:
		return entry{}, errors.New("it names another company than its own")
	}
	return e, grant.CheckCompany(e.Company)
}

// FileError says that what a file has about a company can't be used, and why.
type FileError struct {
	Path string
	Err  error
	// Damaged says that it is no text of such a file at all, and adding the company
	// makes it anew.
	Damaged bool
}

func (e *FileError) Error() string { return fmt.Sprintf("%s can't be used: %v", e.Path, e.Err) }

func (e *FileError) Unwrap() error { return e.Err }

type malformedError struct{ error }

func (e *malformedError) Unwrap() error { return e.error }

type newerError struct{ version int }

func (e *newerError) Error() string {
	return fmt.Sprintf("it was written by a newer upsauth (format %d, this one knows %d)", e.version, version)
}

// Add makes a company known, and reports whether it was not before. A damaged
// file is replaced.
func (b Book) Add(name string, now time.Time) (bool, error) {
	_, err := b.read(b.path(name, ".json"))
	if err == nil {
		return false, nil
	}
	if errors.As(err, new(*newerError)) || errors.Is(err, os.ErrPermission) {
		return false, err
	}
	return true, b.keep(entry{Version: version, Company: name, Added: now.UTC()})
}

func (b Book) keep(e entry) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("the company can't be saved: %w", err)
	}
	return safefile.Write(b.path(e.Company, ".json"), append(data, '\n'))
}

// Describe changes a company's details, and makes it known where it is not. It
// reports whether anything is different now.
func (b Book) Describe(name string, now time.Time, change func(*Details)) (bool, error) {
	unlock, err := b.lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	e, err := b.read(b.path(name, ".json"))
	if errors.As(err, new(*newerError)) || errors.Is(err, os.ErrPermission) {
		return false, err
	}
	if err != nil {
		e = entry{Version: version, Company: name, Added: now.UTC()}
	}
	before := e.Details
	if change(&e.Details); err == nil && e.Details == before {
		return false, nil
	}
	return true, b.keep(e)
}

// List returns the companies that were added, in no order, or the one that is
// asked for where company is not empty. Files that can't be used are problems and
// do no harm to the others. A name of an earlier version with characters in it that
// nobody sees is found by the name without them.
func (b Book) List(company string) (companies []Company, problems []error, err error) {
	if company == "" {
		return b.list("")
	}
	for _, name := range grant.Spellings(company) {
		if companies, problems, err = b.list(name); err != nil || len(companies)+len(problems) > 0 {
			return companies, problems, err
		}
	}
	all, _, err := b.list("")
	return slices.DeleteFunc(all, func(c Company) bool { return grant.Fold(c.Name) != grant.Fold(company) }), nil, err
}

func (b Book) list(company string) (companies []Company, problems []error, err error) {
	files, err := safefile.ReadDir(b.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("the companies can't be read: %w", err)
	}
	for _, name := range files {
		if !strings.HasSuffix(name, ".json") || strings.HasPrefix(name, ".") || company != "" && name != grant.CompanySlot(company)+".json" {
			continue
		}
		e, err := b.read(filepath.Join(b.dir, name))
		switch {
		case errors.Is(err, os.ErrNotExist): // removed meanwhile
		case err != nil:
			problems = append(problems, err)
		default:
			companies = append(companies, Company{e.Company, e.Details})
		}
	}
	return companies, problems, nil
}

// Remembered returns the names of the companies that have a history, in no order.
// Files that can't be read are problems and do no harm to the others.
func (b Book) Remembered() (names []string, problems []error, err error) {
	files, err := safefile.ReadDir(b.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("the companies can't be read: %w", err)
	}
	for _, name := range files {
		slot, ok := strings.CutSuffix(name, ".log")
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		events, err := b.readLog(filepath.Join(b.dir, name))
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if n := len(events); n > 0 && grant.CompanySlot(events[n-1].Company) == slot {
			names = append(names, events[n-1].Company)
		}
	}
	return names, problems, nil
}

// Remove forgets a company and its history.
func (b Book) Remove(name string) error {
	unlock, err := b.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return errors.Join(safefile.Remove(b.path(name, ".json")), safefile.Remove(b.path(name, ".log")))
}

// both are two details of companies that become one; the second is left out where
// it adds nothing, or there is no room for it.
func both(kept, other string) string {
	joined := strings.Trim(kept+"; "+other, "; ")
	if kept == other || strings.Contains(kept, other) || utf8.RuneCountInString(joined) > MaxDetail {
		return cmp.Or(kept, other)
	}
	return joined
}

// Rename gives a company, its details and its history another name. Where that
// has a history already, the two become one, with the details of both. One
// that was cut off is finished by the same call.
func (b Book) Rename(old, fresh string, now time.Time) error {
	unlock, err := b.lock()
	if err != nil {
		return err
	}
	defer unlock()
	same := grant.CompanySlot(old) == grant.CompanySlot(fresh)
	e, err := b.read(b.path(old, ".json"))
	if errors.As(err, new(*newerError)) || errors.Is(err, os.ErrPermission) {
		return err
	}
	// A damaged one was the old name's, whatever is in it.
	if damaged := errors.As(err, new(*FileError)); damaged || err == nil && e.Company != fresh {
		there, err := b.read(b.path(fresh, ".json"))
		switch {
		case errors.As(err, new(*newerError)), errors.Is(err, os.ErrPermission):
			return err
		case err != nil:
			there = entry{Version: version, Company: fresh, Added: now.UTC()}
		case same:
			there.Company = fresh
		}
		if !same {
			there.Contact, there.Note = both(there.Contact, e.Contact), both(there.Note, e.Note)
		}
		if err := b.keep(there); err != nil {
			return err
		}
	}
	if same {
		return nil
	}
	before, err := b.History(old)
	if err != nil {
		return err
	}
	after, err := b.History(fresh)
	if err != nil {
		return err
	}
	// What a renaming that was cut off brought there already comes once.
	before = slices.DeleteFunc(before, func(e grant.Event) bool { return slices.Contains(after, e) })
	if len(before) > 0 {
		events := slices.Concat(before, after)
		slices.SortStableFunc(events, func(a, b grant.Event) int { return a.Time.Compare(b.Time) })
		// The last event has the name that a company without grants goes by.
		if last := events[len(events)-1].Company; last != fresh {
			events = append(events, grant.Event{Time: now.UTC(), What: grant.EventRenamed, ID: grant.ID{Company: fresh}, Detail: "it was called " + last})
		}
		if err := b.write(fresh, events); err != nil {
			return err
		}
	}
	return errors.Join(safefile.Remove(b.path(old, ".json")), safefile.Remove(b.path(old, ".log")))
}

// Note adds an event to a company's history. It is not made to survive a loss of
// power: nothing depends on it.
func (b Book) Note(e grant.Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("the company's history can't be saved: %w", err)
	}
	unlock, err := b.lock()
	if err != nil {
		return err
	}
	defer unlock()
	path := b.path(e.Company, ".log")
	file, err := safefile.OpenOwn(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND)
	if err != nil {
		return fmt.Errorf("the company's history can't be saved: %w", err)
	}
	_, err = file.Write(append(line, '\n'))
	info, statErr := file.Stat()
	if err := errors.Join(err, statErr, file.Close()); err != nil {
		return fmt.Errorf("the company's history can't be saved: %w", err)
	}
	if info.Size() > maxLog {
		return b.shorten(e.Company)
	}
	return nil
}

// shorten leaves what says most: refreshes and failures go before what a person
// did, the oldest first.
func (b Book) shorten(name string) error {
	events, err := b.History(name)
	if err != nil {
		return err
	}
	for len(events) > 1 && (len(events) > maxEvents || size(events) > maxLog/2) {
		i := slices.IndexFunc(events, func(e grant.Event) bool { return e.What == grant.EventRefreshed || e.What == grant.EventFailed })
		events = slices.Delete(events, max(i, 0), max(i, 0)+1)
	}
	return b.write(name, events)
}

func size(events []grant.Event) int {
	text, _ := encode(events)
	return len(text)
}

func encode(events []grant.Event) ([]byte, error) {
	var text bytes.Buffer
	for _, e := range events {
		line, err := json.Marshal(e)
		if err != nil {
			return nil, fmt.Errorf("the company's history can't be saved: %w", err)
		}
		text.Write(append(line, '\n'))
	}
	return text.Bytes(), nil
}

func (b Book) write(name string, events []grant.Event) error {
	text, err := encode(events)
	if err != nil {
		return err
	}
	return safefile.Write(b.path(name, ".log"), text)
}

// History returns what happened to a company, the oldest first; refreshes and
// failures of a kind that follow each other for one grant are one event with
// their count. Lines that can't be read are left out.
func (b Book) History(name string) ([]grant.Event, error) {
	return b.readLog(b.path(name, ".log"))
}

func (b Book) readLog(path string) ([]grant.Event, error) {
	data, err := b.Places.Read(path, nil)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, &FileError{Path: path, Err: err}
	}
	return parseLog(data), nil
}

// parseLog reads the text of a company's history.
func parseLog(data []byte) (events []grant.Event) {
	for line := range bytes.Lines(data) {
		var e grant.Event
		if json.Unmarshal(line, &e) != nil || e.What == "" || !clean(e.ID) {
			continue
		}
		last := -1
		for i := len(events) - 1; i >= 0 && last < 0; i-- {
			if events[i].Application == e.Application && events[i].Environment == e.Environment {
				last = i
			}
		}
		if last >= 0 && sameKind(events[last], e) {
			before := events[last]
			if e.Since = before.Since; e.Since.IsZero() {
				e.Since = before.Time
			}
			e.Count = max(before.Count, 1) + max(e.Count, 1)
			events = slices.Delete(events, last, last+1)
		}
		events = append(events, e)
	}
	return events
}

// clean reports whether an event is of a company that there can be, and of an
// application and environment of which there can be files, or of none.
func clean(id grant.ID) bool {
	if id.Application == "" && id.Environment == "" {
		return grant.CheckCompany(id.Company) == nil
	}
	return id.Check() == nil
}

func sameKind(a, b grant.Event) bool {
	return a.What == b.What &&
		(a.What == grant.EventRefreshed || a.What == grant.EventFailed && a.Detail == b.Detail)
}
