package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/upsauth/upsauth/internal/realpart"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// one runs statements that return one value.
func one(t *testing.T, s *Server, statements string) string {
	t.Helper()
	rows, err := s.SQL("postgres", statements)
	check(t, err)
	if len(rows) != 1 || len(rows[0]) != 1 {
		t.Fatalf("%s returned %v", statements, rows)
	}
	return rows[0][0]
}

func TestServersAreDifferentDatabases(t *testing.T) {
	a, b := Start(t, Options{Disk: true}), Start(t, Options{Hasty: true})
	const query = "SELECT system_identifier FROM pg_control_system()"
	if one(t, a, query) == one(t, b, query) {
		t.Error("two clusters have one system identifier")
	}
	if a, b := one(t, a, "SHOW fsync"), one(t, b, "SHOW fsync"); a != "on" || b != "off" {
		t.Errorf("fsync is %s and %s", a, b)
	}
}

func TestKillAndRestartKeepWhatWasCommitted(t *testing.T) {
	s := Start(t, Options{})
	one(t, s, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1); SELECT 1")
	for i, end := range []func() error{s.Kill, s.Stop, s.StopImmediately, s.Kill} {
		check(t, end())
		if _, err := s.SQL("postgres", "SELECT 1"); err == nil {
			t.Fatal("a server that has ended answers")
		}
		check(t, s.Restart())
		if n := one(t, s, "INSERT INTO kept VALUES (1); SELECT count(*) FROM kept"); n != fmt.Sprint(i+2) {
			t.Errorf("there are %s rows after %d ends", n, i+1)
		}
	}
}

func TestPausedServerAnswersLater(t *testing.T) {
	s := Start(t, Options{Hasty: true})
	ctx := t.Context()
	conn, err := s.connect(ctx, "postgres")
	check(t, err)
	defer conn.Close(ctx)
	check(t, s.Pause())
	answered := make(chan error, 1)
	asked := make(chan struct{})
	go func() {
		close(asked)
		_, err := conn.Exec(ctx, "SELECT 1").ReadAll()
		answered <- err
	}()
	<-asked
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if conn, err := s.connect(short, "postgres"); err == nil {
		conn.Close(ctx)
		t.Error("a server that stands still takes a connection")
	}
	select {
	case err := <-answered:
		t.Errorf("a session that stands still answers (%v)", err)
	default:
	}
	check(t, s.Resume())
	check(t, <-answered)
}

func TestStandbyIsPromoted(t *testing.T) {
	s := Start(t, Options{})
	one(t, s, "CREATE TABLE kept (n int); SELECT 1")
	standby, err := s.Standby()
	check(t, err)
	check(t, s.Synchronous(standby))
	one(t, s, "INSERT INTO kept VALUES (1); SELECT 1")
	if _, err := standby.SQL("postgres", "INSERT INTO kept VALUES (2)"); !hasCode(err, "25006") {
		t.Errorf("a standby that is written to says %v", err)
	}
	check(t, s.Kill())
	check(t, standby.Promote())
	if n := one(t, standby, "INSERT INTO kept VALUES (2); SELECT count(*) FROM kept"); n != "2" {
		t.Errorf("the new primary has %s rows", n)
	}
	const timeline = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
	if got := one(t, standby, timeline); got != "00000002" {
		t.Errorf("its timeline is %s", got)
	}
}

// A commit that waits for a standby returns once nobody is to wait any more.
func TestSynchronousCommitWaits(t *testing.T) {
	s := Start(t, Options{})
	one(t, s, "CREATE TABLE kept (n int); SELECT 1")
	standby, err := s.Standby()
	check(t, err)
	check(t, s.Synchronous(standby))
	check(t, standby.Pause())
	done := make(chan error, 1)
	go func() {
		_, err := s.SQL("postgres", "INSERT INTO kept VALUES (1)")
		done <- err
	}()
	check(t, await(s.process, "the commit", func(ctx context.Context) error {
		rows, err := s.sql(ctx, "postgres", "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
		if err == nil && len(rows) == 0 {
			err = errors.New("nobody waits for the standby")
		}
		return err
	}))
	check(t, standby.Resume())
	check(t, <-done)
}

func TestVerifiedTLSWithPasswordsThroughThePooler(t *testing.T) {
	s := Start(t, Options{TLS: true})
	one(t, s, "CREATE ROLE app LOGIN PASSWORD 'app''s password'; SELECT 1")
	pooler, err := s.Pooler(map[string]string{"app": "app's password"})
	realpart.Must(t, err)
	ctx := t.Context()
	for _, address := range []string{s.URL("app", "app's password", "postgres"), pooler.URL("app", "postgres")} {
		conn, err := pgconn.Connect(ctx, address)
		check(t, err)
		results, err := conn.Exec(ctx, "SELECT ssl, current_user FROM pg_stat_ssl WHERE pid = pg_backend_pid()").ReadAll()
		check(t, err)
		if row := results[0].Rows[0]; string(row[0]) != "t" || string(row[1]) != "app" {
			t.Errorf("the session is %s", row)
		}
		check(t, conn.Close(ctx))
		if _, err := pgconn.Connect(ctx, strings.Replace(address, "app%27s%20password", "wrong", 1)); !hasCode(err, "28P01") && !hasCode(err, "08P01") {
			t.Errorf("a wrong password is told as %v", err)
		}
		if _, err := pgconn.Connect(ctx, strings.Replace(address, "verify-full", "disable", 1)); err == nil {
			t.Error("a connection without TLS was taken")
		}
		if _, err := pgconn.Connect(ctx, strings.Split(address, "&sslrootcert")[0]); err == nil {
			t.Error("nobody checked the certificate")
		}
	}
	// A pooler that outlives its server finds it again.
	check(t, s.Kill())
	check(t, s.Restart())
	check(t, await(s.process, "the pooler", func(ctx context.Context) error {
		conn, err := pgconn.Connect(ctx, pooler.URL("app", "postgres"))
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, "SELECT 1").ReadAll()
		return errors.Join(err, conn.Close(ctx))
	}))
}

func TestDumpIsRestored(t *testing.T) {
	s := Start(t, Options{Hasty: true})
	one(t, s, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7); SELECT 1")
	dump, err := s.Dump("postgres")
	check(t, err)
	_, err = s.SQL("postgres", "CREATE DATABASE other")
	check(t, err)
	check(t, s.Restore("other", dump))
	rows, err := s.SQL("other", "SELECT n FROM kept")
	check(t, err)
	if len(rows) != 1 || rows[0][0] != "7" {
		t.Errorf("the copy has %v", rows)
	}
	if err := s.Restore("other", dump); err == nil {
		t.Error("a dump was restored over what is there")
	}
}

func TestSettingsChangeWhileItRuns(t *testing.T) {
	s := Start(t, Options{Hasty: true, Settings: map[string]string{"idle_session_timeout": "0"}})
	check(t, s.Set(map[string]string{"statement_timeout": "1234ms"}))
	if got := one(t, s, "SHOW statement_timeout"); got != "1234ms" {
		t.Errorf("the setting is %s", got)
	}
	check(t, s.Set(map[string]string{"statement_timeout": ""}))
	if got := one(t, s, "SHOW statement_timeout"); got != "0" {
		t.Errorf("the setting is still %s", got)
	}
}

func TestNothingIsLeft(t *testing.T) {
	for name, end := range map[string]func(*Server) error{
		"running": func(*Server) error { return nil },
		"stopped": (*Server).Stop, "killed": (*Server).Kill, "paused": (*Server).Pause,
	} {
		t.Run(name, func(t *testing.T) {
			s := Start(t, Options{Hasty: true})
			_, err := s.Standby()
			check(t, err)
			id := sharedMemory(t, s)
			check(t, end(s))
			check(t, s.Close())
			if _, err := os.Stat(s.nest.dir); !os.IsNotExist(err) {
				t.Errorf("its directory is left: %v", err)
			}
			if left := processesIn(s.nest.dir); len(left) > 0 {
				t.Errorf("processes are left: %v", left)
			}
			if remains(t, id) {
				t.Error("its shared memory is left")
			}
		})
	}
}

// sharedMemory is the number of a running server's piece of shared memory.
func sharedMemory(t *testing.T, s *Server) int {
	t.Helper()
	id, err := memoryOf(s)
	check(t, err)
	if !remains(t, id) {
		t.Fatal("a running server has no shared memory")
	}
	return id
}

func memoryOf(s *Server) (id int, err error) {
	text, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	var key int
	_, err = fmt.Sscan(strings.Split(string(text), "\n")[6], &key, &id)
	return id, err
}

func remains(t *testing.T, id int) bool {
	t.Helper()
	var desc unix.SysvShmDesc
	_, err := unix.SysvShmCtl(id, unix.IPC_STAT, &desc)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EIDRM) {
		t.Fatal(err)
	}
	return err == nil
}

// processesIn are the processes that work in a directory.
func processesIn(dir string) []string {
	var found []string
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		if cwd, err := os.Readlink(link); err == nil && strings.HasPrefix(cwd, dir+"/") {
			found = append(found, link)
		}
	}
	return found
}

const childEnv = "POSTGRESTEST_CHILD"

func TestMain(m *testing.M) {
	if how := os.Getenv(childEnv); how != "" {
		child(how)
	}
	goleak.VerifyTestMain(m)
}

// child is a test binary that ends in the middle of a test.
func child(how string) {
	s, err := Launch(Options{Hasty: true})
	if err == nil && how == "paused" {
		err = s.Pause()
	}
	var id int
	if err == nil {
		id, err = memoryOf(s)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	fmt.Printf("\ndirectory %s %d\n", s.nest.dir, id)
	if how == "panic" {
		go panic("in a goroutine, where no test cleans up")
	} else {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	select {}
}

func TestNothingIsLeftOfATestBinaryThatEnds(t *testing.T) {
	Start(t, Options{Hasty: true})
	for _, how := range []string{"killed", "panic", "paused"} {
		t.Run(how, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childEnv+"="+how)
			out, err := cmd.Output()
			if err == nil {
				t.Fatal("the test binary ended well")
			}
			_, line, found := strings.Cut(string(out), "\ndirectory ")
			var dir string
			var id int
			if !found {
				t.Fatalf("it said %s", out)
			}
			if _, err := fmt.Sscan(line, &dir, &id); err != nil {
				t.Fatal(err)
			}
			giveUp := time.After(patience)
			for {
				_, err := os.Stat(dir)
				if os.IsNotExist(err) && len(processesIn(dir)) == 0 && !remains(t, id) {
					return
				}
				select {
				case <-giveUp:
					t.Fatalf("left are the directory (%v) or the processes %v", err, processesIn(dir))
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
	}
}

func hasCode(err error, code string) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == code
}

func TestMissingProgramIsNamedWithItsPackage(t *testing.T) {
	err := &realpart.MissingError{Program: "pgbouncer", Package: "pgbouncer"}
	if !strings.Contains(err.Error(), "apt-get install pgbouncer") {
		t.Errorf("got %v", err)
	}
}

func BenchmarkStart(b *testing.B) {
	for name, o := range map[string]Options{"disk": {Disk: true}, "memory": {}, "hasty": {Hasty: true}} {
		b.Run(name, func(b *testing.B) {
			Start(b, o)
			for b.Loop() {
				s, err := Launch(o)
				realpart.Must(b, err)
				realpart.Must(b, s.Close())
			}
		})
	}
}
