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

// Unsettled reports whether a journal lies beside a grant that the grant's next use has
// to finish or to clear away. Its home must be open for that.
func (s Survey) Unsettled(r grant.Record) bool {
	refreshing := func(j grant.Journal) bool { return j.Purpose == grant.Refreshing }
	return r.Interrupted || slices.ContainsFunc(s.Journals[r.Slot()], refreshing)
}

// Survey reads the files of the vault, or those of one company where it is not
// empty, without opening any home.
func (v *Vault) Survey(company string) (Survey, error) {
	prefix := ""
	if company != "" {
		prefix = grant.CompanySlot(company) + "-"
	}
	s := Survey{Journals: map[string][]grant.Journal{}}
	slots, err := v.surveyRecords(&s, prefix)
	if err != nil {
		return Survey{}, err
	}
	names, err := journalNames(v.dir, journalSuffix)
	if err != nil {
		return Survey{}, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, prefix) })
	if len(names) > 0 {
		v.surveyJournals(&s, slots, names)
	}
	return s, nil
}

// surveyRecords reads the records whose files begin with a prefix, and returns the
// slot of each.
func (v *Vault) surveyRecords(s *Survey, prefix string) ([]string, error) {
	names, err := safefile.ReadDir(filepath.Join(v.dir, "records"))
	if err != nil {
		return nil, fmt.Errorf("the records can't be read: %w", err)
	}
	var slots []string
	for _, name := range names {
		if strings.HasPrefix(name, ".") || !strings.HasPrefix(name, prefix) {
			continue
		}
		if slot, _, ok := strings.Cut(name, ".json."); ok && strings.HasSuffix(name, ".damaged") && !slices.Contains(names, slot+".json") {
			s.Problems = append(s.Problems, &DamagedError{Path: filepath.Join(v.dir, "records", name), Cause: "set aside earlier"})
			continue
		}
		if slot, ok := strings.CutSuffix(name, ".json"); ok {
			slots = append(slots, slot)
		}
	}
	records, errs := v.readRecords(slots)
	s.Records = records[:0]
	there := slots[:0]
	for i, err := range errs {
		switch {
		case errors.Is(err, grant.ErrNoGrant):
		case err != nil:
			s.Problems = append(s.Problems, err)
		default:
			s.Records, there = append(s.Records, records[i]), append(there, slots[i])
		}
	}
	return there, nil
}

// surveyJournals reads journals, of which those that nobody is at work on are noted,
// and says which records they make interrupted. Slots are those of the records.
func (v *Vault) surveyJournals(s *Survey, slots, names []string) {
	elsewhere, err := v.elsewhere(grant.ID{}, "")
	if err != nil {
		s.Problems = append(s.Problems, err)
	}
	at := make(map[string]int, len(slots))
	for i, slot := range slots {
		at[slot] = i
	}
	lockless := false
	for _, name := range names {
		slot, _, _ := strings.Cut(name, ".")
		path := filepath.Join(v.dir, "journals", name)
		j, err := readJournal(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // its exchange is over meanwhile
		}
		if err != nil {
			s.Problems = append(s.Problems, err)
			continue
		}
		abandoned, err := v.abandoned(slot, path, j)
		if err != nil && !lockless {
			lockless = true // once for all
			s.Problems = append(s.Problems, err)
		}
		if !abandoned {
			continue
		}
		i, known := at[slot]
		switch {
		case known:
			// The journal's name is that of its place; what it says itself may be older.
			j.ID = s.Records[i].ID
		case j.Slot() != slot:
			s.Problems = append(s.Problems, &damagedJournalError{path, "it is not the journal of this name"})
			continue
		}
		for _, answer := range elsewhere {
			complete(&j, answer)
		}
		s.Journals[slot] = append(s.Journals[slot], j)
		if !known && j.Answered {
			// A first authorization that UPS answered has no record yet.
			i, known = len(s.Records), true
			at[slot] = i
			s.Records = append(s.Records, grant.Record{ID: j.ID, TokenVaultKey: j.TokenVaultKey, Home: j.Home})
		}
		if known && interrupts(j, s.Records[i]) {
			s.Records[i].Interrupted, s.Records[i].CutOff = true, &j
		}
	}
}

// interrupts reports whether a journal that nobody is at work on has what its grant's
// record lacks.
func interrupts(j grant.Journal, r grant.Record) bool {
	if j.Purpose != grant.Refreshing {
		return j.Answered
	}
	// A journal under another key is of an earlier grant. A refresh to a generation that
	// the record has, without an answer, was overtaken, as by an import.
	return j.TokenVaultKey == r.TokenVaultKey &&
		(j.Generation > r.Generation || j.Generation == r.Generation && j.Answered)
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
