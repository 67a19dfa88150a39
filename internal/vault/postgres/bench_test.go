package postgres

import (
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/postgrestest"
	"github.com/upsauth/upsauth/internal/vault/ledger"
)

// BenchmarkRefreshes is how many refreshes a database takes, without UPS: three hosts with
// sixteen refreshes each at once, of 10,000 grants, each with its claim, its check and its
// answer. -benchtime=10000x has each grant refreshed once.
func BenchmarkRefreshes(b *testing.B) {
	noLibpq(b)
	s := postgrestest.Start(b, postgrestest.Options{Disk: true})
	must(b, s.Restore("postgres", []byte(Schema(Role))))
	const grants = 10000
	_, err := s.SQL("postgres", fmt.Sprintf(`ALTER ROLE upsauth PASSWORD 'pw';
		INSERT INTO upsauth.grants (slot, token_vault_key, generation, attempt, state, version, facts)
		SELECT lpad(to_hex(i), 32, '0') || '-0000000000000000', upper(lpad(to_hex(i), 8, '0')) || '-0000-0000-0000-000000000000', 1, 1, 'live', i, '{}'
		FROM generate_series(0, %d) i; ANALYZE`, grants-1))
	must(b, err)
	pooler, err := s.Pooler(map[string]string{Role: "pw"})
	must(b, err)
	standby, err := s.Standby()
	must(b, err)

	// Of each grant, the token that stands.
	tokens := make([]ledger.Made, grants)
	for i := range tokens {
		tokens[i] = first
	}
	var turn, nonces atomic.Int64
	sealed := make([]byte, 3000)
	_, _ = rand.Read(sealed)
	stored := Item{Facts: []byte(`{"company": "Acme Corp"}`), Sealed: sealed, MAC: make([]byte, 32)}

	refresh := func(m *member, s *Session) error {
		i := turn.Add(1) % grants
		in := ledger.Intent{
			Key: fmt.Sprintf("%08X-0000-0000-0000-000000000000", i), Generation: tokens[i].Generation + 1, Sends: tokens[i],
			Nonce: fmt.Sprintf("nonce number %010d", nonces.Add(1)), Host: m.self.ID, Incarnation: 1, Purpose: grant.Refreshing, Epoch: m.self.Epoch,
		}
		right, err := s.Claim(b.Context(), m.self, Asked{Intent: in, Terms: respect})
		if err != nil {
			return err
		}
		if err := s.Check(b.Context(), m.self, right, func() time.Duration { return 0 }); err != nil {
			return err
		}
		d, err := s.Deliver(b.Context(), in, fmt.Sprintf("%032x-0000000000000000", i), right.Makes, func(ledger.Made) (Item, error) { return stored, nil })
		tokens[i] = d.Grant.Token
		return err
	}
	for _, synchronous := range []bool{false, true} {
		for _, way := range []struct{ name, url string }{{"direct", s.URL(Role, "pw", "postgres")}, {"pooler", pooler.URL(Role, "postgres")}} {
			name := way.name
			if synchronous {
				name += ", synchronous standby"
			}
			b.Run(name, func(b *testing.B) {
				if must(b, s.Synchronous(nil)); synchronous {
					must(b, s.Synchronous(standby))
				}
				var members []*member
				for i := range 3 {
					db := Open(Settings{URL: way.url, Private: true, Patience: time.Minute})
					defer db.Close()
					m := &member{db: db, self: ledger.Self{ID: fmt.Sprintf("host %d", i), Name: "web", Machine: "m", Incarnation: 1, Boot: "b"}}
					m.attend(b)
					members = append(members, m)
				}
				var all sync.WaitGroup
				var left atomic.Int64
				left.Store(int64(b.N))
				b.ResetTimer()
				for _, m := range members {
					for range 16 {
						all.Go(func() {
							for left.Add(-1) >= 0 {
								if err := m.db.Session(b.Context(), func(s *Session) error { return refresh(m, s) }); err != nil {
									b.Error(err)
									return
								}
							}
						})
					}
				}
				all.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "refreshes/s")
			})
		}
	}
}
