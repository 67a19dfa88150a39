package postgres

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Settings say which database it is, and who this host is there.
type Settings struct {
	// URL is the database's address, as a URL or in libpq's form of keywords and values.
	// What it leaves out comes from libpq's variables, its service file and its password
	// file; empty leaves out everything.
	URL string
	// Private says that the URL comes from where a password may be: the environment, and
	// not config.toml.
	Private bool
	// Host is what people read of this machine.
	Host string
	// Patience is how long a connection is tried for, zero for what is usual. A context
	// that ends earlier ends it too.
	Patience time.Duration
	// CommitPatience is how long a commit is waited for, zero for what is usual.
	CommitPatience time.Duration
}

const (
	usualPatience  = 10 * time.Second
	connectTimeout = 5 * time.Second
	// usualCommitPatience is short beside what a person waits for, and long beside what a
	// commit takes. After it, nobody knows whether the change was kept, as after a
	// connection that broke off.
	usualCommitPatience = 10 * time.Second
	// deadAfter is how long a peer may leave what was sent without an acknowledgement.
	deadAfter = 15 * time.Second
)

// Check reports what is wrong with the settings, without a connection. It reads the
// service file, the password file and the certificates that the settings name.
func (s Settings) Check() error {
	_, err := s.config()
	return err
}

// config reads the settings and all files that they name: it is called before each
// connect, so that a password that was changed counts at once.
func (s Settings) config() (*pgx.ConnConfig, error) {
	if !s.Private && HasPassword(s.URL) {
		return nil, &Error{
			Reason: BadSettings,
			What:   "the address of the database in config.toml has a password in it",
			Advice: "take it out there, and put it into ~/.pgpass[ or the whole address into {}]", Do: []Act{PrivateAddress},
		}
	}
	c, err := pgx.ParseConfig(s.URL)
	if err != nil {
		return nil, s.cannotParse(err)
	}
	servers := append([]*pgconn.FallbackConfig{{Host: c.Host, Port: c.Port, TLSConfig: c.TLSConfig}}, c.Fallbacks...)
	for _, server := range servers {
		if err := checkProtected(server); err != nil {
			return nil, err
		}
		// Without a certificate, whoever listens there could ask for the password as it is.
		// SCRAM tells nobody the password.
		if c.RequireAuth == "" && !isVerified(server.TLSConfig) && !isGuarded(server) {
			c.RequireAuth = "!password"
		}
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
	// A vault is no use on a server that takes no writes, whatever the settings ask for.
	c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	c.DialFunc = dialer(c.ConnectTimeout).DialContext
	c.LookupFunc = localhostIsHere(c.LookupFunc)
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "upsauth"
	}
	// Each statement is one round trip, and nothing stays in a session: behind a pooler the
	// next one may find itself in another. A cache of descriptions would be wrong after a
	// failover or a migration, and what is run once in a process gains nothing by it.
	c.DefaultQueryExecMode = pgx.QueryExecModeExec
	c.StatementCacheCapacity, c.DescriptionCacheCapacity = 0, 0
	return c, nil
}

// checkProtected refuses a server if others on the way to it could read or change what is
// said.
func checkProtected(server *pgconn.FallbackConfig) error {
	if isSocket(server) || isLoopback(server.Host) || isVerified(server.TLSConfig) {
		return nil
	}
	return &Error{
		Reason: BadSettings,
		What:   fmt.Sprintf("the connection to the database at %s is not protected: its sslmode is not verify-full", server.Host),
		Advice: "add sslmode=verify-full to the address, and sslrootcert=FILE where the server's certificate is of an authority of your own",
	}
}

func isSocket(server *pgconn.FallbackConfig) bool {
	network, _ := pgconn.NetworkAddress(server.Host, server.Port)
	return network == "unix"
}

// isGuarded reports whether a server is at a socket that not any user of this machine can make.
func isGuarded(server *pgconn.FallbackConfig) bool {
	if !isSocket(server) {
		return false
	}
	dir, err := os.Stat(server.Host)
	return err == nil && dir.Mode().Perm()&0o002 == 0
}

func isVerified(config *tls.Config) bool {
	return config != nil && !config.InsecureSkipVerify && config.ServerName != ""
}

func isLoopback(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// HasPassword reports whether an address has a password in it, or may have.
func HasPassword(address string) bool {
	if !strings.HasPrefix(address, "postgres://") && !strings.HasPrefix(address, "postgresql://") {
		return strings.Contains(strings.ToLower(address), "password")
	}
	u, err := url.Parse(address)
	if err != nil {
		// Several hosts with ports are no URL to this parser, and are one to libpq.
		authority, query, _ := strings.Cut(address[strings.Index(address, "://")+3:], "?")
		user, _, found := strings.Cut(authority, "@")
		return found && strings.Contains(user, ":") || strings.Contains(strings.ToLower(query), "password")
	}
	_, has := u.User.Password()
	query := u.Query()
	return has || query.Has("password") || query.Has("sslpassword")
}

// cannotParse says what is wrong with settings, and nothing of what is in the address
// unless it was understood.
func (s Settings) cannotParse(err error) error {
	e := &Error{
		Reason: BadSettings,
		What:   "the address of the database can't be understood",
		Advice: "it has the form postgres://USER@HOST/DATABASE?sslmode=verify-full",
	}
	var parse *pgconn.ParseConfigError
	if !errors.As(err, &parse) {
		return e
	}
	text := parse.Error()
	for _, about := range []string{"failed to parse as", "invalid port", "invalid keyword"} {
		if strings.Contains(text, "`: "+about) {
			return e
		}
	}
	// What comes behind the address itself names a file or a setting.
	if at := strings.LastIndex(text, "`: "); at >= 0 {
		e.What = "the settings of the database can't be used: " + s.scrub(text[at+len("`: "):])
		e.Advice = "correct the address, or the variable or file that the setting comes from"
	}
	return e
}

// scrub leaves the address and all passwords that are known out of a text.
func (s Settings) scrub(text string) string {
	secrets := []string{os.Getenv("PGPASSWORD"), os.Getenv("PGSSLPASSWORD")}
	if HasPassword(s.URL) {
		secrets = append(secrets, s.URL)
		if c, err := pgx.ParseConfig(s.URL); err == nil {
			secrets = append(secrets, c.Password, url.QueryEscape(c.Password), url.PathEscape(c.Password))
		}
		if u, err := url.Parse(s.URL); err == nil {
			secrets = append(secrets, u.Query().Get("sslpassword"))
		}
	}
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "…")
		}
	}
	return text
}
