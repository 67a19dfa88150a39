package shared

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// ticket is the moment, by Elapsed, and the turn of a slot, zero without its lock, in which its
// row is about to be read.
type ticket struct {
	at   time.Duration
	turn int
}

func (s *Store) ticket(slot string) ticket {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ticket{s.o.Elapsed(), s.working[slot]}
}

// look is a row that was read with its slot's lock, and when.
type look struct {
	row postgres.Row
	at  time.Duration
}

// lookFor is how long a row that was read with its slot's lock is not asked for again: one
// refresh looks at it many times before it claims. Other hosts may change it meanwhile; that
// the claim finds out.
const lookFor = 250 * time.Millisecond

// remember keeps a row that was read since before. A reader without the slot's lock may be slow:
// what this process has changed since counts.
func (s *Store) remember(row postgres.Row, before ticket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if turn := s.working[row.Slot]; turn > 0 {
		if before.turn != turn {
			return
		}
		s.looked[row.Slot] = look{row, before.at}
	}
	if len(s.rows) >= mostRows {
		for key, row := range s.rows {
			if s.working[row.Slot] == 0 {
				delete(s.rows, key)
			}
		}
	}
	s.rows[row.Grant.Key] = row
}

// lately is a row that this process has just read with its slot's lock, if nothing is special
// about it.
func (s *Store) lately(slot string) (row postgres.Row, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.looked[slot]
	return l.row, ok && l.row.Grant.State == ledger.Live && s.o.Elapsed()-l.at < lookFor
}

// lookAgain has the row of a slot read again: it is changed, or was found to be another.
func (s *Store) lookAgain(slot string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.working[slot] > 0 {
		s.nextTurn(slot)
	}
}

func (s *Store) nextTurn(slot string) {
	s.turns++
	s.working[slot] = s.turns
	delete(s.looked, slot)
}

// mostRows is how many rows that nobody works on are remembered, for whoever asks for the
// item of a record next.
const mostRows = 256

func (s *Store) forget(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot := s.rows[key].Slot; s.working[slot] > 0 {
		s.nextTurn(slot)
	}
	delete(s.rows, key)
}

// row is that of a Token Vault Key: the one whose record was read, so that both are of one
// moment, or the database's.
func (s *Store) row(ctx context.Context, key string) (postgres.Row, error) {
	s.mu.Lock()
	row, ok := s.rows[key]
	if ok && s.working[row.Slot] == 0 {
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
		s.knowSecret(found)
		if hasRow {
			_ = s.copies.keep(ctx, row, found, s.o.Now(), ledger.Made{}) // it spares a question later
		}
	}
	return found, true, nil
}

// opensFor reports whether the key of a journal, as this host knows it, is the one that the
// grant's row names: another host may have made it anew.
func (s *Store) opensFor(row postgres.Row, secret postgres.Secret) bool {
	box := s.alreadyOpened(false)
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

// knowSecret remembers a secret of a grant, and journalKey is that of its journals, as far as this
// process knows it.
func (s *Store) knowSecret(secret postgres.Secret) {
	if key, _, ok := strings.Cut(secret.Account, "/"); !ok || grant.CheckTokenVaultKey(key) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[secret.Account] = secret
}

func (s *Store) journalKey(key string) postgres.Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.secrets[vault.JournalAccount(key)]
}

func (s *Store) forgetSecret(account string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.secrets, account)
}
