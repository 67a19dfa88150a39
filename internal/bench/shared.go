//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/postgrestest"
	"github.com/upsauth/upsauth/internal/realpart"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// sharing is a database with the places of several hosts.
type sharing struct {
	*postgrestest.Server
	pooler *postgrestest.Pooler
	hosts  []*place
}

const (
	databaseName = "postgres"
	rolePassword = "bench"
)

// share starts a database whose files are on the disk, and makes n hosts.
func (b *bench) share(name, server string, n int) (*sharing, error) {
	s, err := postgrestest.Launch(postgrestest.Options{Disk: true})
	if err != nil {
		return nil, err
	}
	all := &sharing{Server: s}
	err = func() error {
		if _, err := s.SQL(databaseName, postgres.Schema(postgres.Role)); err != nil {
			return err
		}
		if _, err := s.SQL(databaseName, fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", postgres.Role, rolePassword)); err != nil {
			return err
		}
		if all.pooler, err = s.Pooler(map[string]string{postgres.Role: rolePassword}); err != nil {
			return err
		}
		for i := range n {
			p, err := b.place(fmt.Sprint("shared", name, i+1), server)
			if err != nil {
				return err
			}
			text := fmt.Sprintf("\n[shared]\nhost = \"web-%d\"\n", i+1)
			config, err := os.OpenFile(filepath.Join(p.dir, "config/config.toml"), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = config.WriteString(text)
			if err := errors.Join(err, config.Close()); err != nil {
				return err
			}
			all.hosts = append(all.hosts, p)
		}
		return nil
	}()
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return all, nil
}

// env is the environment of a process on one of the hosts.
func (s *sharing) env(host int, address string) []string {
	return append(s.hosts[host].env("true"), "UPSAUTH_VAULT=shared", "UPSAUTH_IDENTITY="+s.hosts[0].identity(), "UPSAUTH_DATABASE_URL="+address)
}

func (s *sharing) direct() string { return s.URL(postgres.Role, rolePassword, databaseName) }

// fill puts n grants into the database, of the first host. The database need not keep them
// if the power fails meanwhile.
func (s *sharing) fill(n int, of func(grant.Grant) grant.Grant) (err error) {
	if err := s.Set(map[string]string{"fsync": "off"}); err != nil {
		return err
	}
	p := s.hosts[0]
	db := postgres.Open(postgres.Settings{URL: s.direct(), Private: true, Host: "web-1"})
	defer db.Close()
	home := agefile.New(filepath.Join(p.state(), "vault"), p.identity())
	p.vault = vault.New(shared.New(shared.Options{
		DB: db, Dir: filepath.Join(p.state(), "shared"), Keys: home.Keys, Host: "web-1", Terms: ledger.Terms{TakeOverAfter: 10 * time.Minute},
		Machine: shared.MachineID, Now: time.Now, Elapsed: shared.Elapsed, Wait: session.Wait,
	}))
	err = p.each(n, func(ctx context.Context, g grant.Grant) error {
		g.Home = shared.HomeName
		return p.whole(ctx, of(g))
	})
	if err == nil {
		err = s.Set(map[string]string{"fsync": "on"})
	}
	if err == nil {
		_, err = s.SQL(databaseName, "CHECKPOINT; ANALYZE")
	}
	return err
}

// spent is a grant whose access token has ended.
func spent(g grant.Grant) grant.Grant {
	g = renewed(g)
	ago := -2 * time.Hour
	g.Issued, g.Requested, g.Expires, g.AccessUntil = g.Issued.Add(ago), g.Requested.Add(ago), g.Expires.Add(ago), g.AccessUntil.Add(ago)
	return g
}

// needing is a measurement of a vault that hosts share, left out where PostgreSQL or
// PgBouncer is not installed.
func (b *bench) needing(measure func() error) func() error {
	return func() error {
		err := measure()
		var missing *realpart.MissingError
		if errors.As(err, &missing) {
			fmt.Fprintf(os.Stderr, "without the shared vault: %v\n", err)
			return nil
		}
		return err
	}
}

// sharedToken measures a valid token: from the file vault, from this host's copy, and from the
// database, as after the refresh of another host.
func (b *bench) sharedToken() error {
	s, err := b.share("token", nowhere, 1)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	if err := s.fill(100, renewed); err != nil {
		return err
	}
	files, err := b.place("filestoken", nowhere)
	if err != nil {
		return err
	}
	if err := files.fresh(100); err != nil {
		return err
	}
	company := files.grant(1).Company
	command := b.upsauth("token", "--company", company)
	measured := []struct {
		name    string
		env     []string
		command []string
		before  func() error
	}{
		{"Go hello-world", os.Environ(), []string{b.program("hello")}, nil},
		{"`token`, file vault", files.env("true"), command, nil},
		{"`token`, shared vault, this host's copy", s.env(0, s.direct()), command, nil},
		{"`token`, shared vault, read from the database", s.env(0, s.direct()), command, func() error {
			return os.RemoveAll(filepath.Join(s.hosts[0].state(), "shared/copies"))
		}},
		{"the same through PgBouncer", s.env(0, s.pooler.URL(postgres.Role, databaseName)), command, func() error {
			return os.RemoveAll(filepath.Join(s.hosts[0].state(), "shared/copies"))
		}},
	}
	timed := func(i int, run func(env, command []string) (time.Duration, error)) (time.Duration, error) {
		m := measured[i]
		if m.before != nil {
			if err := m.before(); err != nil {
				return 0, err
			}
		} else if i == 2 { // the copy is there
			if _, err := output(m.env, m.command); err != nil {
				return 0, err
			}
		}
		return run(m.env, m.command)
	}
	times, err := b.alternate(len(measured), func(i int) (time.Duration, error) { return timed(i, run) })
	if err != nil {
		return err
	}
	t := b.report.table("A valid token of a shared vault")
	for i, m := range measured {
		memory := 0
		_, err := timed(i, func(env, command []string) (took time.Duration, err error) {
			memory, took, err = b.peak(run, env, command)
			return took, err
		})
		if err != nil {
			return err
		}
		t.add(m.name, times[i], float64(times[i])/float64(times[0]), target{}, memory)
	}
	return nil
}

// sharedStatus measures the list of many companies, beside that of the file vault.
func (b *bench) sharedStatus() error {
	s, err := b.share("status", nowhere, 1)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	if err := s.fill(b.refreshed, renewed); err != nil {
		return err
	}
	files, err := b.place("filesstatus", nowhere)
	if err != nil {
		return err
	}
	if err := files.freshCompanies(b.refreshed); err != nil {
		return err
	}
	measured := []struct {
		name    string
		env     []string
		command []string
	}{
		{"`status -o json`, file vault", files.env("true"), b.upsauth("status", "-o", "json")},
		{"`status -o json`, shared vault", s.env(0, s.direct()), b.upsauth("status", "-o", "json")},
		{"`status`, file vault, piped", files.env("true"), b.upsauth("status")},
		{"`status`, shared vault, piped", s.env(0, s.direct()), b.upsauth("status")},
	}
	times := make([][]time.Duration, len(measured))
	memory := make([]int, len(measured))
	for range min(b.runs, 10) {
		for i, m := range measured {
			kb, took, err := b.peak(run, m.env, m.command)
			if err != nil {
				return err
			}
			times[i], memory[i] = append(times[i], took), max(memory[i], kb)
		}
	}
	t := b.report.table(fmt.Sprintf("`status` of %d companies of a shared vault", b.refreshed))
	for i, median := range medians(times) {
		t.add(measured[i].name, median, float64(median)/float64(medians(times)[0]), target{}, memory[i])
	}
	return nil
}

// sharedRefresh measures the refresh of all that is due, by several hosts at once, each of
// which has the whole list. Every grant is refreshed once in each measurement: UPS's tokens
// last longer from one to the next, and longer than what is due then.
func (b *bench) sharedRefresh() error {
	const latency, jobs = 100 * time.Millisecond, 64
	n := b.refreshed
	var lifetime, asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		time.Sleep(latency)
		w.Header().Set("Content-Type", "application/json")
		now := strconv.FormatInt(time.Now().UnixMilli(), 10)
		_ = json.NewEncoder(w).Encode(map[string]string{
			"access_token": accessToken(), "refresh_token": strings.Repeat("refresh-", 20), "token_type": "Bearer",
			"issued_at": now, "expires_in": strconv.FormatInt(lifetime.Load(), 10), "refresh_token_issued_at": now, "refresh_token_expires_in": "5183999",
			"client_id": "bench", "status": "approved", "refresh_token_status": "approved", "refresh_count": "0", "scope": "",
		})
	}))
	defer server.Close()
	s, err := b.share("refresh", server.URL, 3)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	if err := s.fill(n, spent); err != nil {
		return err
	}
	t := b.report.table(fmt.Sprintf("`refresh --jobs %d` of %d companies of a shared vault, a server that takes %s", jobs, n, latency))
	ideal := time.Duration(n) * latency / jobs
	t.add("the server alone, ideally, one host", ideal, 1, target{}, 0)
	within := time.Hour
	for _, of := range []struct {
		name, address string
		hosts         int
	}{
		{"1 host", s.direct(), 1},
		{"3 hosts at once", s.direct(), 3},
		{"3 hosts at once, through PgBouncer with 2 connections", s.pooler.URL(postgres.Role, databaseName), 3},
	} {
		lifetime.Store(int64((3 * within).Seconds()))
		asked.Store(0)
		command := b.upsauth("refresh", "--all", "--within", within.String(), "--jobs", strconv.Itoa(jobs))
		failures := make([]error, of.hosts)
		start := time.Now()
		var all sync.WaitGroup
		for host := range of.hosts {
			all.Go(func() { _, failures[host] = run(s.env(host, of.address), command) })
		}
		all.Wait()
		took := time.Since(start)
		for _, err := range failures {
			if err != nil {
				return err
			}
		}
		t.add(fmt.Sprintf("%s, %d requests", of.name, asked.Load()), took, float64(took)/float64(ideal), target{}, 0)
		within *= 4
	}
	return nil
}
