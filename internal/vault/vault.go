// Package vault keeps grants on this machine: records in small files, a lock
// and a sealed journal for each grant, and the secrets in a home.
package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unique"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/gofrs/flock"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

// Vault is a directory of records, locks and journals with the homes of the
// secrets they speak of.
type Vault struct {
	dir   string
	homes Homes
	// Elsewhere are other directories of this user's on this machine, in the order
	// in which they are tried for an answer that can't be sealed in its place.
	Elsewhere []string
	// Places is the rule for who else may change its files. Its directories are
	// checked by whoever opens the vault.
	Places *safefile.Places

	mu sync.Mutex
	// stuck are the slots for which a write to a home timed out. It may still
	// land, so this process writes nothing more there and keeps the locks.
	stuck map[string]bool
	kept  []*flock.Flock // a lock that nothing refers to is let go
}

// New returns the vault in dir. Nothing is read or made before it is used.
func New(dir string, homes Homes) *Vault {
	return &Vault{dir: dir, homes: homes, Places: &safefile.Places{}, stuck: map[string]bool{}}
}

// NewerError says that a file was written by a newer upsauth. It is left alone.
type NewerError struct {
	Path    string
	Version int
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("%s was written by a newer upsauth (format %d, this one knows %d). It was left alone; use the newer upsauth.",
		e.Path, e.Version, grant.RecordVersion)
}

// FileError says that a record or a journal is there and can't be read. It is left
// alone.
type FileError struct {
	What string // "a record"
	Path string
	Err  error
}

func (e *FileError) Error() string { return fmt.Sprintf("%s can't be read: %v", e.What, e.Err) }

func (e *FileError) Unwrap() error { return e.Err }

// DamagedError says that a record or a journal can't be read and was set aside.
type DamagedError struct {
	Path    string // where it is now
	Cause   string
	Journal bool
}

func (e *DamagedError) Error() string {
	if e.Journal {
		return fmt.Sprintf("a damaged journal was set aside as %s (%s)", e.Path, e.Cause)
	}
	return fmt.Sprintf("a damaged record was set aside as %s (%s)", e.Path, e.Cause)
}

// MissingError says that a record's secrets are not in their home. It is a
// grant.ErrNoSecrets.
type MissingError struct {
	ID   grant.ID
	Home string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("the secrets of %s are not in the %s where its record says they are", e.ID, Describe(e.Home))
}

func (e *MissingError) Unwrap() error { return grant.ErrNoSecrets }

func (v *Vault) recordPath(slot string) string {
	return filepath.Join(v.dir, "records", slot+".json")
}

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

// readRecord reads the record in a slot, grant.ErrNoGrant where there is none. A
// damaged one is set aside.
func (v *Vault) readRecord(slot string) (grant.Record, error) {
	record, _, err := v.readRecordInto(slot, nil)
	return record, err
}

// readRecordInto is readRecord with a buffer for the file, which it returns, grown
// where it has to be.
func (v *Vault) readRecordInto(slot string, buf []byte) (grant.Record, []byte, error) {
	path := v.recordPath(slot)
	data, err := v.Places.Read(path, buf)
	if os.IsNotExist(err) {
		return grant.Record{}, buf, grant.ErrNoGrant
	}
	if err != nil {
		return grant.Record{}, buf, &FileError{What: "a record", Path: path, Err: err}
	}
	record, err := v.decodeRecord(slot, path, data)
	// Most records say the same here, and all of them are kept.
	for _, text := range []*string{&record.Application, &record.Environment, &record.User, &record.ClientID, &record.BaseURL, &record.Home} {
		*text = unique.Make(*text).Value()
	}
	return record, data, err
}

func (v *Vault) decodeRecord(slot, path string, data []byte) (grant.Record, error) {
	var record grant.Record
	// What Go's encoding/json is to become takes a third of the time, most of what
	// a status of many companies has to do.
	err := jsonv2.Unmarshal(data, &record)
	version := record.Version
	if err != nil {
		version = versionOf(data)
	}
	if version > grant.RecordVersion {
		return grant.Record{}, &NewerError{Path: path, Version: version}
	}
	if err != nil {
		return grant.Record{}, setAside(path, strings.TrimPrefix(err.Error(), "jsontext: "), false)
	}
	if record.Slot() != slot && record.Was != "" {
		// A rename that was cut off: the name that fits the slot is the name.
		record.Company = record.Was
	}
	if record.Version < 1 || record.Slot() != slot {
		return grant.Record{}, setAside(path, "it is not the record of this slot", false)
	}
	if err := record.Check(); err != nil {
		return grant.Record{}, setAside(path, err.Error(), false)
	}
	return record, nil
}

// versionOf is the format version that a file or an item names, read on its own
// as nothing else in it need be as it is now; 0 where it names none.
func versionOf(data []byte) int {
	var format struct {
		Version int `json:"version"`
	}
	_ = json.Unmarshal(data, &format)
	return format.Version
}

// setAside renames a damaged record or journal, so that nothing in it is lost.
func setAside(path, cause string, journal bool) error {
	n := 1
	for ; ; n++ {
		if _, err := os.Lstat(asidePath(path, n)); err != nil {
			break
		}
	}
	aside := asidePath(path, n)
	if err := safefile.Rename(path, aside); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("%s is damaged (%s) and can't be set aside: %w", path, cause, err)
	}
	return &DamagedError{Path: aside, Cause: cause, Journal: journal}
}

// asidePath is where the n-th damaged file of a path is put, n from 1.
func asidePath(path string, n int) string {
	if n == 1 {
		return path + ".damaged"
	}
	return fmt.Sprintf("%s.%d.damaged", path, n)
}

// dropDamaged removes the damaged records of a slot: a good one has taken their
// place, or is not wanted any more.
func (v *Vault) dropDamaged(slot string) error {
	for n := 1; ; n++ {
		aside := asidePath(v.recordPath(slot), n)
		if _, err := os.Lstat(aside); os.IsNotExist(err) {
			return nil
		}
		if err := safefile.Remove(aside); err != nil {
			return err
		}
	}
}

func (v *Vault) writeRecord(r grant.Record) error {
	return writeRecordTo(v.recordPath(r.Slot()), r)
}

func writeRecordTo(path string, r grant.Record) error {
	r.Version = grant.RecordVersion
	data, err := jsonv2.Marshal(r, jsontext.WithIndent(" "), jsontext.EscapeForHTML(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return fmt.Errorf("a record can't be made: %w", err)
	}
	return safefile.Write(path, append(data, '\n'))
}

// Record returns the record of a grant without opening its home.
func (v *Vault) Record(id grant.ID) (grant.Record, error) {
	record, err := v.readRecord(id.Slot())
	if err == nil && record.Removing {
		return grant.Record{}, grant.ErrNoGrant
	}
	return record, err
}

// SetAside reports whether a record of the grant was damaged and set aside.
func (v *Vault) SetAside(id grant.ID) bool {
	_, err := os.Lstat(asidePath(v.recordPath(id.Slot()), 1))
	return err == nil
}

// Get opens the home and returns the whole grant. What the item says counts
// before what the record says: a write may have been cut off between the two.
func (v *Vault) Get(ctx context.Context, id grant.ID) (grant.Grant, error) {
	record, err := v.Record(id)
	if err != nil {
		return grant.Grant{}, err
	}
	g, err := v.item(ctx, record)
	if err != nil {
		return grant.Grant{}, err
	}
	if g.Generation < record.Generation {
		return grant.Grant{}, olderItem(record, g.Generation)
	}
	if g.Generation == record.Generation {
		g.Void, g.LastError = record.Void, record.LastError
		// A key that was made anew is in the record before it is in an item.
		g.JournalRecipient = record.JournalRecipient
	}
	g.Superseded = record.Superseded
	return g, nil
}

// olderItem is the error of an item that is older than its record: its refresh
// token was spent long ago, and sending it again could end the living grant.
func olderItem(record grant.Record, generation int64) error {
	return &HomeError{Home: record.Home, OfItem: true,
		What: fmt.Sprintf("The secrets of %s in the %s are older than its record (generation %d instead of %d), so their refresh token is spent.",
			record.ID, record.Home, generation, record.Generation),
		Advice: "Was an old backup restored? Put back the newer secrets, or authorize the company again[: {}].", Do: []Act{Authorize}}
}

func (v *Vault) item(ctx context.Context, record grant.Record) (grant.Grant, error) {
	home, err := v.homes.named(record.Home)
	if err != nil {
		return grant.Grant{}, err
	}
	secret, err := home.Get(ctx, record.TokenVaultKey)
	if errors.Is(err, ErrNoItem) {
		return grant.Grant{}, &MissingError{ID: record.ID, Home: record.Home}
	}
	if err != nil {
		return grant.Grant{}, err
	}
	var g grant.Grant
	err = json.Unmarshal(secret, &g)
	version := g.Version
	if err != nil {
		version = versionOf(secret)
	}
	if version > grant.RecordVersion {
		return grant.Grant{}, &NewerError{Path: "the item " + record.TokenVaultKey, Version: version}
	}
	if err != nil {
		return grant.Grant{}, damagedItem(record.Home, fmt.Sprintf("The secrets of %s in the %s are damaged.", record.ID, Describe(record.Home)))
	}
	if g.TokenVaultKey != record.TokenVaultKey {
		return grant.Grant{}, damagedItem(record.Home, fmt.Sprintf("The item %s in the %s is not that of %s.", record.TokenVaultKey, Describe(record.Home), record.ID))
	}
	// The record's name and place are newer than the item's after a rename.
	g.ID, g.Home = record.ID, record.Home
	return g, nil
}

// Announced returns the grant whose item is already in the home that a journal
// names although no record speaks of it yet; grant.ErrNoSecrets where there is
// none.
func (v *Vault) Announced(ctx context.Context, j grant.Journal) (grant.Grant, error) {
	return v.item(ctx, grant.Record{ID: j.ID, TokenVaultKey: j.TokenVaultKey, Home: j.Home})
}

// Put stores a grant: its item, then its record. Expected is the generation it
// replaces, 0 for the first of a new Token Vault Key; grant.ErrConflict where it is
// another. A new Token Vault Key takes the place of the company's earlier
// grant, whose items go last. The caller holds the grant's lock.
func (v *Vault) Put(ctx context.Context, g grant.Grant, expected int64) error {
	slot := g.Slot()
	if v.isStuck(slot) {
		return stuckError(g.Home)
	}
	old, err := v.readRecord(slot)
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return err
	}
	if expected > 0 {
		if old.TokenVaultKey != g.TokenVaultKey || old.Removing {
			return grant.ErrConflict
		}
		current, err := v.item(ctx, g.Record)
		if err != nil {
			return err
		}
		if current.Generation != expected {
			return grant.ErrConflict
		}
	}
	superseded := old.Superseded
	if old.TokenVaultKey != "" && old.Place() != g.Place() {
		superseded = append(superseded, old.Place())
	}
	g.LastError, g.Void = nil, false
	if err := v.putItem(ctx, &g); err != nil {
		return err
	}
	g.Superseded = superseded
	if err := v.writeRecord(g.Record); err != nil {
		return err
	}
	if expected == 0 {
		if err := v.dropDamaged(slot); err != nil {
			return err
		}
	}
	// What a home does not let go now, the next removal finishes.
	if _, err := v.dropSuperseded(ctx, g.Record); err != nil && !isHomeError(err) {
		return err
	}
	return nil
}

// putItem writes a grant's item into the home that it names, without what is
// only a record's.
func (v *Vault) putItem(ctx context.Context, g *grant.Grant) error {
	g.Version = grant.RecordVersion
	g.Superseded, g.Removing, g.Was = nil, false, ""
	home, err := v.homes.named(g.Home)
	if err != nil {
		return err
	}
	secret, err := json.Marshal(g)
	if err != nil {
		return fmt.Errorf("the item of %s can't be made: %w", g.ID, err)
	}
	return v.watch(g.Slot(), home.Put(ctx, g.TokenVaultKey, g.Generation, secret))
}

// Note changes what the record says and leaves the item alone. The caller holds
// the grant's lock.
func (v *Vault) Note(r grant.Record) error { return v.writeRecord(r) }

// Prove shows that the home of a grant can be written, with an item of the
// grant's size beside its own, which is gone again afterwards. Size is in
// bytes.
func (v *Vault) Prove(ctx context.Context, id grant.ID, homeName, tokenVaultKey string, size int) error {
	slot := id.Slot()
	if v.isStuck(slot) {
		return stuckError(homeName)
	}
	home, err := v.homes.named(homeName)
	if err != nil {
		return err
	}
	account := probeAccount(tokenVaultKey)
	probe := []byte(`{"probe":"` + strings.Repeat("0", size) + `"}`)
	if err := v.watch(slot, home.Put(ctx, account, 0, probe)); err != nil {
		return err
	}
	return v.watch(slot, home.Delete(ctx, account))
}

// watch marks a slot stuck when a write to its home timed out.
func (v *Vault) watch(slot string, err error) error {
	if timedOut(err) {
		v.mu.Lock()
		v.stuck[slot] = true
		v.mu.Unlock()
	}
	return err
}

// keep holds a lock until the process ends.
func (v *Vault) keep(lock *flock.Flock) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.kept = append(v.kept, lock)
}

func (v *Vault) isStuck(slot string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.stuck[slot]
}

// Stuck reports whether a write to a home timed out. What it was about stays
// locked until this process ends.
func (v *Vault) Stuck() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.stuck) > 0
}

func stuckError(home string) error {
	return &HomeError{Home: home, TimedOut: true,
		What:   "An earlier write to the " + home + " got no answer and may still happen, so nothing more is written there.",
		Advice: "See that the " + home + " answers, then {}.", Do: []Act{TryAgain}}
}
