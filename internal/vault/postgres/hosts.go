package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/upsauth/upsauth/internal/vault/ledger"
)

// Introduce compares this host's disk with its machine and its row, and writes what has to
// be written about the row. Boots are those of ledger.Introduce. The returned Self is to be on
// disk before anything else is done.
// For Register, Answer makes the row; for Rename, the caller introduces itself with a new ID.
func (s *Session) Introduce(ctx context.Context, self ledger.Self, machine string, boots []string) (what ledger.Introduction, now ledger.Self, err error) {
	boot := boots[len(boots)-1]
	err = s.transact(ctx, func(tx pgx.Tx) error {
		now = self
		if _, err := tx.Exec(ctx, "SELECT FROM upsauth.hosts WHERE id = $1 FOR NO KEY UPDATE", self.ID); err != nil {
			return err
		}
		b, err := readBook(ctx, tx, ledger.Grant{}, page{})
		if err != nil {
			return err
		}
		var row *ledger.Host
		for i := range b.Hosts {
			if b.Hosts[i].ID == self.ID {
				row = &b.Hosts[i]
			}
		}
		worked := false
		if row != nil && row.Incarnation > self.Incarnation {
			err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM upsauth.claims WHERE host = $1 AND incarnation = $2)", self.ID, row.Incarnation).Scan(&worked)
			if err != nil {
				return err
			}
		}
		what = ledger.Introduce(self, machine, boots, row, worked)
		if what == ledger.Rename {
			return ErrNothing
		}
		now.Boot = boot
		if what == ledger.Register {
			return ErrNothing
		}
		next := *row
		switch what {
		case ledger.Raise:
			next = row.Raised(boot)
		case ledger.Restore:
			next.Incarnation, next.Boot = self.Incarnation, boot
		}
		now.Incarnation = next.Incarnation
		if next == *row && b.Now.Sub(row.Seen) < seenEvery {
			return ErrNothing
		}
		tag, err := tx.Exec(ctx, `UPDATE upsauth.hosts SET incarnation = $3, boot = $4, seen = clock_timestamp() WHERE id = $1 AND incarnation = $2`,
			self.ID, row.Incarnation, next.Incarnation, next.Boot)
		if err == nil && tag.RowsAffected() != 1 {
			err = &ledger.HostError{Host: self.ID, Name: self.Name, Reason: ledger.Stranger}
		}
		return err
	})
	if err != nil {
		now = self
	}
	return what, now, err
}

// seenEvery is how exactly the database knows when a host was there last. The rules ask for
// a day.
const seenEvery = ledger.AloneAfter / 1440

// Roll is what is known of no grant: the ledger's row, all hosts, and what time it is.
func (s *Session) Roll(ctx context.Context) (b ledger.Book, err error) {
	err = s.transact(ctx, func(tx pgx.Tx) error {
		if b, err = readBook(ctx, tx, ledger.Grant{}, page{}); err != nil {
			return err
		}
		return ErrNothing
	})
	return b, err
}

// OpenEpoch begins a new epoch where the database is another one than it was or has lost
// something, and returns the epoch that there is then. Older says that this host has found a
// token there that is older than one it saw.
func (s *Session) OpenEpoch(ctx context.Context, self ledger.Self, older bool) (m ledger.Meta, opened bool, err error) {
	err = s.transact(ctx, func(tx pgx.Tx) error {
		opened = false
		read := func() (ledger.Book, bool, error) {
			b, err := readBook(ctx, tx, ledger.Grant{}, page{seen: self.Seen})
			m = b.Meta
			return b, m.WentBack(b.Identity, self, b.Holder) || older && self.Epoch == m.Epoch, err
		}
		if _, back, err := read(); err != nil {
			return err
		} else if !back {
			return ErrNothing
		}
		// Again, under the lock: somebody else may have opened it.
		if _, err := tx.Exec(ctx, "SELECT FROM upsauth.meta FOR NO KEY UPDATE"); err != nil {
			return err
		}
		b, back, err := read()
		if err != nil {
			return err
		}
		if !back {
			return ErrNothing
		}
		var id Identity
		if id, err = Identify(ctx, tx); err != nil {
			return err
		}
		m, _ = b.Meta.NextEpoch(b.Identity, self, nil, b.Now)
		if _, err := tx.Exec(ctx, `UPDATE upsauth.meta SET epoch = $1, system_identifier = $2, timeline = $3, database_oid = $4, claims_oid = $5`,
			m.Epoch, id.System, int64(id.Timeline), int64(id.Database), int64(id.Claims)); err != nil {
			return err
		}
		opened = true
		// What NextEpoch does with the claims it is given, with all of them at once.
		_, err = tx.Exec(ctx, `UPDATE upsauth.claims SET time = clock_timestamp() WHERE outcome IS NULL OR outcome = 'no answer'`)
		return err
	})
	return m, opened && err == nil, err
}

// Answer answers the roll call of an epoch, and registers a host that has no row. Deliver is
// called with what the host has to have on its disk by then: it writes that, delivers every
// sealed answer, puts back what the host has seen, and inserts every intent again that has no
// answer, or one of a grant that is gone. Only once it returns nil does the host's row say the
// epoch. The caller has every process of the host out of the way. A *ledger.FrozenError says
// that yet another epoch began: the answer is given again.
func (s *Session) Answer(ctx context.Context, self ledger.Self, epoch int64, deliver func(ledger.Self) error) (ledger.Self, error) {
	self = self.Answers(epoch)
	if err := deliver(self); err != nil {
		return self, err
	}
	return self, s.transact(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT FROM upsauth.hosts WHERE id = $1 FOR NO KEY UPDATE", self.ID); err != nil {
			return err
		}
		b, err := readBook(ctx, tx, ledger.Grant{}, page{})
		if err != nil {
			return err
		}
		if err := b.Current(self); err != nil {
			return err
		}
		for _, h := range b.Hosts {
			if h.ID != self.ID {
				continue
			}
			if h.Machine != self.Machine || h.Incarnation != self.Incarnation {
				return &ledger.HostError{Host: self.ID, Name: self.Name, Reason: ledger.Stranger}
			}
			_, err := tx.Exec(ctx, `UPDATE upsauth.hosts SET name = $2, epoch = $3, signed_off = NULL, seen = clock_timestamp() WHERE id = $1`,
				self.ID, self.Name, epoch)
			return err
		}
		// Others' presence accepts it, and so does it that there are none.
		accepted := !ledger.MustAsk(ledger.Host{ID: self.ID}, b.Hosts, b.Now)
		_, err = tx.Exec(ctx, `INSERT INTO upsauth.hosts (id, name, machine, incarnation, boot, epoch, accepted)
			VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $7::boolean THEN clock_timestamp() END)`,
			self.ID, self.Name, self.Machine, self.Incarnation, self.Boot, epoch, accepted)
		if code(err) == "23505" {
			return &ledger.HostError{Host: self.ID, Name: self.Name, Reason: ledger.Stranger}
		}
		return err
	})
}

// IsWhole says what ledger.Book.IsWhole says.
func (s *Session) IsWhole(ctx context.Context, self ledger.Self) (whole bool, err error) {
	err = s.transact(ctx, func(tx pgx.Tx) error {
		b, err := readBook(ctx, tx, ledger.Grant{}, page{seen: self.Seen})
		if err != nil {
			return err
		}
		whole = b.IsWhole(self)
		return ErrNothing
	})
	return whole, err
}

// AcceptFailover says that nobody is to wait for the hosts that have not answered the roll
// call of an epoch, and returns their names. The epoch is the one whose names a person was
// shown, by Roll. Where it is another by now, nobody is left out, and the error is a
// *ledger.FrozenError with those that are to answer. So it is where nobody has noticed yet
// that the database changed hands: the roll call begins now. The hosts that run answer by
// themselves, and a person is asked again about the others.
func (s *Session) AcceptFailover(ctx context.Context, self ledger.Self, epoch int64) (names []string, err error) {
	if _, _, err := s.OpenEpoch(ctx, self, false); err != nil {
		return nil, err
	}
	err = s.transact(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT FROM upsauth.hosts ORDER BY id FOR NO KEY UPDATE"); err != nil {
			return err
		}
		b, err := readBook(ctx, tx, ledger.Grant{}, page{})
		if err != nil {
			return err
		}
		waived, err := b.AcceptFailover(epoch)
		if err != nil {
			return err
		}
		names = b.Meta.Waiting(b.Hosts)
		for i, h := range waived {
			if h == b.Hosts[i] {
				continue
			}
			if _, err := tx.Exec(ctx, "UPDATE upsauth.hosts SET waived = $2 WHERE id = $1", h.ID, h.Waived); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		names = nil
	}
	return names, err
}

// RemoveHost says that a host does not come any more. It may deliver, and not spend.
func (s *Session) RemoveHost(ctx context.Context, id string) error {
	return s.mark(ctx, id, "removed = coalesce(removed, clock_timestamp())")
}

// AcceptHost says that a host is at the right database.
func (s *Session) AcceptHost(ctx context.Context, id string) error {
	return s.mark(ctx, id, "accepted = coalesce(accepted, clock_timestamp())")
}

func (s *Session) mark(ctx context.Context, id, set string) error {
	return s.transact(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "UPDATE upsauth.hosts SET "+set+" WHERE id = $1", id)
		if err == nil && tag.RowsAffected() == 0 {
			err = &ledger.HostError{Host: id, Reason: ledger.Stranger}
		}
		return err
	})
}

// SignOff says that this host holds nothing: no intent without an end, and no answer that is
// not delivered. Nobody waits for it. To come back it answers the roll call.
func (s *Session) SignOff(ctx context.Context, self ledger.Self) error {
	return s.transact(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE upsauth.hosts SET signed_off = clock_timestamp(), seen = clock_timestamp()
			WHERE id = $1 AND machine = $2 AND incarnation = $3`, self.ID, self.Machine, self.Incarnation)
		if err == nil && tag.RowsAffected() == 0 {
			err = &ledger.HostError{Host: self.ID, Name: self.Name, Reason: ledger.Stranger}
		}
		return err
	})
}
