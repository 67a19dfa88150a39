package shared

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// hostFile is what this host has on its disk about itself.
type hostFile struct {
	Version     int    `json:"version"`
	ID          string `json:"id"` // random; empty before the host was ever at the database
	Vault       string `json:"vault"`
	Recipient   string `json:"recipient"` // the public part of the identity that the copies are sealed to
	Machine     string `json:"machine"`
	Incarnation int64  `json:"incarnation"`
	Boot        string `json:"boot"`
	Epoch       int64  `json:"epoch"`
	// Boots are the runs of the machine in which this host has begun to raise its incarnation,
	// until one is through.
	Boots []string `json:"boots,omitempty"`
	// Offset is how far the database's clock was ahead of this host's, in milliseconds.
	Offset int64 `json:"offset_ms,omitempty"`
	// Number and Nonce are of the latest claim that this host has seen.
	Number int64  `json:"number,omitempty"`
	Nonce  string `json:"nonce,omitempty"`
}

const (
	hostVersion = 1
	hostName    = "host.json"
	hostLock    = "host"
	epochLock   = "epoch"
)

func (f hostFile) self(name string) ledger.Self {
	return ledger.Self{
		ID: f.ID, Name: name, Machine: f.Machine, Incarnation: f.Incarnation, Boot: f.Boot, Epoch: f.Epoch,
		Seen: ledger.Seen{Number: f.Number, Nonce: f.Nonce},
	}
}

func (f hostFile) with(self ledger.Self) hostFile {
	f.ID, f.Machine, f.Incarnation, f.Boot, f.Epoch = self.ID, self.Machine, self.Incarnation, self.Boot, self.Epoch
	f.Number, f.Nonce = self.Seen.Number, self.Seen.Nonce
	return f
}

// VaultError says that this host's directory belongs to one vault, and the database has
// another.
type VaultError struct{ Dir string }

func (e *VaultError) Error() string {
	return fmt.Sprintf("the database has another vault than the one that %s belongs to", e.Dir)
}

// IdentityError says that the items of the vault are sealed to another identity than this
// host's.
type IdentityError struct{ Have, Want string } // their public parts

func (e *IdentityError) Error() string {
	return fmt.Sprintf("the vault's secrets are sealed to the identity whose public part is %s, and this host has %s", e.Want, e.Have)
}

func (s *Store) hostPath() string { return filepath.Join(s.dir, hostName) }

func (s *Store) readHost() (hostFile, error) { return readHost(s.hostPath()) }

// readHost returns what is on the disk; a zero one where there is nothing.
func readHost(path string) (f hostFile, err error) {
	data, err := safefile.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return hostFile{}, nil
	}
	if err != nil {
		return f, &vault.FileError{What: path, Path: path, Err: err}
	}
	if version := grant.FormatOf(data); version > hostVersion {
		return f, &vault.NewerError{Path: path, Version: version}
	}
	err = json.Unmarshal(data, &f)
	if err == nil && (f.Version < 1 || f.ID == "") {
		err = errors.New("it has no ID of a host")
	}
	if err != nil {
		return hostFile{}, &vault.FileError{What: path, Path: path, Err: err}
	}
	return f, nil
}

// Self is what the host whose directory it is has on its disk about itself.
func Self(dir, name string) (ledger.Self, error) {
	f, err := readHost(filepath.Join(dir, hostName))
	return f.self(name), err
}

// HostID is the ID of the host whose directory it is, empty where it has none yet.
func HostID(dir string) (string, error) {
	f, err := readHost(filepath.Join(dir, hostName))
	return f.ID, err
}

// noteOffset notes how far the database's clock is ahead.
func (s *Store) noteOffset(ctx context.Context, offset time.Duration) error {
	unlock, _, _, err := s.disk.Lock(ctx, hostLock, true)
	if err != nil {
		return &vault.LockError{Of: "what this host is", Err: err}
	}
	defer unlock()
	f, err := s.readHost()
	if err != nil {
		return err
	}
	f.Offset = offset.Milliseconds()
	return s.writeHost(f)
}

// forgetItems takes the items out of this host's copies, which are sealed to an earlier
// identity. What the host has seen stays.
func (s *Store) forgetItems(ctx context.Context, recipient string) error {
	unlock, _, _, err := s.disk.Lock(ctx, hostLock, true)
	if err != nil {
		return &vault.LockError{Of: "what this host is", Err: err}
	}
	defer unlock()
	if err := s.copies.forgetItems(ctx); err != nil {
		return err
	}
	f, err := s.readHost()
	if err != nil {
		return err
	}
	f.Recipient = recipient
	return s.writeHost(f)
}

// writeHost returns when it is on disk.
func (s *Store) writeHost(f hostFile) error {
	f.Version = hostVersion
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("what this host is can't be written: %w", err)
	}
	if err := safefile.MkdirAll(s.dir); err != nil {
		return err
	}
	if err := safefile.Write(s.hostPath(), append(text, '\n')); err != nil {
		return &safefile.WriteError{What: s.hostPath() + " can't be written", Err: err}
	}
	return nil
}

// isHere reports whether what is on the disk is of this machine and this boot.
func (s *Store) isHere(f hostFile) bool {
	return f.ID != "" && f.Epoch > 0 && f.Machine == s.o.Machine() && f.Boot == s.disk.Boot()
}

// self is this host as the database knows it. It is introduced there first where it has to be.
func (s *Store) self(ctx context.Context) (ledger.Self, error) {
	f, err := s.readHost()
	if err != nil {
		return ledger.Self{}, err
	}
	if s.isHere(f) {
		return f.self(s.o.Host), nil
	}
	return s.introduce(ctx)
}

// introduce tells the database who this host is, and answers its roll call where it has not.
func (s *Store) introduce(ctx context.Context) (ledger.Self, error) {
	if _, err := s.box(ctx); err != nil { // with it comes which vault it is
		return ledger.Self{}, err
	}
	unlock, _, _, err := s.disk.Lock(ctx, hostLock, true)
	if err != nil {
		return ledger.Self{}, &vault.LockError{Of: "what this host is", Err: err}
	}
	defer unlock()
	f, err := s.readHost()
	if err != nil {
		return ledger.Self{}, err
	}
	if f.ID == "" {
		f.ID = newHostID()
		f.Vault, f.Incarnation = s.vaultID, 1
	}
	f.Recipient, f.Offset = s.opened.keys.Public, s.offset.Milliseconds()
	machine, boot := s.o.Machine(), s.disk.Boot()
	if f.Machine == "" {
		f.Machine = machine
	}
	boots, err := s.noteBoot(f, machine, boot)
	if err != nil {
		return ledger.Self{}, err
	}
	self := f.self(s.o.Host)
	for renamed := false; ; renamed = true {
		var what ledger.Introduction
		err := s.db.Session(ctx, func(db *postgres.Session) (err error) {
			what, self, err = db.Introduce(ctx, self, machine, boots)
			return err
		})
		if err != nil {
			return self, err
		}
		if what != ledger.Rename || renamed {
			break
		}
		// This directory is a copy: what was claimed under the old ID is somebody else's.
		self = self.Renamed(newHostID(), s.o.Host, machine, boot)
	}
	f.Boots = nil
	if err := s.writeHost(f.with(self)); err != nil {
		return self, err
	}
	return s.answer(ctx, self)
}

// noteBoot notes that this host is about to raise its incarnation in a run of the machine, and
// returns all runs in which it began to: the power may be lost before it knows that it is through.
func (s *Store) noteBoot(f hostFile, machine, boot string) (boots []string, err error) {
	boots = slices.DeleteFunc(f.Boots, func(other string) bool { return other == boot })
	boots = append(boots[max(0, len(boots)-mostBoots+1):], boot)
	if f.Epoch == 0 || f.Boot == boot || f.Machine != machine || len(f.Boots) > 0 && f.Boots[len(f.Boots)-1] == boot {
		return boots, nil
	}
	f.Boots = boots
	return boots, s.writeHost(f)
}

// mostBoots is how often the power may be lost in a row.
const mostBoots = 16

func newHostID() string {
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	return hex.EncodeToString(id)
}

// rollCall is what a host does that is told that the database changed hands: it begins a new
// epoch where there is none yet, and says what it holds. Older is the epoch in which it has
// found a token there that is older than one that it saw, zero for none. Where this host is in
// another epoch by now, another process has answered since, and counted is false: what was
// found may be right again.
func (s *Store) rollCall(ctx context.Context, older int64) (counted bool, err error) {
	unlock, _, _, err := s.disk.Lock(ctx, hostLock, true)
	if err != nil {
		return false, &vault.LockError{Of: "what this host is", Err: err}
	}
	defer unlock()
	f, err := s.readHost()
	if err != nil {
		return false, err
	}
	self := f.self(s.o.Host)
	if counted = older > 0 && older == f.Epoch; counted {
		err := s.db.Session(ctx, func(db *postgres.Session) error {
			_, _, err := db.OpenEpoch(ctx, self, true)
			return err
		})
		if err != nil {
			return false, err
		}
	}
	_, err = s.answer(ctx, self)
	return counted, err
}

// answer answers the roll call of the database's epoch. The host's lock is held. Every process
// of this host that spends is waited for, so that no right of an earlier epoch is left.
func (s *Store) answer(ctx context.Context, self ledger.Self) (ledger.Self, error) {
	waiting, cancel := context.WithTimeout(ctx, ledger.CallEnds)
	defer cancel()
	unlock, _, _, err := s.disk.Lock(waiting, epochLock, true)
	if err != nil {
		return self, &vault.LockError{Of: "the epoch of the shared vault", Err: err}
	}
	defer unlock()
	for tries := 0; ; tries++ {
		err := s.db.Session(ctx, func(db *postgres.Session) error {
			meta, _, err := db.OpenEpoch(ctx, self, false)
			if err != nil {
				return err
			}
			self, err = db.Answer(ctx, self, meta.Epoch, func(self ledger.Self) error { return s.deliver(ctx, db, self) })
			return err
		})
		var frozen *ledger.FrozenError
		if !errors.As(err, &frozen) || tries == 5 {
			return self, err
		}
	}
}

// deliver writes the new epoch, and then tells the database all that it may have lost: which
// of this host's requests have no end, which tokens it has seen, and which grants it revoked.
// Answers that are sealed here are put in place by the grant's next use; until then their
// claims are open.
func (s *Store) deliver(ctx context.Context, db *postgres.Session, self ledger.Self) error {
	f, err := s.readHost()
	if err != nil {
		return err
	}
	if err := s.writeHost(f.with(self)); err != nil {
		return err
	}
	news, err := s.disk.News(ctx, "")
	if err != nil {
		return err
	}
	for _, n := range news {
		if n.Err != nil {
			continue // whoever looks for its grant is told
		}
		j := n.Journal
		if j.Purpose != grant.Refreshing || j.Shared == nil || j.Shared.Host != self.ID || j.Unsent || j.Over {
			continue
		}
		if err := db.Reinsert(ctx, self, intentOf(j), j.Answered); err != nil {
			return err
		}
	}
	copies, err := s.copies.all()
	if err != nil {
		return err
	}
	for _, c := range copies {
		row := c.Row
		if row.Grant.State == ledger.Removing || row.Grant.State == ledger.Moved || row.Item.Sealed == nil {
			continue
		}
		if err := s.flipBack(ctx, db, row); err != nil {
			return err
		}
		if _, err := db.PutBack(ctx, row.Grant.Key, row.Grant.Token, row.Item); err != nil {
			return err
		}
		if err := s.tellSpares(ctx, db, self, row); err != nil {
			return err
		}
	}
	return s.revokeAgain(ctx, db)
}

// tellSpares inserts the claims of answers that became spares, where the database has lost them:
// nothing is void while they are untried. The next use says that they were granted.
func (s *Store) tellSpares(ctx context.Context, db *postgres.Session, self ledger.Self, row postgres.Row) error {
	attempts, err := s.disk.Attempts(ctx, row.Slot, row.Grant.Key)
	if err != nil {
		return nil //nolint:nilerr // whoever looks for the grant is told
	}
	for _, j := range attempts {
		if j.TokenVaultKey != row.Grant.Key || j.Generation != row.Grant.Token.Generation || j.Purpose != grant.Refreshing ||
			j.Shared == nil || j.Shared.Host != self.ID || !j.Answered || j.Unsent || j.Over {
			continue
		}
		if head, _, err := s.sealed(ctx, j); err != nil || head.Place == row.Grant.Token.Attempt {
			continue // it is the one that stands
		}
		if err := db.Reinsert(ctx, self, intentOf(j), true); err != nil {
			return err
		}
		if err := s.disk.AddNews(row.Slot, row.Grant.Key); err != nil {
			return err
		}
	}
	return nil
}

// flipBack puts the grant of a sign-in that this host has finished in its place again, where a
// database that went back has the grant before it, or none.
func (s *Store) flipBack(ctx context.Context, db *postgres.Session, row postgres.Row) error {
	there, err := db.RowIn(ctx, row.Slot)
	if err != nil {
		return err
	}
	replaced := there.Grant.Key
	if replaced == row.Grant.Key {
		return nil
	}
	attempts, err := s.disk.Attempts(ctx, row.Slot, row.Grant.Key)
	if err != nil {
		return nil //nolint:nilerr // whoever looks for the grant is told
	}
	for _, j := range attempts {
		if j.TokenVaultKey != row.Grant.Key || j.Purpose != grant.Authorizing || !j.Answered || j.Replaces != replaced {
			continue
		}
		_, err := db.Flip(ctx, row.Slot, replaced, intentOf(j), row.Grant.Token, row.Item, s.o.Terms)
		if err == nil || errors.As(err, new(*ledger.ConflictError)) || errors.As(err, new(*ledger.ClaimedError)) {
			return nil
		}
		return err
	}
	return nil
}

// inEpoch keeps the roll call waiting until release is called.
func (s *Store) inEpoch(ctx context.Context) (release func(), err error) {
	path := filepath.Join(s.dir, "locks", epochLock+".lock")
	if err := safefile.MkdirAll(s.dir); err != nil {
		return nil, err
	}
	if err := safefile.MkdirAllCovered(filepath.Dir(path)); err != nil {
		return nil, err
	}
	lock := safefile.NewLock(path)
	if _, err := lock.TryRLockContext(ctx, lockPoll); err != nil {
		return nil, &vault.LockError{Of: "the epoch of the shared vault", Err: err}
	}
	return func() { _ = lock.Close() }, nil
}

const lockPoll = 10 * time.Millisecond

// sawClaim notes the latest claim that this host has seen. It is a hint by which a database
// that lost claims is found out sooner, so it is not written for each, and waits for nobody.
// The file is replaced as a whole: other processes read it, and it is who this host is.
func (s *Store) sawClaim(ctx context.Context, c ledger.Claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Number <= s.seen.Number || s.o.Now().Sub(s.seenAt).Abs() < seenEvery {
		return
	}
	unlock, held, _, err := s.disk.Lock(ctx, hostLock, false)
	if err != nil || held {
		return
	}
	defer unlock()
	f, err := s.readHost()
	if err != nil || f.ID != c.Host || f.Epoch != c.Epoch || c.Number <= f.Number {
		return
	}
	f.Number, f.Nonce = c.Number, c.Nonce
	s.seen, s.seenAt = ledger.Seen{Number: c.Number, Nonce: c.Nonce}, s.o.Now()
	if text, err := json.MarshalIndent(f, "", "  "); err == nil {
		_ = safefile.WriteCovered(s.hostPath(), append(text, '\n'))
	}
}

const seenEvery = time.Second

// revokeAgain revokes what this host has revoked and a database that went back has alive.
func (s *Store) revokeAgain(ctx context.Context, db *postgres.Session) error {
	keys, err := s.revoked()
	if err != nil {
		return err
	}
	for _, key := range keys {
		row, err := db.RowOf(ctx, key)
		if err != nil {
			return err
		}
		if row.Slot == "" || row.Grant.State == ledger.Removing {
			continue
		}
		if _, err := db.Revoke(ctx, row.Slot, row.Grant.Version); err != nil && !errors.As(err, new(*ledger.ConflictError)) {
			return err
		}
	}
	return nil
}

const revokedDir = "revoked"

// markRevoked notes on this disk that a grant is revoked, and returns when that is durable.
func (s *Store) markRevoked(key string) error {
	dir := filepath.Join(s.dir, revokedDir)
	if err := safefile.MkdirAll(dir); err != nil {
		return err
	}
	if err := safefile.Write(filepath.Join(dir, key), nil); err != nil {
		return &safefile.WriteError{What: "that a grant is revoked can't be noted", Err: err}
	}
	return nil
}

// unmarkRevoked is for a grant that a person takes in again.
func (s *Store) unmarkRevoked(key string) error {
	return safefile.Unlink(filepath.Join(s.dir, revokedDir, key))
}

// revoked are the keys of the grants that this host has revoked.
func (s *Store) revoked() ([]string, error) {
	names, err := safefile.ReadDir(filepath.Join(s.dir, revokedDir))
	if err != nil {
		return nil, fmt.Errorf("what was revoked here can't be read: %w", err)
	}
	return slices.DeleteFunc(names, func(name string) bool { return grant.CheckTokenVaultKey(name) != nil }), nil
}

func (s *Store) isRevoked(key string) bool {
	_, err := os.Lstat(filepath.Join(s.dir, revokedDir, key))
	return err == nil
}
