package files

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
)

// Each grant has a journal, and a listing can't open thousands to find the one with
// something in it. So whoever claims an attempt notes by an empty file that there is news
// of it, and takes the note away once the grant has all that the journal says. The notes
// need not survive a loss of power: after each start of the system all journals are looked
// at once.

// newsDir is the directory of the notes, among the journals.
const newsDir = "open"

func (s *Store) newsPath(slot, key string) string {
	return filepath.Join(s.dir, "journals", newsDir, slot+"."+key)
}

func (s *Store) addNews(slot, key string) error {
	path := s.newsPath(slot, key)
	file, err := safefile.OpenOwn(path, os.O_CREATE|os.O_WRONLY)
	if os.IsNotExist(err) {
		if err := safefile.MkdirAllCovered(filepath.Dir(path)); err != nil {
			return err
		}
		file, err = safefile.OpenOwn(path, os.O_CREATE|os.O_WRONLY)
	}
	if err != nil {
		return err
	}
	return file.Close()
}

func (s *Store) hasNews(slot, key string) (bool, error) {
	_, err := os.Lstat(s.newsPath(slot, key))
	if err != nil && !os.IsNotExist(err) {
		return false, fmt.Errorf("the journals can't be read: %w", err)
	}
	return err == nil, nil
}

func (s *Store) dropNews(slot, key string) error {
	return safefile.Unlink(s.newsPath(slot, key))
}

// dropIdleNews takes away a note where there is no news: its writer was cut off. With it
// goes a journal into which nothing was written, unless it is the grant's own. Nothing is
// done if somebody is about to write there: whoever refreshes holds the grant's lock, as
// the caller does. What can't be done does no harm, and is tried again.
func (s *Store) dropIdleNews(slot, key string) {
	done, free, _ := s.look(vault.LoginLock(slot))
	if !free {
		return
	}
	defer done()
	path := s.slotsPath(key)
	f, err := openSlots(path, key, os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		_ = s.dropNews(slot, key)
		return
	}
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	record, err := s.readRecord(slot)
	own := err == nil && record.TokenVaultKey == key && !record.Removing
	switch {
	case f.damage() != nil:
	case own && !isNews(f.journals(), record.Generation):
		_ = s.dropNews(slot, key)
	case f.blank() && (err == nil && !own || errors.Is(err, grant.ErrNoGrant)) && safefile.Unlink(path) == nil:
		_ = s.dropNews(slot, key)
	}
}

// newsNames lists the notes whose names begin with a prefix.
func (s *Store) newsNames(prefix string) ([]string, error) {
	all, err := safefile.ReadDir(filepath.Join(s.dir, "journals", newsDir))
	if err != nil {
		return nil, fmt.Errorf("the journals can't be read: %w", err)
	}
	names := all[:0]
	for _, name := range all {
		if _, key, ok := strings.Cut(name, "."); ok && strings.HasPrefix(name, prefix) && grant.CheckTokenVaultKey(key) == nil {
			names = append(names, name)
		}
	}
	return names, nil
}

// newsOf are the keys that there is news of in a slot.
func (s *Store) newsOf(slot string) ([]string, error) {
	names, err := s.newsNames(slot + ".")
	for i, name := range names {
		_, names[i], _ = strings.Cut(name, ".")
	}
	return names, err
}

// MoveNews takes along what there is news of in a slot whose grant, of a key, has another by
// now.
func (s *Store) MoveNews(from, to, key string) error {
	if err := s.moveOthers(from, to, key); err != nil {
		return err
	}
	return s.moveNews(from, to, key)
}

// moveNews takes the notes of a slot along when its record is renamed.
func (s *Store) moveNews(from, to, key string) error {
	if err := s.moveOlder(from, to, key); err != nil {
		return err
	}
	if news, err := s.hasNews(from, key); err != nil || !news || from == to {
		return err
	}
	if err := safefile.Rename(s.newsPath(from, key), s.newsPath(to, key)); err != nil {
		return &safefile.WriteError{What: "the journal can't be renamed", Err: err}
	}
	return nil
}

// moveOthers takes along what there is news of in a slot beside the grant of a key, such
// as the answers to its company's earlier grants that are kept.
func (s *Store) moveOthers(from, to, key string) error {
	keys, err := s.newsOf(from)
	if err != nil {
		return err
	}
	older, err := s.olderNames(from + ".")
	if err != nil {
		return err
	}
	for _, name := range older {
		if other, _, ok := strings.Cut(strings.TrimPrefix(name, from+"."), "."); ok {
			keys = append(keys, other)
		}
	}
	slices.Sort(keys)
	for _, other := range slices.Compact(keys) {
		if other == key {
			continue
		}
		if err := s.moveNews(from, to, other); err != nil {
			return err
		}
	}
	return nil
}

// bootName is the file that has the run of the system in which all journals were looked
// at.
const bootName = ".boot"

// boots is what is in it.
type boots struct {
	Version int    `json:"version"`
	Boot    string `json:"boot"`
}

// AllNoted looks at all journals once after each start of the system, as notes may have been
// lost with the power. After an error there may be news without a note.
func (s *Store) AllNoted() error {
	s.booting.Lock()
	defer s.booting.Unlock()
	if s.booted {
		return s.bootErr
	}
	err := s.renewNews()
	if errors.As(err, new(*recordsError)) {
		return err
	}
	s.booted, s.bootErr = true, err
	return err
}

// afterBoot is AllNoted for whoever can do with less while nobody knows the records.
func (s *Store) afterBoot() error {
	err := s.AllNoted()
	if errors.As(err, new(*recordsError)) {
		return nil
	}
	return err
}

// recordsError says that the records of a vault that has them elsewhere can't be read now.
type recordsError struct{ err error }

func (e *recordsError) Error() string { return e.err.Error() }

func (e *recordsError) Unwrap() error { return e.err }

func (s *Store) renewNews() error {
	dir := filepath.Join(s.dir, "journals")
	now := boots{Version: 1, Boot: s.Boot()}
	path := filepath.Join(dir, bootName)
	var then boots
	data, err := s.Places.Read(path, nil)
	if err == nil && json.Unmarshal(data, &then) == nil && then == now {
		return nil
	}
	names, err := safefile.ReadDir(filepath.Join(dir, slotsDir))
	if err != nil {
		return fmt.Errorf("the journals can't be read: %w", err)
	}
	if len(names) == 0 {
		return nil
	}
	if all, err := s.noteAll(names); err != nil || !all {
		return err
	}
	// Who may not write here only looks, and looks again the next time.
	_ = s.noteBoot() // it spares the next command the same look, and nothing else
	return nil
}

// noteBoot notes in which run of the system all journals were looked at.
func (s *Store) noteBoot() error {
	text, err := json.Marshal(boots{Version: 1, Boot: s.Boot()})
	if err != nil {
		return fmt.Errorf("the journals can't be listed: %w", err)
	}
	return safefile.WritePassing(filepath.Join(s.dir, "journals", bootName), append(text, '\n'))
}

// noteAll notes the news in all journals, and reports whether none can be missing.
func (s *Store) noteAll(names []string) (all bool, err error) {
	keys := names[:0]
	for _, name := range names {
		if grant.CheckTokenVaultKey(name) == nil {
			keys = append(keys, name)
		}
	}
	if len(keys) == 0 {
		return true, nil
	}
	known, all, err := s.byKey()
	if err != nil {
		return false, err
	}
	noted, err := s.notedKeys()
	if err != nil {
		return false, err
	}
	unread := !all
	for _, key := range keys {
		attempts, err := s.attempts(key)
		damaged := errors.As(err, new(*vault.JournalDamageError))
		if err != nil && !damaged {
			// Whoever needs it says what is wrong.
			all = all && errors.As(err, new(*vault.NewerError))
			continue
		}
		// Where no record speaks of a key, what its attempts name may come back.
		r, ok := known[key]
		if !ok && (len(attempts) == 0 || noted[key] || unread) {
			continue // or a record that can't be read may speak of it, by another name
		}
		slot := r.Slot()
		if !ok {
			slot = attempts[0].Slot()
		}
		if !isNews(attempts, r.Generation) && !damaged {
			continue
		}
		if err := s.addNews(slot, key); err != nil {
			return false, nil //nolint:nilerr // who may not write here only looks
		}
		if ok && !s.speaksOf(slot, key) {
			// It was renamed meanwhile, or removed.
			if err := s.dropNews(slot, key); err != nil {
				return false, err
			}
		}
	}
	done, err := s.dropMoved(known)
	return all && done, err
}

// isNews reports whether attempts tell something that a grant of a generation does not
// have.
func isNews(attempts []grant.Journal, generation int64) bool {
	// What a sign-in took the place of may have come back.
	replaced := slices.ContainsFunc(attempts, func(j grant.Journal) bool { return j.Replaces != "" })
	open, kept := grant.Unsettled(attempts, generation)
	return len(open)+len(kept) > 0 || replaced
}

// byKey are the records by their Token Vault Keys. All says that none but damaged ones is
// missing.
func (s *Store) byKey() (known map[string]grant.Record, all bool, err error) {
	known = map[string]grant.Record{}
	if s.Records != nil {
		records, all, err := s.Records(context.Background())
		if err != nil {
			return nil, false, &recordsError{err}
		}
		for _, r := range records {
			known[r.TokenVaultKey] = r
		}
		return known, all, nil
	}
	names, err := s.recordNames()
	if err != nil {
		return nil, false, err
	}
	var slots []string
	for _, name := range names {
		if slot, ok := strings.CutSuffix(name, ".json"); ok {
			slots = append(slots, slot)
		}
	}
	all = true
	records, errs := s.readRecords(slots, nil)
	for i, r := range records {
		if errs[i] == nil {
			known[r.TokenVaultKey] = r
			continue
		}
		all = all && errors.As(errs[i], new(*vault.DamagedError))
	}
	return known, all, nil
}

// notedKeys are the keys that there is news of in any slot.
func (s *Store) notedKeys() (map[string]bool, error) {
	names, err := s.newsNames("")
	noted := make(map[string]bool, len(names))
	for _, name := range names {
		_, key, _ := strings.Cut(name, ".")
		noted[key] = true
	}
	return noted, err
}

// dropMoved removes notes that came back with a loss of power under the place that a
// grant had before it was renamed. Whoever takes that place would take the grant's
// journal for what is left of its own.
func (s *Store) dropMoved(known map[string]grant.Record) (done bool, err error) {
	names, err := s.newsNames("")
	if err != nil {
		return false, err
	}
	for _, name := range names {
		slot, key, _ := strings.Cut(name, ".")
		r, ok := known[key]
		if !ok || r.Slot() == slot || !s.speaksOf(r.Slot(), key) {
			continue
		}
		if err := s.dropNews(slot, key); err != nil {
			return false, nil //nolint:nilerr // who may not write here only looks
		}
	}
	return true, nil
}

// speaksOf reports whether the record in a slot is that of a Token Vault Key.
func (s *Store) speaksOf(slot, key string) bool {
	if s.Records != nil {
		return true // it was asked a moment ago
	}
	r, err := s.readRecord(slot)
	return err == nil && r.TokenVaultKey == key
}
