// Package shared is a vault's store for several hosts: grants, their items and the right to
// send a refresh token are in a database, UPS's answers are sealed on this machine's disk
// before anything else, and good tokens are served from copies there.
package shared

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/files"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// Options are what a store works with.
type Options struct {
	DB *postgres.DB
	// Dir is this host's directory: who it is, its locks and journals, its copies.
	Dir string
	// Keys opens the team's identity, which may ask for a passphrase.
	Keys func(context.Context) (agefile.Keys, error)
	// Host is what people read of this machine.
	Host string
	// Terms are how long the open claims of others are respected.
	Terms ledger.Terms
	// Patience is how long a claim waits for another host's answer.
	Patience time.Duration
	// Elsewhere and Places are those of files.Store.
	Elsewhere []string
	Places    *safefile.Places
	// Machine tells this machine from others, empty where nothing does.
	Machine func() string
	Now     func() time.Time
	// Offset is how far the database's clock is ahead of Now; nil measures it.
	Offset func(database, now time.Time) time.Duration
	// HasLeft, where set, reports whether a grant that arrives here has left this machine's
	// vault, so that it is the shared one's.
	HasLeft func(context.Context, grant.Record) (bool, error)
	// Elapsed is a clock that runs on while the machine is suspended.
	Elapsed func() time.Duration
	Wait    func(context.Context, time.Duration) error
}

const (
	// RecentFor is how long a copy is served without asking the database.
	RecentFor = 5 * time.Minute
	// usualPatience is how long a claim waits for another host's answer.
	usualPatience = 10 * time.Second
	// readPatience is how long the database is asked for what a copy can tell too, and
	// awayFor how long nobody asks again that did not answer.
	readPatience = 2 * time.Second
	awayFor      = 15 * time.Second
	// copyEvery is how often a copy that is the same is written again.
	copyEvery = time.Minute
)

// Store implements vault.Store.
type Store struct {
	o      Options
	db     *postgres.DB
	dir    string
	disk   *files.Store
	copies copies

	opening sync.Mutex
	opened  *box
	asked   bool // the database has said that it is the right one
	vaultID string
	// offset is how far the database's clock is ahead; readOffset that it is the one that was
	// measured by another process.
	offset     time.Duration
	readOffset bool

	mu sync.Mutex
	// rows are the grants that were read last and are worked on, by their keys.
	rows map[string]postgres.Row
	// secrets are those of the grants' journals, by their accounts.
	secrets map[string]postgres.Secret
	// working are the slots whose locks this process has.
	working map[string]bool
	// running are this process's own attempts that have no end yet, by their nonces. Each
	// keeps the roll call waiting.
	running map[string]attempt
	// contested are the keys whose last claim met another's that is respected.
	contested map[string]bool
	// answerFirst says that this host has been told to answer a roll call. Older is the epoch
	// in which it has seen a newer token than the database has, zero for none.
	answerFirst bool
	older       int64

	seen     ledger.Seen
	seenAt   time.Time
	awayTill time.Time
}

var _ vault.Store = (*Store)(nil)

// New returns the store. Nothing is read, made or asked before it is used.
func New(o Options) *Store {
	if o.Patience == 0 {
		o.Patience = usualPatience
	}
	if o.Offset == nil {
		o.Offset = measured
	}
	s := &Store{
		o: o, db: o.DB, dir: o.Dir,
		rows: map[string]postgres.Row{}, secrets: map[string]postgres.Secret{}, working: map[string]bool{},
		running: map[string]attempt{}, contested: map[string]bool{},
	}
	s.disk = files.New(o.Dir, vault.Homes{Home{s}})
	s.disk.Elsewhere = o.Elsewhere
	if o.Places != nil {
		s.disk.Places = o.Places
	}
	s.disk.Records = s.knownRecords
	s.copies = copies{dir: filepath.Join(o.Dir, "copies"), disk: s.disk}
	return s
}

// TakeOver has open claims of other hosts respected no longer than a call to UPS can last. A
// person said so. It is called before the store is used.
func (s *Store) TakeOver() { s.o.Terms.TakeOver = true }

// Disk is what the store has on this machine.
func (s *Store) Disk() *files.Store { return s.disk }

// Homes are the one home: the database.
func (s *Store) Homes() vault.Homes { return vault.Homes{Home{s}} }

// box opens the identity and asks the database whether that, and the vault, are the right
// ones. While the database is away, what this host knows of it counts.
func (s *Store) box(ctx context.Context) (*box, error) { return s.boxFor(ctx, true) }

// readingBox is box for whoever only reads. Where what this host knew some minutes ago will do,
// nobody is asked.
func (s *Store) readingBox(ctx context.Context) (*box, error) {
	return s.boxFor(ctx, !vault.IsRecent(ctx))
}

func (s *Store) boxFor(ctx context.Context, ask bool) (*box, error) {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.opened != nil && (s.asked || !ask) {
		return s.opened, nil
	}
	f, err := s.readHost()
	if err != nil {
		return nil, err
	}
	keys, err := s.o.Keys(ctx)
	if err != nil {
		return nil, err
	}
	known := f.ID != "" && f.Recipient == keys.Public
	if !ask && known {
		return s.openAs(keys, f.Vault, time.Duration(f.Offset)*time.Millisecond)
	}
	before := s.o.Now()
	v, err := s.db.Vault(ctx, keys.Public)
	switch {
	case err != nil && !isAway(err), err != nil && f.ID == "":
		return nil, err
	case err != nil && !known:
		return nil, &IdentityError{Have: keys.Public, Want: f.Recipient}
	case err != nil:
		return s.openAs(keys, f.Vault, time.Duration(f.Offset)*time.Millisecond)
	case f.ID != "" && v.ID != f.Vault:
		return nil, &VaultError{Dir: s.dir}
	case v.Next != "":
		return nil, &RekeyError{Next: v.Next}
	case v.Recipient != keys.Public:
		return nil, &IdentityError{Have: keys.Public, Want: v.Recipient}
	}
	if f.ID != "" && !known {
		if err := s.forgetItems(ctx, keys.Public); err != nil {
			return nil, err
		}
	}
	offset := s.o.Offset(v.Now, before.Add(s.o.Now().Sub(before)/2))
	if f.ID != "" && (offset-time.Duration(f.Offset)*time.Millisecond).Abs() > offsetChange {
		if err := s.noteOffset(ctx, offset); err != nil {
			return nil, err
		}
	}
	s.asked = true
	return s.openAs(keys, v.ID, offset)
}

// openAs is called with s.opening locked.
func (s *Store) openAs(keys agefile.Keys, id string, offset time.Duration) (*box, error) {
	b, err := newBox(keys, id)
	if err != nil {
		return nil, err
	}
	s.opened, s.vaultID, s.offset = b, id, offset
	return b, nil
}

const (
	// sameClock is how far two clocks may differ and still be taken for one: what is less
	// comes of the way to the database too.
	sameClock = 2 * time.Second
	// offsetChange is by how much the difference has to change to be noted for processes that
	// do not reach the database.
	offsetChange = time.Second
)

func measured(database, now time.Time) time.Duration {
	if d := database.Sub(now).Round(time.Millisecond); d.Abs() >= sameClock {
		return d
	}
	return 0
}

// toDatabase is a record's facts with what was reckoned by this host's clock by the
// database's, and toHost the other way round.
func (s *Store) toDatabase(f grant.Facts) grant.Facts { return shifted(f, s.clockOffset()) }

func (s *Store) toHost(f grant.Facts) grant.Facts { return shifted(f, -s.clockOffset()) }

func shifted(f grant.Facts, by time.Duration) grant.Facts {
	for _, t := range []*time.Time{&f.Requested, &f.AccessUntil, &f.RefreshUntil} {
		if !t.IsZero() {
			*t = t.Add(by)
		}
	}
	return f
}

func (s *Store) clockOffset() time.Duration {
	s.opening.Lock()
	defer s.opening.Unlock()
	return s.offset
}

// measure finds out how far the database's clock is ahead for whoever only lists and has not
// opened the vault: another process has measured it, or the database is asked. That it can't
// tell does no harm: whoever needs a token opens the vault.
func (s *Store) measure(ctx context.Context) {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.opened != nil || s.readOffset {
		return
	}
	f, err := s.readHost()
	if err == nil && f.ID != "" {
		s.offset, s.readOffset = time.Duration(f.Offset)*time.Millisecond, true
		return
	}
	before := s.o.Now()
	if v, err := s.db.Vault(ctx, ""); err == nil {
		s.offset, s.readOffset = s.o.Offset(v.Now, before.Add(s.o.Now().Sub(before)/2)), true
	}
}

// isAway reports whether an error says that the database can't be reached now.
// IsAway reports whether an error says that the database can't be reached now.
func IsAway(err error) bool { return isAway(err) }

func isAway(err error) bool {
	var e *postgres.Error
	return errors.As(err, &e) && (e.Reason == postgres.Away || e.Reason == postgres.ReadOnly) || errors.Is(err, context.DeadlineExceeded)
}

// late says of a database that was not waited for any longer what that means.
func late(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &postgres.Error{
		Reason: postgres.Away, What: "the database did not answer in time", Err: err,
		Advice: "look whether it runs, and whether this machine reaches it",
	}
}

// Lock takes a lock of this machine's processes; see vault.Store. Once a grant's is released
// this process has come to an end with the grant.
func (s *Store) Lock(ctx context.Context, name string, wait bool) (release func(), held bool, holder int, err error) {
	unlock, held, holder, err := s.disk.Lock(ctx, name, wait)
	if err != nil || held {
		return unlock, held, holder, err
	}
	s.mu.Lock()
	s.working[name] = true
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		delete(s.working, name)
		var left []attempt
		for nonce, a := range s.running {
			if a.slot == name {
				left = append(left, a)
				delete(s.running, nonce)
			}
		}
		for key, row := range s.rows {
			if row.Slot == name {
				delete(s.rows, key)
			}
		}
		s.mu.Unlock()
		for _, a := range left {
			a.leave()
		}
		unlock()
	}, false, 0, nil
}

// Look reports whether a lock is free; see vault.Store.
func (s *Store) Look(ctx context.Context, name string) (done func(), free bool, err error) {
	return s.disk.Look(ctx, name)
}

// worksOn reports whether this process has the lock of a slot.
func (s *Store) worksOn(slot string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.working[slot]
}

func (s *Store) remember(row postgres.Row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.rows) >= mostRows {
		for key, row := range s.rows {
			if !s.working[row.Slot] {
				delete(s.rows, key)
			}
		}
	}
	s.rows[row.Grant.Key] = row
}

// mostRows is how many rows that nobody works on are remembered, for whoever asks for the
// item of a record next.
const mostRows = 256

func (s *Store) forget(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.rows, key)
}

// row is that of a Token Vault Key: the one whose record was read, so that both are of one
// moment, or the database's.
func (s *Store) row(ctx context.Context, key string) (postgres.Row, error) {
	s.mu.Lock()
	row, ok := s.rows[key]
	if ok && !s.working[row.Slot] {
		delete(s.rows, key)
	}
	s.mu.Unlock()
	if ok {
		return row, nil
	}
	return s.db.RowOf(ctx, key)
}

// secret is a row of secrets. That of a grant's journals may be this host's copy: it is the
// same for as long as there is the grant.
func (s *Store) secret(ctx context.Context, account string) (postgres.Secret, bool, error) {
	key, _, ofGrant := strings.Cut(account, "/")
	ofGrant = ofGrant && grant.CheckTokenVaultKey(key) == nil
	s.mu.Lock()
	known, ok := s.secrets[account]
	row, hasRow := s.rows[key]
	s.mu.Unlock()
	if !ok && ofGrant && hasRow {
		if c, there, err := s.copies.of(row.Slot); err == nil && there && c.Row.Grant.Key == key && c.Secret.Account == account {
			known, ok = c.Secret, true
		}
	}
	if ok && s.opensFor(row, known) {
		return known, true, nil
	}
	found, ok, err := s.db.Secret(ctx, account)
	if err != nil || !ok {
		return found, ok, err
	}
	if ofGrant {
		s.mu.Lock()
		s.secrets[account] = found
		s.mu.Unlock()
		if hasRow {
			_ = s.copies.keep(ctx, row, found, s.o.Now(), ledger.Made{}) // it spares a question later
		}
	}
	return found, true, nil
}

// opensFor reports whether the key of a journal, as this host knows it, is the one that the
// grant's row names: another host may have made it anew.
func (s *Store) opensFor(row postgres.Row, secret postgres.Secret) bool {
	s.opening.Lock()
	box := s.opened
	s.opening.Unlock()
	facts, err := factsOf(row)
	if err != nil || box == nil {
		return false
	}
	plain, err := box.open(secret.Sealed)
	if err != nil {
		return false
	}
	var key struct {
		Identity string `json:"identity"`
	}
	if json.Unmarshal(plain, &key) != nil {
		return false
	}
	identity, err := age.ParseX25519Identity(key.Identity)
	return err == nil && identity.Recipient().String() == facts.JournalRecipient
}

func (s *Store) forgetSecret(account string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.secrets, account)
}

func factsOf(row postgres.Row) (f grant.Facts, err error) {
	err = json.Unmarshal(row.Item.Facts, &f)
	return f, err
}

// recordOf is a row as a record.
func (s *Store) recordOf(row postgres.Row) (r grant.Record, err error) {
	r.Version = grant.RecordVersion
	if r.Facts, err = factsOf(row); err == nil && len(row.Item.Local) > 0 {
		err = json.Unmarshal(row.Item.Local, &r.Local)
	}
	if err != nil || r.Facts.TokenVaultKey != row.Grant.Key || r.Facts.ID.Slot() != row.Slot {
		return grant.Record{}, &RowError{Slot: row.Slot}
	}
	r.Facts = s.toHost(r.Facts)
	r.Generation, r.Home = row.Grant.Token.Generation, HomeName
	r.Void, r.Removing = row.Grant.State == ledger.Void, row.Grant.State == ledger.Removing
	r.Contested = row.Grant.State == ledger.Interrupted
	r.Interrupted = r.Contested
	r.Revision = uint64(row.Grant.Version)
	if row.Spent.Host != "" {
		r.Asked = &grant.Asked{Host: row.Spent.Host, Time: row.Spent.At.UTC()}
	}
	return r, nil
}

// itemOf is a record as what lies with its row, without the sealed part.
func (s *Store) itemOf(r grant.Record) (item postgres.Item, err error) {
	r.Facts, r.Home = s.toDatabase(r.Facts), HomeName
	r.Void, r.Removing = false, false // the ledger says that
	if item.Facts, err = json.Marshal(r.Facts); err == nil {
		item.Local, err = json.Marshal(r.Local)
	}
	if err != nil {
		return item, fmt.Errorf("the record of %s can't be made: %w", r.ID, err)
	}
	return item, nil
}

// RowError says that a row of the database is not what upsauth writes.
type RowError struct{ Slot string }

func (e *RowError) Error() string {
	return fmt.Sprintf("the row of a grant in the database is not what upsauth writes (%s)", e.Slot)
}

// RolledBackError says that the database has an older token of a grant than this host has
// seen there, although every host was asked for what it has.
type RolledBackError struct {
	ID         grant.ID
	Have, Seen int64 // generations
}

func (e *RolledBackError) Error() string {
	return fmt.Sprintf("the database has an older token of %s (generation %d) than this host has seen there (%d); it is spent, and is not sent", e.ID, e.Have, e.Seen)
}

// good reports whether a copy may be served: its token is good for more than a moment.
func (s *Store) good(c copied) bool {
	r, err := s.recordOf(c.Row)
	return err == nil && c.Row.Grant.State == ledger.Live && c.Row.Item.Sealed != nil && r.AccessGood(s.o.Now(), time.Minute) && !s.isRevoked(c.Row.Grant.Key)
}

// fresh reports whether nobody has to be asked about a copy yet.
func (s *Store) fresh(c copied) bool {
	age := s.o.Now().Sub(c.Read)
	return age >= 0 && age < RecentFor
}

// Grant returns the record in a slot; see vault.Store.
func (s *Store) Grant(ctx context.Context, slot string) (grant.Record, error) {
	if vault.IsRecent(ctx) {
		// What the copies are sealed to is compared with what opens them first.
		if _, err := s.readingBox(ctx); err != nil {
			return grant.Record{}, err
		}
	}
	s.measure(ctx)
	there, ok, err := s.copies.of(slot)
	if err != nil {
		return grant.Record{}, err
	}
	serve := ok && vault.IsRecent(ctx) && !s.worksOn(slot) && s.good(there)
	if serve && (s.fresh(there) || s.isKnownAway()) {
		s.remember(there.Row)
		return s.recordOf(there.Row)
	}
	reading, cancel := ctx, func() {}
	if serve {
		reading, cancel = context.WithTimeout(ctx, readPatience)
	}
	defer cancel()
	row, err := s.read(reading, slot)
	if err != nil && serve && ctx.Err() == nil && isAway(err) {
		s.noteAway()
		s.remember(there.Row)
		return s.recordOf(there.Row)
	}
	if err != nil {
		if isAway(err) && ctx.Err() == nil {
			s.noteAway()
		}
		return grant.Record{}, err
	}
	if row.Slot == "" {
		if ok {
			_ = s.copies.drop(slot)
		}
		return grant.Record{}, grant.ErrNoGrant
	}
	record, err := s.recordOf(row)
	if err != nil {
		return record, err
	}
	if row.Grant.State == ledger.Moved {
		if _, away := s.here(ctx, row); away != nil {
			_ = s.copies.drop(slot)
			return grant.Record{}, away
		}
		return s.Grant(ctx, slot)
	}
	s.copy(ctx, there, ok, row)
	s.remember(row)
	one := []grant.Record{record}
	s.tellLosses(ctx, slot, one)
	return one[0], nil
}

// read reads a row. Where its token is older than one that this host has seen, the database
// went back: it is told so, and given the newer one.
func (s *Store) read(ctx context.Context, slot string) (row postgres.Row, err error) {
	for again := false; ; {
		// Before the row: what other processes of this host see meanwhile is no sign.
		f, err := s.readHost()
		if err != nil {
			return row, err
		}
		there, ok, err := s.copies.of(slot)
		if err != nil {
			return row, err
		}
		err = s.db.Session(ctx, func(db *postgres.Session) (err error) {
			row, err = db.Grant(ctx, slot)
			return err
		})
		if err != nil || row.Slot == "" && !ok {
			return row, err
		}
		if ok && there.Row.Grant.Key != row.Grant.Key && !again && !s.runsIn(slot) {
			// Another host has revoked it, or somebody has signed in again, or the database went
			// back: then this host has to say first what it has.
			changed, err := s.changedHands(ctx)
			if err != nil {
				return row, err
			}
			if again = true; changed {
				continue
			}
		}
		if row.Slot == "" {
			return row, nil
		}
		if s.isRevoked(row.Grant.Key) && row.Grant.State != ledger.Removing {
			if err := s.db.Session(ctx, func(db *postgres.Session) error { return s.revokeAgain(ctx, db) }); err != nil {
				return row, err
			}
			if !again {
				again = true
				continue
			}
		}
		if !ok || there.Row.Grant.Key != row.Grant.Key || !row.Grant.Token.Before(there.Row.Grant.Token) {
			return row, nil
		}
		if s.runsIn(slot) {
			return row, nil // an attempt of this process keeps the roll call waiting; it says so itself
		}
		if again {
			facts, _ := factsOf(row)
			return row, &RolledBackError{ID: facts.ID, Have: row.Grant.Token.Generation, Seen: there.Row.Grant.Token.Generation}
		}
		if again, err = s.rollCall(ctx, f.Epoch); err != nil {
			return row, err
		}
	}
}

// changedHands asks whether the database is another than it was when this host looked last, or
// has lost something. Then it answers the roll call.
func (s *Store) changedHands(ctx context.Context) (bool, error) {
	f, err := s.readHost()
	if err != nil || !s.isHere(f) {
		return false, err
	}
	var meta ledger.Meta
	err = s.db.Session(ctx, func(db *postgres.Session) (err error) {
		meta, _, err = db.OpenEpoch(ctx, f.self(s.o.Host), false)
		return err
	})
	if err != nil || meta.Epoch == f.Epoch {
		return false, err
	}
	_, err = s.rollCall(ctx, 0)
	return true, err
}

// sameAsCopied reports whether rows are of the grants of which this host has copies.
func (s *Store) sameAsCopied(prefix string, rows []postgres.Row) (bool, error) {
	copied, err := s.copies.below(prefix)
	if err != nil {
		return false, err
	}
	keys := map[string]string{}
	for _, row := range rows {
		keys[row.Slot] = row.Grant.Key
	}
	for _, c := range copied {
		if keys[c.Row.Slot] != c.Row.Grant.Key {
			return false, nil
		}
	}
	return true, nil
}

// copy keeps a row that was read, where that tells something new. That it can't does no harm
// here: whoever sends a token looks again.
func (s *Store) copy(ctx context.Context, there copied, ok bool, row postgres.Row) {
	if ok && there.Row.Grant == row.Grant && s.o.Now().Sub(there.Read).Abs() < copyEvery {
		return
	}
	_ = s.copies.keep(ctx, row, postgres.Secret{}, s.o.Now(), ledger.Made{})
}

// Prepare tells the database's connections what other processes of this host have found: that
// it does not answer.
func (s *Store) Prepare() {
	if s.isKnownAway() {
		s.db.GivenUp()
	}
}

func (s *Store) noteAway() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = safefile.MkdirAll(s.dir)
	s.awayTill = s.o.Now().Add(awayFor)
	_ = safefile.WritePassing(filepath.Join(s.dir, awayName), []byte(s.awayTill.UTC().Format(time.RFC3339)))
}

// isKnownAway reports whether a process of this host has just found that the database does not
// answer.
func (s *Store) isKnownAway() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	till := s.awayTill
	if till.IsZero() {
		text, err := safefile.ReadFile(filepath.Join(s.dir, awayName))
		if err != nil {
			return false
		}
		if till, err = time.Parse(time.RFC3339, string(text)); err != nil {
			return false
		}
	}
	left := till.Sub(s.o.Now())
	return left > 0 && left <= awayFor
}

const awayName = "away"

// Grants returns the records by a prefix of their slots; see vault.Store. While the database
// is away they are those of which this host has copies, and that is a problem.
func (s *Store) Grants(ctx context.Context, prefix string) (records []grant.Record, problems []error, err error) {
	recent := vault.IsRecent(ctx) && prefix != ""
	if recent {
		if _, err := s.readingBox(ctx); err != nil {
			return nil, nil, err
		}
	}
	s.measure(ctx)
	var there []copied
	if recent {
		if there, err = s.copies.below(prefix); err != nil {
			return nil, nil, err
		}
		recent = len(there) > 0
		good := recent
		for _, c := range there {
			good = good && s.good(c) && (s.fresh(c) || s.isKnownAway())
		}
		if good {
			records, problems = s.recordsOf(there)
			return records, problems, nil
		}
	}
	reading, cancel := ctx, func() {}
	if recent {
		reading, cancel = context.WithTimeout(ctx, readPatience)
	}
	defer cancel()
	read := s.db.Rows // this host keeps copies of a company that somebody asks for
	if prefix == "" {
		read = s.db.Bare
	}
	rows, err := read(reading, prefix)
	if err != nil && isAway(err) && ctx.Err() == nil {
		s.noteAway()
		if there, copiesErr := s.copies.below(prefix); copiesErr == nil && len(there) > 0 {
			records, problems = s.recordsOf(there)
			return records, append(problems, &StaleError{Read: oldest(there), Err: late(err)}), nil
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if prefix != "" {
		same, err := s.sameAsCopied(prefix, rows)
		changed := false
		if err == nil && !same {
			changed, err = s.changedHands(ctx)
		}
		if err == nil && changed {
			rows, err = s.db.Rows(ctx, prefix)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	removed, err := s.revoked()
	if err != nil {
		return nil, nil, err
	}
	slots := map[string]bool{}
	var away []*vault.MovedError
	for _, row := range rows {
		if row.Grant.State == ledger.Moved {
			arrived, moved := s.here(ctx, row)
			if moved != nil {
				away = append(away, moved)
				continue
			}
			row = arrived
		}
		slots[row.Slot] = true
		if slices.Contains(removed, row.Grant.Key) {
			row.Grant.State = ledger.Removing
		}
		record, err := s.recordOf(row)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		records = append(records, record)
		if prefix != "" {
			c, ok, err := s.copies.of(row.Slot)
			if err == nil {
				s.copy(ctx, c, ok, row)
			}
		}
	}
	s.tellLosses(ctx, prefix, records)
	if prefix != "" {
		// What another host has revoked, nobody serves any more.
		copied, _ := s.copies.slots(prefix)
		for _, slot := range copied {
			if !slots[slot] {
				_ = s.copies.drop(slot)
			}
		}
	}
	return records, append(problems, vault.MovedAway(away, prefix == "")...), nil
}

// recordsOf are the records of copies. Where another host has renamed a company, there may be
// a copy under its earlier name yet.
func (s *Store) recordsOf(all []copied) (records []grant.Record, problems []error) {
	latest := map[string]time.Time{}
	for _, c := range all {
		if c.Read.After(latest[c.Row.Grant.Key]) {
			latest[c.Row.Grant.Key] = c.Read
		}
	}
	for _, c := range all {
		if c.Row.Grant.State == ledger.Moved || c.Read.Before(latest[c.Row.Grant.Key]) {
			continue
		}
		record, err := s.recordOf(c.Row)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		records = append(records, record)
	}
	return records, problems
}

func oldest(all []copied) time.Time {
	first := all[0].Read
	for _, c := range all {
		if c.Read.Before(first) {
			first = c.Read
		}
	}
	return first
}

// StaleError says that what is told is what this host read earlier.
type StaleError struct {
	Read time.Time // the oldest of it
	Err  error     // why the database was not asked
}

func (e *StaleError) Error() string {
	return fmt.Sprintf("what is shown is what this host knew at %s or later: %v", e.Read.UTC().Format(time.RFC3339), e.Err)
}

func (e *StaleError) Unwrap() error { return e.Err }

// knownRecords are all records, for what is to be found out about journals after a start of
// the system. All says that none is missing.
func (s *Store) knownRecords(ctx context.Context) (records []grant.Record, all bool, err error) {
	rows, err := s.db.Bare(ctx, "")
	if err != nil {
		return nil, false, nil //nolint:nilerr // whoever needs the database is told; it is looked again then
	}
	all = true
	for _, row := range rows {
		record, err := s.recordOf(row)
		if err != nil {
			all = false
			continue
		}
		records = append(records, record)
	}
	return records, all, nil
}

// Damaged has nothing: a row that can't be read is not set aside.
func (s *Store) Damaged(context.Context) (map[string]vault.DamagedRecord, error) { return nil, nil }

// conflict makes a conflict of the ledger's one of the vault's.
func conflict(err error) error {
	if errors.As(err, new(*ledger.ConflictError)) {
		return fmt.Errorf("%w: %w", grant.ErrConflict, err)
	}
	return err
}

// Commit makes a change; see vault.Store. The ledger's rules decide whether it is made.
func (s *Store) Commit(ctx context.Context, c vault.Change) (grant.Record, error) {
	box, err := s.box(ctx)
	if err != nil {
		return c.Record, err
	}
	item, err := s.itemOf(c.Record)
	if err != nil {
		return c.Record, err
	}
	if c.Item != nil {
		if item.Sealed, err = box.seal(c.Item); err != nil {
			return c.Record, err
		}
	}
	r, slot := c.Record, c.Record.Slot()
	token := ledger.Made{Generation: r.Generation, Attempt: 1}
	code := func(token ledger.Made) postgres.Item {
		made := item
		made.MAC = box.codeOfGrant(slot, token, r.Facts, item.Sealed)
		return made
	}
	var row postgres.Row
	ask := func(do func(*postgres.Session) (ledger.Grant, error)) error {
		return s.certain(ctx, func(db *postgres.Session) (err error) {
			row.Grant, err = do(db)
			return err
		})
	}
	version := int64(r.Revision)
	switch j := c.Settles; {
	case c.Item == nil && r.Removing:
		// Should the database go back, this host revokes again.
		if err := s.markRevoked(r.TokenVaultKey); err != nil {
			return r, err
		}
		err = ask(func(db *postgres.Session) (ledger.Grant, error) { return db.Revoke(ctx, slot, version) })
	case c.Item == nil:
		err = ask(func(db *postgres.Session) (ledger.Grant, error) {
			return db.Note(ctx, slot, version, func(there postgres.Row) (postgres.Item, error) {
				made := item
				made.MAC = nil
				if there.Item.Sealed != nil {
					made.MAC = box.codeOfGrant(slot, there.Grant.Token, r.Facts, there.Item.Sealed)
				}
				return made, nil
			})
		})
	case j != nil && j.Purpose == grant.Refreshing && j.Answered && !c.First:
		return s.put(ctx, c, code)
	case j != nil && j.Purpose == grant.Authorizing:
		made := ledger.Made{Generation: r.Generation, Attempt: 1}
		err = ask(func(db *postgres.Session) (ledger.Grant, error) {
			return db.Flip(ctx, slot, j.Replaces, intentOf(*j), made, code(made), s.o.Terms)
		})
	default:
		if err := s.unmarkRevoked(r.TokenVaultKey); err != nil {
			return r, err
		}
		err = ask(func(db *postgres.Session) (ledger.Grant, error) {
			return db.Import(ctx, slot, version, r.TokenVaultKey, token, code(token))
		})
	}
	if err != nil {
		return r, conflict(err)
	}
	return s.changed(ctx, slot)
}

// changed reads a row that this process has just changed.
func (s *Store) changed(ctx context.Context, slot string) (grant.Record, error) {
	rows, err := s.db.Rows(ctx, slot)
	if err != nil {
		return grant.Record{}, err
	}
	if len(rows) == 0 {
		return grant.Record{}, grant.ErrConflict
	}
	s.remember(rows[0])
	there, ok, err := s.copies.of(slot)
	if err == nil {
		s.copy(ctx, there, ok, rows[0])
	}
	return s.recordOf(rows[0])
}

// certain repeats a change whose commit is unknown, on another connection: each of them is the
// same when it is made again, or says that somebody has made it.
func (s *Store) certain(ctx context.Context, do func(*postgres.Session) error) error {
	var unknown *postgres.UnknownError
	for tries := 0; ; tries++ {
		err := s.db.Session(ctx, do)
		if !errors.As(err, &unknown) || tries == 3 {
			return err
		}
		if err := s.o.Wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// Drop removes a row for good; see vault.Store.
func (s *Store) Drop(ctx context.Context, r grant.Record) error {
	err := s.certain(ctx, func(db *postgres.Session) error { return db.Drop(ctx, r.Slot(), r.TokenVaultKey, int64(r.Revision)) })
	if errors.As(err, new(*ledger.ConflictError)) {
		rows, readErr := s.db.Rows(ctx, r.Slot())
		if readErr == nil && len(rows) == 0 {
			err = nil // it is gone
		}
	}
	if err != nil {
		return conflict(err)
	}
	s.forget(r.TokenVaultKey)
	return s.copies.drop(r.Slot())
}

// Rename gives a row another slot; see vault.Store.
func (s *Store) Rename(ctx context.Context, r grant.Record, company string) (grant.Record, error) {
	box, err := s.box(ctx)
	if err != nil {
		return r, err
	}
	from := r.Slot()
	renamed := r
	renamed.Company, renamed.Was = company, ""
	to := renamed.Slot()
	if from != to {
		if rows, err := s.db.Rows(ctx, to); err != nil {
			return r, err
		} else if len(rows) > 0 {
			if there, err := s.recordOf(rows[0]); err == nil {
				return r, &vault.TakenError{ID: there.ID}
			}
			return r, grant.ErrConflict
		}
	}
	row, err := s.db.RowOf(ctx, r.TokenVaultKey)
	if err != nil {
		return r, err
	}
	item, err := s.itemOf(renamed)
	if err != nil {
		return r, err
	}
	if row.Item.Sealed != nil {
		item.MAC = box.codeOfGrant(to, row.Grant.Token, renamed.Facts, row.Item.Sealed)
	}
	err = s.certain(ctx, func(db *postgres.Session) error {
		_, err := db.Rename(ctx, from, int64(r.Revision), to, item, s.o.Terms)
		return err
	})
	if err != nil {
		return r, conflict(err)
	}
	if from != to {
		if err := s.disk.MoveNews(from, to, r.TokenVaultKey); err != nil {
			return r, err
		}
		if err := s.copies.drop(from); err != nil {
			return r, err
		}
	}
	return s.changed(ctx, to)
}

// FinishRename has nothing to do in the database; see vault.Store.
func (s *Store) FinishRename(ctx context.Context, r grant.Record) (grant.Record, error) {
	r.Was = ""
	return s.Commit(ctx, vault.Change{Record: r})
}
