// Package files is a vault's store on this machine: records and journals in small
// files, a lock for each grant, and the secrets in homes.
package files

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
)

// Store is a directory of records, locks and journals with the homes of the secrets
// that they speak of. It implements vault.Store.
type Store struct {
	dir   string
	homes vault.Homes
	// Elsewhere are other directories of this user's on this machine, in the order
	// in which they are tried for an answer that can't be sealed in its place.
	Elsewhere []string
	// Places is the rule for who else may change its files. Its directories are
	// checked by whoever opens the vault.
	Places *safefile.Places
	// Boot names the run of the system that this process belongs to: after a loss of
	// power it is another one. Empty where nobody can tell.
	Boot func() string

	// Records, where set, are all records of a vault that has them elsewhere; all says that
	// none is missing. After an error they are asked for again with the next use.
	Records func(context.Context) (records []grant.Record, all bool, err error)

	// HasLeft, where set, reports whether a grant that arrives here has left the vault that
	// it comes from, so that it is this one's.
	HasLeft func(context.Context, grant.Record) (bool, error)

	seed    maphash.Seed
	booting sync.Mutex
	booted  bool
	bootErr error

	listings listings
	buffers  sync.Pool // what Version reads files into
	memory   *safefile.Memory[grant.Record]
}

var _ vault.Store = (*Store)(nil)

// New returns the store in dir. Nothing is read or made before it is used.
func New(dir string, homes vault.Homes) *Store {
	return &Store{dir: dir, homes: homes, Places: &safefile.Places{}, Boot: bootID, seed: maphash.MakeSeed(), listings: newListings(dir)}
}

// Remember keeps in memory what is read of all records together, for a process that
// lists them again and again. What any process changes is read all the same. It is called
// before the store is used, and EndMemory ends it.
func (s *Store) Remember() {
	s.memory = safefile.NewMemory[grant.Record](filepath.Join(s.dir, "records"))
}

// EndMemory ends what Remember began. The store may be in use.
func (s *Store) EndMemory() { s.memory.End() }

// Homes are the homes that grants of this store can be in.
func (s *Store) Homes() vault.Homes { return s.homes }

// Grant returns the record in a slot.
func (s *Store) Grant(ctx context.Context, slot string) (grant.Record, error) {
	r, err := s.readRecord(slot)
	if err != nil || r.Moved == nil {
		return r, err
	}
	r, away := s.here(ctx, r)
	if away != nil {
		return grant.Record{}, away
	}
	return r, nil
}

// Grants returns the records whose slots begin with a prefix, each read once, also
// those of grants that are being removed. Files that can't be used are problems.
func (s *Store) Grants(ctx context.Context, prefix string) (records []grant.Record, problems []error, err error) {
	records, problems, err = s.all(prefix)
	if err != nil || !slices.ContainsFunc(records, func(r grant.Record) bool { return r.Moved != nil }) {
		return records, problems, err
	}
	var away []*vault.MovedError
	live := records[:0]
	for _, r := range records {
		if r, moved := s.here(ctx, r); moved != nil {
			away = append(away, moved)
		} else {
			live = append(live, r)
		}
	}
	return live, append(problems, vault.MovedAway(away, prefix == "")...), nil
}

// all are the records as they are, also of grants that live elsewhere.
func (s *Store) all(prefix string) (records []grant.Record, problems []error, err error) {
	for attempt := 0; ; attempt++ {
		names, err := s.recordNames()
		if err != nil {
			return nil, nil, err
		}
		records, problems, missed := s.grants(prefix, names)
		if !missed || attempt == 100 {
			return records, problems, nil
		}
		// A record that is being renamed can be missed under both names.
	}
}

func (s *Store) grants(prefix string, names []string) (records []grant.Record, problems []error, missed bool) {
	var slots []string
	for _, name := range names {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		if slot, _, ok := strings.Cut(name, ".json."); ok && strings.HasSuffix(name, ".damaged") && !slices.Contains(names, slot+".json") {
			problems = append(problems, &vault.DamagedError{Path: filepath.Join(s.dir, "records", name), Cause: "set aside earlier"})
			continue
		}
		if slot, ok := strings.CutSuffix(name, ".json"); ok {
			slots = append(slots, slot)
		}
	}
	// A single company's are read anew: that takes no time.
	memory := s.memory
	if prefix != "" {
		memory = nil
	}
	all, errs := s.readRecords(slots, memory)
	records = all[:0]
	for i, err := range errs {
		switch {
		case errors.Is(err, grant.ErrNoGrant):
			missed = true
		case err != nil:
			problems = append(problems, err)
		default:
			records = append(records, all[i])
		}
	}
	return records, problems, missed
}

// recordNames lists the files among the records.
func (s *Store) recordNames() ([]string, error) {
	read := func() ([]string, error) { return safefile.ReadDir(filepath.Join(s.dir, "records")) }
	if s.memory != nil {
		read = func() ([]string, error) {
			names, err := s.listings.records.Below("")
			return slices.Clone(names), err
		}
	}
	all, err := read()
	if err != nil {
		return nil, fmt.Errorf("the records can't be read: %w", err)
	}
	return slices.DeleteFunc(all, func(name string) bool { return strings.HasPrefix(name, ".") }), nil
}

// readRecords reads the records in slots, each with its error. Where a memory is given,
// they are all that there are.
func (s *Store) readRecords(slots []string, memory *safefile.Memory[grant.Record]) ([]grant.Record, []error) {
	names := slots
	if memory != nil {
		names = make([]string, len(slots))
		for i, slot := range slots {
			names[i] = slot + ".json"
		}
	}
	records, errs := memory.Read(names, func(i int, buf []byte) (grant.Record, []byte, error) { return s.readRecordInto(slots[i], buf) })
	if memory != nil {
		for i := range records {
			records[i] = ownCopy(records[i])
		}
	}
	return records, errs
}

// ownCopy is a record that shares nothing with another which its holder may change.
func ownCopy(r grant.Record) grant.Record {
	r.Superseded = slices.Clone(r.Superseded)
	if r.LastError != nil {
		last := *r.LastError
		r.LastError = &last
	}
	return r
}

// Commit makes a change. What is covered by a journal that is on disk is not waited
// for longer than until its data is there: should its name be lost with the power,
// the journal has it.
func (s *Store) Commit(ctx context.Context, c vault.Change) (grant.Record, error) {
	slot := c.Record.Slot()
	if err := s.unchanged(slot, c.Record.Revision); err != nil {
		return c.Record, err
	}
	// A journal of format 1 goes as soon as the grant has what is in it.
	covered := c.Settles != nil && c.Settles.Answered && !c.Settles.Elsewhere && c.Settles.Version >= grant.RecordVersion
	if c.Item != nil {
		home, err := s.homes.Named(c.Record.Home)
		if err != nil {
			return c.Record, err
		}
		if err := home.Put(ctx, c.Record.TokenVaultKey, c.Record.Generation, c.Item); err != nil {
			return c.Record, err
		}
		if !covered {
			if err := vault.Sync(ctx, home, c.Record.TokenVaultKey); err != nil {
				return c.Record, err
			}
		}
	}
	write := s.writeRecord
	if covered && !c.First {
		write = s.writeCovered
	}
	record, err := write(c.Record)
	if err != nil {
		return c.Record, err
	}
	if c.First {
		err = s.dropDamaged(slot)
	}
	return record, err
}

// unchanged is grant.ErrConflict unless the record in a slot is the revision that was
// read.
func (s *Store) unchanged(slot string, revision uint64) error {
	there, err := s.readRecord(slot)
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return err
	}
	if there.Revision != revision {
		return grant.ErrConflict
	}
	return nil
}

// Drop removes a record for good, with what lies aside of it.
func (s *Store) Drop(_ context.Context, r grant.Record) error {
	if err := s.unchanged(r.Slot(), r.Revision); err != nil {
		return err
	}
	if err := s.dropDamaged(r.Slot()); err != nil {
		return err
	}
	return safefile.Remove(s.recordPath(r.Slot()))
}

// Rename moves a record to the slot of its company's new name. At every instant there
// is one record: it says both names first, then it is moved, and the name that fits
// the place where it lies is the name that counts.
func (s *Store) Rename(_ context.Context, r grant.Record, company string) (grant.Record, error) {
	if err := s.unchanged(r.Slot(), r.Revision); err != nil {
		return r, err
	}
	from := r.Slot()
	r.Was, r.Company = r.Company, company
	to := r.Slot()
	if from == to {
		r.Was = ""
		return s.writeRecord(r)
	}
	if there, err := s.readRecord(to); err == nil {
		return r, &vault.TakenError{ID: there.ID}
	} else if !errors.Is(err, grant.ErrNoGrant) {
		return r, err
	}
	if _, err := s.writeRecordTo(s.recordPath(from), r, safefile.Write); err != nil {
		return r, err
	}
	// Later the old name may be another's.
	if err := s.moveOthers(from, to, r.TokenVaultKey); err != nil {
		return r, err
	}
	if err := safefile.Rename(s.recordPath(from), s.recordPath(to)); err != nil {
		return r, &safefile.WriteError{What: "the record can't be renamed", Err: err}
	}
	return s.finishRename(r)
}

// FinishRename does what is left of a rename once the record lies in its new place.
func (s *Store) FinishRename(_ context.Context, r grant.Record) (grant.Record, error) {
	if err := s.unchanged(r.Slot(), r.Revision); err != nil {
		return r, err
	}
	return s.finishRename(r)
}

func (s *Store) finishRename(r grant.Record) (grant.Record, error) {
	from := r.ID
	from.Company = r.Was
	if err := s.moveNews(from.Slot(), r.Slot(), r.TokenVaultKey); err != nil {
		return r, err
	}
	if err := safefile.SyncDir(filepath.Join(s.dir, "records")); err != nil {
		return r, err
	}
	r.Was = ""
	return s.writeRecord(r)
}

// dirs makes the directories that an exchange writes into.
func (s *Store) dirs() error {
	journals := filepath.Join(s.dir, "journals")
	if _, err := os.Lstat(filepath.Join(journals, bootName)); err == nil {
		return nil // it was written when all were there
	}
	if err := safefile.MkdirAll(s.dir); err != nil {
		return err
	}
	for _, dir := range []string{"records", filepath.Join("journals", newsDir), filepath.Join("journals", slotsDir)} {
		if err := safefile.MkdirAllCovered(filepath.Join(s.dir, dir)); err != nil {
			return err
		}
	}
	for _, dir := range []string{journals, s.dir} {
		if err := safefile.SyncDir(dir); err != nil {
			return err
		}
	}
	names, err := safefile.ReadDir(filepath.Join(journals, slotsDir))
	if err != nil || len(names) > 0 {
		return err // whoever looks at them all notes that
	}
	return s.noteBoot()
}
