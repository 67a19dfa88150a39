package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/upsauth/upsauth/internal/legible"
)

// Reason is why a database can't be used.
type Reason string

const (
	BadSettings   Reason = "settings"       // the address, or what it leaves to files and variables
	Away          Reason = "away"           // nobody answers, or the answer is that it is not ready
	ReadOnly      Reason = "read-only"      // it is a standby, or takes no writes
	Refused       Reason = "refused"        // the user, its password or its database
	Untrusted     Reason = "untrusted"      // the server's certificate
	TooOld        Reason = "too old"        // the server's version
	WrongEncoding Reason = "wrong encoding" // not every name can be kept
	NoTables      Reason = "no tables"      // and this role may not make them
	OldTables     Reason = "old tables"     // and this role may not add to them
	NewTables     Reason = "new tables"     // a newer upsauth made them
	StrangeTables Reason = "strange tables" // a schema of the name, which is no vault's
	NoRights      Reason = "no rights"      // the role lacks some
	NoIdentity    Reason = "no identity"    // it can't say who it is
	Busy          Reason = "busy"           // somebody else has the same rows for too long
	Failed        Reason = "failed"         // a statement, for a reason that is not foreseen
)

// Act is something that a person does with upsauth about the database.
type Act string

const (
	PrintSchema    Act = "print-schema"
	Migrate        Act = "migrate"
	PrivateAddress Act = "private-address"
)

// Error says why the database can't be used, and what to do.
type Error struct {
	Reason Reason
	What   string // the sentence, without a secret
	// Advice is what to do. Each {} in it stands for the next act, for which a face has
	// words of its own; a part in brackets around it is for faces that have such words. No
	// name from outside stands in it beside an act.
	Advice string
	Do     []Act
	// Role is the role that PrintSchema's SQL is for.
	Role string
	Err  error // nil where it could have a secret in its text
}

func (e *Error) Error() string { return e.What }

func (e *Error) Unwrap() error { return e.Err }

// UnknownError says that nobody knows whether a transaction was committed, or whether it
// would survive the loss of the server.
type UnknownError struct {
	What string
	Err  error
}

func (e *UnknownError) Error() string {
	return "it is not known whether the database has kept the change: " + e.What
}

func (e *UnknownError) Unwrap() error { return e.Err }

// Fate is what became of a transaction.
type Fate int

const (
	NotCommitted Fate = iota
	Committed
	Unknown
)

// FateOf tells what became of a transaction by the error of DB.Do.
func FateOf(err error) Fate {
	var unknown *UnknownError
	switch {
	case err == nil:
		return Committed
	case errors.As(err, &unknown):
		return Unknown
	}
	return NotCommitted
}

// ofCommit tells what became of a transaction by what COMMIT returned, and by the warning
// that came with it, if one did.
func ofCommit(err error, warning *pgconn.Notice) error {
	var said *pgconn.PgError
	switch {
	case err == nil && warning == nil:
		return nil
	case err == nil:
		// The commit was made on the server. That it waited in vain for its standby is said
		// in a warning only, in any language and with any code.
		return &UnknownError{What: "the server warned as it was committed: " + legible.Line(warning.Message), Err: (*pgconn.PgError)(warning)}
	case errors.Is(err, pgx.ErrTxCommitRollback):
		// A statement had failed before; the server took all of it back.
		return err
	case pgconn.SafeToRetry(err):
		// Nothing was sent.
		return err
	case errors.As(err, &said) && said.Code != "40003" && !isFatal(said) &&
		(strings.HasPrefix(said.Code, "23") || strings.HasPrefix(said.Code, "40")):
		// Constraints and conflicts are found before anything is committed.
		return err
	}
	return &UnknownError{What: short(err), Err: err}
}

func isFatal(e *pgconn.PgError) bool {
	severity := e.SeverityUnlocalized
	if severity == "" {
		severity = e.Severity
	}
	return severity != "ERROR"
}

// code is the SQLSTATE of an error, empty where the server did not send it.
func code(err error) string {
	var said *pgconn.PgError
	if errors.As(err, &said) {
		return said.Code
	}
	return ""
}

// endsAll reports whether an error means that no connection is to be used any more: the
// server takes no writes, is going down, is gone, or takes the password no more. A new
// connection finds out where the primary is now.
func endsAll(err error) bool {
	switch c := code(err); {
	case c == "25006", c == "28P01", strings.HasPrefix(c, "57P0"), strings.HasPrefix(c, "08"):
		return true
	case c != "":
		return false
	}
	var network net.Error
	return errors.As(err, &network) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// passes reports whether a connect that failed is worth another try.
func passes(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Reason == Away || e.Reason == ReadOnly)
}

// cannotConnect says why there is no connection.
func (s Settings) cannotConnect(ctx context.Context, c *pgx.ConnConfig, err error) error {
	where := place(c)
	e := &Error{Reason: Away, Err: s.quiet(err)}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verification *tls.CertificateVerificationError
	switch sqlstate := code(err); {
	case sqlstate == "28P01" || sqlstate == "28000" || strings.HasPrefix(sqlstate, "08") && strings.Contains(err.Error(), "authentication failed"):
		e.Reason = Refused
		e.What = fmt.Sprintf("the database at %s does not let the user %s in: %s", where, c.User, s.said(err))
		e.Advice = "look at the user, and at its password in ~/.pgpass, PGPASSWORD or the address"
	case sqlstate == "3D000":
		e.Reason = Refused
		e.What = fmt.Sprintf("there is no database %s at %s", c.Database, where)
		e.Advice = "make it (CREATE DATABASE), or correct the name in the address"
	case sqlstate == "42501":
		e.Reason = Refused
		e.What = fmt.Sprintf("the user %s may not connect to the database %s at %s", c.User, c.Database, where)
		e.Advice = fmt.Sprintf("have its owner run GRANT CONNECT ON DATABASE %s TO %s", pgx.Identifier{c.Database}.Sanitize(), pgx.Identifier{c.User}.Sanitize())
	case sqlstate == "42704" || sqlstate == "22023" || sqlstate == "08P01" && strings.Contains(err.Error(), "startup parameter"):
		e.Reason = Refused
		e.What = fmt.Sprintf("the database at %s does not take a setting of the address: %s", where, s.said(err))
		e.Advice = "look at what follows the question mark in the address, and at PGOPTIONS"
	case errors.As(err, &unknown) || errors.As(err, &name) || errors.As(err, &invalid) || errors.As(err, &verification):
		e.Reason = Untrusted
		why := s.said(err)
		if _, found, ok := strings.Cut(why, "x509: "); ok {
			why = found
		}
		e.What = fmt.Sprintf("the certificate of the database at %s can't be trusted: %s", where, why)
		e.Advice = "name the server as its certificate does, and its authority by sslrootcert=FILE"
	case errors.Is(err, pgconn.ErrReadOnlyConnection):
		e.Reason = ReadOnly
		e.What = fmt.Sprintf("the database at %s takes no writes: it is a standby, or is set to be read only", where)
		e.Advice = "name the primary in the address, or all servers (host=a,b); the one that takes writes is used"
	case sqlstate == "57P03" || sqlstate == "57P01" || sqlstate == "53300":
		e.What = fmt.Sprintf("the database at %s is not ready: %s", where, s.said(err))
		e.Advice = "try again in a while"
	case ctx.Err() != nil:
		e.What = fmt.Sprintf("the database at %s did not answer in time", where)
		e.Advice = "look whether it runs, and whether this machine reaches it"
	default:
		e.What = fmt.Sprintf("the database at %s can't be reached: %s", where, s.said(err))
		e.Advice = "look whether it runs, and whether this machine reaches it"
	}
	return e
}

// place names the servers as the settings do.
func place(c *pgx.ConnConfig) string {
	name := func(host string, port uint16) string {
		if strings.HasPrefix(host, "/") {
			return host
		}
		return net.JoinHostPort(host, fmt.Sprint(port))
	}
	where := name(c.Host, c.Port)
	for _, f := range c.Fallbacks {
		if other := name(f.Host, f.Port); !strings.Contains(where, other) {
			where += " or " + other
		}
	}
	return where
}

// quiet is an error whose text has no secret; its type is lost where it has one.
func (s Settings) quiet(err error) error {
	if text := err.Error(); s.scrub(text) != text {
		return errors.New(s.scrub(text))
	}
	// A connect's error has the whole configuration with it, the password too.
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		return errors.Unwrap(connect)
	}
	return err
}

// said is what the server or the system said, on one line.
func (s Settings) said(err error) string { return s.scrub(short(err)) }

// short is the innermost sentence of an error that says something by itself, on one line.
func short(err error) string { return legible.Line(innermost(err)) }

func innermost(err error) string {
	var said *pgconn.PgError
	if errors.As(err, &said) {
		return said.Message
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	text, rest, _ := strings.Cut(err.Error(), "\n")
	if strings.HasSuffix(text, ":") && rest != "" {
		// A name with several addresses has a line for each of them.
		text, _, _ = strings.Cut(strings.TrimSpace(rest), "\n")
	}
	if _, cause, found := strings.Cut(text, "`: "); found && strings.HasPrefix(text, "failed to connect") {
		text = cause
	}
	if at := strings.LastIndex(text, "): "); at >= 0 {
		text = text[at+3:]
	}
	return text
}
