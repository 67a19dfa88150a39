package shared

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/files"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// A copy is a grant's row as this host has seen it last, with the item as it is sealed in the
// database. A good token is served from it while nobody has to be asked, or nobody answers.
// It is also what this host remembers: a database that has an older token has gone back.

// copies are files in a directory, one a slot.
type copies struct {
	dir  string
	disk *files.Store
}

// copied is a copy with the moment, by this host's clock, at which the row was read.
type copied struct {
	Row  postgres.Row
	Read time.Time
	// Secret is what the database had under the key of the grant's journals, so that an
	// answer that is sealed here opens while the database is away.
	Secret postgres.Secret
}

const (
	copyVersion = 1
	copiesLock  = "copies"
	copySuffix  = ".json"
)

// copyFile is the form of a copy on disk.
type copyFile struct {
	Version    int             `json:"version"`
	Read       time.Time       `json:"read"`
	Slot       string          `json:"slot"`
	Key        string          `json:"token_vault_key"`
	Generation int64           `json:"generation"`
	Attempt    int             `json:"attempt"`
	State      ledger.State    `json:"state"`
	Revision   int64           `json:"revision,string"`
	Facts      json.RawMessage `json:"facts"`
	Local      json.RawMessage `json:"local"`
	Item       []byte          `json:"item"`
	MAC        []byte          `json:"mac"`
	JournalKey *copiedSecret   `json:"journal_key,omitempty"`
	// Earlier are the grants in whose place this one came, the latest last.
	Earlier []postgres.Earlier `json:"earlier,omitempty"`
}

type copiedSecret struct {
	Account    string `json:"account"`
	Generation int64  `json:"generation"`
	Sealed     []byte `json:"item"`
	MAC        []byte `json:"mac"`
}

func (c copies) path(slot string) string { return filepath.Join(c.dir, slot+copySuffix) }

// of returns the copy of a slot; ok says that there is one.
func (c copies) of(slot string) (_ copied, ok bool, err error) {
	path := c.path(slot)
	data, err := safefile.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return copied{}, false, nil
	}
	if err != nil {
		return copied{}, false, &vault.FileError{What: "a copy of a grant", Path: path, Err: err}
	}
	if version := grant.FormatOf(data); version > copyVersion {
		return copied{}, false, &vault.NewerError{Path: path, Version: version}
	}
	var f copyFile
	if err := json.Unmarshal(data, &f); err != nil || f.Slot != slot || grant.CheckTokenVaultKey(f.Key) != nil {
		return copied{}, false, nil //nolint:nilerr // a copy that is damaged is as good as none: the database is asked
	}
	row := postgres.Row{
		Slot:  f.Slot,
		Grant: ledger.Grant{Key: f.Key, Token: ledger.Made{Generation: f.Generation, Attempt: f.Attempt}, State: f.State, Version: f.Revision},
		Item:  postgres.Item{Facts: f.Facts, Local: f.Local, Sealed: f.Item, MAC: f.MAC},

		Earlier: f.Earlier,
	}
	found := copied{Row: row, Read: f.Read}
	if k := f.JournalKey; k != nil {
		found.Secret = postgres.Secret{Account: k.Account, Generation: k.Generation, Sealed: k.Sealed, MAC: k.MAC}
	}
	return found, true, nil
}

// slots are those of which there are copies, by a prefix.
func (c copies) slots(prefix string) ([]string, error) {
	names, err := safefile.ReadDir(c.dir)
	if err != nil {
		return nil, fmt.Errorf("the copies of grants can't be listed: %w", err)
	}
	slots := names[:0]
	for _, name := range names {
		if slot, ok := strings.CutSuffix(name, copySuffix); ok && strings.HasPrefix(slot, prefix) && !strings.HasPrefix(name, ".") {
			slots = append(slots, slot)
		}
	}
	return slots, nil
}

func (c copies) all() ([]copied, error) { return c.below("") }

func (c copies) below(prefix string) (all []copied, err error) {
	slots, err := c.slots(prefix)
	if err != nil {
		return nil, err
	}
	for _, slot := range slots {
		found, ok, err := c.of(slot)
		if err != nil {
			return nil, err
		}
		if ok {
			all = append(all, found)
		}
	}
	return all, nil
}

// keep writes a row that was read from the database. A token that is newer than the one that
// is there is on disk when it returns; a row of an older token is not written, unless what is
// there is the token that it replaces, by a place that another database gave it.
func (c copies) keep(ctx context.Context, row postgres.Row, secret postgres.Secret, read time.Time, replaces ledger.Made) error {
	unlock, _, _, err := c.disk.Lock(ctx, copiesLock, true)
	if err != nil {
		return &vault.LockError{Of: "the copies of grants", Err: err}
	}
	defer unlock()
	there, ok, err := c.of(row.Slot)
	if err != nil {
		return err
	}
	same := ok && there.Row.Grant.Key == row.Grant.Key
	if same && row.Grant.Token.Before(there.Row.Grant.Token) && there.Row.Grant.Token != replaces {
		return nil
	}
	if same && (secret.Sealed == nil || secret.Generation < there.Secret.Generation) {
		secret = there.Secret
	}
	return c.write(copied{Row: row, Read: read, Secret: secret}, same && there.Row.Grant.Token == row.Grant.Token)
}

// write writes a copy. What need not last may be lost with the power.
func (c copies) write(it copied, passing bool) error {
	row := it.Row
	f := copyFile{
		Version: copyVersion, Read: it.Read.UTC(), Slot: row.Slot, Key: row.Grant.Key, Generation: row.Grant.Token.Generation, Attempt: row.Grant.Token.Attempt,
		State: row.Grant.State, Revision: row.Grant.Version, Facts: row.Item.Facts, Local: row.Item.Local, Item: row.Item.Sealed, MAC: row.Item.MAC, Earlier: row.Earlier,
	}
	if secret := it.Secret; secret.Sealed != nil {
		f.JournalKey = &copiedSecret{secret.Account, secret.Generation, secret.Sealed, secret.MAC}
	}
	text, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("a copy of a grant can't be made: %w", err)
	}
	if err := safefile.MkdirAll(c.dir); err != nil {
		return err
	}
	// A copy is replaced as a whole, however little it tells: it is what this host remembers.
	write := safefile.Write
	if passing {
		write = safefile.WriteCovered
	}
	if err := write(c.path(row.Slot), append(text, '\n')); err != nil {
		return &safefile.WriteError{What: "a copy of a grant can't be written", Err: err}
	}
	return nil
}

// forgetItems takes the items out of all copies. What was seen of the grants stays.
func (c copies) forgetItems(ctx context.Context) error {
	unlock, _, _, err := c.disk.Lock(ctx, copiesLock, true)
	if err != nil {
		return &vault.LockError{Of: "the copies of grants", Err: err}
	}
	defer unlock()
	all, err := c.all()
	if err != nil {
		return err
	}
	for _, it := range all {
		it.Row.Item.Sealed, it.Row.Item.MAC = nil, nil
		if err := c.write(copied{Row: it.Row}, false); err != nil {
			return err
		}
	}
	return nil
}

// drop removes the copy of a grant that its slot does not have any more. Another grant's, which
// came there meanwhile, stays.
func (c copies) drop(ctx context.Context, slot, key string) error {
	unlock, _, _, err := c.disk.Lock(ctx, copiesLock, true)
	if err != nil {
		return &vault.LockError{Of: "the copies of grants", Err: err}
	}
	defer unlock()
	if there, ok, err := c.of(slot); err != nil || ok && there.Row.Grant.Key != key {
		return err
	}
	return safefile.Unlink(c.path(slot))
}
