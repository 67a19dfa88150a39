package shared

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

const (
	// RecentFor is how long a copy is served without asking the database.
	RecentFor = 5 * time.Minute
	// readPatience is how long the database is asked for what a copy can tell too.
	readPatience = 2 * time.Second
	// copyEvery is how often a copy that is the same is written again.
	copyEvery = time.Minute
)

// good reports whether a copy may be served: its token is good for more than a moment.
func (s *Store) good(c copied) bool {
	r, err := s.recordOf(c.Row)
	if err != nil || c.Row.Grant.State != ledger.Live || c.Row.Item.Sealed == nil || !r.AccessGood(s.o.Now(), time.Minute) {
		return false
	}
	known, err := s.revocation(c.Row)
	return err == nil && known != isRevoked
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
	if row, ok := s.lately(slot); ok {
		return s.recordOf(row)
	}
	before := s.ticket(slot)
	there, ok, err := s.copies.of(slot)
	if err != nil {
		return grant.Record{}, err
	}
	serve := ok && vault.IsRecent(ctx) && s.good(there)
	if serve && (s.fresh(there) || s.isKnownAway()) {
		s.remember(there.Row, before)
		return s.recordOf(there.Row)
	}
	reading, cancel := ctx, func() {}
	if serve {
		reading, cancel = context.WithTimeout(ctx, readPatience)
	}
	defer cancel()
	row, err := s.read(reading, slot)
	if err != nil && serve && ctx.Err() == nil && IsAway(err) {
		s.noteAway()
		s.remember(there.Row, before)
		return s.recordOf(there.Row)
	}
	if err != nil {
		if IsAway(err) && ctx.Err() == nil {
			s.noteAway()
		}
		return grant.Record{}, err
	}
	if row.Slot == "" {
		if ok {
			_ = s.copies.drop(ctx, slot, there.Row.Grant.Key)
		}
		return grant.Record{}, grant.ErrNoGrant
	}
	record, err := s.recordOf(row)
	if err != nil {
		return record, err
	}
	if row.Grant.State == ledger.Moved {
		if _, away := s.here(ctx, row); away != nil {
			_ = s.copies.drop(ctx, slot, row.Grant.Key)
			return grant.Record{}, away
		}
		return s.Grant(ctx, slot)
	}
	s.copy(ctx, there, ok, row)
	s.remember(row, before)
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
		known, err := s.revocation(row)
		if err != nil {
			return row, err
		}
		if row.Grant.State != ledger.Removing && known == isRevoked {
			changed, err := s.changedHands(ctx)
			if err == nil && !changed {
				err = s.db.Session(ctx, func(db *postgres.Session) error { return s.revokeAgain(ctx, db, []string{row.Grant.Key}) })
			}
			if err != nil {
				return row, err
			}
			if changed || !again {
				again = true
				continue
			}
			row.Grant.State = ledger.Removing // as this host has just said
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

// sameGrants reports whether rows are of the grants of which this host has copies.
func sameGrants(copies []copied, rows []postgres.Row) bool {
	keys := map[string]string{}
	for _, row := range rows {
		keys[row.Slot] = row.Grant.Key
	}
	for _, c := range copies {
		if keys[c.Row.Slot] != c.Row.Grant.Key {
			return false
		}
	}
	return true
}

// copy keeps a row that was read, where that tells something new. That it can't does no harm
// here: whoever sends a token looks again.
func (s *Store) copy(ctx context.Context, there copied, ok bool, row postgres.Row) {
	if ok && there.Row.Grant == row.Grant && s.o.Now().Sub(there.Read).Abs() < copyEvery {
		return
	}
	_ = s.copies.keep(ctx, row, s.journalKey(row.Grant.Key), s.o.Now(), ledger.Made{})
}

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
	// Before the rows: what other processes of this host see meanwhile is no sign.
	var there []copied
	if prefix != "" {
		if there, err = s.copies.below(prefix); err != nil {
			return nil, nil, err
		}
	}
	if recent {
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
	if err != nil && IsAway(err) && ctx.Err() == nil {
		s.noteAway()
		if prefix == "" {
			there, _ = s.copies.all() // that they can't be read leaves what the database's error says
		}
		if len(there) > 0 {
			records, problems = s.recordsOf(there)
			return records, append(problems, &StaleError{Read: oldest(there), Err: late(err)}), nil
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if !sameGrants(there, rows) {
		changed, err := s.changedHands(ctx)
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
	copies := map[string]copied{}
	for _, c := range there {
		copies[c.Row.Slot] = c
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
			if known, err := s.revocation(row); err != nil {
				problems = append(problems, err)
			} else if known == isRevoked {
				row.Grant.State = ledger.Removing
			}
		}
		record, err := s.recordOf(row)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		records = append(records, record)
		if prefix != "" {
			c, ok := copies[row.Slot]
			s.copy(ctx, c, ok, row)
		}
	}
	s.tellLosses(ctx, prefix, records)
	for slot, c := range copies {
		if !slots[slot] {
			_ = s.copies.drop(ctx, slot, c.Row.Grant.Key) // what another host has revoked, nobody serves any more
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

// knownRecords are all records, for what is to be found out about journals after a start of
// the system. All says that none is missing.
func (s *Store) knownRecords(ctx context.Context) (records []grant.Record, all bool, err error) {
	rows, err := s.db.Bare(ctx, "")
	if err != nil {
		return nil, false, err
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

// RolledBackError says that the database has an older token of a grant than this host has
// seen there, although every host was asked for what it has.
type RolledBackError struct {
	ID         grant.ID
	Have, Seen int64 // generations
}

func (e *RolledBackError) Error() string {
	return fmt.Sprintf("the database has an older token of %s (generation %d) than this host has seen there (%d); it is spent, and is not sent", e.ID, e.Have, e.Seen)
}
