// Package company keeps what is known of companies beside their grants: that
// they were added, and what happened to them. It has no secrets.
package company

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

// Book is a directory with two files for each company: one that says that it
// was added, and a log of what happened.
type Book struct{ dir string }

// Open returns the book in dir. Nothing is read or made before it is used.
func Open(dir string) Book { return Book{dir} }

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
}

func (b Book) path(name, ending string) string {
	return filepath.Join(b.dir, grant.CompanySlot(name)+ending)
}

// Add makes a company known, and reports whether it was not before.
func (b Book) Add(name string, now time.Time) (bool, error) {
	path := b.path(name, ".json")
	if _, err := os.Lstat(path); err == nil {
		return false, nil
	}
	data, err := json.Marshal(entry{Version: version, Company: name, Added: now.UTC()})
	if err != nil {
		return false, fmt.Errorf("the company can't be kept: %w", err)
	}
	return true, safefile.Write(path, append(data, '\n'))
}

// List returns the names of the companies that were added, in no order. Files
// that can't be used are problems and do no harm to the others.
func (b Book) List() (names []string, problems []error, err error) {
	files, err := os.ReadDir(b.dir)
	if err != nil && !os.IsNotExist(err) {
		return nil, nil, fmt.Errorf("the companies can't be read: %w", err)
	}
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".json") || strings.HasPrefix(file.Name(), ".") {
			continue
		}
		path := filepath.Join(b.dir, file.Name())
		data, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue // removed meanwhile
		}
		var e entry
		if err == nil {
			err = json.Unmarshal(data, &e)
		}
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("%s can't be used: %w", path, err))
		case e.Version > version:
			problems = append(problems, fmt.Errorf("%s was written by a newer upsauth (format %d, this one knows %d)", path, e.Version, version))
		case e.Company == "" || grant.CompanySlot(e.Company)+".json" != file.Name():
			problems = append(problems, fmt.Errorf("%s is not the file of the company that it names", path))
		default:
			names = append(names, e.Company)
		}
	}
	return names, problems, nil
}

// Remove forgets a company and its history.
func (b Book) Remove(name string) error {
	return errors.Join(safefile.Remove(b.path(name, ".json")), safefile.Remove(b.path(name, ".log")))
}

// Rename gives a company and its history another name.
func (b Book) Rename(old, fresh string, now time.Time) error {
	if _, err := os.Lstat(b.path(old, ".json")); err == nil {
		if err := safefile.Remove(b.path(old, ".json")); err != nil {
			return err
		}
		if _, err := b.Add(fresh, now); err != nil {
			return err
		}
	}
	if grant.CompanySlot(old) == grant.CompanySlot(fresh) {
		return nil
	}
	err := os.Rename(b.path(old, ".log"), b.path(fresh, ".log"))
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("the company's history can't be renamed: %w", err)
	}
	return nil
}

// Note adds an event to a company's history. It is not made to survive a loss of
// power: nothing depends on it.
func (b Book) Note(e grant.Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("the company's history can't be kept: %w", err)
	}
	if err := safefile.MkdirAll(b.dir); err != nil {
		return err
	}
	path := b.path(e.Company, ".log")
	lock := flock.New(filepath.Join(b.dir, ".lock"), flock.SetPermissions(0o600))
	if err := lock.Lock(); err != nil {
		return fmt.Errorf("the company's history can't be locked: %w", err)
	}
	defer func() { _ = lock.Close() }()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("the company's history can't be kept: %w", err)
	}
	_, err = file.Write(append(line, '\n'))
	info, statErr := file.Stat()
	if err := errors.Join(err, statErr, file.Close()); err != nil {
		return fmt.Errorf("the company's history can't be kept: %w", err)
	}
	if info.Size() > maxLog {
		return b.shorten(e.Company)
	}
	return nil
}

// shorten leaves the latest events, with those of a kind in a row as one.
func (b Book) shorten(name string) error {
	events, err := b.History(name)
	if err != nil {
		return err
	}
	events = events[max(0, len(events)-maxEvents):]
	var text bytes.Buffer
	for _, e := range events {
		line, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("the company's history can't be kept: %w", err)
		}
		text.Write(append(line, '\n'))
	}
	return safefile.Write(b.path(name, ".log"), text.Bytes())
}

// History returns what happened to a company, the oldest first; refreshes and
// failures of a kind in a row are one event with their count. Lines that can't be
// read are left out.
func (b Book) History(name string) ([]grant.Event, error) {
	data, err := os.ReadFile(b.path(name, ".log"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the company's history can't be read: %w", err)
	}
	var events []grant.Event
	for line := range bytes.Lines(data) {
		var e grant.Event
		if json.Unmarshal(line, &e) != nil || e.What == "" {
			continue
		}
		if n := len(events); n > 0 && sameKind(events[n-1], e) {
			last := events[n-1]
			if e.Since = last.Since; e.Since.IsZero() {
				e.Since = last.Time
			}
			e.Count = max(last.Count, 1) + max(e.Count, 1)
			events[n-1] = e
			continue
		}
		events = append(events, e)
	}
	return events, nil
}

func sameKind(a, b grant.Event) bool {
	return a.What == b.What && a.Application == b.Application && a.Environment == b.Environment &&
		(a.What == grant.EventRefreshed || a.What == grant.EventFailed && a.Detail == b.Detail)
}
