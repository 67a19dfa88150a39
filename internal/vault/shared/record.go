package shared

import (
	"encoding/json"
	"fmt"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

func factsOf(row postgres.Row) (f grant.Facts, err error) {
	err = json.Unmarshal(row.Item.Facts, &f)
	return f, err
}

// recordOf is a row as a record.
func (s *Store) recordOf(row postgres.Row) (r grant.Record, err error) {
	r.Version = grant.RecordVersion
	if r.Facts, err = factsOf(row); err == nil && len(row.Item.Local) > 0 {
		err = json.Unmarshal(row.Item.Local, &r.Local)
	}
	if err != nil || r.Facts.TokenVaultKey != row.Grant.Key || r.Facts.ID.Slot() != row.Slot {
		return grant.Record{}, &RowError{Slot: row.Slot}
	}
	r.Facts = s.toHost(r.Facts)
	r.Generation, r.Home = row.Grant.Token.Generation, HomeName
	r.Void, r.Removing = row.Grant.State == ledger.Void, row.Grant.State == ledger.Removing
	r.Contested = row.Grant.State == ledger.Interrupted
	r.Interrupted = r.Contested
	r.Revision = uint64(row.Grant.Version)
	if row.Spent.Host != "" {
		r.Asked = &grant.Asked{Host: row.Spent.Host, Time: row.Spent.At.UTC()}
	}
	return r, nil
}

// itemOf is a record as what lies with its row, without the sealed part.
func (s *Store) itemOf(r grant.Record) (item postgres.Item, err error) {
	r.Facts, r.Home = s.toDatabase(r.Facts), HomeName
	r.Void, r.Removing = false, false // the ledger says that
	if item.Facts, err = json.Marshal(r.Facts); err == nil {
		item.Local, err = json.Marshal(r.Local)
	}
	if err != nil {
		return item, fmt.Errorf("the record of %s can't be made: %w", r.ID, err)
	}
	return item, nil
}

// RowError says that a row of the database is not what upsauth writes.
type RowError struct{ Slot string }

func (e *RowError) Error() string {
	return fmt.Sprintf("the row of a grant in the database is not what upsauth writes (%s)", e.Slot)
}
