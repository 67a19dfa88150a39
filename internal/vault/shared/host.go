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
		return hostFile{}, &HostFileError{Path: path, Err: err}
	}
	return f, nil
}

// HostFileError says that the file is damaged that says who this host is.
type HostFileError struct {
	Path string
	Err  error
}

func (e *HostFileError) Error() string { return fmt.Sprintf("%s can't be read: %v", e.Path, e.Err) }

func (e *HostFileError) Unwrap() error { return e.Err }

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
	return s.introduce(ctx, false)
}

// Ready says why this host could claim nothing now; see vault.Vault. What it has to tell it tells
// first.
func (s *Store) Ready(ctx context.Context) error {
	return s.asHost(ctx, "", func(self ledger.Self) error {
		var roll ledger.Book
		err := s.db.Session(ctx, func(db *postgres.Session) (err error) {
			roll, err = db.Roll(ctx)
			return err
		})
		if err != nil {
			return err
		}
		return roll.Admits(self)
	})
}

// asHost does something as this host. Where the database says that this host is to tell first who it
// is and what it has, it does that, and then the same once more. It does not with an attempt of this
// process in the slot: that keeps the roll call waiting.
func (s *Store) asHost(ctx context.Context, slot string, do func(ledger.Self) error) error {
	self, err := s.self(ctx)
	if err != nil {
		return err
	}
	if err = do(self); !isToTell(err) || s.runsIn(slot) {
		return err
	}
	if err := s.tellFirst(ctx); err != nil {
		return err
	}
	if self, err = s.self(ctx); err != nil {
		return err
	}
	return do(self)
}

// tellFirst tells the database who this host is and what it has. One goroutine does that for all, and
// none claims meanwhile: each claim keeps the roll call waiting.
func (s *Store) tellFirst(ctx context.Context) error {
	s.mu.Lock()
	s.answerFirst = true
	s.mu.Unlock()
	return s.answerCalls(ctx)
}

// isToTell reports whether an error says that this host has not answered the roll call, or that the
// database does not know it: it was not told yet, as another process is about to, or has lost it.
func isToTell(err error) bool {
	var (
		frozen *ledger.FrozenError
		host   *ledger.HostError
	)
	return errors.As(err, &frozen) && frozen.Answer || errors.As(err, &host) && host.Reason == ledger.Stranger
}

// introduce tells the database who this host is, and answers its roll call where it has not. Without
// again, it does not where somebody else has done so meanwhile.
func (s *Store) introduce(ctx context.Context, again bool) (ledger.Self, error) {
	box, err := s.box(ctx)
	if err != nil {
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
	if !again && s.isHere(f) {
		return f.self(s.o.Host), nil
	}
	if f.ID == "" {
		f.ID = newHostID()
		f.Vault, f.Incarnation = box.vault, 1
	}
	f.Recipient, f.Offset = box.keys.Public, s.clockOffset().Milliseconds()
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
	return s.answer(ctx, self, box)
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

// sawClaim notes the latest claim that this host has seen. It is a hint by which a database
// that lost claims is found out sooner, so it is not written for each, and waits for nobody.
// The file is replaced as a whole: other processes read it, and it is who this host is.
func (s *Store) sawClaim(ctx context.Context, c ledger.Claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.o.Now().Sub(s.seenAt).Abs() < seenEvery {
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
	s.seenAt = s.o.Now()
	if text, err := json.MarshalIndent(f, "", "  "); err == nil {
		_ = safefile.WriteCovered(s.hostPath(), append(text, '\n'))
	}
}

const seenEvery = time.Second
