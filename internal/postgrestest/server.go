package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Server is a PostgreSQL that listens on a socket and at a loopback address of its own.
// Its methods are for one goroutine.
type Server struct {
	*nest
	options Options
	dir     string // of the socket, with the data directory in it
	host    string
	port    int
	process *process

	primary  bool // of the nest: it closes the others
	standbys []*Server
	poolers  []*Pooler
}

// create makes a cluster and starts it.
func (s *Server) create() error {
	s.primary = true
	t, err := newTemplate()
	if err != nil {
		return err
	}
	if err := s.place(); err != nil {
		return err
	}
	if err := os.Mkdir(s.data(), 0o700); err != nil {
		return err
	}
	if err := s.user.own(s.data()); err != nil {
		return err
	}
	if err := t.copyTo(s.data(), s.user); err != nil {
		return err
	}
	if err := s.configure(); err != nil {
		return err
	}
	return s.start()
}

// place makes the server's directory and gives it an address.
func (s *Server) place() (err error) {
	if s.dir, err = s.mkdir("server"); err != nil {
		return err
	}
	s.host, s.port, err = address()
	return err
}

// address is one of this machine's that nobody else uses: no connection to elsewhere is
// ever made from it, so it stays free while the server is down.
func address() (host string, port int, err error) {
	for range 20 {
		host = fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
		port = 10000 + rand.IntN(20000)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port))); err == nil {
			return host, port, l.Close()
		}
	}
	return "", 0, err
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// configure writes the server's settings anew.
func (s *Server) configure() error {
	settings := map[string]string{
		"listen_addresses":             s.host,
		"port":                         strconv.Itoa(s.port),
		"unix_socket_directories":      s.dir,
		"unix_socket_permissions":      "0700",
		"dynamic_shared_memory_type":   "mmap", // files in the data directory, so that none is left elsewhere
		"shared_buffers":               "16MB",
		"max_connections":              "60",
		"password_encryption":          "scram-sha-256",
		"max_wal_senders":              "10",
		"wal_level":                    "replica",
		"hot_standby":                  "on",
		"wal_keep_size":                "64MB",
		"autovacuum":                   "off",
		"log_line_prefix":              "%m [%p] ",
		"wal_receiver_status_interval": "1",
		"wal_retrieve_retry_interval":  "100ms",
	}
	hba := "local all,replication all trust\nhost all all 127.0.0.0/8 scram-sha-256\n"
	if s.options.Hasty {
		for _, name := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
			settings[name] = "off"
		}
	}
	if s.options.TLS {
		cert, key, err := s.ca.issue(s.host)
		if err != nil {
			return err
		}
		settings["ssl"] = "on"
		settings["ssl_cert_file"], settings["ssl_key_file"] = filepath.Join(s.dir, "cert.pem"), filepath.Join(s.dir, "key.pem")
		if err := errors.Join(s.write(settings["ssl_cert_file"], cert), s.write(settings["ssl_key_file"], key)); err != nil {
			return err
		}
		hba = strings.Replace(hba, "\nhost ", "\nhostssl ", 1)
	}
	maps.Copy(settings, s.options.Settings)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&text, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	return errors.Join(s.write(filepath.Join(s.data(), "postgresql.conf"), []byte(text.String())),
		s.write(filepath.Join(s.data(), "pg_hba.conf"), []byte(hba)))
}

// start starts the server, and returns when it takes connections.
func (s *Server) start() (err error) {
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.data())
	if s.process, err = start(s.user, s.dir, cmd, filepath.Join(s.dir, "log")); err != nil {
		return err
	}
	return await(s.process, "postgres", func(ctx context.Context) error {
		conn, err := s.connect(ctx, "postgres")
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
}

// Socket is the directory of the server's socket, which is named after the port.
func (s *Server) Socket() string { return s.dir }

// Host and Port are the server's address on this machine.
func (s *Server) Host() string { return s.host }

// Port is the port of both the address and the socket.
func (s *Server) Port() int { return s.port }

// CA is the file of the authority that signs the certificates of the server, of its
// standbys and of its poolers.
func (s *Server) CA() string { return s.caFile() }

// Data is the server's data directory.
func (s *Server) Data() string { return s.data() }

// SocketURL is the server's address on the socket, where no user needs a password.
func (s *Server) SocketURL(user, database string) string {
	query := url.Values{"host": {s.dir}, "port": {strconv.Itoa(s.port)}}
	return (&url.URL{Scheme: "postgres", User: url.User(user), Path: "/" + database, RawQuery: query.Encode()}).String()
}

// URL is the server's address over TCP, where every user needs a password. With TLS the
// certificate is to be checked.
func (s *Server) URL(user, password, database string) string {
	return tcpURL(s.nest, s.host, s.port, s.options.TLS, user, password, database)
}

func tcpURL(n *nest, host string, port int, tls bool, user, password, database string) string {
	query := url.Values{"sslmode": {"disable"}}
	if tls {
		query = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {n.caFile()}}
	}
	u := url.URL{Scheme: "postgres", User: url.User(user), Host: net.JoinHostPort(host, strconv.Itoa(port)),
		Path: "/" + database, RawQuery: query.Encode()}
	if password != "" {
		u.User = url.UserPassword(user, password)
	}
	return u.String()
}

func (s *Server) connect(ctx context.Context, database string) (*pgconn.PgConn, error) {
	return pgconn.Connect(ctx, s.SocketURL(Superuser, database)+"&target_session_attrs=any")
}

// SQL runs statements as the superuser, and returns the rows of the last one as text, NULL
// as an empty one.
func (s *Server) SQL(database, statements string) ([][]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.sql(ctx, database, statements)
}

func (s *Server) sql(ctx context.Context, database, statements string) ([][]string, error) {
	conn, err := s.connect(ctx, database)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	results, err := conn.Exec(ctx, statements).ReadAll()
	if err != nil || len(results) == 0 {
		return nil, err
	}
	last := results[len(results)-1]
	var rows [][]string
	for _, values := range last.Rows {
		row := make([]string, len(values))
		for i, value := range values {
			row[i] = string(value)
		}
		rows = append(rows, row)
	}
	return rows, last.Err
}

// Stop ends the server in order: sessions are cut off, everything is written.
func (s *Server) Stop() error { return s.end((*process).interrupt) }

// StopImmediately ends the server without care: it recovers at its next start.
func (s *Server) StopImmediately() error { return s.end((*process).quit) }

func (s *Server) end(how func(*process) error) error {
	if !s.process.runs() {
		return nil
	}
	if err := how(s.process); err != nil {
		return err
	}
	return s.process.wait()
}

// Kill ends the server and all its sessions at once, as the end of its machine would.
func (s *Server) Kill() error { return s.process.kill() }

// Pause stops the server and all its sessions where they are. Its kernel still takes
// connections, and nobody is answered until Resume.
func (s *Server) Pause() error { return s.process.pause() }

// Resume lets all of it go on, with what was asked meanwhile.
func (s *Server) Resume() error { return s.process.resume() }

// Restart stops the server, if it runs, and starts it again at its place.
func (s *Server) Restart() error {
	if err := s.Stop(); err != nil {
		return err
	}
	return s.start()
}

// Set changes settings while the server runs. An empty value takes a setting back.
func (s *Server) Set(settings map[string]string) error {
	options := maps.Clone(s.options.Settings)
	if options == nil {
		options = map[string]string{}
	}
	for name, value := range settings {
		if options[name] = value; value == "" {
			delete(options, name)
		}
	}
	s.options.Settings = options
	if err := s.configure(); err != nil {
		return err
	}
	before, err := s.SQL("postgres", "SELECT pg_conf_load_time() FROM pg_reload_conf()")
	if err != nil {
		return err
	}
	// The server reads the files when it comes to it; a session that begins later has
	// what it has read.
	return await(s.process, "postgres", func(ctx context.Context) error {
		rows, err := s.sql(ctx, "postgres", "SELECT pg_conf_load_time()")
		if err == nil && rows[0][0] == before[0][0] {
			err = errors.New("it has not read its settings yet")
		}
		return err
	})
}

// Standby starts a hot standby of the server. A commit on the server waits for it once it
// is made synchronous.
func (s *Server) Standby() (*Server, error) {
	standby := &Server{nest: s.nest, options: s.options}
	if err := standby.place(); err != nil {
		return nil, err
	}
	s.standbys = append(s.standbys, standby)
	source := fmt.Sprintf("host=%s port=%d user=%s application_name=%s", s.dir, s.port, Superuser, standby.name())
	if _, err := s.run(nil, "pg_basebackup", "--dbname="+source, "--pgdata="+standby.data(),
		"--wal-method=stream", "--checkpoint=fast", "--no-sync"); err != nil {
		return nil, err
	}
	standby.options.Settings = maps.Clone(s.options.Settings)
	if standby.options.Settings == nil {
		standby.options.Settings = map[string]string{}
	}
	standby.options.Settings["primary_conninfo"] = source
	delete(standby.options.Settings, "synchronous_standby_names")
	if err := errors.Join(standby.configure(), s.write(filepath.Join(standby.data(), "standby.signal"), nil)); err != nil {
		return nil, err
	}
	if err := standby.start(); err != nil {
		return nil, err
	}
	return standby, await(s.process, "the standby", func(ctx context.Context) error {
		rows, err := s.sql(ctx, "postgres", "SELECT state FROM pg_stat_replication WHERE application_name = '"+standby.name()+"'")
		if err == nil && (len(rows) != 1 || rows[0][0] != "streaming") {
			err = fmt.Errorf("it is at %v", rows)
		}
		return err
	})
}

// name is what a server calls this standby.
func (s *Server) name() string { return filepath.Base(s.dir) }

// Synchronous has each commit wait until the standby has it on disk; without one, no
// commit waits.
func (s *Server) Synchronous(standby *Server) error {
	name := ""
	if standby != nil {
		name = standby.name()
	}
	if err := s.Set(map[string]string{"synchronous_standby_names": name}); err != nil || name == "" {
		return err
	}
	return await(s.process, "the standby", func(ctx context.Context) error {
		rows, err := s.sql(ctx, "postgres", "SELECT sync_state FROM pg_stat_replication WHERE application_name = '"+name+"'")
		if err == nil && (len(rows) != 1 || rows[0][0] != "sync") {
			err = fmt.Errorf("it is %v", rows)
		}
		return err
	})
}

// Promote makes a primary of a standby, and returns when it takes writes.
func (s *Server) Promote() error {
	rows, err := s.SQL("postgres", "SELECT pg_promote(true, 60)")
	if err == nil && rows[0][0] != "t" {
		err = errors.New("the standby was not promoted in a minute")
	}
	return err
}

// Dump returns a database as SQL, by pg_dump.
func (s *Server) Dump(database string, options ...string) ([]byte, error) {
	return s.run(nil, "pg_dump", append(options, "--dbname="+s.SocketURL(Superuser, database))...)
}

// Restore runs a dump in a database, by psql. The first error ends it.
func (s *Server) Restore(database string, dump []byte) error {
	_, err := s.run(dump, "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null",
		"--dbname="+s.SocketURL(Superuser, database))
	return err
}

// Close ends the server, its poolers and its standbys, and removes all that was theirs.
func (s *Server) Close() error {
	var err error
	for _, p := range s.poolers {
		err = errors.Join(err, p.process.kill())
	}
	for _, standby := range s.standbys {
		err = errors.Join(err, standby.Close())
	}
	// What a server would still write is removed anyway.
	err = errors.Join(err, s.process.kill(), releaseMemory(s.data()))
	if s.primary {
		err = errors.Join(err, s.remove())
	}
	return err
}
