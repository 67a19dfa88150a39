package postgres

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// SchemaVersion is the version of the tables that this program makes and knows. From the first
// release on, a change of schema.sql raises it.
const SchemaVersion = 1

// Role is the application's role where nothing else is said.
const Role = "upsauth"

// oldestServer is what the statements need: PostgreSQL 13 has gen_random_uuid.
const oldestServer = 130000

//go:embed schema.sql
var schemaSQL string

//go:embed grants.sql
var grantsSQL string

// tables are those of the schema.
func tables() []string {
	return []string{"meta", "hosts", "readings", "companies", "histories", "history", "applications", "settings", "grants", "claims", "secrets",
		"invitations", "keys", "told", "outbox", "gone"}
}

// Schema is the whole of the SQL for an administrator: whoever runs it owns the tables, and
// the role, which is made where it is not there, may work with them. It can be run again.
func Schema(role string) string {
	name := pgx.Identifier{role}.Sanitize()
	text := "'" + strings.ReplaceAll(role, "'", "''") + "'"
	var b strings.Builder
	fmt.Fprintf(&b, "-- Made by upsauth, for version %d of its tables. Whoever runs this owns them; run it with\n", SchemaVersion)
	fmt.Fprintf(&b, "-- psql -v ON_ERROR_STOP=1 . Then give the role a password: \\password %s\n", strings.Join(strings.Fields(name), " "))
	b.WriteString("BEGIN;\n")
	b.WriteString(makeTables())
	// EXECUTE, as the name is text there: a name may have what ends a quoted block.
	fmt.Fprintf(&b, "\nSELECT set_config('upsauth.role', %s, true);\n", text)
	b.WriteString(`DO $role$
BEGIN
	IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = current_setting('upsauth.role')) THEN
		EXECUTE format('CREATE ROLE %I LOGIN', current_setting('upsauth.role'));
	END IF;
END
$role$;

`)
	b.WriteString(giveRights(role))
	b.WriteString("COMMIT;\n")
	return b.String()
}

func makeTables() string {
	return strings.ReplaceAll(schemaSQL, "{version}", strconv.Itoa(SchemaVersion))
}

func giveRights(role string) string {
	return strings.ReplaceAll(grantsSQL, "{role}", pgx.Identifier{role}.Sanitize())
}

// State is what a database is like, as far as the role may see that.
type State struct {
	Server   int    // such as 150020
	Encoding string // of the database
	Where    string // the servers that the settings name
	Database string
	Role     string
	// Latency is how long the server took to answer, Offset how far its clock is ahead of
	// this machine's, to about half of that.
	Latency, Offset time.Duration

	// FSync, FullPageWrites and Standbys are the server's settings fsync, full_page_writes
	// and synchronous_standby_names. With no Standbys a commit is lost with the server.
	FSync, FullPageWrites bool
	Standbys              string

	// Schema says that there is a schema of the name, and Version which tables are in it: 0
	// where that is unknown.
	Schema  bool
	Version int
	// Owner is who owns the schema; Owns says that the role may do what the owner may, and
	// MayCreate that it may make a schema.
	Owner           string
	Owns, MayCreate bool
	// Missing are tables that are not there, Lacking the rights that the role has not, each
	// as in "UPDATE on claims".
	Missing, Lacking []string
	// Excess says that the role may do more than it needs: remove any row.
	Excess bool

	// Identity is who the database is, where it can tell.
	Identity    Identity
	IdentityErr error
}

// Look says what a database is like. Nothing is changed. The error is an *Error or that of
// the context.
func (db *DB) Look(ctx context.Context) (State, error) {
	var s State
	err := db.Session(ctx, func(session *Session) error {
		s.Where = place(session.c.Config())
		if err := session.Do(ctx, func(tx pgx.Tx) error { return s.look(ctx, tx) }); err != nil {
			return err
		}
		if s.Version == 0 || len(s.Missing) > 0 {
			return nil
		}
		// In a transaction of its own: it may fail.
		s.IdentityErr = session.transact(ctx, func(tx pgx.Tx) (err error) {
			s.Identity, err = Identify(ctx, tx)
			return err
		})
		return nil
	})
	return s, db.settings.typed(ctx, err)
}

func (s *State) look(ctx context.Context, tx pgx.Tx) error {
	var now time.Time
	asked := time.Now()
	err := tx.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
		current_database()::text, current_user::text, current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on',
		current_setting('synchronous_standby_names'), has_database_privilege(current_database(), 'CREATE'), clock_timestamp()`).
		Scan(&s.Server, &s.Encoding, &s.Database, &s.Role, &s.FSync, &s.FullPageWrites, &s.Standbys, &s.MayCreate, &now)
	if err != nil {
		return err
	}
	s.Latency = time.Since(asked)
	s.Offset = now.Sub(asked.Add(s.Latency / 2))

	var usable bool
	err = tx.QueryRow(ctx, `SELECT pg_get_userbyid(nspowner)::text, pg_has_role(nspowner, 'USAGE'),
		has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = 'upsauth'`).Scan(&s.Owner, &s.Owns, &usable)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	s.Schema = true
	if s.Missing, err = list(ctx, tx, `SELECT wanted FROM unnest($1::text[]) AS wanted WHERE NOT EXISTS (
		SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'upsauth' AND c.relname = wanted AND c.relkind IN ('r', 'p')) ORDER BY 1`, tables()); err != nil {
		return err
	}
	if s.Lacking, err = list(ctx, tx, `SELECT privilege || ' on ' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
		unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) AS privilege
		WHERE n.nspname = 'upsauth' AND c.relname = ANY ($1) AND c.relkind IN ('r', 'p')
		AND NOT (c.relname IN ('meta', 'readings', 'gone') AND privilege = 'INSERT') AND NOT (c.relname IN ('history', 'gone') AND privilege = 'UPDATE')
		AND NOT has_any_column_privilege(c.oid, privilege)
		UNION ALL SELECT 'EXECUTE on ' || p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
		WHERE n.nspname = 'upsauth' AND p.prorettype <> 'trigger'::regtype AND NOT has_function_privilege(p.oid, 'EXECUTE') ORDER BY 1`, tables()); err != nil {
		return err
	}
	if !usable {
		s.Lacking = append([]string{"USAGE on the schema"}, s.Lacking...)
	}
	excess, err := list(ctx, tx, `SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'upsauth' AND c.relname = ANY ($1) AND has_table_privilege(c.oid, 'DELETE, TRUNCATE')`, tables())
	if err != nil {
		return err
	}
	s.Excess = len(excess) > 0

	var mayRead bool
	err = tx.QueryRow(ctx, `SELECT has_table_privilege(c.oid, 'SELECT') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'upsauth' AND c.relname = 'meta' AND c.relkind IN ('r', 'p')`).Scan(&mayRead)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && !(mayRead && usable) {
		return nil
	}
	if err != nil {
		return err
	}
	err = tx.QueryRow(ctx, "SELECT schema FROM upsauth.meta").Scan(&s.Version)
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	return err
}

func list(ctx context.Context, tx pgx.Tx, query string, args ...any) ([]string, error) {
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// Check returns nil where a vault can be in the database as it is, otherwise an *Error with
// what is wrong first.
func (s State) Check() error {
	if err := s.checkServer(); err != nil {
		return err
	}
	if err := s.checkTables(); err != nil {
		return err
	}
	switch {
	case !s.Schema:
		e := &Error{Reason: NoTables, Role: s.Role, What: fmt.Sprintf("the database %s has no tables of a shared vault", s.Database)}
		if s.MayCreate {
			e.Advice, e.Do = "make them[: {}]", []Act{Migrate}
			return e
		}
		e.What += fmt.Sprintf(", and the role %s may not make them", s.Role)
		e.Advice, e.Do = "have an administrator of the database run [the SQL that {} prints|the SQL of the shared vault]", []Act{PrintSchema}
		return e
	case s.Version == 0:
		return s.lacksRights()
	case s.Version < SchemaVersion:
		e := &Error{Reason: OldTables, Role: s.Role, What: fmt.Sprintf("the tables in the database %s are of version %d; this upsauth needs version %d", s.Database, s.Version, SchemaVersion)}
		if s.Owns {
			e.Advice, e.Do = "add what is new[: {}]. Hosts with an earlier upsauth go on", []Act{Migrate}
			return e
		}
		e.What += fmt.Sprintf(", which their owner %s alone can make of them", s.Owner)
		e.Advice, e.Do = "have the owner of the tables run [the SQL that {} prints|the SQL of the shared vault]. Hosts with an earlier upsauth go on", []Act{PrintSchema}
		return e
	case len(s.Lacking) > 0:
		return s.lacksRights()
	}
	return s.IdentityErr
}

func (s State) checkServer() error {
	if s.Server < oldestServer {
		return &Error{Reason: TooOld,
			What:   fmt.Sprintf("the server is PostgreSQL %d; a shared vault needs %d or later", s.Server/10000, oldestServer/10000),
			Advice: "use a newer server",
		}
	}
	if s.Encoding != "UTF8" {
		return &Error{Reason: WrongEncoding,
			What:   fmt.Sprintf("the database %s has the encoding %s, which can't keep every company's name", s.Database, s.Encoding),
			Advice: "make another database: CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8'",
		}
	}
	return nil
}

// checkTables refuses tables that no migration is to touch.
func (s State) checkTables() error {
	switch {
	case s.Version > SchemaVersion:
		return &Error{Reason: NewTables,
			What:   fmt.Sprintf("the tables in the database %s are of version %d, which a newer upsauth made; this one knows version %d and leaves them alone", s.Database, s.Version, SchemaVersion),
			Advice: "upgrade upsauth on this machine",
		}
	case s.Schema && len(s.Missing) > 0 && (s.Version == 0 || s.Version == SchemaVersion):
		return &Error{Reason: StrangeTables,
			What:   fmt.Sprintf("the schema upsauth in the database %s is not whole: it has no %s", s.Database, strings.Join(s.Missing, ", ")),
			Advice: "if it belongs to another program, use another database; if tables were lost, restore them from a backup before anything else",
		}
	}
	return nil
}

func (s State) lacksRights() error {
	if len(s.Lacking) == 0 {
		return &Error{Reason: StrangeTables,
			What:   fmt.Sprintf("the table meta in the database %s is empty", s.Database),
			Advice: "restore the tables from a backup",
		}
	}
	return &Error{Reason: NoRights, Role: s.Role,
		What:   fmt.Sprintf("the role %s lacks rights in the database %s, whose tables are %s's: %s", s.Role, s.Database, s.Owner, strings.Join(s.Lacking, ", ")),
		Advice: "have the owner of the tables run [the SQL that {} prints|the SQL of the shared vault]", Do: []Act{PrintSchema},
	}
}

// Migrate makes the tables, or adds to earlier ones what is new, and lets a role work with
// them; an empty one, or the role of the connection itself, is let alone. Where there is
// nothing to do, nothing is done. The error is an *Error where the tables can't be as they
// have to be.
func (db *DB) Migrate(ctx context.Context, role string) error {
	s, err := db.Look(ctx)
	if err != nil {
		return err
	}
	if err := s.checkServer(); err != nil {
		return err
	}
	if err := s.checkTables(); err != nil {
		return err
	}
	if s.Schema && !s.Owns || !s.Schema && !s.MayCreate {
		return s.Check()
	}
	err = db.Do(ctx, func(tx pgx.Tx) error {
		if s.Version < SchemaVersion {
			if _, err := tx.Exec(ctx, makeTables()); err != nil {
				return err
			}
		}
		if role == "" || role == s.Role {
			return nil
		}
		var there bool
		if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role).Scan(&there); err != nil {
			return err
		}
		if !there {
			return &Error{Reason: NoRights, Role: role,
				What:   fmt.Sprintf("the database has no role %s", role),
				Advice: "make the role (CREATE ROLE … LOGIN) and give it a password, or have an administrator run [the SQL that {} prints|the SQL of the shared vault]",
				Do:     []Act{PrintSchema},
			}
		}
		_, err := tx.Exec(ctx, giveRights(role))
		return err
	})
	if code(err) == "UA001" {
		// Another host was faster, with a newer upsauth.
		if s, lookErr := db.Look(ctx); lookErr == nil {
			return s.checkTables()
		}
	}
	return err
}
