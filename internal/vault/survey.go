package vault

import (
	"context"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
)

// List returns all records, or those of one company where it is not empty,
// removed ones left out, without opening any home. Files that can't be used are
// problems and do no harm to the others. A company of an earlier version whose name
// has characters in it that nobody sees is found by the name without them, unless
// another one is called just so.
func (v *Vault) List(ctx context.Context, company string) (records []grant.Record, problems []error, err error) {
	if company == "" {
		return v.list(ctx, "")
	}
	for _, name := range grant.Spellings(company) {
		if records, problems, err = v.list(ctx, name); err != nil || len(records)+len(problems) > 0 {
			return records, problems, err
		}
	}
	all, _, err := v.list(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	return slices.DeleteFunc(all, func(r grant.Record) bool { return grant.Fold(r.Company) != grant.Fold(company) }), nil, nil
}

// list is List by the name as it is kept.
func (v *Vault) list(ctx context.Context, company string) (records []grant.Record, problems []error, err error) {
	survey, err := v.Survey(ctx, company)
	return slices.DeleteFunc(survey.Records, beingRemoved), survey.Problems, err
}

func beingRemoved(r grant.Record) bool { return r.Removing }

// Survey is what the files of a vault say, each read once.
type Survey struct {
	// Records are those of all grants, also of those that are being removed.
	Records []grant.Record
	// Journals are those that nobody is at work on, by the slot of their grant.
	Journals map[string][]grant.Journal
	// Problems are the files that can't be used.
	Problems []error
}

// Present are the records of the grants that are not being removed.
func (s Survey) Present() []grant.Record {
	return slices.DeleteFunc(slices.Clone(s.Records), beingRemoved)
}

// Unsettled reports whether a journal lies beside a grant that the grant's next use has
// to finish or to clear away. Its home must be open for that.
func (s Survey) Unsettled(r grant.Record) bool {
	refreshing := func(j grant.Journal) bool { return j.Purpose == grant.Refreshing }
	return r.Interrupted || slices.ContainsFunc(s.Journals[r.Slot()], refreshing)
}

// Survey reads what a vault has, or what it has of one company where that is not
// empty, without opening any home.
func (v *Vault) Survey(ctx context.Context, company string) (Survey, error) {
	prefix := ""
	if company != "" {
		prefix = grant.CompanySlot(company) + "-"
	}
	s := Survey{Journals: map[string][]grant.Journal{}}
	// The records first: a refresh that ends meanwhile has no news then.
	var err error
	if s.Records, s.Problems, err = v.store.Grants(ctx, prefix); err != nil {
		return Survey{}, err
	}
	news, err := v.store.News(ctx, prefix)
	if err != nil {
		return Survey{}, err
	}
	if len(news) > 0 {
		v.surveyNews(ctx, &s, news)
	}
	return s, nil
}

// surveyNews notes the attempts that nobody is at work on, and says which records they
// make interrupted.
func (v *Vault) surveyNews(ctx context.Context, s *Survey, news []News) {
	at := make(map[string]int, len(s.Records))
	for i, r := range s.Records {
		at[r.Slot()] = i
	}
	lockless := false
	for _, group := range grouped(news) {
		first := group[0]
		if first.Err != nil {
			s.Problems = append(s.Problems, first.Err)
			continue
		}
		abandoned, err := v.abandoned(ctx, first)
		if err != nil && !lockless {
			lockless = true // once for all
			s.Problems = append(s.Problems, err)
		}
		if !abandoned {
			continue
		}
		i, known := at[first.Slot]
		if !known && first.Journal.Slot() != first.Slot {
			s.Problems = append(s.Problems, &JournalDamageError{first.Path, "it is not the journal of this name"})
			continue
		}
		generation := int64(0)
		if known && s.Records[i].TokenVaultKey == first.TokenVaultKey {
			generation = s.Records[i].Generation
		}
		open, kept := grant.Unsettled(journalsOf(group), generation)
		if known && generation == 0 && first.Journal.Purpose == grant.Refreshing {
			open = nil // of an earlier grant of the company, which is gone
		}
		if known {
			for j := range open {
				// The news is of the record's place; what it says itself may be older.
				open[j].ID = s.Records[i].ID
			}
		}
		s.Journals[first.Slot] = append(s.Journals[first.Slot], open...)
		if len(open) == 0 {
			if len(kept) > 0 {
				s.Journals[first.Slot] = append(s.Journals[first.Slot], kept...)
			}
			continue
		}
		j := open[0]
		if !known && j.Answered {
			// A first authorization that UPS answered has no record yet.
			i, known = len(s.Records), true
			at[first.Slot] = i
			s.Records = append(s.Records, grant.Record{Facts: grant.Facts{ID: j.ID, TokenVaultKey: j.TokenVaultKey, Home: j.Home}})
		}
		if known && interrupts(j, s.Records[i]) {
			s.Records[i].Interrupted, s.Records[i].CutOff = true, &j
		}
	}
}

// interrupts reports whether an attempt that nobody is at work on has what its grant's
// record lacks. One without an answer brings nothing back once the grant is void: another
// host may have said that.
func interrupts(j grant.Journal, r grant.Record) bool {
	if j.Purpose != grant.Refreshing {
		return j.Answered
	}
	// One under another key is of an earlier grant.
	return j.TokenVaultKey == r.TokenVaultKey && j.Generation > r.Generation && (j.Answered || !r.Void)
}
