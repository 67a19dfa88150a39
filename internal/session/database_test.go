package session

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/postgrestest"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
	"github.com/upsauth/upsauth/internal/vault/postgres/tablestest"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// A database that is opened by each caller, or not closed, takes connections from everybody.
func TestDatabaseIsOneForTheSessionAndClosedWithIt(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Hosts(t.Context()); !errors.As(err, new(*NoDatabaseError)) {
		t.Fatalf("without a database: %v", err)
	}
	server := postgrestest.Start(t, postgrestest.Options{Hasty: true})
	if err := server.Restore("postgres", []byte(postgres.Schema(postgres.Role))); err != nil {
		t.Fatal(err)
	}
	w.Config.Shared = config.Shared{URL: server.SocketURL(postgres.Role, "postgres")}
	first, err := w.Database()
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if again, err := w.Database(); err != nil || again != first {
				t.Errorf("another database: %v", err)
			}
		})
	}
	all.Wait()
	connections := func(want string) {
		t.Helper()
		var got [][]string
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if got, err = server.SQL("postgres", "SELECT count(*) FROM pg_stat_activity WHERE usename = 'upsauth'"); err == nil && got[0][0] == want {
				return
			}
		}
		t.Fatalf("there are %v connections, want %s: %v", got, want, err)
	}
	connections("0")
	if list, err := w.Hosts(t.Context()); err != nil || list.Epoch != 1 || len(list.Hosts) != 0 {
		t.Fatalf("got %+v, %v", list, err)
	}
	connections("1")
	w.Close()
	connections("0")
}

// libpq's variables name a database too.
func TestDatabaseByLibpqsVariables(t *testing.T) {
	for _, name := range []string{"PGHOST", "PGSERVICE", "PGDATABASE"} {
		w := newWorld(t)
		getenv := w.options.Getenv
		w.options.Getenv = func(asked string) string {
			if asked == name {
				return "somewhere"
			}
			return getenv(asked)
		}
		if _, err := w.Database(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHostID(t *testing.T) {
	for _, test := range []struct {
		text, want string
		wrong      error // a type
	}{
		{`{"version":1,"id":"0a1b"}`, "0a1b", nil},
		{`{"version":1,"id":"0a1b","machine":"more"}`, "0a1b", nil},
		{`{"version":2,"id":"0a1b"}`, "", &vault.NewerError{}},
		{`{"version":1}`, "", &shared.HostFileError{}},
		{`{"id":"0a1b"}`, "", &shared.HostFileError{}},
		{`{"version":1,"id":`, "", &shared.HostFileError{}},
		{``, "", &shared.HostFileError{}},
	} {
		w := newWorld(t)
		if id, err := w.HostID(); id != "" || err != nil {
			t.Fatalf("without a file: %q, %v", id, err)
		}
		w.write("state/shared/host.json", test.text)
		id, err := w.HostID()
		if id != test.want || fmt.Sprintf("%T", err) != fmt.Sprintf("%T", test.wrong) {
			t.Errorf("%s: %q, %v", test.text, id, err)
		}
		if err != nil && !strings.Contains(err.Error(), filepath.Join(w.dir, "state", "shared", "host.json")) {
			t.Errorf("%v names no file", err)
		}
	}
	w := newWorld(t)
	if err := os.MkdirAll(filepath.Join(w.dir, "state", "shared", "host.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	if id, err := w.HostID(); id != "" || !errors.As(err, new(*vault.FileError)) {
		t.Errorf("a directory: %q, %v", id, err)
	}
}

// What is said of a host is what the rules make of it.
func TestStateOfAHost(t *testing.T) {
	now := time.Date(2026, 11, 21, 16, 5, 3, 0, time.UTC)
	elsewhere := ledger.Host{ID: "other", Epoch: 3, Seen: now}
	longAgo := ledger.Host{ID: "other", Epoch: 3, Seen: now.Add(-2 * ledger.AloneAfter)}
	for _, test := range []struct {
		host, other ledger.Host
		want        HostState
	}{
		{ledger.Host{Epoch: 3, Seen: now}, elsewhere, HostReady},
		{ledger.Host{Epoch: 2, Seen: now}, elsewhere, HostAwaited},
		{ledger.Host{Epoch: 2, Seen: now}, longAgo, HostAwaited}, // others wait for it
		{ledger.Host{Epoch: 2, Waived: 3, Seen: now}, elsewhere, HostWaived},
		{ledger.Host{Epoch: 2, Waived: 2, Seen: now}, elsewhere, HostAwaited},
		{ledger.Host{Epoch: 3, Seen: now}, longAgo, HostToAccept},
		{ledger.Host{Epoch: 3, Seen: now, Accepted: true}, longAgo, HostReady},
		{ledger.Host{Epoch: 1, Seen: now, SignedOff: true}, elsewhere, HostSignedOff},
		{ledger.Host{Epoch: 1, Seen: now, SignedOff: true, Removed: true}, elsewhere, HostRemoved},
	} {
		test.host.ID = "this"
		roll := ledger.Book{Now: now, Meta: ledger.Meta{Epoch: 3}, Hosts: []ledger.Host{test.host, test.other}}
		if got := hostState(test.host, roll); got != test.want {
			t.Errorf("%+v is %s, want %s", test.host, got, test.want)
		}
	}
}

// Hosts that begin at the same time agree on the key that seals what browsers keep: what one
// has sealed, another opens.
func TestHostsAgreeOnTheSealingKey(t *testing.T) {
	tables := tablestest.New(t)
	const hosts, rounds = 4, 10
	var all []*world
	for n := range hosts {
		w := newWorld(t)
		if n > 0 { // a team has one identity
			w.write("identity.txt", readFile(t, filepath.Join(all[0].dir, "identity.txt")))
		}
		w.Config.Vault = config.HomeShared
		w.Config.Shared = config.Shared{URL: tables.Server.SocketURL(postgres.Role, "postgres"), Host: fmt.Sprint("host-", n)}
		if err := w.share(); err != nil {
			t.Fatal(err)
		}
		all = append(all, w)
	}
	for range rounds {
		tables.SQL("DELETE FROM upsauth.secrets")
		keys := make([][]byte, hosts)
		var ready sync.WaitGroup
		for n, w := range all {
			w.sealing.Store(nil)
			ready.Go(func() {
				var err error
				if keys[n], err = w.sealingKey(t.Context(), true); err != nil {
					t.Error(err)
				}
			})
		}
		ready.Wait()
		for _, key := range keys[1:] {
			if !bytes.Equal(key, keys[0]) {
				t.Fatal("two hosts have two keys")
			}
		}
	}
}
