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

	"github.com/google/uuid"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
)

// slotsDir is the directory of the journals of format 2, among those of format 1.
const slotsDir = "slots"

func (s *Store) slotsPath(key string) string {
	return filepath.Join(s.dir, "journals", slotsDir, key)
}

// Claim writes what is about to be sent to disk, with room for the answer.
func (s *Store) Claim(_ context.Context, j *grant.Journal) error {
	if err := s.dirs(); err != nil {
		return journalFailed(err)
	}
	if j.Purpose == grant.Authorizing {
		s.touchLock(workLock)
	} else if err := s.refuseOlder(j.Slot()); err != nil {
		return err
	}
	if err := s.reserve(); err != nil {
		return journalFailed(err)
	}
	j.Version, j.Nonce = grant.RecordVersion, strings.ReplaceAll(uuid.NewString(), "-", "")
	path := s.slotsPath(j.TokenVaultKey)
	j.Answered, j.Elsewhere, j.Path = false, false, path
	if err := s.addNews(j.Slot(), j.TokenVaultKey); err != nil {
		return journalFailed(err)
	}
	f, err := openSlots(path, j.TokenVaultKey, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return journalFailed(err)
	}
	defer func() { _ = f.Close() }()
	if j.Purpose == grant.Refreshing {
		if err := f.shrink(j.Generation - 1); err != nil {
			return journalFailed(err)
		}
	}
	named := f.named()
	err = f.claim(*j)
	if err == nil && !named {
		err = safefile.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		f.withdraw(*j)
		return journalFailed(err)
	}
	return nil
}

// journalFailed is why a journal can't be written. What a newer upsauth wrote is left
// alone.
func journalFailed(err error) error {
	if errors.As(err, new(*vault.NewerError)) {
		return err
	}
	return &safefile.WriteError{What: "the journal can't be written", Err: err}
}

// refuseOlder makes a record of a format that an upsauth reads which does not know
// these journals one of today's: it would send the token again that is about to be sent.
// The caller holds the grant's lock, which a sign-in does not.
func (s *Store) refuseOlder(slot string) error {
	record, err := s.readRecord(slot)
	if errors.Is(err, grant.ErrNoGrant) || err == nil && record.Version >= grant.RecordVersion {
		return nil
	}
	if err == nil {
		_, err = s.writeRecord(record)
	}
	return err
}

// Check is the last look before the first byte is sent. A code is sent by whoever has its
// state, which nobody else has here.
func (s *Store) Check(_ context.Context, j grant.Journal) error {
	if j.Purpose == grant.Authorizing {
		return nil
	}
	attempts, err := s.attempts(j.TokenVaultKey)
	if err != nil {
		return err
	}
	latest := slices.IndexFunc(attempts, func(j grant.Journal) bool { return !j.Unsent })
	if latest < 0 || attempts[latest].Nonce != j.Nonce {
		return grant.ErrConflict
	}
	return nil
}

// Seal puts a sealed answer into the journal of its attempt, and returns when it is on
// disk. Where that can't be written the answer goes into another directory on this
// machine, which the journal's Path then names; Attempts finds it there.
func (s *Store) Seal(_ context.Context, j *grant.Journal, sealed []byte) error {
	err := s.seal(*j, sealed)
	if isFull(err) && s.useReserve() {
		err = s.seal(*j, sealed)
	}
	if err == nil {
		if j.Elsewhere {
			_ = dropElsewhere(*j) // as good as none: the journal has it now
		}
		j.Answered, j.Elsewhere, j.Path = true, false, s.slotsPath(j.TokenVaultKey)
		return nil
	}
	err = &safefile.WriteError{What: "the answer can't be sealed", Err: err}
	if j.Elsewhere {
		return nil
	}
	path, elsewhereErr := s.sealElsewhere(*j, sealed)
	if elsewhereErr != nil {
		return errors.Join(err, elsewhereErr)
	}
	j.Answered, j.Elsewhere, j.Path = true, true, path
	return nil
}

func (s *Store) seal(j grant.Journal, sealed []byte) error {
	f, err := openSlots(s.slotsPath(j.TokenVaultKey), j.TokenVaultKey, os.O_RDWR)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	at := f.of(j.Nonce)
	if at == nil {
		// Somebody else has begun another attempt in its place: this answer gets one of
		// its own.
		if err := f.claim(j); err != nil {
			return err
		}
		if err := f.read(); err != nil {
			return err
		}
		if at = f.of(j.Nonce); at == nil {
			return errors.New("the journal does not read back as it was written")
		}
	}
	return f.seal(at, sealed)
}

// Mark notes what became of an attempt.
func (s *Store) Mark(ctx context.Context, j *grant.Journal) error {
	f, err := openSlots(s.slotsPath(j.TokenVaultKey), j.TokenVaultKey, os.O_RDWR)
	if err == nil {
		defer func() { _ = f.Close() }()
		if at := f.of(j.Nonce); at != nil {
			if err := f.mark(at, j.Fate); err != nil {
				return &safefile.WriteError{What: "the journal can't be changed", Err: err}
			}
			// A sign-in goes on, or is abandoned with what it announced. What other hosts are to
			// be told is news until they are.
			if j.Shared == nil && (j.Over || j.Unsent && j.Purpose == grant.Refreshing) {
				return s.tidy(j.Slot(), j.TokenVaultKey, j.Generation-1)
			}
			return nil
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return journalFailed(err)
	}
	return s.markOlder(ctx, j)
}

// Attempts returns the attempts beside a grant: those under a Token Vault Key, and
// those of the place's other keys that there is news of. The latest of a key come first.
// A slot that nobody can read is set aside and told once.
func (s *Store) Attempts(_ context.Context, slot, key string) ([]grant.Journal, error) {
	if err := s.afterBoot(); err != nil {
		return nil, err
	}
	keys, err := s.newsOf(slot)
	if err != nil {
		return nil, err
	}
	news := len(keys)
	if key != "" && !slices.Contains(keys, key) {
		keys = append(keys, key)
	}
	var found []grant.Journal
	for i, key := range keys {
		attempts, err := s.attempts(key)
		for looked := 0; errors.As(err, new(*vault.JournalDamageError)); looked++ {
			// A sign-in writes without the grant's lock, and what is half written looks damaged.
			if looked == maxLooks {
				return nil, clearDamaged(s.slotsPath(key), key)
			}
			time.Sleep(lookAgain)
			attempts, err = s.attempts(key)
		}
		if err != nil {
			return nil, err
		}
		for j := range attempts {
			attempts[j].News = i < news
		}
		if i < news && len(attempts) == 0 {
			s.dropIdleNews(slot, key)
		}
		found = append(found, attempts...)
	}
	older, err := s.older(slot)
	if err != nil {
		return nil, err
	}
	return s.withElsewhere(slot, key, append(found, older...))
}

// attempts are those in the file under a key, none where there is no file. Beside a
// *vault.JournalDamageError they are those that can be read.
func (s *Store) attempts(key string) ([]grant.Journal, error) {
	path := s.slotsPath(key)
	f, err := openSlots(path, key, os.O_RDONLY)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case errors.As(err, new(*vault.NewerError)):
		return nil, err
	case err != nil:
		return nil, &vault.FileError{What: "a journal", Path: path, Err: err}
	}
	defer func() { _ = f.Close() }()
	if f.damage() != nil {
		return f.journals(), &vault.JournalDamageError{Path: path, Cause: damagedHeader}
	}
	return f.journals(), nil
}

// attemptsAtRest are attempts while nobody writes there. They are none where somebody is at
// work.
func (s *Store) attemptsAtRest(slot, key string) (attempts []grant.Journal, err error) {
	lookErr := s.atRest(slot, func() { attempts, err = s.attempts(key) })
	return attempts, errors.Join(lookErr, err)
}

// atRest reads while nobody writes beside a grant: who reads without a lock may meet half
// a slot. Where somebody is at work nothing is read.
func (s *Store) atRest(slot string, read func()) error {
	for _, name := range []string{slot, vault.LoginLock(slot)} {
		done, free, err := s.look(name)
		if !free {
			return err
		}
		defer done()
	}
	read()
	return nil
}

const (
	damagedHeader = "a part of it can't be read"
	// A slot that can't be read is looked at so often again, after pauses of lookAgain,
	// before it is said to be damaged: to write one takes a few microseconds.
	maxLooks  = 5
	lookAgain = 5 * time.Millisecond
)

// Peek returns the attempts under a Token Vault Key for whoever has not the grant's lock: nothing
// is set aside. The error is a *vault.JournalDamageError where something can't be read.
func (s *Store) Peek(slot, key string) ([]grant.Journal, error) {
	found, err := s.attempts(key)
	for looked := 0; errors.As(err, new(*vault.JournalDamageError)) && looked < maxLooks; looked++ {
		time.Sleep(lookAgain) // what is half written looks damaged
		found, err = s.attempts(key)
	}
	if err != nil {
		return nil, err
	}
	return s.withElsewhere(slot, key, found)
}

// Place notes the place of an attempt among those of all hosts, and nothing else of it.
func (s *Store) Place(key, nonce string, place int) error {
	f, err := openSlots(s.slotsPath(key), key, os.O_RDWR)
	if err != nil {
		return journalFailed(err)
	}
	defer func() { _ = f.Close() }()
	at := f.of(nonce)
	if at == nil {
		return nil // it is kept elsewhere, or gone
	}
	fate := at.journal.Fate
	fate.Place = place
	if err := f.mark(at, fate); err != nil {
		return &safefile.WriteError{What: "the journal can't be changed", Err: err}
	}
	return nil
}

// IsSetAside reports whether a journal under a Token Vault Key was damaged, and lies aside: what
// it had may be an answer.
func (s *Store) IsSetAside(key string) (bool, error) {
	names, err := safefile.ReadDir(filepath.Dir(s.slotsPath(key)))
	if err != nil {
		return false, fmt.Errorf("the journals can't be read: %w", err)
	}
	return slices.ContainsFunc(names, func(name string) bool {
		return strings.HasPrefix(name, key+".") && strings.HasSuffix(name, ".damaged")
	}), nil
}

// AddNews notes that there is news under a Token Vault Key, so that the next use looks at it.
func (s *Store) AddNews(slot, key string) error { return s.addNews(slot, key) }

// clearDamaged copies a journal in which something can't be read, so that nothing in it
// is lost, and empties the slots that nobody can read.
func clearDamaged(path, key string) error {
	data, err := safefile.ReadFile(path)
	if err != nil {
		return &vault.FileError{What: "a journal", Path: path, Err: err}
	}
	aside := freeAside(path)
	f, err := openSlots(path, key, os.O_RDWR)
	if err == nil {
		defer func() { _ = f.Close() }()
		err = safefile.Write(aside, data)
	}
	if err != nil {
		return &safefile.WriteError{What: fmt.Sprintf("%s is damaged (%s) and can't be set aside", path, damagedHeader), Err: err}
	}
	for s := f.damage(); s != nil; s = f.damage() {
		if _, err := f.WriteAt(make([]byte, answerAt), s.at); err != nil {
			return &vault.FileError{What: "a journal", Path: path, Err: err}
		}
		s.damaged = false
	}
	if err := safefile.SyncData(f.File); err != nil {
		return &vault.FileError{What: "a journal", Path: path, Err: err}
	}
	return &vault.DamagedError{Path: aside, Cause: damagedHeader, Journal: true}
}

// Sealed returns the sealed answer of an attempt; grant.ErrNoAnswer where there is no
// whole one.
func (s *Store) Sealed(_ context.Context, j grant.Journal) ([]byte, error) {
	if j.Version < 2 || j.Elsewhere {
		return sealedIn(j.Path)
	}
	f, err := openSlots(s.slotsPath(j.TokenVaultKey), j.TokenVaultKey, os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		return nil, grant.ErrNoAnswer
	}
	if err != nil {
		return nil, fmt.Errorf("a journal can't be read: %w", err)
	}
	defer func() { _ = f.Close() }()
	at := f.of(j.Nonce)
	if at == nil || !at.whole {
		return nil, grant.ErrNoAnswer
	}
	text, _, err := f.text(at.answer)
	if err != nil {
		return nil, fmt.Errorf("a journal can't be read: %w", err)
	}
	return text, nil
}

// Settle says that a grant has a generation, so that no attempt at it or at an earlier
// one is news any more.
func (s *Store) Settle(_ context.Context, slot, key string, generation int64) error {
	if err := s.dropOlder(slot, key, generation); err != nil {
		return err
	}
	if err := s.dropElsewhereOf(slot, key, generation); err != nil {
		return err
	}
	return s.tidy(slot, key, generation)
}

// tidy takes away the note that there is news of a key, where there is none that its
// grant of a generation does not have.
func (s *Store) tidy(slot, key string, generation int64) error {
	news, err := s.hasNews(slot, key)
	if err != nil || !news {
		return err
	}
	attempts, err := s.attempts(key)
	if err != nil {
		return err
	}
	if open, kept := grant.Unsettled(attempts, generation); len(open)+len(kept) > 0 {
		return nil
	}
	return s.dropNews(slot, key)
}

// Forget removes the journal under a Token Vault Key.
func (s *Store) Forget(_ context.Context, slot, key string, forGood bool) error {
	const all = 1 << 62
	if err := s.dropOlder(slot, key, all); err != nil {
		return err
	}
	if err := s.dropElsewhereOf(slot, key, all); err != nil {
		return err
	}
	path := s.slotsPath(key)
	if err := safefile.Unlink(path); err != nil {
		return err
	}
	if err := dropAside(path, safefile.Unlink); err != nil {
		return err
	}
	if forGood {
		// Also where it was gone already: whoever removed it may not have come so far.
		if err := safefile.SyncDir(filepath.Dir(path)); err != nil {
			return err
		}
	}
	return s.dropNews(slot, key)
}

// News returns the attempts that somebody has to know of, by the slots of their grants,
// which begin with a prefix. What can't be read is an error in its place.
func (s *Store) News(_ context.Context, prefix string) ([]vault.News, error) {
	if err := s.afterBoot(); err != nil {
		return nil, err
	}
	names, err := s.newsNames(prefix)
	if err != nil {
		return nil, err
	}
	var found []vault.News
	for _, name := range names {
		slot, key, _ := strings.Cut(name, ".")
		news := vault.News{Slot: slot, TokenVaultKey: key, Path: s.slotsPath(key)}
		attempts, err := s.attempts(key)
		if errors.As(err, new(*vault.JournalDamageError)) {
			attempts, err = s.attemptsAtRest(slot, key)
		}
		if err != nil {
			news.Err = err
			found = append(found, news)
			continue
		}
		for _, j := range attempts {
			news.Journal = j
			found = append(found, news)
		}
	}
	older, err := s.olderNews(prefix)
	if err != nil {
		return nil, err
	}
	found = append(found, older...)
	elsewhere, problems := s.elsewhere("", "")
	if problems != nil {
		found = append(found, vault.News{Err: problems})
	}
	for _, answer := range elsewhere {
		for i := range found {
			complete(&found[i].Journal, answer)
		}
	}
	return found, nil
}

// Still reports whether there is still the news.
func (s *Store) Still(_ context.Context, n vault.News) (bool, error) {
	path := n.Path
	if n.Journal.Version >= grant.RecordVersion {
		path = s.newsPath(n.Slot, n.TokenVaultKey)
	}
	_, err := os.Lstat(path)
	if err != nil && !os.IsNotExist(err) {
		return false, fmt.Errorf("a journal can't be examined: %w", err)
	}
	return err == nil, nil
}
