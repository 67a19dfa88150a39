// Package company keeps what is known of companies beside their grants: that
// they were added, whom to ring about them, and what happened to them. It has no
// secrets.
package company

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/upsauth/upsauth/internal/grant"
)

// Book has the rules of what is known of companies, over a store.
type Book struct {
	store Store

	mu         sync.Mutex
	identified *Identified // of its reading, nil for none yet
}

// Open returns the book that is in a store. Nothing is read before it is used.
func Open(store Store) *Book { return &Book{store: store} }

const (
	// A history that is larger than this many bytes is made shorter; maxEvents are
	// left then.
	maxHistory = 64 << 10
	maxEvents  = 100
	// maxTries is how often a change is decided again because another process was faster.
	maxTries = 50
)

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

// known reports whether a row is there and can be used.
func (r Row) known() bool { return r.Version != "" && r.Damaged == nil }

// checked is a row without an entry that there can't be under its key: what a store
// has is checked like what comes from outside.
func checked(r Row) Row {
	if r.Part != Added || !r.known() {
		return r
	}
	var err error
	if keyOf(r.Entry.Company, Added) != r.Key {
		err = errors.New("it names another company than its own")
	} else {
		err = grant.CheckCompany(r.Entry.Company)
	}
	if err != nil {
		r.Entry, r.Damaged = Entry{}, &FileError{Path: r.Place, Err: err}
	}
	return r
}

// change reads rows and commits what decide makes of them: nothing where it returns no
// rows. If another process has changed one of them meanwhile, decide gets them again.
func (b *Book) change(ctx context.Context, keys []Key, decide func(rows []Row) (put, remove []Row)) error {
	rows := make([]Row, len(keys))
	for i, key := range keys {
		row, err := b.store.Get(ctx, key)
		if err != nil {
			return err
		}
		rows[i] = checked(row)
	}
	for tries := 1; ; tries++ {
		put, remove := decide(rows)
		if len(put)+len(remove) == 0 {
			return nil
		}
		err := b.store.Commit(ctx, put, remove)
		var conflict *ConflictError
		if !errors.As(err, &conflict) || tries == maxTries {
			return err
		}
		for i := range rows {
			if rows[i].Key == conflict.Row.Key {
				rows[i] = checked(conflict.Row)
			}
		}
	}
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

// Add makes a company known, and reports whether it was not before. A damaged
// row is replaced.
func (b *Book) Add(ctx context.Context, name string, now time.Time) (bool, error) {
	return b.Describe(ctx, name, now, func(*Details) {})
}

// Describe changes a company's details, and makes it known where it is not. It
// reports whether anything is different now. Change gets the details again if another
// process changed them meanwhile.
func (b *Book) Describe(ctx context.Context, name string, now time.Time, change func(*Details)) (different bool, err error) {
	err = b.change(ctx, []Key{keyOf(name, Added)}, func(rows []Row) (put, remove []Row) {
		row := rows[0]
		known, before := row.known(), row.Entry.Details
		if !known {
			row.Entry = Entry{Company: name, Added: now.UTC()}
		}
		change(&row.Entry.Details)
		if different = !known || row.Entry.Details != before; different {
			put = append(put, row)
		}
		return put, nil
	})
	return different && err == nil, err
}

// List returns the companies that were added, in no order, or the one that is
// asked for where company is not empty. Rows that can't be used are problems and
// do no harm to the others. A name of an earlier version with characters in it that
// nobody sees is found by the name without them.
func (b *Book) List(ctx context.Context, company string) (companies []Company, problems []error, err error) {
	if company == "" {
		return b.all(ctx)
	}
	for _, name := range grant.Spellings(company) {
		row, err := b.store.Get(ctx, keyOf(name, Added))
		row = checked(row)
		switch {
		case errors.As(err, new(*FileError)):
			return nil, []error{err}, nil
		case err != nil:
			return nil, nil, err
		case row.Damaged != nil:
			return nil, []error{row.Damaged}, nil //nolint:nilerr // it harms no other company
		case row.known():
			return []Company{{row.Entry.Company, row.Entry.Details}}, nil, nil
		}
	}
	// The problems are those of other companies.
	all, _, err := b.all(ctx)
	return slices.DeleteFunc(all, func(c Company) bool { return grant.Fold(c.Name) != grant.Fold(company) }), nil, err
}

func (b *Book) all(ctx context.Context) (companies []Company, problems []error, err error) {
	rows, problems, err := b.store.List(ctx, Added, nil)
	if err != nil {
		return nil, nil, err
	}
	for _, row := range rows {
		if row = checked(row); row.Damaged != nil {
			problems = append(problems, row.Damaged)
		} else {
			companies = append(companies, Company{row.Entry.Company, row.Entry.Details})
		}
	}
	return companies, problems, nil
}

// Remembered returns the names of the companies that have a history and are not among
// those that are known already, in no order. Histories that can't be read are problems and
// do no harm to the others.
func (b *Book) Remembered(ctx context.Context, known []string) (names []string, problems []error, err error) {
	slots := make(map[string]bool, len(known))
	for _, name := range known {
		slots[grant.CompanySlot(name)] = true
	}
	rows, problems, err := b.store.List(ctx, History, slots)
	if err != nil {
		return nil, nil, err
	}
	for _, row := range rows {
		if n := len(row.Events); n > 0 && keyOf(row.Events[n-1].Company, History) == row.Key {
			names = append(names, row.Events[n-1].Company)
		}
	}
	return names, problems, nil
}

// Remove forgets a company and its history.
func (b *Book) Remove(ctx context.Context, name string) error {
	return b.change(ctx, []Key{keyOf(name, Added), keyOf(name, History)}, func(rows []Row) (put, remove []Row) { return nil, rows })
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
func (b *Book) Rename(ctx context.Context, old, fresh string, now time.Time) error {
	if grant.CompanySlot(old) == grant.CompanySlot(fresh) {
		return b.respell(ctx, fresh, now)
	}
	keys := []Key{keyOf(old, Added), keyOf(old, History), keyOf(fresh, Added), keyOf(fresh, History)}
	return b.change(ctx, keys, func(rows []Row) (put, remove []Row) {
		added, history, freshAdded, freshHistory := rows[0], rows[1], rows[2], rows[3]
		// A damaged one was the old name's, whatever is in it.
		if added.Version != "" {
			if !freshAdded.known() {
				freshAdded.Entry = Entry{Company: fresh, Added: now.UTC()}
			}
			e := &freshAdded.Entry
			e.Contact, e.Note = both(e.Contact, added.Entry.Contact), both(e.Note, added.Entry.Note)
			e.IDs = union(e.IDs, added.Entry.IDs)
			put = append(put, freshAdded)
		}
		// What a renaming that was cut off brought there already comes once.
		after := counted(freshHistory.Events)
		before := slices.DeleteFunc(counted(history.Events), func(e grant.Event) bool { return slices.Contains(after, e) })
		if len(before) > 0 {
			events := slices.Concat(before, after)
			slices.SortStableFunc(events, func(a, b grant.Event) int { return a.Time.Compare(b.Time) })
			// The last event has the name that a company without grants goes by.
			if last := events[len(events)-1].Company; last != fresh {
				events = append(events, grant.Event{Time: now.UTC(), What: grant.EventRenamed, ID: grant.ID{Company: fresh}, By: Who(ctx), Detail: "it was called " + last})
			}
			freshHistory.Events = events
			put = append(put, freshHistory)
		}
		return put, []Row{added, history}
	})
}

// respell writes a company's name in another way, which is the same name.
func (b *Book) respell(ctx context.Context, name string, now time.Time) error {
	return b.change(ctx, []Key{keyOf(name, Added)}, func(rows []Row) (put, remove []Row) {
		row := rows[0]
		if row.Version == "" || row.Entry.Company == name {
			return nil, nil
		}
		if row.Damaged != nil {
			row.Entry.Added = now.UTC()
		}
		row.Entry.Company = name
		return []Row{row}, nil
	})
}

type byKey struct{}

// By is a context in which histories say who did what is done: a face that is no command
// line, such as "manager".
func By(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, byKey{}, who)
}

// Who did what is done in a context, empty for somebody at a command line.
func Who(ctx context.Context) string {
	by, _ := ctx.Value(byKey{}).(string)
	return by
}

// Note adds an event to a company's history. It is not made to survive a loss of
// power: nothing depends on it.
func (b *Book) Note(ctx context.Context, e grant.Event) error {
	e.By = cmp.Or(e.By, Who(ctx))
	size, err := b.store.Append(ctx, grant.CompanySlot(e.Company), e)
	if err == nil && size > maxHistory {
		err = b.shorten(ctx, e.Company)
	}
	if err != nil {
		return fmt.Errorf("the company's history can't be saved: %w", err)
	}
	return nil
}

// shorten leaves what says most: refreshes and failures go before what a person
// did, the oldest first. Where others are always faster, the next event does it.
func (b *Book) shorten(ctx context.Context, name string) error {
	err := b.change(ctx, []Key{keyOf(name, History)}, func(rows []Row) (put, remove []Row) {
		row := rows[0]
		if size(row.Events) <= maxHistory/2 {
			return nil, nil // by another process
		}
		events := counted(row.Events)
		for len(events) > 1 && (len(events) > maxEvents || size(events) > maxHistory/2) {
			i := slices.IndexFunc(events, func(e grant.Event) bool { return e.What == grant.EventRefreshed || e.What == grant.EventFailed })
			events = slices.Delete(events, max(i, 0), max(i, 0)+1)
		}
		row.Events = events
		return []Row{row}, nil
	})
	if errors.As(err, new(*ConflictError)) {
		return nil
	}
	return err
}

// size is how many bytes of JSON some events are, a line each.
func size(events []grant.Event) int {
	n := 0
	for _, e := range events {
		line, _ := json.Marshal(e) // whoever keeps them says if that can't be done
		n += len(line) + 1
	}
	return n
}

// History returns what happened to a company, the oldest first; refreshes and
// failures of a kind that follow each other for one grant are one event with
// their count.
func (b *Book) History(ctx context.Context, name string) ([]grant.Event, error) {
	row, err := b.store.Get(ctx, keyOf(name, History))
	return counted(row.Events), err
}

// counted are events without those that there can't be, and with one for each row of
// them that is of one kind.
func counted(raw []grant.Event) (events []grant.Event) {
	for _, e := range raw {
		if !Sound(e) {
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

// Sound reports whether there can be such an event: what a store has may be anything.
func Sound(e grant.Event) bool { return e.What != "" && clean(e.ID) }

// clean reports whether an event is of a company that there can be, and of an
// application and environment of which there can be files, or of none.
func clean(id grant.ID) bool {
	if id.Application == "" && id.Environment == "" {
		return grant.CheckCompany(id.Company) == nil
	}
	return id.Check() == nil
}

func sameKind(a, b grant.Event) bool {
	return a.What == b.What && a.By == b.By &&
		(a.What == grant.EventRefreshed || a.What == grant.EventFailed && a.Detail == b.Detail)
}
