package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/upsauth/upsauth/internal/postgrestest"
)

// open returns the database as a user sees it over the socket.
func open(t *testing.T, s *postgrestest.Server, user, database string) *DB {
	t.Helper()
	db := Open(Settings{URL: s.SocketURL(user, database)})
	t.Cleanup(db.Close)
	return db
}

// server starts a server with a database that has the tables and the application's role.
func server(t *testing.T, o postgrestest.Options) *postgrestest.Server {
	t.Helper()
	s := postgrestest.Start(t, o)
	must(t, s.Restore("postgres", []byte(Schema(Role))))
	return s
}

func exec(ctx context.Context, db *DB, sql string, args ...any) error {
	return db.Do(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, sql, args...)
		return err
	})
}

func sql(t *testing.T, s *postgrestest.Server, statements string) [][]string {
	t.Helper()
	rows, err := s.SQL("postgres", statements)
	must(t, err)
	return rows
}

const (
	aHost  = `INSERT INTO upsauth.hosts (id, name, machine, epoch) VALUES ('h1', 'web-1', 'm', 1)`
	aClaim = `INSERT INTO upsauth.claims (number, token_vault_key, generation, attempt, sends_generation, sends_attempt, nonce, purpose, host, incarnation, epoch)
		VALUES (1, '11111111-2222-3333-4444-555555555555', 1, 1, 0, 0, 'a nonce of sixteen', 'refresh', 'h1', 1, 1)`
	aGrant = `INSERT INTO upsauth.grants (slot, token_vault_key, generation, attempt, state, version, facts)
		VALUES ('00000000000000000000000000000000-0000000000000000', '11111111-2222-3333-4444-555555555555', 1, 1, 'removing', 7, '{}')`
)

// An application's role that could remove or change more than it has to would lose grants
// with one wrong statement, or let a host undo a claim.
func TestTheRoleCanDoWhatItNeedsAndNothingElse(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	db, ctx := open(t, s, Role, "postgres"), t.Context()
	state, err := db.Look(ctx)
	must(t, err)
	must(t, state.Check())
	if state.Excess || state.Owns || state.MayCreate {
		t.Errorf("the role may do too much: %+v", state)
	}
	for _, statement := range []string{
		aHost, aClaim, aGrant,
		`INSERT INTO upsauth.companies VALUES ('00000000000000000000000000000000', 1, '{}')`,
		`INSERT INTO upsauth.secrets VALUES ('K/journal', 1, 1, 'x', sha256('x'))`,
		`INSERT INTO upsauth.histories (slot, version) VALUES ('00000000000000000000000000000000', 1)`,
		`INSERT INTO upsauth.history (slot, event) VALUES ('00000000000000000000000000000000', '{}')`,
		`SELECT * FROM upsauth.readings FOR UPDATE`,
		`INSERT INTO upsauth.settings VALUES ('a name', 1, NULL)`,
		`INSERT INTO upsauth.outbox (id, lane, event) VALUES ('e', 'l', '{}')`,
		`UPDATE upsauth.claims SET outcome = 'unsent', ended = clock_timestamp()`,
		`UPDATE upsauth.meta SET epoch = 2, system_identifier = '1', highest = 1`,
		`SELECT * FROM upsauth.meta, upsauth.keys, upsauth.invitations, upsauth.applications FOR UPDATE OF meta`,
		aClaim + ` ON CONFLICT (nonce) DO UPDATE SET detail = claims.detail WHERE claims.nonce = excluded.nonce`,
	} {
		if err := exec(ctx, db, statement); err != nil {
			t.Errorf("%s: %v", statement, err)
		}
	}
	for _, statement := range []string{
		"UPDATE upsauth.meta SET schema = 2", "UPDATE upsauth.meta SET vault = gen_random_uuid()", "INSERT INTO upsauth.meta VALUES (DEFAULT)",
		"UPDATE upsauth.claims SET nonce = 'another nonce of sixteen'", "UPDATE upsauth.claims SET attempt = 2", "UPDATE upsauth.claims SET host = 'h2'",
		"UPDATE upsauth.claims SET number = 99", "UPDATE upsauth.claims SET sends_generation = 2", "INSERT INTO upsauth.claims (time) VALUES (now())",
		"UPDATE upsauth.hosts SET id = 'h2'", "UPDATE upsauth.hosts SET machine = 'other'", "UPDATE upsauth.history SET event = '{}'", "INSERT INTO upsauth.readings VALUES ('grants', 1)",
		"ALTER TABLE upsauth.claims ADD x int", "DROP TABLE upsauth.claims", "CREATE TABLE upsauth.x (n int)", "CREATE SCHEMA y",
		"ALTER FUNCTION upsauth.drop_key(text, bigint) SECURITY INVOKER",
		`DO $$ BEGIN
			CREATE TEMP TABLE mine (token_vault_key text);
			CREATE TRIGGER mine AFTER DELETE ON mine FOR EACH ROW EXECUTE FUNCTION upsauth.note_gone();
		END $$`,
	} {
		if err := exec(ctx, db, statement); code(err) != "42501" {
			t.Errorf("%s: %v", statement, err)
		}
	}
	for _, table := range tables() {
		for _, statement := range []string{"DELETE FROM upsauth." + table, "TRUNCATE upsauth." + table + " CASCADE"} {
			if err := exec(ctx, db, statement); code(err) != "42501" {
				t.Errorf("%s: %v", statement, err)
			}
		}
	}
}

func TestRowsAreRemovedByTheirVersionOnly(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	db, ctx := open(t, s, Role, "postgres"), t.Context()
	for _, statement := range []string{aHost, aGrant, aClaim, `INSERT INTO upsauth.companies VALUES ('00000000000000000000000000000000', 1, '{}')`} {
		must(t, exec(ctx, db, statement))
	}
	const slot, key = "00000000000000000000000000000000-0000000000000000", "11111111-2222-3333-4444-555555555555"
	drop := func(call string, args ...any) (dropped bool) {
		t.Helper()
		must(t, db.Do(ctx, func(tx pgx.Tx) error { return tx.QueryRow(ctx, "SELECT upsauth."+call, args...).Scan(&dropped) }))
		return dropped
	}
	for _, test := range []struct {
		call string
		args []any
		want bool
	}{
		{"drop_grant($1, $2, $3)", []any{slot, key, 6}, false},
		{"drop_grant($1, $2, $3)", []any{slot, "other", 7}, false},
		{"drop_grant($1, $2, $3)", []any{slot, key, 7}, true},
		{"drop_grant($1, $2, $3)", []any{slot, key, 7}, false},
		{"drop_company($1, $2)", []any{slot[:32], 2}, false},
		{"drop_company($1, $2)", []any{slot[:32], 1}, true},
		{"drop_secret($1, $2)", []any{"none", 1}, false},
		{"drop_application($1, $2, $3)", []any{"cie", "none", 1}, false},
		{"drop_invitation($1, $2, $3)", []any{"latest", "none", 1}, false},
		{"drop_key($1, $2)", []any{"none", 1}, false},
		{"drop_history($1, $2)", []any{slot[:32], 1}, false},
		{"drop_told($1, $2)", []any{"grant", "none"}, false},
		{"drop_events() > 0", nil, false},
		{"drop_claims() > 0", nil, false},
	} {
		if got := drop(test.call, test.args...); got != test.want {
			t.Errorf("%s of %v: %t", test.call, test.args, got)
		}
	}
	if rows := sql(t, s, "SELECT count(*) FROM upsauth.claims"); rows[0][0] != "0" {
		t.Error("a grant's claims outlive it")
	}
	// A live grant is not removed.
	must(t, exec(ctx, db, strings.Replace(aGrant, "'removing'", "'live'", 1)))
	if drop("drop_grant($1, $2, $3)", slot, key, 7) {
		t.Error("a living grant was removed")
	}
}

// A function that runs as the owner must not find what its caller has put in its way.
func TestFunctionsOfTheOwnerHaveTheirOwnSearchPath(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	for _, row := range sql(t, s, `SELECT proname, prosecdef, array_to_string(proconfig, ' ') FROM pg_proc WHERE pronamespace = 'upsauth'::regnamespace`) {
		if row[1] != "t" || row[2] != "search_path=pg_catalog, pg_temp" {
			t.Errorf("%v", row)
		}
	}
	if rows := sql(t, s, `SELECT proname FROM pg_proc WHERE pronamespace = 'upsauth'::regnamespace
		AND EXISTS (SELECT FROM aclexplode(proacl) WHERE grantee = 0)`); len(rows) > 0 {
		t.Errorf("anybody may call %v", rows)
	}
}

// An index that is ordered by a language is silently wrong once the system's language files
// change, and takes a name twice.
func TestUniqueTextIsComparedByItsBytes(t *testing.T) {
	s := postgrestest.Start(t, postgrestest.Options{Hasty: true})
	sql(t, s, "CREATE DATABASE other TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C.UTF-8'")
	must(t, s.Restore("other", []byte(Schema(Role))))
	rows, err := s.SQL("other", `SELECT i.indexrelid::regclass, a.attname, c.collname
		FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
		JOIN pg_attribute a ON a.attrelid = i.indexrelid
		LEFT JOIN pg_collation c ON c.oid = a.attcollation
		WHERE t.relnamespace = 'upsauth'::regnamespace AND a.attcollation <> 0`)
	must(t, err)
	if len(rows) < 10 {
		t.Errorf("only %d columns are looked at", len(rows))
	}
	for _, row := range rows {
		if row[2] != "C" {
			t.Errorf("%v", row)
		}
	}
}

func TestMigratingByTheOwnerMakesTheTablesOnce(t *testing.T) {
	s := postgrestest.Start(t, postgrestest.Options{Hasty: true})
	sql(t, s, "CREATE ROLE owner LOGIN; CREATE ROLE app LOGIN; GRANT CREATE ON DATABASE postgres TO owner")
	ctx := t.Context()
	var hosts sync.WaitGroup
	for range 5 {
		db := open(t, s, "owner", "postgres")
		hosts.Go(func() {
			if err := db.Migrate(ctx, "app"); err != nil {
				t.Error(err)
			}
		})
	}
	hosts.Wait()
	dump, err := s.Dump("postgres", "--schema-only")
	must(t, err)
	must(t, open(t, s, "owner", "postgres").Migrate(ctx, ""))
	must(t, s.Restore("postgres", []byte("SET ROLE owner; "+makeTables())))
	again, err := s.Dump("postgres", "--schema-only")
	must(t, err)
	if withoutKeys(dump) != withoutKeys(again) {
		t.Error("the second migration changed something")
	}
	if rows := sql(t, s, "SELECT schema, epoch FROM upsauth.meta"); len(rows) != 1 || rows[0][0] != fmt.Sprint(SchemaVersion) {
		t.Errorf("meta has %v", rows)
	}
	state, err := open(t, s, "app", "postgres").Look(ctx)
	must(t, err)
	must(t, state.Check())
	// The owner can use them too, and doctor can say that this is more than is needed.
	state, err = open(t, s, "owner", "postgres").Look(ctx)
	must(t, err)
	must(t, state.Check())
	if !state.Excess || !state.Owns {
		t.Errorf("the owner is %+v", state)
	}
}

// Hosts give the application's role its rights again, at once.
func TestRightsAreGivenByOneAtATime(t *testing.T) {
	s := postgrestest.Start(t, postgrestest.Options{Hasty: true})
	sql(t, s, "CREATE ROLE owner LOGIN; CREATE ROLE app LOGIN; GRANT CREATE ON DATABASE postgres TO owner")
	ctx := t.Context()
	must(t, open(t, s, "owner", "postgres").Migrate(ctx, "app"))
	var hosts sync.WaitGroup
	for range 5 {
		db := open(t, s, "owner", "postgres")
		hosts.Go(func() {
			for range 10 {
				if err := db.Migrate(ctx, "app"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	hosts.Wait()
}

// withoutKeys leaves out of a dump what newer pg_dumps draw at random.
func withoutKeys(dump []byte) string {
	var kept []string
	for line := range strings.Lines(string(dump)) {
		if !strings.HasPrefix(line, `\restrict`) && !strings.HasPrefix(line, `\unrestrict`) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// What a later version adds is added to what is there, by the same text.
func TestWhatIsNewIsAdded(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	whole, err := s.Dump("postgres", "--schema-only")
	must(t, err)
	sql(t, s, aHost)
	sql(t, s, `DROP TABLE upsauth.outbox; DROP FUNCTION upsauth.drop_key; DROP INDEX upsauth.claims_open; ALTER TABLE upsauth.grants DROP COLUMN earlier;
		REVOKE UPDATE ON upsauth.grants FROM upsauth; UPDATE upsauth.meta SET schema = 0, epoch = 5`)
	must(t, s.Restore("postgres", []byte(Schema(Role))))
	again, err := s.Dump("postgres", "--schema-only")
	must(t, err)
	if withoutKeys(whole) != withoutKeys(again) {
		t.Error("the schema is another one")
	}
	rows := sql(t, s, "SELECT schema, epoch, (SELECT count(*) FROM upsauth.hosts) FROM upsauth.meta")
	if want := []string{fmt.Sprint(SchemaVersion), "5", "1"}; !slices.Equal(rows[0], want) {
		t.Errorf("the rows are %v", rows)
	}
}

// Tables of the same version that a build before the first release has made may lack a column
// or a function. Whoever uses them is told what to do, and that mends them.
func TestTablesThatLackWhatCameLater(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, _ := two(t, s)
	for what, lost := range map[string]struct {
		drop string
		use  func() error
	}{
		"a column": {"ALTER TABLE upsauth.grants DROP COLUMN earlier", func() error { _, err := a.db.Rows(t.Context(), ""); return err }},
		"a function": {"DROP FUNCTION upsauth.say_gone", func() error {
			return a.session(t, func(s *Session) error { return s.SayGone(t.Context(), keyB) })
		}},
	} {
		sql(t, s, lost.drop)
		err := lost.use()
		if e := new(Error); reasonOf(err) != OldTables || !errors.As(err, &e) || !slices.Equal(e.Do, []Act{PrintSchema}) {
			t.Errorf("%s: %v", what, err)
		}
		must(t, s.Restore("postgres", []byte(Schema(Role))))
		if err := lost.use(); err != nil {
			t.Errorf("%s is there again: %v", what, err)
		}
	}
}

// Whoever may not do it is told what somebody else has to do.
func TestRefusalsSayWhatToDo(t *testing.T) {
	s := postgrestest.Start(t, postgrestest.Options{Hasty: true})
	sql(t, s, `CREATE ROLE nobody LOGIN; CREATE ROLE "o'wn""er" LOGIN; GRANT CREATE ON DATABASE postgres TO "o'wn""er"`)
	ctx := t.Context()
	check := func(user string, want Reason, words ...string) {
		t.Helper()
		state, err := open(t, s, user, "postgres").Look(ctx)
		must(t, err)
		err = state.Check()
		text := fmt.Sprint(err)
		if e, ok := err.(*Error); ok {
			text += " " + e.Advice
			if strings.Count(e.Advice, "{}") != len(e.Do) {
				t.Errorf("%q has the acts %v", e.Advice, e.Do)
			}
		}
		if reasonOf(err) != want {
			t.Errorf("%s: %v, want %s", user, err, want)
		}
		for _, word := range words {
			if !strings.Contains(text, word) {
				t.Errorf("%s: %q does not say %q", user, text, word)
			}
		}
	}
	check("nobody", NoTables, "nobody may not make them", "administrator")
	check(`o'wn"er`, NoTables, "make them[: {}]")
	if err := open(t, s, "nobody", "postgres").Migrate(ctx, ""); reasonOf(err) != NoTables {
		t.Errorf("who may not make tables: %v", err)
	}
	if err := open(t, s, `o'wn"er`, "postgres").Migrate(ctx, "ghost"); reasonOf(err) != NoRights || !strings.Contains(err.Error(), "ghost") {
		t.Errorf("a role that is not there: %v", err)
	}
	must(t, open(t, s, `o'wn"er`, "postgres").Migrate(ctx, ""))
	check("nobody", NoRights, "USAGE on the schema", "SELECT on meta", `whose tables are o'wn"er's`)

	// A role with a strange name is no way into the SQL.
	must(t, s.Restore("postgres", []byte(Schema(`ro"le'; $role$ DROP SCHEMA upsauth CASCADE; --`))))
	check(`ro"le'; $role$ DROP SCHEMA upsauth CASCADE; --`, "")

	sql(t, s, "UPDATE upsauth.meta SET schema = 0")
	check(`o'wn"er`, StrangeTables)
	sql(t, s, fmt.Sprintf("UPDATE upsauth.meta SET schema = %d", SchemaVersion+1))
	check(`o'wn"er`, NewTables, "leaves them alone")
	before, err := s.Dump("postgres")
	must(t, err)
	if err := open(t, s, `o'wn"er`, "postgres").Migrate(ctx, ""); reasonOf(err) != NewTables {
		t.Errorf("newer tables: %v", err)
	}
	if err := s.Restore("postgres", []byte(Schema(Role))); err == nil || !strings.Contains(err.Error(), "newer upsauth") {
		t.Errorf("the printed SQL in newer tables: %v", err)
	}
	after, err := s.Dump("postgres")
	must(t, err)
	if withoutKeys(before) != withoutKeys(after) {
		t.Error("newer tables were changed")
	}
	sql(t, s, fmt.Sprintf("UPDATE upsauth.meta SET schema = %d; DROP TABLE upsauth.outbox", SchemaVersion))
	check(`o'wn"er`, StrangeTables, "outbox")

	sql(t, s, "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
	state, err := open(t, s, "postgres", "latin").Look(ctx)
	must(t, err)
	if err := state.Check(); reasonOf(err) != WrongEncoding {
		t.Errorf("a database that can't keep all names: %v", err)
	}
}

// A dump that somebody restores has to work with the same texts: it is how databases move.
func TestDatabaseSurvivesDumpAndRestore(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	ctx := t.Context()
	db := open(t, s, Role, "postgres")
	must(t, exec(ctx, db, aHost))
	must(t, exec(ctx, db, aClaim))
	dump, err := s.Dump("postgres")
	must(t, err)
	sql(t, s, "CREATE DATABASE copy")
	must(t, s.Restore("copy", dump))
	state, err := open(t, s, Role, "copy").Look(ctx)
	must(t, err)
	must(t, state.Check())
	original, err := db.Look(ctx)
	must(t, err)
	if original.Identity == state.Identity || original.Identity.System != state.Identity.System {
		t.Errorf("%s and its copy %s", original.Identity, state.Identity)
	}
}
