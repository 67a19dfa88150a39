package files

import (
	"cmp"
	"context"
	"encoding/binary"
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

// elsewhereSuffix ends the name of an answer that could not be sealed in its
// place.
const elsewhereSuffix = ".sealed"

// sealElsewhere writes a journal with its sealed answer into the first directory
// that takes it.
func (s *Store) sealElsewhere(j grant.Journal, sealed []byte) (path string, err error) {
	header, err := headerOf(j)
	if err != nil {
		return "", err
	}
	name := fmt.Sprintf("%s.%s%s.%d-%d%s", j.Slot(), j.TokenVaultKey, olderSuffix, j.Generation, j.Attempt, elsewhereSuffix)
	err = fmt.Errorf("no other place on this machine can keep it")
	for _, dir := range s.Elsewhere {
		if err = s.ownDirectory(dir); err != nil {
			continue
		}
		path := filepath.Join(dir, name)
		length := binary.BigEndian.AppendUint64(nil, uint64(len(sealed)))
		if err = safefile.Write(path, slices.Concat(header, length, sealed)); err == nil {
			return path, nil
		}
	}
	return "", err
}

// dropElsewhere removes an answer that was sealed elsewhere, and the directory made
// for it where it was the last.
func dropElsewhere(j grant.Journal) error {
	if err := safefile.Remove(j.Path); err != nil {
		return err
	}
	_ = os.Remove(filepath.Dir(j.Path))
	return nil
}

// ownDirectory makes a directory that is nobody else's. Others may have put one of
// this name into a place that is everybody's.
func (s *Store) ownDirectory(dir string) error {
	if err := safefile.MkdirAll(dir); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("%s can't be examined: %w", dir, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	places := s.Places
	if places == nil {
		places = &safefile.Places{}
	}
	return places.CheckSecret(dir)
}

// elsewhere are the answers that could not be sealed in their place, of one Token
// Vault Key of a slot or, without a slot, all. The places are the user's, who
// may have other state directories: not all of them need be this vault's. An answer
// that is there and can't be read is a problem, beside those that can.
func (s *Store) elsewhere(slot, tokenVaultKey string) (found []grant.Journal, problems error) {
	prefix := ""
	if slot != "" {
		prefix = slot + "." + tokenVaultKey + "."
	}
	for _, dir := range s.Elsewhere {
		// Others can put anything of this name into a place that is everybody's.
		if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
			continue // there is none, or this process is kept from all that is there
		}
		names, _ := safefile.ReadDir(dir)
		names = slices.DeleteFunc(names, func(name string) bool {
			return !strings.HasPrefix(name, prefix) || !strings.HasSuffix(name, elsewhereSuffix)
		})
		if len(names) == 0 {
			continue
		}
		if err := s.ownDirectory(dir); err != nil {
			// What another user put into a place that is everybody's is none.
			var open *safefile.PermissionError
			if errors.As(err, &open) && open.Owner == "" {
				problems = errors.Join(problems, err)
			}
			continue
		}
		for _, name := range names {
			j, err := readFile(filepath.Join(dir, name))
			switch {
			case errors.Is(err, os.ErrNotExist), errors.As(err, new(*vault.JournalDamageError)):
				continue
			case err != nil:
				problems = errors.Join(problems, err)
				continue
			case !j.Answered:
				continue
			}
			j.Elsewhere = true
			found = append(found, j)
		}
	}
	// The latest attempt's first: UPS takes the tokens of that one.
	slices.SortFunc(found, func(a, b grant.Journal) int {
		return cmp.Or(cmp.Compare(b.Generation, a.Generation), cmp.Compare(b.Attempt, a.Attempt))
	})
	return found, problems
}

// SealedElsewhere lists the answers that could not be sealed in their place and have
// not been put in place since, also those of the user's other state directories.
// Their Path says where they lie. Some that can't be read are an error beside them.
func (s *Store) SealedElsewhere(context.Context) ([]grant.Journal, error) {
	return s.elsewhere("", "")
}

// withElsewhere completes the attempts beside a grant with the answers that could
// not be sealed in their place, also where the journal itself is gone. An answer
// under a Token Vault Key that neither a journal nor the record has is another
// state directory's, and may be the only one that it has.
func (s *Store) withElsewhere(slot, key string, attempts []grant.Journal) ([]grant.Journal, error) {
	if len(s.Elsewhere) == 0 {
		return attempts, nil
	}
	keys := []string{key}
	for _, j := range attempts {
		keys = append(keys, j.TokenVaultKey)
	}
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		if key == "" {
			continue
		}
		answers, err := s.elsewhere(slot, key)
		if err != nil {
			return nil, err
		}
		for _, answer := range answers {
			known := false
			for i := range attempts {
				known = complete(&attempts[i], answer) || known
			}
			if !known {
				attempts = append(attempts, answer)
			}
		}
	}
	return attempts, nil
}

// dropElsewhereOf removes the answers of a Token Vault Key up to a generation that were
// sealed elsewhere.
func (s *Store) dropElsewhereOf(slot, tokenVaultKey string, generation int64) error {
	answers, err := s.elsewhere(slot, tokenVaultKey)
	if err != nil {
		return err
	}
	for _, j := range answers {
		if j.Generation > generation {
			continue
		}
		if err := dropElsewhere(j); err != nil {
			return err
		}
	}
	return nil
}

// complete gives an attempt the answer that was sealed elsewhere, if that is its own,
// which it reports.
func complete(j *grant.Journal, answer grant.Journal) bool {
	if j.TokenVaultKey != answer.TokenVaultKey || j.Generation != answer.Generation || j.Attempt != answer.Attempt {
		return false
	}
	if !j.Answered {
		j.Answered, j.Elsewhere, j.Path, j.Nonce, j.Version = true, true, answer.Path, answer.Nonce, answer.Version
	}
	return true
}
