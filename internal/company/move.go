package company

import (
	"cmp"
	"context"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
)

// CopyTo puts what this book knows of companies into another one, beside what that knows. It
// can be repeated: what is there comes once.
func (b *Book) CopyTo(ctx context.Context, to *Book) error {
	return b.each(ctx, func(row Row) error { return to.take(ctx, row) })
}

// MoveTo is CopyTo, after which this book knows nothing any more. What is added meanwhile is
// moved as well; where the move is cut off, the same call finishes it.
func (b *Book) MoveTo(ctx context.Context, to *Book) error {
	return b.each(ctx, func(row Row) error {
		var failed error
		err := b.change(ctx, []Key{row.Key}, func(rows []Row) (put, remove []Row) {
			// The copy first. Where it fails nothing is removed.
			if rows[0].Version == "" {
				return nil, nil
			}
			if failed = to.take(ctx, rows[0]); failed != nil {
				return nil, nil
			}
			return nil, rows
		})
		return cmp.Or(failed, err)
	})
}

// each calls do with every row that can be read.
func (b *Book) each(ctx context.Context, do func(Row) error) error {
	for _, part := range []Part{Added, History} {
		rows, problems, err := b.store.List(ctx, part, nil)
		if err != nil {
			return err
		}
		if len(problems) > 0 {
			return problems[0]
		}
		for _, listed := range rows {
			row, err := b.store.Get(ctx, listed.Key) // a listed history is not whole
			if err != nil {
				return err
			}
			if row = checked(row); row.Damaged != nil {
				return row.Damaged
			}
			if err := do(row); err != nil {
				return err
			}
		}
	}
	return nil
}

// take puts a row of another book beside what this one has under its key.
func (b *Book) take(ctx context.Context, from Row) error {
	return b.change(ctx, []Key{from.Key}, func(rows []Row) (put, remove []Row) {
		row := rows[0]
		if from.Part == Added {
			before, e := row.Entry, &row.Entry
			if !row.known() {
				*e = Entry{Company: from.Entry.Company, Added: from.Entry.Added}
			}
			e.Contact, e.Note = both(e.Contact, from.Entry.Contact), both(e.Note, from.Entry.Note)
			e.IDs = union(e.IDs, from.Entry.IDs)
			if row.known() && before.Details == e.Details && slices.Equal(before.IDs, e.IDs) {
				return nil, nil
			}
			return []Row{row}, nil
		}
		here := counted(row.Events)
		fresh := slices.DeleteFunc(counted(from.Events), func(e grant.Event) bool { return slices.Contains(here, e) })
		if len(fresh) == 0 {
			return nil, nil
		}
		row.Events = slices.Concat(fresh, here)
		slices.SortStableFunc(row.Events, func(a, b grant.Event) int { return a.Time.Compare(b.Time) })
		return []Row{row}, nil
	})
}
