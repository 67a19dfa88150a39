package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Identity is who a database is. A copy of it, a standby that was promoted and a dump that
// was restored differ in at least one of these.
type Identity struct {
	System   string // PostgreSQL's system identifier, which initdb makes
	Timeline uint32 // each promotion and each recovery to a point in time begins another
	Database uint32 // the oid of the database
	Claims   uint32 // the oid of the table of claims: a dump restored in place has another
}

func (i Identity) String() string {
	return fmt.Sprintf("%s/%d/%d/%d", i.System, i.Timeline, i.Database, i.Claims)
}

// IdentityQuery returns one row with what Identity has, as text, bigint, bigint and bigint.
// It can be part of another statement, which then compares what is true at its own moment.
const IdentityQuery = `SELECT
	(SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
	('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint AS timeline,
	(SELECT oid::bigint FROM pg_database WHERE datname = current_database()) AS database_oid,
	'upsauth.claims'::regclass::oid::bigint AS claims_oid`

// Identify asks a database who it is. The error is an *Error with NoIdentity where it can't
// tell.
func Identify(ctx context.Context, tx pgx.Tx) (Identity, error) {
	var i Identity
	var timeline, database, claims int64
	err := tx.QueryRow(ctx, IdentityQuery).Scan(&i.System, &timeline, &database, &claims)
	if err != nil {
		return i, cannotIdentify(err)
	}
	i.Timeline, i.Database, i.Claims = uint32(timeline), uint32(database), uint32(claims)
	if i.System == "" {
		return i, &Error{Reason: NoIdentity, What: "the database has no system identifier", Advice: "use another PostgreSQL"}
	}
	return i, nil
}

// cannotIdentify is the error of a statement that has IdentityQuery in it.
func cannotIdentify(err error) error {
	switch code(err) {
	case "42501", "0A000", "42883", "55000":
		return &Error{
			Reason: NoIdentity, Err: err,
			What: "the database can't say which one it is: " + short(err),
			Advice: "a shared vault needs that to notice a failover; use a PostgreSQL that lets the role call " +
				"pg_control_system and pg_current_wal_lsn (some managed databases do not, or only with wal_level = logical)",
		}
	}
	return err
}
