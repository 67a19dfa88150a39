package files

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
)

// The journals of format 1 are taken over: a file for each grant's one attempt, under the
// slot of its company, and one for each answer that nobody could use. They are read, put
// in place and removed, and no new ones are written. A header in the clear is padded with
// spaces to headerRoom bytes; the length of the sealed answer in 8 bytes, big-endian, and
// the answer follow. An answer that is sealed elsewhere has this form today.
const (
	headerRoom = 4 << 10
	lengthSize = 8

	olderSuffix  = ".journal"
	unreadSuffix = ".unread"
)

// olderNames lists the journals of format 1 whose names begin with a prefix.
func (s *Store) olderNames(prefix string) ([]string, error) {
	all, err := safefile.ReadDir(filepath.Join(s.dir, "journals"))
	if err != nil {
		return nil, fmt.Errorf("the journals can't be read: %w", err)
	}
	names := all[:0]
	for _, name := range all {
		if !strings.HasPrefix(name, ".") && strings.HasPrefix(name, prefix) &&
			(strings.HasSuffix(name, olderSuffix) || strings.HasSuffix(name, unreadSuffix)) {
			names = append(names, name)
		}
	}
	return names, nil
}

// older are the attempts of format 1 beside a grant, the latest first.
func (s *Store) older(slot string) ([]grant.Journal, error) {
	names, err := s.olderNames(slot + ".")
	if err != nil {
		return nil, err
	}
	var found []grant.Journal
	for _, name := range names {
		j, err := s.readOlder(name)
		var damage *vault.JournalDamageError
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue // an authorization settled it meanwhile
		case errors.As(err, &damage) && strings.HasSuffix(name, unreadSuffix):
			continue // Kept tells of it
		case errors.As(err, &damage):
			aside := freeAside(damage.Path)
			if err := safefile.Rename(damage.Path, aside); err != nil && !os.IsNotExist(err) {
				return nil, &safefile.WriteError{What: fmt.Sprintf("%s is damaged (%s) and can't be set aside", damage.Path, damage.Cause), Err: err}
			}
			return nil, &vault.DamagedError{Path: aside, Cause: damage.Cause, Journal: true}
		case err != nil:
			return nil, err
		}
		found = append(found, j)
	}
	slices.SortStableFunc(found, func(a, b grant.Journal) int { return b.Later(a) })
	return found, nil
}

// olderNews are all attempts of format 1: each of them is news.
func (s *Store) olderNews(prefix string) ([]vault.News, error) {
	names, err := s.olderNames(prefix)
	if err != nil {
		return nil, err
	}
	var found []vault.News
	for _, name := range names {
		j, err := s.readOlder(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // its exchange is over meanwhile
		}
		slot, rest, _ := strings.Cut(name, ".")
		key, _, _ := strings.Cut(rest, ".")
		found = append(found, vault.News{Slot: slot, TokenVaultKey: key, Path: filepath.Join(s.dir, "journals", name), Journal: j, Err: err})
	}
	return found, nil
}

func (s *Store) readOlder(name string) (grant.Journal, error) {
	j, err := readFile(filepath.Join(s.dir, "journals", name))
	if strings.HasSuffix(name, unreadSuffix) {
		// The attempt itself goes on in a journal beside it, or was a sign-in, which is over.
		j.Over = j.Purpose == grant.Authorizing
		if j.Outcome == "" {
			j.Outcome = "its answer could not be used"
		}
	}
	return j, err
}

// readFile reads a journal that is a file of its own.
func readFile(path string) (grant.Journal, error) {
	file, err := safefile.OpenOwn(path, os.O_RDONLY)
	if err != nil {
		return grant.Journal{}, &vault.FileError{What: "a journal", Path: path, Err: err}
	}
	defer func() { _ = file.Close() }()
	start := make([]byte, headerRoom+lengthSize)
	if _, err := io.ReadFull(file, start); err != nil {
		return grant.Journal{}, &vault.JournalDamageError{Path: path, Cause: "it ends too soon"}
	}
	header := bytes.TrimRight(start[:headerRoom], " ")
	if version := grant.FormatOf(header); version > grant.RecordVersion {
		return grant.Journal{}, &vault.NewerError{Path: path, Version: version}
	}
	var j grant.Journal
	if err := json.Unmarshal(header, &j); err != nil {
		return grant.Journal{}, &vault.JournalDamageError{Path: path, Cause: err.Error()}
	}
	if j.Version < 1 || !strings.Contains(filepath.Base(path), "."+j.TokenVaultKey+olderSuffix) {
		return grant.Journal{}, &vault.JournalDamageError{Path: path, Cause: "it is not the journal of this name"}
	}
	if err := j.Check(); err != nil {
		return grant.Journal{}, &vault.JournalDamageError{Path: path, Cause: err.Error()}
	}
	j.News = true
	j.Answered, j.Path = binary.BigEndian.Uint64(start[headerRoom:]) > 0, path
	return j, nil
}

// sealedIn is the sealed answer in a journal that is a file of its own;
// grant.ErrNoAnswer where there is no whole one.
func sealedIn(path string) ([]byte, error) {
	file, err := safefile.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("a journal can't be read: %w", err)
	}
	rest := file[min(headerRoom, len(file)):]
	if len(rest) < lengthSize {
		return nil, grant.ErrNoAnswer
	}
	length := binary.BigEndian.Uint64(rest)
	if length == 0 || length > uint64(len(rest)-lengthSize) {
		return nil, grant.ErrNoAnswer
	}
	return rest[lengthSize : lengthSize+length], nil
}

// headerOf is the header of a journal that is a file of its own.
func headerOf(j grant.Journal) ([]byte, error) {
	header, err := json.Marshal(j)
	if err != nil {
		return nil, fmt.Errorf("the journal's header can't be made: %w", err)
	}
	if len(header) > headerRoom {
		return nil, errors.New("the journal's header is too large")
	}
	return append(header, bytes.Repeat([]byte(" "), headerRoom-len(header))...), nil
}

// markOlder notes what became of an attempt of format 1: what has no answer is put into
// slots, and what is over or spent nothing goes.
func (s *Store) markOlder(ctx context.Context, j *grant.Journal) error {
	path := j.Path
	if j.Version >= grant.RecordVersion || j.Elsewhere {
		return fmt.Errorf("the journal can't be changed: %w", os.ErrNotExist)
	}
	switch {
	case j.Unsent, j.Over && !j.Answered:
		return safefile.Remove(path)
	case j.Answered:
		return nil // the answer tells what became of it
	}
	if err := s.Claim(ctx, j); err != nil {
		return err
	}
	return safefile.Remove(path)
}

// dropOlder removes the attempts of format 1 under a key up to a generation. A damaged
// one goes with the last.
func (s *Store) dropOlder(slot, key string, generation int64) error {
	names, err := s.olderNames(slot + "." + key + ".")
	if err != nil {
		return err
	}
	for _, name := range names {
		j, err := s.readOlder(name)
		if err == nil && j.Generation > generation || errors.As(err, new(*vault.NewerError)) {
			continue
		}
		if err := safefile.Remove(filepath.Join(s.dir, "journals", name)); err != nil {
			return err
		}
	}
	return nil
}

// moveOlder gives the attempts of format 1 under a key another slot.
func (s *Store) moveOlder(from, to, key string) error {
	names, err := s.olderNames(from + "." + key + ".")
	if err != nil || from == to {
		return err
	}
	dir := filepath.Join(s.dir, "journals")
	for _, name := range names {
		fresh := to + strings.TrimPrefix(name, from)
		if err := safefile.Rename(filepath.Join(dir, name), filepath.Join(dir, fresh)); err != nil {
			return &safefile.WriteError{What: "a journal can't be renamed", Err: err}
		}
	}
	return nil
}
