package vault

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unique"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

func (v *Vault) recordPath(slot string) string {
	return filepath.Join(v.dir, "records", slot+".json")
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
	data, err := jsonv2.Marshal(r, jsontext.WithIndent(" "), jsontext.EscapeForHTML(true), jsontext.EscapeForJS(true), jsontext.AllowInvalidUTF8(true))
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

// Note changes what the record says and leaves the item alone. The caller holds
// the grant's lock.
func (v *Vault) Note(r grant.Record) error { return v.writeRecord(r) }
