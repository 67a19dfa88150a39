package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/goleak"

	"github.com/upsauth/upsauth/internal/postgrestest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// until repeats a query of the superuser's until it returns what is wanted.
func until(t *testing.T, s *postgrestest.Server, query, want string) {
	t.Helper()
	giveUp := time.After(time.Minute)
	for {
		rows := sql(t, s, query)
		if len(rows) == 1 && rows[0][0] == want {
			return
		}
		select {
		case <-giveUp:
			t.Fatalf("%s is %v, not %s", query, rows, want)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

const ours = `FROM pg_stat_activity WHERE application_name = 'upsauth'`

func TestTwoConnectionsAtMost(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	db, ctx := open(t, s, Role, "postgres"), t.Context()
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			for range 10 {
				var n int
				err := db.Do(ctx, func(tx pgx.Tx) error { return tx.QueryRow(ctx, "SELECT count(*) "+ours).Scan(&n) })
				if err != nil || n > maxConns {
					t.Errorf("%d connections, %v", n, err)
				}
			}
		})
	}
	callers.Wait()
	db.Close()
	until(t, s, "SELECT count(*) "+ours, "0")
	// One who waits for a seat does not wait longer than its context.
	must(t, db.Session(ctx, func(*Session) error {
		return db.Session(ctx, func(*Session) error {
			short, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			if err := exec(short, db, "SELECT 1"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("without a seat: %v", err)
			}
			return nil
		})
	}))
}

// Whatever a role, a database or a pooler has set, a write of the rules is durable.
func TestEachTransactionBringsItsSettings(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	for name, value := range map[string]string{"synchronous_commit": "off", "client_min_messages": "error", "search_path": "public",
		"default_transaction_isolation": "serializable", "lock_timeout": "0", "standard_conforming_strings": "on"} {
		sql(t, s, fmt.Sprintf("ALTER ROLE %s SET %s = '%s'", Role, name, value))
	}
	db, ctx := open(t, s, Role, "postgres"), t.Context()
	for range 2 {
		must(t, db.Do(ctx, func(tx pgx.Tx) error {
			for name, want := range map[string]string{"synchronous_commit": "on", "client_min_messages": "warning",
				"search_path": "pg_catalog, pg_temp", "transaction_isolation": "read committed", "lock_timeout": "10s", "transaction_read_only": "off"} {
				var got string
				if err := tx.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&got); err != nil {
					return err
				}
				if got != want {
					t.Errorf("%s is %q", name, got)
				}
			}
			return nil
		}))
	}
	// Nothing of it stays in the session.
	must(t, db.Session(ctx, func(session *Session) error {
		var got string
		err := session.c.QueryRow(ctx, "SELECT current_setting('search_path')").Scan(&got)
		if got != "public" {
			t.Errorf("the session has %q", got)
		}
		return err
	}))
}

func TestFateOfATransaction(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	db, ctx := open(t, s, Role, "postgres"), t.Context()
	if err := exec(ctx, db, aHost); FateOf(err) != Committed {
		t.Fatal(err)
	}
	if err := exec(ctx, db, aHost); FateOf(err) != NotCommitted || code(err) != "23505" {
		t.Errorf("the same row again: %v", err)
	}
	own := errors.New("its own")
	if err := db.Do(ctx, func(tx pgx.Tx) error { return own }); !errors.Is(err, own) || FateOf(err) != NotCommitted {
		t.Errorf("an error of the caller: %v", err)
	}
	// The caller that overlooks an error has it told by the commit.
	err := db.Do(ctx, func(tx pgx.Tx) error {
		_, _ = tx.Exec(ctx, "SELECT 1/0")
		return nil
	})
	if FateOf(err) != NotCommitted || err == nil {
		t.Errorf("an error that was overlooked: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	err = db.Do(ctx, func(pgx.Tx) error { cancel(); return nil })
	must(t, err)
	if err := exec(ended, db, "SELECT 1"); FateOf(err) != NotCommitted || err == nil {
		t.Errorf("a context that has ended: %v", err)
	}
	if rows := sql(t, s, "SELECT count(*) FROM upsauth.hosts"); rows[0][0] != "1" {
		t.Errorf("there are %v hosts", rows)
	}
}

// waiting begins a commit that waits for a standby which stands still.
func waiting(ctx context.Context, t *testing.T, s, standby *postgrestest.Server, db *DB) <-chan error {
	t.Helper()
	must(t, standby.Pause())
	done := make(chan error, 1)
	go func() { done <- exec(ctx, db, aHost) }()
	until(t, s, "SELECT count(*) "+ours+" AND wait_event = 'SyncRep'", "1")
	return done
}

// A commit that did not reach the standby returns success with a warning, or not at all.
// Who believed it would send a token that the next primary knows nothing of.
func TestCommitThatDoesNotReachTheStandbyIsUnknown(t *testing.T) {
	s := server(t, postgrestest.Options{})
	// The warning is heard even where the role wants to hear none.
	sql(t, s, "ALTER ROLE upsauth SET client_min_messages = error")
	standby, err := s.Standby()
	must(t, err)
	must(t, s.Synchronous(standby))
	for name, end := range map[string]func(cancel func()){
		"cancelled by a person":   func(func()) { sql(t, s, "SELECT pg_cancel_backend(pid) "+ours) },
		"session ended by person": func(func()) { sql(t, s, "SELECT pg_terminate_backend(pid) "+ours) },
		"given up by the caller":  func(cancel func()) { cancel() },
		"server killed": func(func()) {
			must(t, s.Kill())
		},
	} {
		t.Run(name, func(t *testing.T) {
			sqlIfUp(s, "SET synchronous_commit = local; DELETE FROM upsauth.hosts")
			db := open(t, s, Role, "postgres")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := waiting(ctx, t, s, standby, db)
			end(cancel)
			if err := <-done; FateOf(err) != Unknown {
				t.Errorf("got %v", err)
			}
			must(t, standby.Resume())
			must(t, s.Restart())
			until(t, s, "SELECT count(*) FROM upsauth.hosts", "1")
			until(t, s, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'", "1")
			// The caller repeats it on a new connection.
			if err := exec(t.Context(), db, aHost+" ON CONFLICT DO NOTHING"); err != nil {
				t.Error(err)
			}
		})
	}
}

func sqlIfUp(s *postgrestest.Server, statements string) { _, _ = s.SQL("postgres", statements) }

// A connection to a server that was primary must not be used for another word.
func TestConnectionsEndWithTheirServer(t *testing.T) {
	s := server(t, postgrestest.Options{})
	standby, err := s.Standby()
	must(t, err)
	sql(t, s, "ALTER ROLE upsauth PASSWORD 'pw'")
	until(t, standby, "SELECT count(*) FROM pg_authid WHERE rolname = 'upsauth' AND rolpassword IS NOT NULL", "1")
	both := fmt.Sprintf("postgres://upsauth:pw@%s:%d,%s:%d/postgres?sslmode=disable", s.Host(), s.Port(), standby.Host(), standby.Port())
	db, ctx := Open(Settings{URL: both, Private: true}), t.Context()
	t.Cleanup(db.Close)
	identify := func() (i Identity) {
		t.Helper()
		must(t, db.Do(ctx, func(tx pgx.Tx) (err error) {
			i, err = Identify(ctx, tx)
			return err
		}))
		return i
	}
	fill := func() { // both seats
		t.Helper()
		must(t, db.Session(ctx, func(*Session) error { identify(); return nil }))
	}
	first := identify()
	fill()
	// Restarted: the dead connections are noticed at the next transaction's beginning.
	must(t, s.Restart())
	fill()
	if again := identify(); again != first {
		t.Errorf("%s became %s by a restart", first, again)
	}
	// Writes are refused from now on.
	must(t, s.Set(map[string]string{"default_transaction_read_only": "on"}))
	err = exec(ctx, db, "SET TRANSACTION READ ONLY; "+aHost)
	if code(err) != "25006" {
		t.Errorf("got %v", err)
	}
	until(t, s, "SELECT count(*) "+ours, "0")
	must(t, s.Set(map[string]string{"default_transaction_read_only": "off"}))
	// The standby takes over.
	fill()
	must(t, s.Kill())
	must(t, standby.Promote())
	if now := identify(); now.System != first.System || now.Timeline != first.Timeline+1 || now.Claims != first.Claims {
		t.Errorf("%s became %s by a promotion", first, now)
	}
	// The password changes: the error is told at the next connect, and one that was corrected
	// counts at once.
	sql(t, standby, "ALTER ROLE upsauth PASSWORD 'other'; SELECT pg_terminate_backend(pid) "+ours)
	if err := exec(ctx, db, "SELECT 1"); reasonOf(err) != Refused || strings.Contains(err.Error(), "pw") {
		t.Errorf("an old password: %v", err)
	}
}

func TestPasswordFileIsReadBeforeEachConnect(t *testing.T) {
	home := noLibpq(t)
	s := server(t, postgrestest.Options{Hasty: true})
	write := func(password string) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(home, ".pgpass"), []byte("*:*:*:upsauth:"+password+"\n"), 0o600))
	}
	sql(t, s, "ALTER ROLE upsauth PASSWORD 'first'")
	write("first")
	db, ctx := Open(Settings{URL: s.URL(Role, "", "postgres")}), t.Context()
	t.Cleanup(db.Close)
	must(t, exec(ctx, db, "SELECT 1"))
	sql(t, s, "ALTER ROLE upsauth PASSWORD 'second'; SELECT pg_terminate_backend(pid) "+ours)
	write("second")
	must(t, exec(ctx, db, "SELECT 1"))
}

// A dump that is restored in place changes nothing but the oid of the tables.
func TestDumpRestoredInPlaceIsAnotherDatabase(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	db, ctx := open(t, s, Role, "postgres"), t.Context()
	before, err := db.Look(ctx)
	must(t, err)
	dump, err := s.Dump("postgres", "--clean")
	must(t, err)
	must(t, s.Restore("postgres", dump))
	after, err := db.Look(ctx)
	must(t, err)
	must(t, after.Check())
	if before.Identity == after.Identity || before.Identity.Database != after.Identity.Database {
		t.Errorf("%s became %s", before.Identity, after.Identity)
	}
}

func TestWhyThereIsNoConnection(t *testing.T) {
	noLibpq(t)
	s := server(t, postgrestest.Options{TLS: true})
	standby, err := s.Standby()
	must(t, err)
	sql(t, s, "CREATE DATABASE closed")
	sql(t, s, "ALTER ROLE upsauth PASSWORD 's3cretpw'; REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
	until(t, standby, "SELECT count(*) FROM pg_database WHERE datname = 'closed'", "1")
	until(t, standby, "SELECT count(*) FROM pg_authid WHERE rolname = 'upsauth' AND rolpassword IS NOT NULL", "1")
	good := s.URL(Role, "s3cretpw", "postgres")
	t.Run("address", func(t *testing.T) {
		for name, test := range map[string]struct {
			url   string
			want  Reason
			words string
		}{
			"good":           {good, "", ""},
			"wrong password": {s.URL(Role, "s3cretpw2", "postgres"), Refused, "upsauth"},
			"no such user":   {s.URL("ghost", "s3cretpw", "postgres"), Refused, "ghost"},
			"no database":    {s.URL(Role, "s3cretpw", "nowhere"), Refused, "nowhere"},
			"no right":       {s.URL(Role, "s3cretpw", "closed"), Refused, "closed"},
			"certificate":    {strings.Split(good, "&sslrootcert")[0], Untrusted, "can't be trusted: certificate signed by"},
			"a setting":      {good + "&foo=bar", Refused, `"foo"`},
			"another place":  {strings.Replace(good, s.Host(), "localhost", 1), Away, "localhost"},
			"standby":        {standby.URL(Role, "s3cretpw", "postgres"), ReadOnly, "standby"},
			"nobody there":   {strings.Replace(good, fmt.Sprint(s.Port()), "1", 1), Away, "refused"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel() // some wait as long as their patience
				db := Open(Settings{URL: test.url, Private: true, Patience: 2 * time.Second})
				t.Cleanup(db.Close)
				err := exec(t.Context(), db, "SELECT 1")
				if reasonOf(err) != test.want || err != nil && !strings.Contains(err.Error(), test.words) {
					t.Errorf("got %q: %v", reasonOf(err), err)
				}
				if FateOf(err) == Unknown {
					t.Error("what never began is unknown")
				}
				for e := err; e != nil; e = errors.Unwrap(e) {
					if text := fmt.Sprintf("%v %+v %#v", e, e, e); strings.Contains(text, "s3cretpw") {
						t.Errorf("the error has the password: %s", text)
					}
				}
			})
		}
	})
	// A database that comes back in time is waited for.
	must(t, s.Kill())
	db := Open(Settings{URL: good, Private: true, Patience: time.Minute})
	t.Cleanup(db.Close)
	done := make(chan error, 1)
	go func() { done <- exec(t.Context(), db, "SELECT 1") }()
	must(t, s.Restart())
	must(t, <-done)
}

// Behind a pooler each transaction may find itself in another session.
func TestThroughAPoolerInTransactionMode(t *testing.T) {
	noLibpq(t)
	s := server(t, postgrestest.Options{TLS: true})
	sql(t, s, "ALTER ROLE upsauth PASSWORD 'pw'; CREATE ROLE owner LOGIN PASSWORD 'own'; GRANT CREATE ON DATABASE postgres TO owner; DROP SCHEMA upsauth CASCADE")
	pooler, err := s.Pooler(map[string]string{Role: "pw", "owner": "own"})
	must(t, err)
	ctx := t.Context()
	connect := func(user string) *DB {
		db := Open(Settings{URL: pooler.URL(user, "postgres"), Private: true, Patience: time.Minute})
		t.Cleanup(db.Close)
		return db
	}
	must(t, connect("owner").Migrate(ctx, Role))
	state, err := connect(Role).Look(ctx)
	must(t, err)
	must(t, state.Check())
	must(t, exec(ctx, connect(Role), aHost))
	// Five hosts with ten connections share the pooler's two sessions, whose server is
	// killed meanwhile.
	var hosts sync.WaitGroup
	var mu sync.Mutex
	committed, unknown := 0, 0
	for host := range 5 {
		db := connect(Role)
		for worker := range 2 {
			hosts.Go(func() {
				var last error
				defer func() {
					if last != nil {
						t.Logf("the last error: %v", last)
					}
				}()
				for i := range 40 {
					err := exec(ctx, db, `INSERT INTO upsauth.claims (number, token_vault_key, generation, attempt, sends_generation, sends_attempt, nonce, purpose, host, incarnation, epoch, detail)
						VALUES ($5, $1, $2, 1, 0, 0, $3, 'refresh', 'h1', 1, 1, $4)`,
						fmt.Sprintf("%d-%d", host, worker), i, fmt.Sprintf("nonce of %d-%d number %d", host, worker, i), fmt.Sprintf(`{"n": %d}`, i), 1000*host+100*worker+i+1)
					if err != nil {
						last = err
					}
					mu.Lock()
					switch FateOf(err) {
					case Committed:
						committed++
					case Unknown:
						unknown++
					}
					if host == 0 && worker == 0 && i == 10 {
						err := errors.Join(s.Kill(), s.Restart())
						if err != nil {
							t.Error(err)
						}
					}
					mu.Unlock()
				}
			})
		}
	}
	hosts.Wait()
	var kept int
	until(t, s, "SELECT 1", "1")
	if _, err := fmt.Sscan(sql(t, s, "SELECT count(*) FROM upsauth.claims")[0][0], &kept); err != nil {
		t.Fatal(err)
	}
	if kept < committed || kept > committed+unknown || committed < 200 {
		t.Errorf("%d rows of %d commits and %d unknown ones", kept, committed, unknown)
	}
	t.Logf("%d rows, %d commits, %d unknown", kept, committed, unknown)
}

// A server that stands still, as a virtual machine that is moved, holds nobody up for longer
// than its context.
func TestServerThatStandsStill(t *testing.T) {
	s := server(t, postgrestest.Options{})
	db := open(t, s, Role, "postgres")
	must(t, exec(t.Context(), db, aHost))
	ctx, cancel := context.WithCancel(t.Context())
	err := db.Do(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, aClaim); err != nil {
			return err
		}
		must(t, s.Pause())
		time.AfterFunc(500*time.Millisecond, cancel)
		return nil
	})
	if FateOf(err) != Unknown {
		t.Errorf("a commit that nobody answers: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := exec(short, db, aClaim); FateOf(err) != NotCommitted || reasonOf(err) != Away {
		t.Errorf("a beginning that nobody answers: %v", err)
	}
	must(t, s.Resume())
	// It was committed once the server went on.
	until(t, s, "SELECT count(*) FROM upsauth.claims", "1")
}

// A request to UPS that can't be cancelled any more has a context without an end. The server
// holds it up for a time at every step of a transaction, and no longer.
func TestServerThatStandsStillEndsWhatNothingCancels(t *testing.T) {
	s := server(t, postgrestest.Options{})
	db, ctx := open(t, s, Role, "postgres"), t.Context()
	db.longest = 500 * time.Millisecond
	pause := func() { must(t, s.Pause()) }
	fate := func(err error, want Fate) {
		t.Helper()
		must(t, s.Resume())
		if FateOf(err) != want || want == NotCommitted && reasonOf(err) != Away {
			t.Errorf("got %v", err)
		}
	}
	must(t, exec(ctx, db, aHost))
	pause()
	fate(exec(ctx, db, aClaim), NotCommitted)
	fate(db.Transact(ctx, func(tx pgx.Tx) error {
		pause()
		_, err := tx.Exec(ctx, aClaim)
		return err
	}), NotCommitted)
	fate(db.Transact(ctx, func(pgx.Tx) error { pause(); return nil }), Unknown)
	must(t, exec(ctx, db, "SELECT 1"))
	pause()
	_, err := db.Bare(ctx, "")
	fate(err, NotCommitted)
	if rows, err := db.Bare(ctx, ""); err != nil || rows != nil {
		t.Errorf("a server that goes on: %v, %v", rows, err)
	}
}

// A server that dies in the middle of a transaction has not committed it. Over a socket, the
// commit then finds nobody and was not sent; over TCP it is sent, and nobody knows.
func TestServerThatDies(t *testing.T) {
	s := server(t, postgrestest.Options{})
	db, ctx := open(t, s, Role, "postgres"), t.Context()
	err := db.Do(ctx, func(tx pgx.Tx) error {
		must(t, s.Kill())
		_, err := tx.Exec(ctx, aHost)
		return err
	})
	if err == nil || FateOf(err) != NotCommitted {
		t.Errorf("in the middle: %v", err)
	}
	must(t, s.Restart())
	sql(t, s, "ALTER ROLE upsauth PASSWORD 'pw'")
	overTCP := Open(Settings{URL: s.URL(Role, "pw", "postgres"), Private: true})
	t.Cleanup(overTCP.Close)
	for db, want := range map[*DB]Fate{db: NotCommitted, overTCP: Unknown} {
		err = db.Do(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, aHost)
			must(t, s.Kill())
			return err
		})
		if FateOf(err) != want || err == nil {
			t.Errorf("at the commit: %v", err)
		}
		must(t, s.Restart())
		if rows := sql(t, s, "SELECT count(*) FROM upsauth.hosts"); rows[0][0] != "0" {
			t.Error("it was committed")
		}
	}
	must(t, exec(ctx, db, aHost))
}

// Who listens at a loopback port while the database is down may be any user of the machine.
func TestNobodyAtALoopbackPortGetsThePassword(t *testing.T) {
	noLibpq(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	got := make(chan string, 1)
	asked := false // for the password, before got is closed
	go func() {
		defer close(got)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		listener.Close() // whoever tries again finds nobody
		backend := pgproto3.NewBackend(conn, conn)
		if _, err := backend.ReceiveStartupMessage(); err != nil {
			return
		}
		backend.Send(&pgproto3.AuthenticationCleartextPassword{})
		if backend.Flush() != nil || backend.SetAuthType(pgproto3.AuthTypeCleartextPassword) != nil {
			return
		}
		asked = true
		if message, err := backend.Receive(); err == nil {
			got <- fmt.Sprintf("%#v", message)
		}
	}()
	db := Open(Settings{URL: "postgres://u:s3cretpw@" + listener.Addr().String() + "/d?sslmode=disable", Private: true, Patience: 2 * time.Second})
	defer db.Close()
	if err := exec(t.Context(), db, "SELECT 1"); err == nil {
		t.Error("it was taken for a database")
	}
	listener.Close()
	if message := <-got; strings.Contains(message, "s3cretpw") || !asked {
		t.Errorf("it got %q; it asked: %t", message, asked)
	}
}

func TestLocalhostIsThisMachine(t *testing.T) {
	answers := func(addresses ...string) func(context.Context, string) ([]string, error) {
		return localhostIsHere(func(context.Context, string) ([]string, error) { return addresses, nil })
	}
	if found, err := answers("10.0.0.1", "::1", "127.0.0.1")(t.Context(), "localhost"); err != nil || fmt.Sprint(found) != "[::1 127.0.0.1]" {
		t.Errorf("got %v, %v", found, err)
	}
	if found, err := answers("10.0.0.1")(t.Context(), "localhost"); err == nil {
		t.Errorf("got %v", found)
	}
	if found, err := answers("10.0.0.1")(t.Context(), "db.example"); err != nil || len(found) != 1 {
		t.Errorf("got %v, %v", found, err)
	}
}

func BenchmarkTransaction(b *testing.B) {
	noLibpq(b)
	s := postgrestest.Start(b, postgrestest.Options{TLS: true, Disk: true})
	must(b, s.Restore("postgres", []byte(Schema(Role))))
	_, err := s.SQL("postgres", "ALTER ROLE upsauth PASSWORD 'pw'")
	must(b, err)
	pooler, err := s.Pooler(map[string]string{Role: "pw"})
	must(b, err)
	for name, url := range map[string]string{"socket": s.SocketURL(Role, "postgres"), "tls": s.URL(Role, "pw", "postgres"), "pooler": pooler.URL(Role, "postgres")} {
		for what, statement := range map[string]string{"read": "SELECT epoch FROM upsauth.meta", "write": "UPDATE upsauth.meta SET epoch = epoch"} {
			b.Run(name+"/"+what, func(b *testing.B) {
				db := Open(Settings{URL: url, Private: true})
				defer db.Close()
				for b.Loop() {
					must(b, exec(b.Context(), db, statement))
				}
			})
		}
		b.Run(name+"/connect", func(b *testing.B) {
			for b.Loop() {
				db := Open(Settings{URL: url, Private: true})
				must(b, exec(b.Context(), db, "SELECT 1"))
				db.Close()
			}
		})
	}
}

// A commit that waits for a standby that is away does not keep its caller for ever, and the
// next one has a connection again.
func TestCommitThatNobodyAnswersEnds(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	db := Open(Settings{URL: s.SocketURL("postgres", "postgres"), CommitPatience: 200 * time.Millisecond})
	t.Cleanup(db.Close)
	must(t, exec(t.Context(), db, "CREATE TABLE public.slow (n int)"))
	must(t, s.Set(map[string]string{"synchronous_standby_names": "nobody"}))
	var err error
	for giveUp := time.Now().Add(time.Minute); err == nil && time.Now().Before(giveUp); { // the server reads its settings soon
		err = exec(t.Context(), db, "INSERT INTO public.slow VALUES (0)")
	}
	if unknown := new(UnknownError); !errors.As(err, &unknown) || !strings.Contains(err.Error(), "synchronous standby is away") {
		t.Fatalf("the commit ended with %v", err)
	}
	must(t, s.Set(map[string]string{"synchronous_standby_names": ""}))
	until(t, s, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", "0")
	must(t, exec(t.Context(), db, "INSERT INTO public.slow VALUES (1)"))
}

// A name with several addresses has a cause for each; the first is told, without the settings.
func TestCauseOfAConnectThatFailed(t *testing.T) {
	for text, want := range map[string]string{
		"failed to connect to `user=u database=d`:\n\t127.0.0.1:6432 (localhost): no password here\n\t[::1]:6432 (localhost): nobody": "no password here",
		"failed to connect to `user=u database=d`: hostname resolving error: no such host":                                            "hostname resolving error: no such host",
		"failed to connect to `user=u database=d`: 127.0.0.1:6432 (localhost): nobody":                                                "nobody",
	} {
		if got := short(errors.New(text)); got != want {
			t.Errorf("%q is %q, not %q", text, got, want)
		}
	}
}
