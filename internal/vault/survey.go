package vault

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

// List returns all records, or those of one company where it is not empty,
// removed ones left out, without opening any home. Files that can't be used are
// problems and do no harm to the others. A company of an earlier version whose name
// has characters in it that nobody sees is found by the name without them, unless
// another one is called just so.
func (v *Vault) List(company string) (records []grant.Record, problems []error, err error) {
	if company == "" {
		return v.list("")
	}
	for _, name := range grant.Spellings(company) {
		if records, problems, err = v.list(name); err != nil || len(records)+len(problems) > 0 {
			return records, problems, err
		}
	}
	all, _, err := v.list("")
	if err != nil {
		return nil, nil, err
	}
	return slices.DeleteFunc(all, func(r grant.Record) bool { return grant.Fold(r.Company) != grant.Fold(company) }), nil, nil
}

// list is List by the name as it is kept.
func (v *Vault) list(company string) (records []grant.Record, problems []error, err error) {
	survey, err := v.Survey(company)
	return survey.Present(), survey.Problems, err
}

// Survey is what the files of a vault say, each read once.
type Survey struct {
	// Records are those of all grants, also of those that are being removed.
	Records []grant.Record
	// Journals are those that nobody is at work on, by the slot of their grant.
	Journals map[string][]grant.Journal
	// Problems are the files that can't be used.
	Problems []error
}

// Present are the records of the grants that are not being removed.
func (s Survey) Present() []grant.Record {
	return slices.DeleteFunc(slices.Clone(s.Records), func(r grant.Record) bool { return r.Removing })
}

// Survey reads the files of the vault, or those of one company where it is not
// empty, without opening any home.
func (v *Vault) Survey(company string) (Survey, error) {
	var records []grant.Record
	var problems []error
	prefix := ""
	if company != "" {
		prefix = grant.CompanySlot(company) + "-"
	}
	names, err := safefile.ReadDir(filepath.Join(v.dir, "records"))
	if err != nil {
		return Survey{}, fmt.Errorf("the records can't be read: %w", err)
	}
	var slots []string
	for _, name := range names {
		if strings.HasPrefix(name, ".") || !strings.HasPrefix(name, prefix) {
			continue
		}
		if slot, _, ok := strings.Cut(name, ".json."); ok && strings.HasSuffix(name, ".damaged") && !slices.Contains(names, slot+".json") {
			problems = append(problems, &DamagedError{Path: filepath.Join(v.dir, "records", name), Cause: "set aside earlier"})
			continue
		}
		if slot, ok := strings.CutSuffix(name, ".json"); ok {
			slots = append(slots, slot)
		}
	}
	all, errs := v.readRecords(slots)
	records = all[:0]
	there := slots[:0]
	for i, err := range errs {
		switch {
		case errors.Is(err, grant.ErrNoGrant):
		case err != nil:
			problems = append(problems, err)
		default:
			records, there = append(records, all[i]), append(there, slots[i])
		}
	}
	journals, err := journalNames(v.dir, journalSuffix)
	if err != nil {
		return Survey{}, err
	}
	var elsewhere []grant.Journal
	if len(journals) > 0 {
		if elsewhere, err = v.elsewhere(grant.ID{}, ""); err != nil {
			problems = append(problems, err)
		}
	}
	lockless := false
	left := map[string][]grant.Journal{}
	at := map[string]int{}
	if len(journals) > 0 {
		for i, slot := range there {
			at[slot] = i
		}
	}
	for _, name := range journals {
		slot, _, _ := strings.Cut(name, ".")
		i, known := at[slot]
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		path := filepath.Join(v.dir, "journals", name)
		j, err := readJournal(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // it was settled meanwhile
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		abandoned, err := v.abandoned(slot, path, j)
		if err != nil && !lockless {
			lockless = true // once for all
			problems = append(problems, err)
		}
		if !abandoned {
			continue
		}
		// Its name is that of its place; what it says itself may be older.
		switch {
		case known:
			j.ID = records[i].ID
		case j.Slot() != slot:
			problems = append(problems, &damagedJournalError{path, "it is not the journal of this name"})
			continue
		}
		for _, answer := range elsewhere {
			complete(&j, answer)
		}
		left[slot] = append(left[slot], j)
		switch {
		case known && j.Purpose == grant.Refreshing:
			// Another's is of an earlier grant, and means nothing for this one.
			// One to a generation that the record has without its answer was overtaken,
			// as by an import, and is only not cleared away yet.
			open := j.Generation > records[i].Generation || j.Generation == records[i].Generation && j.Answered
			records[i].Interrupted = records[i].Interrupted || j.TokenVaultKey == records[i].TokenVaultKey && open
		case known && j.Answered:
			records[i].Interrupted = true
		case !known && j.Answered:
			records = append(records, grant.Record{ID: j.ID, TokenVaultKey: j.TokenVaultKey, Home: j.Home, Interrupted: true})
			i = len(records) - 1
			at[slot] = i
		default:
			continue
		}
		if records[i].Interrupted {
			records[i].CutOff = &j
		}
	}
	return Survey{Records: records, Journals: left, Problems: problems}, nil
}

// readRecords reads the records in slots, each with its error. Reading and
// decoding takes most of the time of a status of many companies, so all cores do
// it.
func (v *Vault) readRecords(slots []string) ([]grant.Record, []error) {
	records, errs := make([]grant.Record, len(slots)), make([]error, len(slots))
	const atATime = 32
	var next atomic.Int64
	var readers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), (len(slots)+atATime-1)/atATime) {
		readers.Go(func() {
			var buf []byte
			for {
				end := int(next.Add(atATime))
				start := end - atATime
				if start >= len(slots) {
					return
				}
				for i := start; i < min(end, len(slots)); i++ {
					records[i], buf, errs[i] = v.readRecordInto(slots[i], buf)
				}
			}
		})
	}
	readers.Wait()
	return records, errs
}

// abandoned reports whether a journal lies at path and nobody is at work on it:
// whoever is holds the lock for as long as there is a journal.
func (v *Vault) abandoned(slot, path string, j grant.Journal) (bool, error) {
	name := slot
	if j.Purpose == grant.Authorizing {
		name = loginLock(j.Company)
	}
	done, free, err := v.look(name)
	if !free {
		return false, err
	}
	defer done()
	_, err = os.Lstat(path)
	return err == nil, nil
}
