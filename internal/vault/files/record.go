package files

import (
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unique"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
)

func (s *Store) recordPath(slot string) string {
	return filepath.Join(s.dir, "records", slot+".json")
}

// readRecord reads the record in a slot, grant.ErrNoGrant where there is none and
// grant.ErrSetAside where it was damaged. A damaged one is set aside.
func (s *Store) readRecord(slot string) (grant.Record, error) {
	record, _, err := s.readRecordInto(slot, nil)
	return record, err
}

// readRecordInto is readRecord with a buffer for the file, which it returns, grown
// where it has to be.
func (s *Store) readRecordInto(slot string, buf []byte) (grant.Record, []byte, error) {
	path := s.recordPath(slot)
	data, err := s.Places.Read(path, buf)
	if os.IsNotExist(err) {
		if _, err := os.Lstat(asidePath(path, 1)); err == nil {
			return grant.Record{}, buf, grant.ErrSetAside
		}
		return grant.Record{}, buf, grant.ErrNoGrant
	}
	if err != nil {
		return grant.Record{}, buf, &vault.FileError{What: "a record", Path: path, Err: err}
	}
	record, err := s.decodeRecord(slot, path, data)
	// Most records say the same here, and all of them are kept.
	for _, text := range []*string{&record.Application, &record.Environment, &record.User, &record.ClientID, &record.BaseURL, &record.Home} {
		*text = unique.Make(*text).Value()
	}
	return record, data, err
}

// decoded are records to decode into, which are copied out: of thousands, each would be
// garbage.
var decoded = sync.Pool{New: func() any { return new(grant.Record) }}

func (s *Store) decodeRecord(slot, path string, data []byte) (grant.Record, error) {
	record := decoded.Get().(*grant.Record)
	defer func() {
		*record = grant.Record{}
		decoded.Put(record)
	}()
	// What Go's encoding/json is to become takes a third of the time, most of what
	// a status of many companies has to do.
	err := jsonv2.Unmarshal(data, record)
	version := record.Version
	if err != nil {
		version = grant.FormatOf(data)
	}
	if version > grant.MovedVersion || version > grant.RecordVersion && (err != nil || record.Moved == nil) {
		return grant.Record{}, &vault.NewerError{Path: path, Version: version}
	}
	if err != nil {
		return grant.Record{}, setAside(path, strings.TrimPrefix(err.Error(), "jsontext: "))
	}
	if record.Was != "" && record.Slot() != slot {
		// A rename that was cut off: the name that fits the slot is the name.
		record.Company = record.Was
	}
	if record.Version < 1 || record.Slot() != slot {
		return grant.Record{}, setAside(path, "it is not the record of this slot")
	}
	if err := record.Check(); err != nil {
		return grant.Record{}, setAside(path, err.Error())
	}
	record.Revision = s.revision(data)
	return *record, nil
}

// revision tells what a record's file has in it from all else that it may have.
func (s *Store) revision(data []byte) uint64 {
	return max(maphash.Bytes(s.seed, data), 1) // zero is none
}

// setAside renames a damaged record, so that nothing in it is lost.
func setAside(path, cause string) error {
	aside := freeAside(path)
	if err := safefile.Rename(path, aside); err != nil && !os.IsNotExist(err) {
		return &safefile.WriteError{What: fmt.Sprintf("%s is damaged (%s) and can't be set aside", path, cause), Err: err}
	}
	return &vault.DamagedError{Path: aside, Cause: cause}
}

// freeAside is where a damaged file of a path can be put.
func freeAside(path string) string {
	for n := 1; ; n++ {
		if _, err := os.Lstat(asidePath(path, n)); err != nil {
			return asidePath(path, n)
		}
	}
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
func (s *Store) dropDamaged(slot string) error {
	return dropAside(s.recordPath(slot), safefile.Remove)
}

// dropAside removes the damaged files of a path that were set aside.
func dropAside(path string, remove func(string) error) error {
	for n := 1; ; n++ {
		aside := asidePath(path, n)
		if _, err := os.Lstat(aside); os.IsNotExist(err) {
			return nil
		}
		if err := remove(aside); err != nil {
			return err
		}
	}
}

// writeRecord returns the record as it is in its slot then.
func (s *Store) writeRecord(r grant.Record) (grant.Record, error) {
	return s.writeRecordTo(s.recordPath(r.Slot()), r, safefile.Write)
}

// writeCovered is writeRecord for a record that a journal has as well, in case its
// name is lost with the power.
func (s *Store) writeCovered(r grant.Record) (grant.Record, error) {
	return s.writeRecordTo(s.recordPath(r.Slot()), r, safefile.WriteCovered)
}

func (s *Store) writeRecordTo(path string, r grant.Record, write func(string, []byte) error) (grant.Record, error) {
	r.Version = grant.RecordVersion
	if r.Moved != nil {
		r.Version = grant.MovedVersion
	}
	data, err := jsonv2.Marshal(r, jsontext.WithIndent(" "), jsontext.EscapeForHTML(true), jsontext.EscapeForJS(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return r, fmt.Errorf("a record can't be made: %w", err)
	}
	data = append(data, '\n')
	if err := write(path, data); err != nil {
		return r, err
	}
	r.Revision = s.revision(data)
	return r, nil
}
