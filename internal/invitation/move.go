package invitation

import (
	"context"
	"errors"
	"reflect"
)

// MoveTo puts all invitations into another book and removes them here. Prepare is called with
// each before, and may change what is kept of it there. Where the move is cut off, the same
// call finishes it.
func (b *Book) MoveTo(ctx context.Context, to *Book, prepare func(Key, *Invitation) error) error {
	// Which invitation is a grant's latest comes before the invitations, and goes after them:
	// without it an earlier one would count again.
	if err := b.moveParts(ctx, to, prepare, false, Latest, Invitations); err != nil {
		return err
	}
	return b.moveParts(ctx, to, prepare, true, Invitations, Latest)
}

func (b *Book) moveParts(ctx context.Context, to *Book, prepare func(Key, *Invitation) error, remove bool, parts ...Part) error {
	for _, part := range parts {
		rows, problems, err := b.store.List(ctx, part)
		if err != nil {
			return err
		}
		if len(problems) > 0 {
			return problems[0]
		}
		for _, row := range rows {
			// A store may look at a row more closely when it alone is asked for.
			if row, err = b.store.Get(ctx, row.RowKey); err != nil {
				return err
			}
			if row.Version == "" {
				continue // another process removed it
			}
			if err := b.moveRow(ctx, to, row, prepare, remove); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *Book) moveRow(ctx context.Context, to *Book, row Row, prepare func(Key, *Invitation) error, remove bool) error {
	for range maxTries {
		kept := row
		if row.Part == Invitations {
			if err := prepare(row.Key, &kept.Invitation); err != nil {
				return err
			}
		}
		err := to.change(ctx, row.RowKey, func(there *Row) ([]Row, error) {
			if there.Version != "" && there.Latest == kept.Latest && reflect.DeepEqual(there.Invitation, kept.Invitation) {
				return nil, nil
			}
			there.Invitation, there.Latest = kept.Invitation, kept.Latest
			return []Row{*there}, nil
		})
		if err != nil || !remove {
			return err
		}
		err = b.store.Commit(ctx, nil, []Row{row})
		var conflict *ConflictError
		if !errors.As(err, &conflict) {
			return err
		}
		if row = conflict.Row; row.Version == "" {
			return nil // another process removed it
		}
	}
	return errors.New("the invitations change all the time")
}
