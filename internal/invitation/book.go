package invitation

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/company"
)

// Book has the rules of invitations, over a store.
type Book struct{ store Store }

// Open returns the book that is in a store. Nothing is read before it is used.
func Open(store Store) *Book { return &Book{store: store} }

const (
	// MostLasting is how long an invitation may last, and ShortestLasting how long it must.
	MostLasting     = 90 * 24 * time.Hour
	ShortestLasting = 10 * time.Minute
	// remembered is how long one that has ended is known, so that whoever holds its address
	// reads why.
	remembered = 180 * 24 * time.Hour
	// maxTries is how often a change is decided again because another process was faster.
	maxTries = 50
)

// Draft is what somebody invites for.
type Draft struct {
	CompanyID, Company       string // as Invitation has them
	Application, Environment string
	ClientID, Replaces       string
	ExpectUser               string
	AnyUser                  bool
	Note, ReturnURL, By      string
	Lasts                    time.Duration
}

// Clean returns the draft as it is kept, or a *LastingError or *DraftError that says what is
// wrong with it.
func (d Draft) Clean() (Draft, error) {
	if d.Lasts < ShortestLasting || d.Lasts > MostLasting {
		return d, &LastingError{d.Lasts}
	}
	for _, text := range []struct {
		field Field
		value *string
	}{{FieldNote, &d.Note}, {FieldExpectUser, &d.ExpectUser}} {
		clean, err := company.CleanDetail(string(text.field), *text.value)
		if err != nil {
			return d, &DraftError{text.field, err}
		}
		*text.value = clean
	}
	return d, nil
}

// Make makes an invitation. An earlier one of the same grant is replaced by it. Nobody
// can make the secret of its address again.
func (b *Book) Make(ctx context.Context, d Draft, now time.Time) (made Invitation, secret string, err error) {
	if d, err = d.Clean(); err != nil {
		return Invitation{}, "", err
	}
	secret = NewSecret()
	key, _ := KeyOf(secret)
	now = now.UTC()
	made = Invitation{
		ID: key.ID(), CompanyID: d.CompanyID, Company: d.Company, Application: d.Application, Environment: d.Environment,
		ClientID: d.ClientID, Replaces: d.Replaces, ExpectUser: d.ExpectUser, AnyUser: d.AnyUser,
		Note: d.Note, ReturnURL: d.ReturnURL, By: d.By, Made: now, Expires: now.Truncate(time.Second).Add(d.Lasts),
	}
	fresh := Row{RowKey: RowKey{Invitations, key}, Invitation: made}
	err = b.change(ctx, RowKey{Latest, grantKey(d.CompanyID, d.Application, d.Environment)}, func(latest *Row) ([]Row, error) {
		// Until it is the latest it is of no use, so it comes first.
		latest.Latest = key
		return []Row{fresh, *latest}, nil
	})
	if err != nil {
		return Invitation{}, "", err
	}
	return made, secret, nil
}

// grantKey is the key of a grant: of the company's identity, the application and the
// environment.
func grantKey(companyID, application, environment string) Key {
	sum := sha256.Sum256([]byte(strings.Join([]string{companyID, application, environment}, "\x00")))
	return Key(letters.EncodeToString(sum[:]))
}

func (i Invitation) grantKey() Key { return grantKey(i.CompanyID, i.Application, i.Environment) }

// ErrUnknown says that there is no such invitation, or none any more.
var ErrUnknown = errors.New("there is no such invitation")

// Get returns the invitation with a key, ErrUnknown where there is none. One that another
// has replaced has ended.
func (b *Book) Get(ctx context.Context, key Key) (Invitation, error) {
	row, err := b.store.Get(ctx, RowKey{Invitations, key})
	switch {
	case err != nil:
		return Invitation{}, err
	case row.Version == "":
		return Invitation{}, ErrUnknown
	}
	return b.orReplaced(ctx, key, row.Invitation)
}

// orReplaced is an invitation with its end where another one of its grant is the latest.
func (b *Book) orReplaced(ctx context.Context, key Key, i Invitation) (Invitation, error) {
	latest, err := b.store.Get(ctx, RowKey{Latest, i.grantKey()})
	if err != nil {
		return Invitation{}, err
	}
	if !i.isReplaced(key, latest.Latest) {
		return i, nil
	}
	newer, err := b.store.Get(ctx, RowKey{Invitations, latest.Latest})
	if err != nil { // when it ended is all that is not known
		newer = Row{}
	}
	return i.replaced(newer.Invitation.Made), nil
}

// isReplaced reports whether an invitation that nothing else has ended gave way to the
// latest of its grant.
func (i Invitation) isReplaced(key, latest Key) bool {
	return i.End == nil && key != latest && !i.held()
}

// replaced is the invitation with its end, when a newer one was made, zero where that is
// not known.
func (i Invitation) replaced(at time.Time) Invitation {
	if at.Before(i.Made) {
		at = i.Made
	}
	i.End = &End{Why: Replaced, At: at}
	return i
}

// Latest returns the invitation of a grant that was made last, ErrUnknown where there is
// none.
func (b *Book) Latest(ctx context.Context, companyID, application, environment string) (Listed, error) {
	row, err := b.store.Get(ctx, RowKey{Latest, grantKey(companyID, application, environment)})
	switch {
	case err != nil:
		return Listed{}, err
	case row.Version == "":
		return Listed{}, ErrUnknown
	}
	i, err := b.Get(ctx, row.Latest)
	return Listed{row.Latest, i}, err
}

// Any reports whether there is any invitation at all, as cheap as that can be told.
func (b *Book) Any(ctx context.Context) (bool, error) { return b.store.Any(ctx) }

// Listed is an invitation with its key.
type Listed struct {
	Key Key
	Invitation
}

// List returns all invitations, the latest made first. The problems are those that can't
// be read, which harm no other.
func (b *Book) List(ctx context.Context) (list []Listed, problems []error, err error) {
	rows, problems, err := b.store.List(ctx, Invitations)
	if err != nil {
		return nil, nil, err
	}
	latest, more, err := b.store.List(ctx, Latest)
	if err != nil {
		return nil, nil, err
	}
	latestOf := make(map[Key]Key, len(latest))
	for _, row := range latest {
		latestOf[row.Key] = row.Latest
	}
	made := make(map[Key]time.Time, len(rows))
	for _, row := range rows {
		made[row.Key] = row.Invitation.Made
	}
	for _, row := range rows {
		i := row.Invitation
		l, known := latestOf[i.grantKey()]
		if !known && len(more) > 0 && i.End == nil && !i.held() {
			// Whether another one has replaced it may stand in what can't be read.
			if _, err := b.Get(ctx, row.Key); err != nil {
				continue
			}
		}
		if i.isReplaced(row.Key, l) {
			newer := made[l]
			if !known && len(more) == 0 || !newer.IsZero() && i.Made.After(newer) {
				continue // it is being made, or its making was cut off: nobody has its address
			}
			i = i.replaced(newer)
		}
		list = append(list, Listed{row.Key, i})
	}
	slices.SortFunc(list, func(a, b Listed) int {
		if c := b.Made.Compare(a.Made); c != 0 {
			return c
		}
		return strings.Compare(string(a.Key), string(b.Key))
	})
	return list, append(problems, more...), nil
}

// Reading is another number once an invitation may have been made, changed or forgotten,
// whoever did. Zero is where that can't be told.
func (b *Book) Reading(ctx context.Context) (uint64, error) { return b.store.Reading(ctx) }

// Find returns the invitation that people call by an ID, in any case, or by the first
// letters of it where only one fits. ErrUnknown says that none does.
func (b *Book) Find(ctx context.Context, id string) (Listed, error) {
	id = strings.ToLower(strings.TrimSpace(id))
	list, problems, err := b.List(ctx)
	if err != nil {
		return Listed{}, err
	}
	var found []Listed
	for _, l := range list {
		if id != "" && strings.HasPrefix(l.ID, id) {
			found = append(found, l)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return Listed{}, &SeveralError{ID: id, Count: len(found)}
	}
	if len(problems) > 0 {
		return Listed{}, fmt.Errorf("no invitation that can be read has the ID %q: %w", id, errors.Join(problems...))
	}
	return Listed{}, ErrUnknown
}

// Change changes an invitation that has not ended; one that has is an *OverError. It is
// decided again where another process was faster.
func (b *Book) Change(ctx context.Context, key Key, decide func(*Invitation) error) (changed Invitation, err error) {
	err = b.change(ctx, RowKey{Invitations, key}, func(row *Row) ([]Row, error) {
		if row.Version == "" {
			return nil, ErrUnknown
		}
		i, err := b.orReplaced(ctx, key, row.Invitation)
		if err != nil {
			return nil, err
		}
		if i.End != nil {
			return nil, &OverError{i}
		}
		if err := decide(&i); err != nil {
			return nil, err
		}
		row.Invitation, changed = i, i
		return []Row{*row}, nil
	})
	if err != nil {
		return Invitation{}, err
	}
	return changed, nil
}

// Close notes how an invitation ended.
func (b *Book) Close(ctx context.Context, key Key, end End) (Invitation, error) {
	return b.Change(ctx, key, func(i *Invitation) error {
		end.At = end.At.UTC().Truncate(time.Second)
		i.End = &end
		return nil
	})
}

// Sweep forgets invitations that have ended long ago, judged by what they hang on.
func (b *Book) Sweep(ctx context.Context, now time.Time) error {
	rows, _, err := b.store.List(ctx, Invitations)
	if err != nil {
		return err
	}
	var failed []error
	for _, row := range rows {
		i := row.Invitation
		ended := i.Expires
		if i.End != nil {
			ended = i.End.At
		}
		if i.held() && i.End == nil || now.Sub(ended) < remembered {
			continue
		}
		remove := []Row{row}
		latest, err := b.store.Get(ctx, RowKey{Latest, i.grantKey()})
		if err == nil && latest.Version != "" && latest.Latest == row.Key {
			remove = append(remove, latest)
		}
		if err := b.store.Commit(ctx, nil, remove); err != nil && !errors.As(err, new(*ConflictError)) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// change reads a row and commits what decide makes of it, beside others.
func (b *Book) change(ctx context.Context, key RowKey, decide func(*Row) ([]Row, error)) error {
	row, err := b.store.Get(ctx, key)
	if err != nil {
		return err
	}
	for tries := 1; ; tries++ {
		put, err := decide(&row)
		if err != nil {
			return err
		}
		err = b.store.Commit(ctx, put, nil)
		var conflict *ConflictError
		if !errors.As(err, &conflict) || tries == maxTries || conflict.Row.RowKey != key {
			return err
		}
		row = conflict.Row
	}
}

// LastingError says that an invitation can't last as long as was asked.
type LastingError struct{ Lasts time.Duration }

func (e *LastingError) Error() string {
	return fmt.Sprintf("an invitation lasts %d minutes at least and %d days at most", ShortestLasting/time.Minute, MostLasting/(24*time.Hour))
}

// Field is a text that somebody writes into a Draft, as errors call it.
type Field string

// The fields of a Draft that can be wrong.
const (
	FieldNote       Field = "note"
	FieldExpectUser Field = "expected user"
)

// DraftError says what is wrong with a field of what somebody invites for.
type DraftError struct {
	Field Field
	Err   error
}

func (e *DraftError) Error() string { return e.Err.Error() }

func (e *DraftError) Unwrap() error { return e.Err }

// SeveralError says that several invitations' IDs begin so.
type SeveralError struct {
	ID    string
	Count int
}

func (e *SeveralError) Error() string {
	return fmt.Sprintf("%d invitations have an ID that begins with %s", e.Count, e.ID)
}

// OverError says that an invitation has ended, so nothing was changed.
type OverError struct{ Invitation Invitation }

func (e *OverError) Error() string {
	return fmt.Sprintf("the invitation %s has ended (%s); nothing was changed", e.Invitation.ID, e.Invitation.End.Why)
}
