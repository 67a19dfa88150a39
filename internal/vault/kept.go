package vault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

// An answer of UPS's that nobody can use may still have the only refresh token in
// it: a later upsauth may understand it. So it is kept, sealed, until its grant is
// refreshed or removed, or a person deletes it.

// unreadSuffix ends the name of a sealed answer that nobody could use.
const unreadSuffix = ".unread"

// keepUnread puts a sealed answer aside that is about to be overwritten.
func (v *Vault) keepUnread(j grant.Journal) error {
	path := v.journalPath(j.ID, j.TokenVaultKey)
	old, err := readJournal(path)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.As(err, new(*damagedJournalError)):
		return nil
	case err != nil:
		return fmt.Errorf("the journal may have an answer: %w", err)
	case !old.Answered:
		return nil
	}
	data, err := safefile.ReadFile(path)
	if err != nil {
		return fmt.Errorf("the answer in the journal can't be kept: %w", err)
	}
	return safefile.Write(fmt.Sprintf("%s.%d%s", path, old.Attempt, unreadSuffix), data)
}

// Kept returns the answers that were put aside as nobody could use them, those of
// one grant's place or, without a company, all. Their Path says where they lie.
// One that can't be read is a problem.
func (v *Vault) Kept(id grant.ID) (kept []grant.Journal, problems []error, err error) {
	names, err := journalNames(v.dir, unreadSuffix)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		if id.Company != "" && !strings.HasPrefix(name, id.Slot()+".") {
			continue
		}
		path := filepath.Join(v.dir, "journals", name)
		j, err := readJournal(path)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if id.Company != "" {
			j.ID = id
		}
		kept = append(kept, j)
	}
	return kept, problems, nil
}

// DropKept removes the answers that were put aside under a Token Vault Key, once
// a later refresh of it was granted.
func (v *Vault) DropKept(id grant.ID, tokenVaultKey string) error {
	kept, _, err := v.Kept(id)
	if err != nil {
		return err
	}
	for _, j := range kept {
		if j.TokenVaultKey != tokenVaultKey {
			continue
		}
		if err := safefile.Remove(j.Path); err != nil {
			return err
		}
	}
	return nil
}

// hasKept reports whether answers were put aside under a Token Vault Key.
func (v *Vault) hasKept(id grant.ID, tokenVaultKey string) (bool, error) {
	names, err := journalNames(v.dir, unreadSuffix)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if strings.HasPrefix(name, id.Slot()+"."+tokenVaultKey+".") {
			return true, nil
		}
	}
	return false, nil
}

// dropAllKept removes what was put aside in a grant's place, and the keys that
// open it: the grant is being removed.
func (v *Vault) dropAllKept(ctx context.Context, id grant.ID) error {
	names, err := journalNames(v.dir, unreadSuffix)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, id.Slot()+".") {
			continue
		}
		path := filepath.Join(v.dir, "journals", name)
		// A damaged one names no key.
		if j, err := readJournal(path); err == nil {
			if err := v.watch(id.Slot(), v.dropItems(ctx, j.Home, j.TokenVaultKey, false)); err != nil {
				return err
			}
		}
		if err := safefile.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// elsewhereSuffix ends the name of an answer that could not be sealed in its
// place.
const elsewhereSuffix = ".sealed"

// sealElsewhere writes a journal with its sealed answer into the first directory
// that takes it.
func (v *Vault) sealElsewhere(j grant.Journal, sealed []byte) (path string, err error) {
	header, err := headerOf(j)
	if err != nil {
		return "", err
	}
	name := fmt.Sprintf("%s.%s%s.%d-%d%s", j.Slot(), j.TokenVaultKey, journalSuffix, j.Generation, j.Attempt, elsewhereSuffix)
	err = fmt.Errorf("no other place on this machine can keep it")
	for _, dir := range v.Elsewhere {
		if err = v.ownDirectory(dir); err != nil {
			continue
		}
		path := filepath.Join(dir, name)
		if err = safefile.Write(path, append(header, sealed...)); err == nil {
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
func (v *Vault) ownDirectory(dir string) error {
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
	places := v.Places
	if places == nil {
		places = &safefile.Places{}
	}
	return places.CheckSecret(dir)
}

// elsewhere are the answers that could not be sealed in their place, of one Token
// Vault Key of a grant or, without a company, all. The places are the user's, who
// may have other state directories: not all of them need be this vault's. An answer
// that is there and can't be read is a problem, beside those that can.
func (v *Vault) elsewhere(id grant.ID, tokenVaultKey string) (found []grant.Journal, problems error) {
	prefix := ""
	if id.Company != "" {
		prefix = id.Slot() + "." + tokenVaultKey + "."
	}
	for _, dir := range v.Elsewhere {
		// Others can put anything of this name into a place that is everybody's.
		if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
			continue // there is none, or this process is kept from all that is there
		}
		d, err := os.Open(dir)
		if err != nil {
			continue
		}
		names, _ := d.Readdirnames(-1)
		d.Close()
		names = slices.DeleteFunc(names, func(name string) bool {
			return !strings.HasPrefix(name, prefix) || !strings.HasSuffix(name, elsewhereSuffix)
		})
		if len(names) == 0 {
			continue
		}
		if err := v.ownDirectory(dir); err != nil {
			// What another user put into a place that is everybody's is none.
			var open *safefile.PermissionError
			if errors.As(err, &open) && open.Owner == "" {
				problems = errors.Join(problems, err)
			}
			continue
		}
		for _, name := range names {
			j, err := readJournal(filepath.Join(dir, name))
			switch {
			case errors.Is(err, os.ErrNotExist), errors.As(err, new(*damagedJournalError)):
				continue
			case err != nil:
				problems = errors.Join(problems, err)
				continue
			case !j.Answered:
				continue
			}
			j.Elsewhere = true
			if id.Company != "" {
				j.ID = id
			}
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
func (v *Vault) SealedElsewhere() ([]grant.Journal, error) { return v.elsewhere(grant.ID{}, "") }

// withElsewhere completes the journals beside a grant with the answers that could
// not be sealed in their place, also where the journal itself is gone. An answer
// under a Token Vault Key that neither a journal nor the record has is another
// state directory's, and may be the only one that it has.
func (v *Vault) withElsewhere(id grant.ID, journals []grant.Journal) ([]grant.Journal, error) {
	if len(v.Elsewhere) == 0 {
		return journals, nil
	}
	record, err := v.readRecord(id.Slot())
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return nil, err
	}
	keys := []string{record.TokenVaultKey}
	for _, j := range journals {
		keys = append(keys, j.TokenVaultKey)
	}
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		answers, err := v.elsewhere(id, key)
		if err != nil {
			return nil, err
		}
		for _, answer := range answers {
			known := false
			for i := range journals {
				known = complete(&journals[i], answer) || known
			}
			if !known {
				journals = append(journals, answer)
			}
		}
	}
	return journals, nil
}

// dropElsewhereOf removes the answers of a Token Vault Key that were sealed
// elsewhere: another has taken the place of its grant.
func (v *Vault) dropElsewhereOf(id grant.ID, tokenVaultKey string) error {
	answers, err := v.elsewhere(id, tokenVaultKey)
	if err != nil {
		return err
	}
	for _, j := range answers {
		if err := dropElsewhere(j); err != nil {
			return err
		}
	}
	return nil
}

// complete gives a journal the answer that was sealed elsewhere, if that is its own,
// which it reports.
func complete(j *grant.Journal, answer grant.Journal) bool {
	if j.TokenVaultKey != answer.TokenVaultKey || j.Generation != answer.Generation {
		return false
	}
	if !j.Answered {
		j.Answered, j.Elsewhere, j.Path = true, true, answer.Path
	}
	return true
}
