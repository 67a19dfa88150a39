package files

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
)

// FlawedJournal is a journal that can't be read or written, or not all of it.
type FlawedJournal struct {
	grant.ID        // of its grant, empty where nothing tells
	Slot     string // of the same, empty where nothing tells
	Key      string // the Token Vault Key that it is of
	Path     string
	// News says that the grant may lack what is in the journal.
	News bool
	// Slots says that whole slots are damaged, which SetJournalAside empties. A refresh
	// writes anything else anew.
	Slots bool
	// Aside says that it is a copy that was set aside earlier.
	Aside bool
	Err   error
}

// Flawed reads all journals, also those that there is no news of, and returns those that
// can't be used as they are. Records are those of all grants.
func (s *Store) Flawed(ctx context.Context, records []grant.Record) (found []FlawedJournal, err error) {
	dir := filepath.Join(s.dir, "journals", slotsDir)
	names, err := safefile.ReadDir(dir)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	places := map[string]FlawedJournal{}
	generations := map[string]int64{}
	for _, r := range records {
		places[r.TokenVaultKey] = FlawedJournal{ID: r.ID, Slot: r.Slot()}
		generations[r.TokenVaultKey] = r.Generation
	}
	news, err := s.newsNames("")
	if err != nil {
		return nil, err
	}
	for _, name := range news {
		slot, key, _ := strings.Cut(name, ".")
		place := places[key]
		if place.Slot == "" {
			place.Slot = slot
		}
		place.News = place.News || place.Slot == slot
		places[key] = place
	}
	var all []FlawedJournal
	for _, name := range names {
		key, rest, _ := strings.Cut(name, ".")
		if grant.CheckTokenVaultKey(key) != nil || rest != "" && !strings.HasSuffix("."+rest, ".damaged") {
			continue
		}
		j := places[key]
		j.Key, j.Path, j.Aside = key, filepath.Join(dir, name), rest != ""
		all = append(all, j)
	}
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range all {
		j := &all[i]
		if j.Aside {
			continue
		}
		group.Go(func() error {
			if ctx.Err() == nil {
				s.examine(j, generations[j.Key])
			}
			return ctx.Err()
		})
	}
	_ = group.Wait() // with the context's error, if any
	for _, j := range all {
		if ctx.Err() != nil {
			return found, ctx.Err()
		}
		if errors.As(j.Err, new(*vault.JournalDamageError)) && j.Slot != "" {
			j.Err = nil
			busy := s.atRest(j.Slot, func() {
				generation := generations[j.Key]
				if r, err := s.readRecord(j.Slot); err == nil && r.TokenVaultKey == j.Key {
					generation = r.Generation
				}
				s.examine(&j, generation)
			})
			j.Err = errors.Join(j.Err, busy)
		}
		if j.Aside || j.Err != nil {
			found = append(found, j)
		}
	}
	return found, nil
}

// examine notes what is wrong with a journal whose grant has a generation.
func (s *Store) examine(j *FlawedJournal, generation int64) {
	f, err := openSlots(j.Path, j.Key, os.O_RDWR)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		// It may be immutable, or the disk read-only: what can be read is told first.
		writing := journalFailed(err)
		if f, err = openSlots(j.Path, j.Key, os.O_RDONLY); err == nil {
			j.Err = writing
		}
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return
	case errors.As(err, new(*vault.NewerError)):
		j.Err = err
		return
	case err != nil:
		j.Err = &vault.FileError{What: "a journal", Path: j.Path, Err: err}
		return
	}
	defer func() { _ = f.Close() }()
	if attempts := f.journals(); len(attempts) > 0 && j.Company == "" {
		j.ID = attempts[0].ID
		j.Slot = cmp.Or(j.Slot, j.ID.Slot())
	}
	j.Slots = f.damage() != nil
	if cause := f.flaw(generation); cause != "" {
		j.Err = &vault.JournalDamageError{Path: j.Path, Cause: cause}
	}
}

// SetJournalAside copies a journal with damaged slots and empties these. It returns the
// copy's path, empty where nothing is damaged any more.
func (s *Store) SetJournalAside(ctx context.Context, j FlawedJournal) (aside string, err error) {
	unlock, _, _, err := s.Lock(ctx, j.Slot, true)
	if err != nil {
		return "", &vault.LockError{Of: cmp.Or(j.Company, j.Slot), Err: err}
	}
	defer unlock()
	done, free, err := s.look(vault.LoginLock(j.Slot))
	if !free {
		return "", cmp.Or(err, grant.ErrLoginBusy)
	}
	defer done()
	key := j.Key
	if _, err := s.attempts(key); !errors.As(err, new(*vault.JournalDamageError)) {
		return "", err
	}
	err = clearDamaged(j.Path, key)
	var set *vault.DamagedError
	if errors.As(err, &set) {
		return set.Path, nil
	}
	return "", err
}
