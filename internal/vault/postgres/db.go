// Package postgres is where the grants are that several hosts share: its tables, the
// connections to it, and what became of a change. The database is the users' own. The
// rules by which a refresh token is spent are the ledger's.
package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// maxConns is how many connections a process has at most. A hundred hosts must fit into
// what a database takes from everybody.
const maxConns = 2

// DB is a database. It is used by any number of goroutines, and connects when it is used.
type DB struct {
	settings Settings
	seats    chan struct{} // one for each connection
	longest  time.Duration // how long a transaction lasts at most

	mu   sync.Mutex
	idle []*conn
	// unreached is when the database was given up last, zero once it was reached again.
	unreached time.Time
	// era is raised when connections are not to be used any more: those of an earlier one
	// are closed.
	era int
}

// Open returns the database of some settings, without a connection.
func Open(s Settings) *DB {
	if s.Patience == 0 {
		s.Patience = usualPatience
	}
	return &DB{settings: s, seats: make(chan struct{}, maxConns), longest: usualLongest}
}

// Close closes the connections that nobody uses; the others are closed once they are not
// used any more.
func (db *DB) Close() { db.endEra() }

// GivenUp says that another process of this host has just waited for the database in vain, so
// that this one does not wait as long.
func (db *DB) GivenUp() {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.unreached = time.Now()
}

func (db *DB) endEra() {
	db.mu.Lock()
	idle := db.idle
	db.idle = nil
	db.era++
	db.mu.Unlock()
	for _, c := range idle {
		c.close()
	}
}

// conn is a connection in use by one goroutine.
type conn struct {
	*pgx.Conn
	era int
	// used says that it comes from an earlier use, so that its server may be gone.
	used bool
	// warning is the last that came since it was cleared.
	warning *pgconn.Notice
}

func (c *conn) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx)
}

// take returns a connection, one that is there already or a new one. It waits for a seat
// as long as the context lasts.
func (db *DB) take(ctx context.Context) (*conn, error) {
	// A request that is over does not harm the connections.
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case db.seats <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c, err := db.idleOrNew(ctx)
	if err != nil {
		<-db.seats
	}
	return c, err
}

func (db *DB) idleOrNew(ctx context.Context) (*conn, error) {
	db.mu.Lock()
	if last := len(db.idle) - 1; last >= 0 {
		c := db.idle[last]
		db.idle = db.idle[:last]
		db.mu.Unlock()
		c.used = true
		return c, nil
	}
	db.mu.Unlock()
	return db.connect(ctx)
}

// give takes a connection back.
func (db *DB) give(c *conn) {
	db.mu.Lock()
	keep := !c.IsClosed() && c.era == db.era && c.PgConn().TxStatus() == 'I'
	if keep {
		db.idle = append(db.idle, c)
	}
	db.mu.Unlock()
	if !keep {
		c.close()
	}
	<-db.seats
}

const (
	firstWait = 50 * time.Millisecond
	longWait  = 2 * time.Second
	// awayFor is how long after a wait in vain each connect is tried only once.
	awayFor = 15 * time.Second
)

// connect makes a connection. While the database is away it tries again, each time later
// and never at the same time as other hosts that have lost it together.
func (db *DB) connect(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, db.settings.Patience)
	defer cancel()
	var last error
	giveUp := func(err error) error {
		db.mu.Lock()
		defer db.mu.Unlock()
		db.unreached = time.Now()
		return err
	}
	db.mu.Lock()
	// Whoever has just waited in vain does not wait again for each thing that it asks.
	once := !db.unreached.IsZero() && time.Since(db.unreached) < awayFor
	db.mu.Unlock()
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		c, err := db.connectOnce(ctx)
		if err == nil {
			db.mu.Lock()
			db.unreached = time.Time{}
			db.mu.Unlock()
		}
		if err == nil || !passes(err) {
			return c, err
		}
		if once {
			return nil, giveUp(err)
		}
		if last != nil && ctx.Err() != nil {
			// A try that was cut off says less than the one before.
			return nil, giveUp(last)
		}
		last = err
		timer := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, giveUp(err)
		}
	}
}

func (db *DB) connectOnce(ctx context.Context) (*conn, error) {
	config, err := db.settings.config()
	if err != nil {
		return nil, err
	}
	c := &conn{}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if n.SeverityUnlocalized == "WARNING" || n.SeverityUnlocalized == "" && n.Severity == "WARNING" {
			c.warning = n
		}
	}
	db.mu.Lock()
	c.era = db.era
	db.mu.Unlock()
	if c.Conn, err = pgx.ConnectConfig(ctx, config); err != nil {
		return nil, db.settings.cannotConnect(ctx, config, err)
	}
	return c, nil
}

// Session is a connection that one goroutine has for as long as a call of DB.Session
// lasts: for what has to be said on the connection on which something was said before.
type Session struct {
	db *DB
	c  *conn
}

// Session runs do with a connection.
func (db *DB) Session(ctx context.Context, do func(*Session) error) error {
	c, err := db.take(ctx)
	if err != nil {
		return err
	}
	s := &Session{db: db, c: c}
	defer func() { db.give(s.c) }()
	return do(s)
}

// Do runs do in a transaction of a session of its own.
func (db *DB) Do(ctx context.Context, do func(pgx.Tx) error) error {
	return db.Session(ctx, func(s *Session) error { return s.Do(ctx, do) })
}

// usualLongest ends what no context ends: a request to UPS can't be cancelled any more, and a
// server that stands still, or that waits for a standby which is gone, would keep it for ever.
const usualLongest = time.Minute

// begin has each transaction bring all that it relies on: a role, a database or a pooler
// may have other settings, and a session keeps none. Warnings must be heard until the
// commit is through, since one of them says that it may be lost.
const begin = `BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL datestyle = ISO;
SET LOCAL bytea_output = hex;
SET LOCAL synchronous_commit = on;
SET LOCAL client_min_messages = warning;
SET LOCAL lock_timeout = '10s';
SET LOCAL idle_in_transaction_session_timeout = '60s'`

// Do runs do in a transaction, and commits it if do returns nil. FateOf tells by the error
// what became of it. do must not change anything else, and must not commit. An error is do's
// own where do failed. Nothing is tried again but the beginning of a transaction, on a
// connection that turns out to be dead since its last use.
func (s *Session) Do(ctx context.Context, do func(pgx.Tx) error) error {
	limited, cancel := context.WithTimeout(ctx, s.db.longest)
	defer cancel()
	tx, err := s.begin(limited)
	if err != nil {
		return err
	}
	connection := tx.Conn().PgConn().Conn()
	defer context.AfterFunc(limited, func() {
		if ctx.Err() == nil { // it ends the statements of do by itself
			_ = connection.SetDeadline(time.Now())
		}
	})()
	if err := do(tx); err != nil {
		s.rollback(limited, tx)
		s.ended(err)
		return err
	}
	s.c.warning = nil
	// A server whose synchronous standby is gone says nothing for as long as that lasts.
	patience := cmp.Or(s.db.settings.CommitPatience, usualCommitPatience)
	committing, done := context.WithTimeout(limited, patience)
	defer done()
	err = tx.Commit(committing)
	// Read when the commit is through: it has set it.
	err = ofCommit(err, s.c.warning)
	if unknown := new(UnknownError); errors.As(err, &unknown) && committing.Err() != nil && ctx.Err() == nil {
		unknown.What = fmt.Sprintf("the commit took longer than %s; if a synchronous standby is away, commits wait for it", patience)
	}
	s.ended(err)
	return err
}

// ErrNothing ends a transaction that has nothing to commit. To take it back waits for no disk
// and for no standby.
var ErrNothing = errors.New("there is nothing to commit")

// Transact runs do in a transaction of a session of its own, as Session.Do does. If do
// returns ErrNothing, the transaction is taken back and that is no error. The error is do's
// own if it is one of the ledger's; any other is an *Error, an *UnknownError or that of the
// context. It has nothing of a row in it.
func (db *DB) Transact(ctx context.Context, do func(pgx.Tx) error) error {
	return db.Session(ctx, func(s *Session) error { return s.transact(ctx, do) })
}

// read is Session.read on a session of its own.
func (db *DB) read(ctx context.Context, statement string, args []any, scan func(pgx.Rows) error) error {
	return db.Session(ctx, func(s *Session) error { return s.read(ctx, statement, args, scan) })
}

func (s *Session) transact(ctx context.Context, do func(pgx.Tx) error) error {
	err := s.Do(ctx, do)
	if errors.Is(err, ErrNothing) {
		return nil
	}
	return s.ofServer(ctx, err)
}

// ofServer types an error, unless it is the caller's own: then the connection goes on.
func (s *Session) ofServer(ctx context.Context, err error) error {
	if err != nil && !s.c.IsClosed() && !errors.As(err, new(*pgconn.PgError)) {
		return err
	}
	return s.db.settings.typed(ctx, err)
}

func (s *Session) begin(ctx context.Context) (pgx.Tx, error) {
	for {
		tx, err := s.c.BeginTx(ctx, pgx.TxOptions{BeginQuery: begin})
		if err == nil {
			s.c.used = false
			return tx, nil
		}
		if err := s.afresh(ctx, err); err != nil {
			return nil, err
		}
	}
}

// afresh has another connection once the beginning of something failed on one that was idle,
// and returns why there is none. Nothing that a living primary says to a beginning is an error.
// Behind a pooler, the server may be another one than at the connect.
func (s *Session) afresh(ctx context.Context, err error) error {
	s.c.close()
	s.db.endEra()
	if ctx.Err() != nil || !s.c.used {
		return s.db.settings.cannotBegin(ctx, err)
	}
	fresh, err := s.db.connect(ctx)
	if err == nil {
		s.c = fresh
	}
	return err
}

// read runs one statement that changes nothing and locks nothing, and has scan called for each
// of its rows. It is a transaction with what it relies on, as Do's are, in one round trip. The
// error is scan's own, an *Error or that of the context.
func (s *Session) read(ctx context.Context, statement string, args []any, scan func(pgx.Rows) error) error {
	limited, cancel := context.WithTimeout(ctx, s.db.longest)
	defer cancel()
	for {
		began, err := s.readOnce(limited, statement, args, scan)
		if err == nil {
			s.c.used = false
			return nil
		}
		if !began {
			if err := s.afresh(limited, err); err != nil {
				return err
			}
			continue
		}
		s.ended(err)
		if !s.c.IsClosed() && s.c.PgConn().TxStatus() != 'I' {
			s.abort(ctx)
		}
		return s.ofServer(ctx, err)
	}
}

// beginRead is what each read brings, as begin does.
var beginRead = []string{
	"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
	"SET LOCAL search_path = pg_catalog, pg_temp",
	"SET LOCAL datestyle = ISO",
	"SET LOCAL bytea_output = hex",
	"SET LOCAL lock_timeout = '10s'",
}

// readOnce is read on the connection that is there. Not began says that the server never came to
// the statement.
func (s *Session) readOnce(ctx context.Context, statement string, args []any, scan func(pgx.Rows) error) (began bool, err error) {
	var all pgx.Batch
	for _, setting := range beginRead {
		all.Queue(setting)
	}
	all.Queue(statement, args...)
	all.Queue("ROLLBACK")
	said := s.c.SendBatch(ctx, &all)
	defer func() { err = errors.Join(err, said.Close()) }()
	for range beginRead {
		if _, err := said.Exec(); err != nil {
			return false, err
		}
	}
	rows, err := said.Query()
	if err != nil {
		return true, err
	}
	for rows.Next() {
		if err := scan(rows); err != nil {
			rows.Close()
			return true, err
		}
	}
	return true, rows.Err()
}

// abort ends a transaction in which a statement failed.
func (s *Session) abort(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if _, err := s.c.Exec(ctx, "ROLLBACK"); err != nil {
		s.c.close()
	}
}

// rollback takes back a transaction that failed. The server does so itself where it can't
// be told.
func (s *Session) rollback(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := tx.Rollback(ctx); err != nil && !errors.Is(err, pgx.ErrTxClosed) {
		s.c.close()
	}
}

// ended looks at how something on the connection ended.
func (s *Session) ended(err error) {
	if err == nil {
		return
	}
	if FateOf(err) == Unknown {
		s.c.close()
	}
	if endsAll(err) {
		s.c.close()
		s.db.endEra()
	}
}

// cannotBegin says why there is no transaction on a connection that was there.
func (s Settings) cannotBegin(ctx context.Context, err error) error {
	e := &Error{
		Reason: Away, Err: s.quiet(err),
		What:   fmt.Sprintf("the database broke the connection off: %s", s.said(err)),
		Advice: "try again in a while",
	}
	switch c := code(err); {
	case c == "25006" || c == "0A000": // the second is what a standby says to READ WRITE
		e.Reason, e.What = ReadOnly, "the database takes no writes any more: "+s.said(err)
	case ctx.Err() != nil:
		e.What = "the database did not answer in time"
	}
	return e
}
