package postgres

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/upsauth/upsauth/internal/postgrestest"
)

// look reads the setting that a statement asks for.
func look(ctx context.Context, db *DB, statement string, args ...any) (said string, err error) {
	err = db.read(ctx, statement, args, func(found pgx.Rows) error { return found.Scan(&said) })
	return said, err
}

// A read brings what it relies on, and leaves nothing on its connection.
func TestEachReadBringsItsSettings(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	sql(t, s, `ALTER ROLE upsauth SET search_path = public; ALTER ROLE upsauth SET default_transaction_isolation = 'serializable'`)
	db, ctx := open(t, s, Role, "postgres"), t.Context()
	for setting, want := range map[string]string{
		"search_path": "pg_catalog, pg_temp", "transaction_isolation": "read committed", "transaction_read_only": "off",
	} {
		if got, err := look(ctx, db, "SELECT current_setting($1)", setting); err != nil || got != want {
			t.Errorf("%s is %q, %v", setting, got, err)
		}
	}
	must(t, db.Session(ctx, func(s *Session) error {
		_, err := s.c.Exec(ctx, "CREATE TEMP TABLE here AS SELECT 1")
		must(t, err)
		if _, err := look(ctx, db, "SELECT txid_current()::text"); err != nil {
			t.Error(err)
		}
		var path string
		must(t, s.c.QueryRow(ctx, "SHOW search_path").Scan(&path))
		if path != "public" {
			t.Errorf("afterwards search_path is %q", path)
		}
		return nil
	}))
}

// A read that fails says why, and the connection goes on.
func TestReadsThatFail(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	db, ctx := open(t, s, Role, "postgres"), t.Context()
	must(t, db.Session(ctx, func(one *Session) error {
		c := one.c
		for statement, want := range map[string]Reason{
			"SELECT 1 / (SELECT 0 WHERE $1 = 'a')": Failed, "SELECT x FROM upsauth.nothing WHERE x = $1": NoTables, "SELECT rolpassword FROM pg_authid WHERE rolname = $1": NoRights,
		} {
			err := one.read(ctx, statement, []any{"a"}, func(pgx.Rows) error { return nil })
			if reasonOf(err) != want {
				t.Errorf("%s: %v", statement, err)
			}
		}
		// What the caller says of a row is its own.
		if err := one.read(ctx, "SELECT generate_series(1, 3)", nil, func(pgx.Rows) error { return strangeRows() }); reasonOf(err) != StrangeTables {
			t.Errorf("the caller's error: %v", err)
		}
		rows := 0
		if err := one.read(ctx, "SELECT generate_series(1, 3)", nil, func(pgx.Rows) error { rows++; return nil }); err != nil || rows != 3 {
			t.Errorf("%d rows, %v", rows, err)
		}
		if one.c != c || c.IsClosed() {
			t.Error("there is another connection")
		}
		return nil
	}))
}

// A connection whose server is gone is found out by the next read, which takes another one. A
// server that takes no writes may be behind: nothing is read there.
func TestReadsNoticeWhoAnswers(t *testing.T) {
	s := server(t, postgrestest.Options{})
	db, ctx := open(t, s, Role, "postgres"), t.Context()
	_, err := look(ctx, db, "SELECT 'one'")
	must(t, err)
	must(t, s.Restart())
	if got, err := look(ctx, db, "SELECT 'two'"); err != nil || got != "two" {
		t.Errorf("after a restart: %q, %v", got, err)
	}
	must(t, s.Pause())
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := look(short, db, "SELECT 'three'"); reasonOf(err) != Away {
		t.Errorf("nobody answers: %v", err)
	}
	must(t, s.Resume())
	if got, err := look(ctx, db, "SELECT 'four'"); err != nil || got != "four" {
		t.Errorf("afterwards: %q, %v", got, err)
	}
	standby, err := s.Standby()
	must(t, err)
	behind := open(t, standby, Role, "postgres")
	if got, err := look(ctx, behind, "SELECT 'five'"); reasonOf(err) != ReadOnly {
		t.Errorf("a standby says %q, %v", got, err)
	}
}

// Somebody who changes the tables keeps a reader waiting, and not for ever.
func TestAReadDoesNotWaitForALockForEver(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	owner, db, ctx := open(t, s, postgrestest.Superuser, "postgres"), open(t, s, Role, "postgres"), t.Context()
	must(t, owner.Session(ctx, func(one *Session) error {
		_, err := one.c.Exec(ctx, "BEGIN; LOCK TABLE upsauth.grants IN ACCESS EXCLUSIVE MODE")
		must(t, err)
		if _, err := db.Rows(ctx, ""); reasonOf(err) != Busy {
			t.Errorf("while the table is locked: %v", err)
		}
		_, err = one.c.Exec(ctx, "ROLLBACK")
		return err
	}))
	if _, err := db.Rows(ctx, ""); err != nil {
		t.Error(err)
	}
}
