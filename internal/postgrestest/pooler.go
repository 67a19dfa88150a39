package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/upsauth/upsauth/internal/realpart"
)

// Pooler is a pgbouncer in transaction mode before a server: a connection keeps the same
// session of the server for as long as a transaction lasts. Its methods are for one
// goroutine.
type Pooler struct {
	*nest
	server  *Server
	dir     string
	host    string
	port    int
	users   map[string]string
	process *process
}

// Pooler starts a pgbouncer that knows users by their passwords. It takes and makes
// connections over TLS where its server does.
func (s *Server) Pooler(users map[string]string) (*Pooler, error) {
	path, err := exec.LookPath("/usr/sbin/pgbouncer")
	if err != nil {
		return nil, &realpart.MissingError{Program: "pgbouncer", Package: "pgbouncer"}
	}
	p := &Pooler{nest: s.nest, server: s, users: users}
	if p.dir, err = s.mkdir("pooler"); err != nil {
		return nil, err
	}
	if p.host, p.port, err = address(); err != nil {
		return nil, err
	}
	if err := p.configure(); err != nil {
		return nil, err
	}
	if p.process, err = start(p.user, p.dir, exec.Command(path, filepath.Join(p.dir, "pgbouncer.ini")), filepath.Join(p.dir, "log")); err != nil {
		return nil, err
	}
	s.poolers = append(s.poolers, p)
	return p, await(p.process, "pgbouncer", func(ctx context.Context) error {
		// Its own database is there also while its server is not.
		conn, err := pgconn.Connect(ctx, p.URL(slices.Sorted(maps.Keys(users))[0], "pgbouncer"))
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
}

func (p *Pooler) configure() error {
	if len(p.users) == 0 {
		return errors.New("a pooler needs a user")
	}
	var list strings.Builder
	for user, password := range p.users {
		fmt.Fprintf(&list, "%q %q\n", user, password)
	}
	users := filepath.Join(p.dir, "users.txt")
	if err := p.write(users, []byte(list.String())); err != nil {
		return err
	}
	text := fmt.Sprintf(`[databases]
* = host=%s port=%d
[pgbouncer]
listen_addr = %s
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s
stats_users = %s
pool_mode = transaction
default_pool_size = 2
server_login_retry = 1
`, p.server.host, p.server.port, p.host, p.port, users, strings.Join(slices.Sorted(maps.Keys(p.users)), ","))
	if p.server.options.TLS {
		cert, key, err := p.ca.issue(p.host)
		if err != nil {
			return err
		}
		certFile, keyFile := filepath.Join(p.dir, "cert.pem"), filepath.Join(p.dir, "key.pem")
		if err := errors.Join(p.write(certFile, cert), p.write(keyFile, key)); err != nil {
			return err
		}
		text += fmt.Sprintf(`client_tls_sslmode = require
client_tls_cert_file = %s
client_tls_key_file = %s
server_tls_sslmode = verify-full
server_tls_ca_file = %s
`, certFile, keyFile, p.caFile())
	}
	return p.write(filepath.Join(p.dir, "pgbouncer.ini"), []byte(text))
}

// URL is the pooler's address for one of its users.
func (p *Pooler) URL(user, database string) string {
	return tcpURL(p.nest, p.host, p.port, p.server.options.TLS, user, p.users[user], database)
}

// Kill ends the pooler at once.
func (p *Pooler) Kill() error { return p.process.kill() }
