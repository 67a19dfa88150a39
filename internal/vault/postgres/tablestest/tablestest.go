// Package tablestest has a real database with the tables of a shared vault, for the tests
// of what is kept in them.
package tablestest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/postgrestest"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// Tables are a database that has the tables.
type Tables struct {
	// Server is where it is; the superuser may do with it what the application may not.
	Server *postgrestest.Server
	tb     testing.TB
}

// New starts a server with the tables and the application's role.
func New(tb testing.TB) *Tables {
	tb.Helper()
	t := &Tables{Server: postgrestest.Start(tb, postgrestest.Options{Hasty: true}), tb: tb}
	t.must(t.Server.Restore(postgrestest.Superuser, []byte(postgres.Schema(postgres.Role))))
	return t
}

func (t *Tables) must(err error) {
	t.tb.Helper()
	if err != nil {
		t.tb.Fatal(err)
	}
}

// Open returns the database as another host has it, with the application's role: the one
// that has no more rights than the schema gives it.
func (t *Tables) Open() *postgres.DB {
	db := postgres.Open(postgres.Settings{URL: t.Server.SocketURL(postgres.Role, "postgres"), Patience: time.Minute})
	t.tb.Cleanup(db.Close)
	return db
}

// Away returns the database as a host has it that can't reach it.
func (t *Tables) Away() *postgres.DB {
	// A port of which this user can have nobody listen.
	db := postgres.Open(postgres.Settings{URL: "postgres://" + postgres.Role + "@127.0.0.1:1/postgres?sslmode=disable", Patience: time.Millisecond})
	t.tb.Cleanup(db.Close)
	return db
}

// SQL runs statements as the superuser, and returns the rows of the last one.
func (t *Tables) SQL(statements string) [][]string {
	t.tb.Helper()
	rows, err := t.Server.SQL("postgres", statements)
	t.must(err)
	return rows
}

// Code is a code that anybody can make, for tests of what a row without it is.
func Code(_ context.Context, c postgres.Coded) ([]byte, error) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %s", c.Table, c.Key, c.Text))
	return sum[:], nil
}
