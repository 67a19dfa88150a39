package files

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
)

// A journal of format 2 is a file of slots under a Token Vault Key. Each slot is one
// attempt at an exchange:
//
//	0     what is about to be sent: one sector, written once
//	512   that an answer is sealed, and where: one sector
//	1024  what became of it, twice, written in turns
//	3072  the whole intent, which is not secret
//	6144  the sealed answer, an age file
//
// A sector is written whole or not at all. Each part has a checksum and the attempt's
// nonce, so that a part of an earlier attempt is never taken for one of this. What does
// not fit lies behind the slots; two of them are there from the start, with room on the
// disk, so that a full one can't keep an answer out.
const (
	slotSize    = 16 << 10
	slotsAhead  = 2
	sector      = 512
	sealAt      = sector
	marksAt     = 2 * sector
	markSize    = 2 * sector
	detailsAt   = marksAt + 2*markSize
	detailsRoom = 3 << 10
	answerAt    = detailsAt + detailsRoom
	answerRoom  = slotSize - answerAt
)

// intent is the head of a slot.
type intent struct {
	Version       int       `json:"version"`
	Nonce         string    `json:"nonce"`
	TokenVaultKey string    `json:"token_vault_key"`
	Generation    int64     `json:"generation"`
	Attempt       int       `json:"attempt"`
	Time          time.Time `json:"time"`
	Details       region    `json:"details"`
}

// answerHead says where the sealed answer of an attempt is.
type answerHead struct {
	Nonce string `json:"nonce"`
	Text  region `json:"answer"`
}

// mark is what became of an attempt. Of two, the one with the higher sequence counts.
type mark struct {
	Nonce    string `json:"nonce"`
	Sequence int    `json:"sequence"`
	grant.Fate
}

// region is a part of the file, in bytes from its beginning.
type region struct {
	At     int64  `json:"at"`
	Length int64  `json:"length"`
	SHA256 string `json:"sha256"`
}

func regionOf(at int64, data []byte) region {
	sum := sha256.Sum256(data)
	return region{At: at, Length: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
}

// slot is one of a file, as it was read.
type slot struct {
	at      int64 // from the beginning of the file
	intent  intent
	journal grant.Journal
	answer  region
	sealed  bool // an answer was sealed
	whole   bool // and all of it is there
	torn    bool // something is where that is noted, and nobody can read it
	marked  int  // the sequence of the last mark
	// damaged says that something is there that nobody can read.
	damaged bool
	// lost is the intent of an attempt whose details are not whole although it went on,
	// lostAnswer that its answer was sealed.
	lost       *grant.Journal
	lostAnswer bool
}

func (s slot) empty() bool { return s.intent.Nonce == "" && !s.damaged }

// encodePart is a part of a slot: JSON, spaces, and a checksum of both.
func encodePart(v any, size int) ([]byte, error) {
	const sum = 9
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("a part of the journal can't be made: %w", err)
	}
	if len(text) > size-sum {
		return nil, errPartTooLarge
	}
	part := slices.Concat(text, bytes.Repeat([]byte(" "), size-sum-len(text)))
	return append(part, checksum(part)...), nil
}

// checksum is the CRC-32C of a part in hexadecimal, and a line's end.
func checksum(part []byte) []byte {
	sum := binary.BigEndian.AppendUint32(nil, crc32.Checksum(part, crc32.MakeTable(crc32.Castagnoli)))
	return append(hex.AppendEncode(nil, sum), '\n')
}

var errPartTooLarge = errors.New("a part of the journal is too large")

// decodePart reports whether a part is whole.
func decodePart(part []byte, v any) bool {
	text, sum := part[:len(part)-9], part[len(part)-9:]
	return bytes.Equal(checksum(text), sum) && jsonv2.Unmarshal(bytes.TrimRight(text, " "), v) == nil
}

// slotFile is an open journal of format 2.
type slotFile struct {
	*os.File
	key   string
	size  int64
	slots []slot
	ahead []byte // while it is read: the slots that are there from the start
}

// openSlots opens the journal under a Token Vault Key and reads its slots;
// os.ErrNotExist where there is none.
func openSlots(path, key string, flag int) (*slotFile, error) {
	file, err := safefile.OpenOwn(path, flag)
	if err != nil {
		return nil, err
	}
	f := &slotFile{File: file, key: key}
	if err := f.read(); err != nil {
		_ = file.Close()
		return nil, err
	}
	return f, nil
}

// blank reports whether nothing was ever written into the journal, or not to its end.
func (f *slotFile) blank() bool {
	return !slices.ContainsFunc(f.slots, func(s slot) bool { return !s.empty() || s.lost != nil })
}

// aheads are buffers for the slots that are there from the start: each refresh reads them
// six times. Nothing that is read of a slot is kept in one.
var aheads = sync.Pool{New: func() any { return new([slotsAhead * slotSize]byte) }}

// maxSlots is how many slots a file can have before it can't be one of ours.
const maxSlots = 1 << 16

func (f *slotFile) read() error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	f.size, f.slots = info.Size(), nil
	ahead := aheads.Get().(*[slotsAhead * slotSize]byte)
	defer aheads.Put(ahead)
	if err := f.fill(ahead[:], 0); err != nil {
		return err
	}
	f.ahead = ahead[:]
	defer func() { f.ahead = nil }()
	for at := int64(0); at < slotsAhead*slotSize || at < f.size && at < maxSlots*slotSize; at += slotSize {
		head, err := f.part(at, answerAt)
		if err != nil {
			return err
		}
		s, ours, err := f.parse(at, head)
		if err != nil {
			return err
		}
		if ours {
			f.slots = append(f.slots, s)
		}
	}
	for i := range f.slots {
		f.slots[i].damaged = f.slots[i].damaged || f.isLost(f.slots[i])
	}
	return nil
}

// isLost reports whether a slot without whole details had something of use in it. A claim
// that was torn leaves such a one too, and takes only what has long been overtaken.
func (f *slotFile) isLost(s slot) bool {
	return s.lost != nil && !slices.ContainsFunc(f.slots, func(other slot) bool {
		overtakes := !other.empty() && !other.damaged && !other.journal.Unsent && other.journal.Later(*s.lost) > 0
		return overtakes && (other.whole || !s.lostAnswer)
	})
}

// parse reads one slot. Behind those that are there from the start, what is no slot is
// not ours: something that did not fit into one.
func (f *slotFile) parse(at int64, head []byte) (s slot, ours bool, err error) {
	s = slot{at: at}
	first := at < slotsAhead*slotSize
	if bytes.Equal(head[:sector], make([]byte, sector)) {
		return s, first, nil
	}
	if version := grant.FormatOf(bytes.TrimRight(head[:sector-9], " \x00")); version > grant.RecordVersion {
		return s, true, &vault.NewerError{Path: f.Name(), Version: version}
	}
	if !decodePart(head[:sector], &s.intent) || s.intent.TokenVaultKey != f.key || s.intent.Nonce == "" {
		s.intent = intent{}
		s.damaged = first || wentOn(head)
		return s, s.damaged, nil
	}
	details, whole, err := f.text(s.intent.Details)
	if err != nil {
		return s, true, err
	}
	fate, marked := fateIn(head, s.intent.Nonce)
	var a answerHead
	sealed := decodePart(head[sealAt:sealAt+sector], &a) && a.Nonce == s.intent.Nonce
	// Without its details an intent never was on disk, so nothing was sent, unless
	// something was written after it.
	if !whole || !f.ours(details, s.intent, &s.journal) {
		if (sealed || marked > 0) && !fate.Unsent {
			s.lost, s.lostAnswer = &grant.Journal{Generation: s.intent.Generation, Attempt: s.intent.Attempt}, sealed
		}
		s.intent, s.journal = intent{}, grant.Journal{}
		return s, true, nil
	}
	s.journal.Path = f.Name()
	if marked > 0 {
		s.marked, s.journal.Fate = marked, fate
	}
	s.torn = a.Nonce == "" && !bytes.Equal(head[sealAt:sealAt+sector], make([]byte, sector))
	if sealed {
		s.answer, s.sealed, s.journal.Answered = a.Text, true, true
		if _, s.whole, err = f.text(a.Text); err != nil {
			return s, true, err
		}
	}
	return s, true, nil
}

// ours reports whether details are those of an intent, and reads them.
func (f *slotFile) ours(details []byte, i intent, j *grant.Journal) bool {
	return jsonv2.Unmarshal(details, j) == nil && j.Check() == nil && j.TokenVaultKey == f.key && j.Nonce == i.Nonce
}

// fateIn is the last that a slot's marks say of an attempt, sequence 0 where they say
// nothing.
func fateIn(head []byte, nonce string) (fate grant.Fate, sequence int) {
	for _, part := range [][]byte{head[marksAt : marksAt+markSize], head[marksAt+markSize : detailsAt]} {
		var m mark
		if decodePart(part, &m) && m.Nonce == nonce && m.Sequence > sequence {
			fate, sequence = m.Fate, m.Sequence
		}
	}
	return fate, sequence
}

// wentOn reports whether a slot has an answer or a mark, of whatever attempt.
func wentOn(head []byte) bool {
	for _, part := range [][]byte{head[sealAt : sealAt+sector], head[marksAt : marksAt+markSize], head[marksAt+markSize : detailsAt]} {
		var p struct {
			Nonce string `json:"nonce"`
		}
		if decodePart(part, &p) && p.Nonce != "" {
			return true
		}
	}
	return false
}

// text reads a region, and reports whether it is whole.
func (f *slotFile) text(r region) (text []byte, whole bool, err error) {
	const most = 64 << 20
	if r.At < 0 || r.Length < 0 || r.Length > most || r.At > f.size-r.Length {
		return nil, false, nil
	}
	if text, err = f.part(r.At, r.Length); err != nil {
		return nil, false, err
	}
	return text, regionOf(r.At, text) == r, nil
}

// part returns a part of the file, zeros behind its end.
func (f *slotFile) part(at, length int64) ([]byte, error) {
	if at+length <= int64(len(f.ahead)) {
		return f.ahead[at : at+length], nil
	}
	part := make([]byte, length)
	return part, f.fill(part, at)
}

// fill reads a part of the file.
func (f *slotFile) fill(part []byte, at int64) error {
	n, err := f.ReadAt(part, at)
	clear(part[n:])
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// place is where so many bytes go that belong to a slot: into its room, or behind the
// slots.
func (f *slotFile) place(room, size, length int64) int64 {
	if length <= size {
		return room
	}
	at := f.gap(length)
	f.size = max(f.size, at+length)
	return at
}

// gap is the first place behind the slots that are there from the start where so many
// bytes lie over nothing that a slot has: a file of answers that fit into no slot would
// grow with each of them.
func (f *slotFile) gap(length int64) int64 {
	at := int64(slotsAhead * slotSize)
	for {
		end := at
		for _, s := range f.slots {
			for _, r := range []region{{At: s.at, Length: slotSize}, s.intent.Details, s.answer} {
				if r.At < at+length && at < r.At+r.Length {
					end = max(end, r.At+r.Length)
				}
			}
		}
		if end == at {
			return at
		}
		at = (end + slotSize - 1) / slotSize * slotSize
	}
}

// free finds a slot for a new attempt: never that of the newest answer to an earlier
// generation's, of which the grant is made, as item and record may still be lost with the
// power, nor that of an answer or of an attempt whose fate nobody knows yet.
func (f *slotFile) free(j grant.Journal) int64 {
	newest, pending := -1, -1
	for i, s := range f.slots {
		if s.whole && !s.journal.Unsent && s.journal.Generation < j.Generation && (newest < 0 || s.journal.Later(f.slots[newest].journal) > 0) {
			newest = i
		}
		if !s.empty() && !s.damaged && !s.journal.Unsent && s.journal.Generation == j.Generation && (pending < 0 || s.journal.Later(f.slots[pending].journal) > 0) {
			pending = i
		}
	}
	best := -1
	for i, s := range f.slots {
		kept := s.whole && !s.journal.Unsent && s.journal.Generation >= j.Generation
		if i == newest || i == pending || kept || s.damaged {
			continue
		}
		if best < 0 || s.journal.Later(f.slots[best].journal) < 0 {
			best = i
		}
	}
	if best >= 0 {
		return f.slots[best].at
	}
	return f.gap(slotSize)
}

// reaches reports whether a part of a slot lies behind an offset.
func (s slot) reaches(at int64) bool {
	return s.at >= at || s.intent.Details.At >= at || s.sealed && s.answer.At >= at
}

// shrink gives back what lies behind the slots that are there from the start, once
// nothing in it is of any use.
func (f *slotFile) shrink(generation int64) error {
	const ahead = slotsAhead * slotSize
	if f.size <= ahead {
		return nil
	}
	for _, s := range f.slots {
		if !s.empty() && s.reaches(ahead) && (s.damaged || s.journal.Generation >= generation) {
			return nil
		}
	}
	for i, s := range f.slots {
		if s.at >= ahead || s.empty() || !s.reaches(ahead) {
			continue
		}
		// What loses a part of it is gone, and not damaged.
		if _, err := f.WriteAt(make([]byte, sector), s.at); err != nil {
			return err
		}
		f.slots[i] = slot{at: s.at}
	}
	f.slots = slices.DeleteFunc(f.slots, func(s slot) bool { return s.at >= ahead })
	f.size = ahead
	return f.Truncate(ahead)
}

// claim writes an intent, with room for the answer, and returns when it is on disk.
func (f *slotFile) claim(j grant.Journal) error {
	at := f.free(j)
	if !slices.ContainsFunc(f.slots, func(s slot) bool { return s.at == at }) {
		f.slots = append(f.slots, slot{at: at})
	}
	details, err := json.Marshal(j)
	if err != nil {
		return fmt.Errorf("the journal can't be made: %w", err)
	}
	if end := max(at+slotSize, slotsAhead*slotSize); f.size < end {
		// What is in the room is on the disk from the start.
		if _, err := f.WriteAt(make([]byte, end-f.size), f.size); err != nil {
			return err
		}
		f.size = end
	}
	where := f.place(at+detailsAt, detailsRoom, int64(len(details)))
	head := make([]byte, answerAt)
	first, err := encodePart(intent{
		Version: grant.RecordVersion, Nonce: j.Nonce, TokenVaultKey: j.TokenVaultKey,
		Generation: j.Generation, Attempt: j.Attempt, Time: j.Time, Details: regionOf(where, details),
	}, sector)
	if err != nil {
		return err
	}
	copy(head, first)
	if where == at+detailsAt {
		copy(head[detailsAt:], details)
	} else if _, err := f.WriteAt(details, where); err != nil {
		return err
	}
	if _, err := f.WriteAt(head, at); err != nil {
		return err
	}
	return safefile.SyncData(f.File)
}

// named reports whether the file's name is certainly on disk: it was before the first
// answer was sealed. Whoever made the file may have been cut off before that.
func (f *slotFile) named() bool {
	return slices.ContainsFunc(f.slots, func(s slot) bool { return s.sealed })
}

// withdraw says of an attempt whose claim failed that it sent nothing, where that can
// be written: part of the claim may be there.
func (f *slotFile) withdraw(j grant.Journal) {
	if f.read() != nil {
		return
	}
	if at := f.of(j.Nonce); at != nil {
		j.Unsent = true
		_ = f.mark(at, j.Fate)
	}
}

// of finds the slot of an attempt, nil where it has none.
func (f *slotFile) of(nonce string) *slot {
	for i := range f.slots {
		if f.slots[i].intent.Nonce == nonce && nonce != "" {
			return &f.slots[i]
		}
	}
	return nil
}

// seal puts an answer into the slot of its attempt, and returns when it is on disk.
func (f *slotFile) seal(s *slot, sealed []byte) error {
	where := f.place(s.at+answerAt, answerRoom, int64(len(sealed)))
	head, err := encodePart(answerHead{Nonce: s.intent.Nonce, Text: regionOf(where, sealed)}, sector)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(sealed, where); err != nil {
		return err
	}
	if _, err := f.WriteAt(head, s.at+sealAt); err != nil {
		return err
	}
	return safefile.SyncData(f.File)
}

// mark notes what became of an attempt, and returns when it is on disk.
func (f *slotFile) mark(s *slot, fate grant.Fate) error {
	m := mark{Nonce: s.intent.Nonce, Sequence: s.marked + 1, Fate: fate}
	part, err := encodePart(m, markSize)
	for errors.Is(err, errPartTooLarge) && m.Outcome != "" {
		text := []rune(m.Outcome)
		m.Outcome = string(text[:len(text)*3/4]) // it is for people
		part, err = encodePart(m, markSize)
	}
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(part, s.at+marksAt+int64(m.Sequence%2)*markSize); err != nil {
		return err
	}
	return safefile.SyncData(f.File)
}

// journals are the attempts in the file, the latest first.
func (f *slotFile) journals() (found []grant.Journal) {
	for _, s := range f.slots {
		if !s.empty() && !s.damaged {
			found = append(found, s.journal)
		}
	}
	slices.SortStableFunc(found, func(a, b grant.Journal) int { return b.Later(a) })
	return found
}

// flaw says what is damaged in a journal that nobody is at work on, whose grant has a
// generation; empty where nothing is.
func (f *slotFile) flaw(generation int64) string {
	if f.damage() != nil {
		return damagedHeader
	}
	if f.size < slotsAhead*slotSize && f.named() {
		return "its end is missing"
	}
	damaged := false
	for _, s := range f.slots {
		if s.empty() || s.journal.Unsent || s.journal.Generation != generation {
			continue
		}
		if s.whole {
			return ""
		}
		damaged = damaged || s.sealed || s.torn
	}
	if damaged {
		return "UPS's answer in it can't be read"
	}
	return ""
}

// damage is the first slot that nobody can read, nil for none.
func (f *slotFile) damage() *slot {
	for i := range f.slots {
		if f.slots[i].damaged {
			return &f.slots[i]
		}
	}
	return nil
}
