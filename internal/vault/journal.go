package vault

import (
	"bytes"
	"cmp"
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

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

// A journal file is a JSON header in the clear, padded with spaces to
// headerRoom bytes; the length of the sealed answer in 8 bytes, big-endian; the
// sealed answer, an age file. Room for the answer is on the disk from the
// start, so that a full disk can't keep it out.
const (
	headerRoom = 4 << 10
	answerRoom = 128 << 10
	lengthSize = 8
)

// journalAccount is where the identity that opens a grant's journals is.
func journalAccount(tokenVaultKey string) string { return tokenVaultKey + "/journal" }

func probeAccount(tokenVaultKey string) string { return tokenVaultKey + "/probe" }

const journalSuffix = ".journal"

func (v *Vault) journalPath(id grant.ID, tokenVaultKey string) string {
	return filepath.Join(v.dir, "journals", id.Slot()+"."+tokenVaultKey+journalSuffix)
}

// Begin writes a journal to disk, with room for the answer. A journal without
// recipient is the first of its Token Vault Key: it gets an identity of its
// own, which is put in the home once the journal that tells of it is on disk.
func (v *Vault) Begin(ctx context.Context, j *grant.Journal) error {
	if v.isStuck(j.Slot()) {
		return stuckError(j.Home)
	}
	j.Version = grant.RecordVersion
	var key []byte
	var home Home
	if j.Recipient == "" {
		// The lock of what commands do in steps is made with the first grant, so that
		// a command which only looks makes nothing.
		if lock, err := v.openLock(workLock); err == nil {
			_, _ = lock.TryRLock()
			_ = lock.Close()
		}
		var err error
		if home, err = v.homes.named(j.Home); err != nil {
			return err
		}
		if key, j.Recipient, err = newJournalKey(); err != nil {
			return err
		}
	}
	header, err := headerOf(*j)
	if err != nil {
		return err
	}
	if err := v.keepUnread(*j); err != nil {
		return err
	}
	file := make([]byte, headerRoom+lengthSize+answerRoom)
	copy(file, header)
	if err := safefile.Write(v.journalPath(j.ID, j.TokenVaultKey), file); err != nil {
		return fmt.Errorf("the journal can't be written: %w", err)
	}
	j.Answered, j.Elsewhere, j.Path = false, false, v.journalPath(j.ID, j.TokenVaultKey)
	if key == nil {
		return nil
	}
	if err := v.watch(j.Slot(), home.Put(ctx, journalAccount(j.TokenVaultKey), 0, key)); err != nil {
		// A write that may still land has to be found again later.
		if !timedOut(err) {
			err = errors.Join(err, v.DropJournal(*j))
		}
		return err
	}
	return nil
}

// headerOf is a journal's header, padded to its room.
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

// Amend changes the header of a journal that Begin wrote, and leaves its sealed
// answer. A loss of power in its midst damages the journal.
func (v *Vault) Amend(j grant.Journal) error {
	header, err := headerOf(j)
	if err != nil {
		return err
	}
	return v.writeInto(j, 0, header, "the journal can't be changed")
}

// writeInto writes into a journal's file in place, and returns when it is on
// disk.
func (v *Vault) writeInto(j grant.Journal, offset int64, data []byte, failure string) error {
	file, err := safefile.OpenOwn(v.journalPath(j.ID, j.TokenVaultKey), os.O_RDWR)
	if err != nil {
		return fmt.Errorf("%s: %w", failure, err)
	}
	_, err = file.WriteAt(data, offset)
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("%s: %w", failure, err)
	}
	return nil
}

// journalKey is the item under KEY/journal.
type journalKey struct {
	Version  int    `json:"version"`
	Identity string `json:"identity"`
}

// newJournalKey makes the item under KEY/journal and the recipient that belongs
// to it.
func newJournalKey() (item []byte, recipient string, err error) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, "", fmt.Errorf("a key for the journal can't be made: %w", err)
	}
	item, err = json.Marshal(journalKey{Version: grant.RecordVersion, Identity: identity.String()})
	if err != nil {
		return nil, "", fmt.Errorf("a key for the journal can't be kept: %w", err)
	}
	return item, identity.Recipient().String(), nil
}

// Seal puts an answer into a journal that Begin wrote, encrypted, and returns
// when it is on disk. It needs no home. Where the journal can't be written, the
// answer goes into another directory on this machine, which the journal's Path
// then names; Journals finds it there.
func (v *Vault) Seal(j *grant.Journal, answer []byte) error {
	sealed, err := sealTo(j.Recipient, answer)
	if err != nil {
		return fmt.Errorf("the answer can't be sealed: %w", err)
	}
	err = v.writeInto(*j, headerRoom, sealed, "the answer can't be sealed")
	if err == nil {
		if j.Elsewhere {
			_ = dropElsewhere(*j) // as good as none: the journal has it now
		}
		j.Answered, j.Elsewhere, j.Path = true, false, v.journalPath(j.ID, j.TokenVaultKey)
		return nil
	}
	if j.Elsewhere {
		return nil
	}
	path, elsewhereErr := v.sealElsewhere(*j, sealed)
	if elsewhereErr != nil {
		return errors.Join(err, elsewhereErr)
	}
	j.Answered, j.Elsewhere, j.Path = true, true, path
	return nil
}

// sealTo is the length of the encrypted answer and the answer, as they stand in a
// journal.
func sealTo(recipient string, answer []byte) ([]byte, error) {
	to, err := age.ParseX25519Recipient(recipient)
	if err != nil {
		return nil, err
	}
	var sealed bytes.Buffer
	sealed.Write(make([]byte, lengthSize))
	w, err := age.Encrypt(&sealed, to)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(answer); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint64(sealed.Bytes(), uint64(sealed.Len()-lengthSize))
	return sealed.Bytes(), nil
}

// Journals returns the journals that lie beside a grant, the refreshes' first,
// then the authorizations', the latest first. A
// damaged one is set aside. The caller holds the grant's lock.
func (v *Vault) Journals(id grant.ID) ([]grant.Journal, error) {
	names, err := journalNames(v.dir, journalSuffix)
	if err != nil {
		return nil, err
	}
	var found, logins []grant.Journal
	for _, name := range names {
		if !strings.HasPrefix(name, id.Slot()+".") {
			continue
		}
		path := filepath.Join(v.dir, "journals", name)
		j, err := readJournal(path)
		var damage *damagedJournalError
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue // an authorization settled it meanwhile
		case errors.As(err, &damage):
			return nil, setAside(path, damage.cause, true)
		case err != nil:
			return nil, err
		}
		j.ID = id
		if j.Purpose == grant.Refreshing {
			found = append(found, j)
		} else {
			logins = append(logins, j)
		}
	}
	slices.SortFunc(logins, func(a, b grant.Journal) int { return b.Time.Compare(a.Time) })
	return v.withElsewhere(id, append(found, logins...))
}

// journalNames lists the files with a suffix that lie among the journals.
func journalNames(dir, suffix string) ([]string, error) {
	all, err := safefile.ReadDir(filepath.Join(dir, "journals"))
	if err != nil {
		return nil, fmt.Errorf("the journals can't be read: %w", err)
	}
	names := all[:0]
	for _, name := range all {
		if !strings.HasPrefix(name, ".") && strings.HasSuffix(name, suffix) {
			names = append(names, name)
		}
	}
	return names, nil
}

// damagedJournalError says that a journal's header is none.
type damagedJournalError struct{ path, cause string }

func (e *damagedJournalError) Error() string {
	return fmt.Sprintf("the journal %s is damaged: %s", e.path, e.cause)
}

func readJournal(path string) (grant.Journal, error) {
	file, err := safefile.OpenOwn(path, os.O_RDONLY)
	if err != nil {
		return grant.Journal{}, &FileError{What: "a journal", Path: path, Err: err}
	}
	defer file.Close()
	start := make([]byte, headerRoom+lengthSize)
	if _, err := io.ReadFull(file, start); err != nil {
		return grant.Journal{}, &damagedJournalError{path, "it ends too soon"}
	}
	header := bytes.TrimRight(start[:headerRoom], " ")
	if version := versionOf(header); version > grant.RecordVersion {
		return grant.Journal{}, &NewerError{Path: path, Version: version}
	}
	var j grant.Journal
	if err := json.Unmarshal(header, &j); err != nil {
		return grant.Journal{}, &damagedJournalError{path, err.Error()}
	}
	if j.Version < 1 || !strings.Contains(filepath.Base(path), "."+j.TokenVaultKey+journalSuffix) {
		return grant.Journal{}, &damagedJournalError{path, "it is not the journal of this name"}
	}
	if err := j.Check(); err != nil {
		return grant.Journal{}, &damagedJournalError{path, err.Error()}
	}
	j.Answered, j.Path = binary.BigEndian.Uint64(start[headerRoom:]) > 0, path
	return j, nil
}

// Answer opens the sealed answer of a journal. It needs the journal's home.
func (v *Vault) Answer(ctx context.Context, j grant.Journal) ([]byte, error) {
	home, err := v.homes.named(j.Home)
	if err != nil {
		return nil, err
	}
	secret, err := home.Get(ctx, journalAccount(j.TokenVaultKey))
	if errors.Is(err, ErrNoItem) {
		return nil, &MissingError{ID: j.ID, Home: j.Home}
	}
	if err != nil {
		return nil, err
	}
	if version := versionOf(secret); version > grant.RecordVersion {
		return nil, &NewerError{Path: "the item " + journalAccount(j.TokenVaultKey), Version: version}
	}
	var key journalKey
	_ = json.Unmarshal(secret, &key)
	identity, err := age.ParseX25519Identity(key.Identity)
	if err != nil {
		return nil, damagedItem(j.Home, fmt.Sprintf("The key of the journal of %s in the %s is damaged.", j.TokenVaultKey, Describe(j.Home)))
	}
	file, err := safefile.ReadFile(cmp.Or(j.Path, v.journalPath(j.ID, j.TokenVaultKey)))
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
	plain, err := age.Decrypt(bytes.NewReader(rest[lengthSize:lengthSize+length]), identity)
	if err != nil {
		return nil, grant.ErrNoAnswer
	}
	answer, err := io.ReadAll(plain)
	if err != nil {
		return nil, grant.ErrNoAnswer
	}
	return answer, nil
}

// DropJournal removes a journal whose exchange is over, with its answer where that was
// sealed elsewhere. The journal that lies in the place of such an answer may be of
// another exchange by now, which is not over.
func (v *Vault) DropJournal(j grant.Journal) error {
	path := v.journalPath(j.ID, j.TokenVaultKey)
	if j.Elsewhere {
		if err := dropElsewhere(j); err != nil {
			return err
		}
		if there, err := readJournal(path); err == nil && there.Generation != j.Generation {
			return nil
		}
	}
	return safefile.Remove(path)
}

// HomesOf names the homes that the records and journals of grants speak of, without
// opening any. The journals are listed once for all.
func (v *Vault) HomesOf(ids ...grant.ID) []string {
	var homes []string
	slots := make(map[string]bool, len(ids))
	for _, id := range ids {
		slots[id.Slot()] = true
		if record, err := v.readRecord(id.Slot()); err == nil {
			homes = append(homes, record.Home)
		}
	}
	if len(slots) == 0 {
		return nil
	}
	names, _ := journalNames(v.dir, journalSuffix)
	for _, name := range names {
		if slot, _, _ := strings.Cut(name, "."); !slots[slot] {
			continue
		}
		if j, err := readJournal(filepath.Join(v.dir, "journals", name)); err == nil {
			homes = append(homes, j.Home)
		}
	}
	return homes
}

// UnfinishedLogins names the grants beside which traces of an authorization lie
// that nobody is at work on.
func (v *Vault) UnfinishedLogins() []grant.ID {
	var found []grant.ID
	names, _ := journalNames(v.dir, journalSuffix)
	for _, name := range names {
		path := filepath.Join(v.dir, "journals", name)
		slot, _, _ := strings.Cut(name, ".")
		if j, err := readJournal(path); err == nil && j.Purpose == grant.Authorizing {
			if abandoned, _ := v.abandoned(slot, path, j); abandoned {
				found = append(found, j.ID)
			}
		}
	}
	return found
}
