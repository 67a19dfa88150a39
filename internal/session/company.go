package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/files"
)

// Known lists grants as Records does, and a record without grant for each company
// that has none and was added.
func (s *Session) Known(ctx context.Context, company string) (Listing, error) {
	list, err := s.Records(ctx, company)
	if err != nil {
		return Listing{}, err
	}
	return s.withKnown(ctx, list, company)
}

// ListedBeside is Listed for all companies where the grants have been read already.
func (s *Session) ListedBeside(ctx context.Context, records []grant.Record) (Listing, error) {
	list, err := s.withKnown(ctx, Listing{Records: slices.Clone(records)}, "")
	if err != nil {
		return Listing{}, err
	}
	return s.withRemembered(ctx, list)
}

func (s *Session) withKnown(ctx context.Context, list Listing, company string) (Listing, error) {
	companies, problems, err := s.Companies.List(ctx, company)
	if err != nil && list.isStale() {
		return list, nil
	}
	if err != nil {
		return Listing{}, err
	}
	s.problems(ctx, problems)
	list.Problems = append(slices.Clip(list.Problems), problems...)
	if len(companies) == 0 {
		return list, nil
	}
	records := list.Records
	granted := map[string][]int{}
	for i, r := range records {
		granted[grant.CompanySlot(r.Company)] = append(granted[grant.CompanySlot(r.Company)], i)
	}
	renamed, err := s.renamed()
	if err != nil {
		s.problems(ctx, []error{err})
		list.Problems = append(list.Problems, err)
	}
	for _, c := range companies {
		// A renaming that was cut off is finished by the next command that changes
		// something. A person who names the old name means it.
		if company == "" && renamed[grant.Fold(c.Name)] {
			continue
		}
		grants := granted[grant.CompanySlot(c.Name)]
		for _, i := range grants {
			records[i].Contact, records[i].Note = c.Contact, c.Note
		}
		if len(grants) == 0 && (company == "" || grant.Fold(c.Name) == grant.Fold(company)) {
			records = append(records, grant.Record{Facts: grant.Facts{ID: grant.ID{Company: c.Name}}, Found: grant.Found{Contact: c.Contact, Note: c.Note}})
		}
	}
	sortByName(records)
	if company == "" {
		s.warnOfTwins(ctx, records)
	} else {
		records = nearestSpelling(records, company)
	}
	list.Records = records
	return list, nil
}

// sortByName sorts records by the names of company, application and environment,
// without regard to case.
func sortByName(records []grant.Record) {
	// A record is large, and is moved once.
	type place struct {
		company grant.Folded
		at      int
	}
	order := make([]place, len(records))
	for i := range records {
		order[i] = place{grant.Fold(records[i].Company), i}
	}
	before := func(a, b place) int {
		if c := cmp.Compare(a.company, b.company); c != 0 {
			return c
		}
		x, y := &records[a.at], &records[b.at]
		return cmp.Or(cmp.Compare(x.Application, y.Application), cmp.Compare(x.Environment, y.Environment))
	}
	if slices.IsSortedFunc(order, before) {
		return
	}
	slices.SortStableFunc(order, before)
	// Each record goes to its place at once, round by round: a second list of thousands
	// would take longer than all of the sorting.
	for start := range order {
		if order[start].at < 0 {
			continue
		}
		first := records[start]
		to := start
		for {
			from := order[to].at
			order[to].at = -1
			if from == start {
				records[to] = first
				break
			}
			records[to] = records[from]
			to = from
		}
	}
}

// nearestSpelling leaves one company where several look the same: the one that is
// called just as it was typed, else just as it is seen.
func nearestSpelling(records []grant.Record, typed string) []grant.Record {
	for _, spelling := range grant.Spellings(typed) {
		slot := grant.CompanySlot(spelling)
		other := func(r grant.Record) bool { return grant.CompanySlot(r.Company) != slot }
		if just := slices.DeleteFunc(slices.Clone(records), other); len(just) > 0 {
			return just
		}
	}
	return records
}

// warnOfTwins tells of companies whose names look the same: earlier versions kept
// characters that nobody sees.
func (s *Session) warnOfTwins(ctx context.Context, records []grant.Record) {
	first := map[grant.Folded]string{}
	for _, r := range records {
		key := grant.Fold(r.Company)
		other, there := first[key]
		if !there {
			first[key] = r.Company
			continue
		}
		if other == r.Company || grant.CompanySlot(other) == grant.CompanySlot(r.Company) {
			continue
		}
		odd := r.Company
		if len(legible.Hidden(odd)) == 0 {
			odd = other
		}
		first[key] = odd // told once
		s.notice(ctx, Notice{Kind: Twins, Name: odd})
	}
}

// Remembered is what Known returns about one company, or a record without grant
// where it has only a history, and that. One of which nothing is known is a
// NotFoundError.
func (s *Session) Remembered(ctx context.Context, name string) (Listing, []grant.Event, error) {
	list, err := s.Known(ctx, name)
	if err != nil {
		return Listing{}, nil, err
	}
	// The company's own way to write its name has the history.
	spellings := grant.Spellings(name)
	if len(list.Records) > 0 {
		spellings = []string{list.Records[0].Company}
	}
	var events []grant.Event
	for _, spelling := range spellings {
		if events, err = s.Companies.History(ctx, spelling); err != nil {
			return Listing{}, nil, err
		}
		if len(events) > 0 {
			break
		}
	}
	switch {
	case len(list.Records) == 0 && len(events) == 0:
		return Listing{}, nil, s.NoCompany(ctx, name)
	case len(list.Records) == 0:
		list.Records = []grant.Record{{Facts: grant.Facts{ID: grant.ID{Company: events[len(events)-1].Company}}}}
	}
	return list, events, nil
}

// withRemembered adds the companies of which only a history is left, after a
// revoke: they are on the list until they are removed.
func (s *Session) withRemembered(ctx context.Context, list Listing) (Listing, error) {
	known := make([]string, len(list.Records))
	for i, r := range list.Records {
		known[i] = r.Company
	}
	names, problems, err := s.Companies.Remembered(ctx, known)
	if err != nil && list.isStale() {
		return list, nil
	}
	if err != nil {
		return Listing{}, err
	}
	s.problems(ctx, problems)
	list.Problems = append(slices.Clip(list.Problems), problems...)
	there := map[grant.Folded]bool{}
	for _, r := range list.Records {
		there[grant.Fold(r.Company)] = true
	}
	renamed, _ := s.renamed() // Known tells what can't be read
	for _, name := range names {
		if renamed[grant.Fold(name)] {
			continue
		}
		if !there[grant.Fold(name)] {
			there[grant.Fold(name)] = true
			list.Records = append(list.Records, grant.Record{Facts: grant.Facts{ID: grant.ID{Company: name}}})
		}
	}
	sortByName(list.Records)
	return list, nil
}

// Listed is Known with the companies of which only a history is left.
func (s *Session) Listed(ctx context.Context, company string) (Listing, error) {
	list, err := s.Known(ctx, company)
	if err != nil {
		return Listing{}, err
	}
	if list, err = s.withRemembered(ctx, list); err != nil || company == "" {
		return list, err
	}
	list.Records = slices.DeleteFunc(list.Records, func(r grant.Record) bool { return grant.Fold(r.Company) != grant.Fold(company) })
	return list, nil
}

// Contact is the contact of a company, empty if none is known.
func (s *Session) Contact(ctx context.Context, company string) string {
	companies, problems, err := s.Companies.List(ctx, company)
	for _, err := range append(problems, err) {
		if err != nil {
			s.step(ctx, err.Error()) // told aloud by whoever needs more than this
		}
	}
	if len(companies) != 1 {
		return ""
	}
	return companies[0].Contact
}

// WithContact adds whom to ring where the company has to be authorized again, also to
// what is told after an interruption.
func (s *Session) WithContact(ctx context.Context, err error) error {
	var gone *keeper.GoneError
	if !errors.As(err, &gone) {
		return err
	}
	return WithContact(err, s.Contact(context.WithoutCancel(ctx), gone.ID.Company))
}

// Outcome is what became of a company.New.
type Outcome int

const (
	KnownAlready Outcome = iota
	Added
	Changed // what is known of it beside its name
)

// AddCompanies makes companies known. Told is called with the name that each has, and
// what became of it.
func (s *Session) AddCompanies(ctx context.Context, companies []company.New, told func(name string, o Outcome)) error {
	there, err := s.Known(ctx, "")
	if err != nil {
		return err
	}
	known := map[grant.Folded]string{}
	for _, r := range there.Records {
		known[grant.Fold(r.Company)] = r.Company
	}
	for _, c := range companies {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// What is begun with one company is done.
		ctx := context.WithoutCancel(ctx)
		outcome := KnownAlready
		name, ok := known[grant.Fold(c.Name)]
		if !ok {
			name = c.Name
			fresh, err := s.Companies.Add(ctx, name, s.options.Now())
			if err != nil {
				return err
			}
			known[grant.Fold(name)] = name
			if fresh {
				s.Note(ctx, grant.EventAdded, grant.ID{Company: name}, "")
				outcome = Added
			}
		}
		if c.Contact != nil || c.Note != nil {
			different, err := s.Companies.Describe(ctx, name, s.options.Now(), c.Change)
			if err != nil {
				return err
			}
			if different && outcome == KnownAlready {
				outcome = Changed
			}
		}
		told(name, outcome)
	}
	return nil
}

// Identify returns the name that a company has here, and its identity, which lasts
// through renames and new authorizations: see company.Book. An unknown company is a
// NotFoundError.
func (s *Session) Identify(ctx context.Context, name string) (company, id string, err error) {
	list, _, err := s.Remembered(ctx, name)
	if err != nil {
		return "", "", err
	}
	company = list.Records[0].Company
	id, err = s.Companies.Identify(ctx, company, s.options.Now())
	return company, id, err
}

// InTheWay is another company that has a name already.
type InTheWay struct {
	Name   string
	Grants []grant.Record
	// Begun says that an earlier rename from the old name was cut off.
	Begun bool
}

// Other finds the company that has a name already, nil where none has but the old one
// itself, in another spelling.
func (s *Session) Other(ctx context.Context, old, name string) (*InTheWay, error) {
	list, events, err := s.Remembered(ctx, name)
	if errors.As(err, new(*NotFoundError)) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	other := InTheWay{Name: list.Records[0].Company, Grants: Authorized(list.Records)}
	if grant.CompanySlot(other.Name) == grant.CompanySlot(old) {
		return nil, nil
	}
	other.Begun = len(events) > 0 && events[0].What == grant.EventRenamed && events[0].Detail == "it was called "+old
	return &other, nil
}

// Renaming is what it takes to give a company another name.
type Renaming struct {
	Old, New string
	Grants   []grant.Record
	// Other is the company that has the new name already, nil for none: the two would
	// become one. New is its name then.
	Other *InTheWay
	// Near are the known names that people may take the new one for.
	Near []NearName
}

// Nothing reports whether the company is already called so.
func (r Renaming) Nothing() bool { return r.Old == r.New }

// Merges reports whether two companies would become one, so that somebody has to be
// asked; where an earlier rename of the same names was cut off, they were.
func (r Renaming) Merges() bool { return r.Other != nil && !r.Other.Begun }

// PlanRename looks what it takes to give a company another name, before anything is
// renamed: no company must end up in halves. Two companies that can't become one are a
// ClashError beside the plan.
func (s *Session) PlanRename(ctx context.Context, old, name string) (Renaming, error) {
	list, _, err := s.Remembered(ctx, old)
	if err != nil {
		return Renaming{}, err
	}
	r := Renaming{Old: list.Records[0].Company, New: name, Grants: Authorized(list.Records)}
	if r.Nothing() {
		return r, nil
	}
	if r.Other, err = s.Other(ctx, r.Old, name); err != nil {
		return Renaming{}, err
	}
	if r.Other == nil {
		r.Near, err = s.Near(ctx, []string{name}, r.Old)
		return r, err
	}
	r.New = r.Other.Name
	if r.Merges() {
		return r, Clash(r.Grants, r.Other.Grants)
	}
	return r, nil
}

// Clash returns a ClashError where two companies both have an authorization for one
// application and environment.
func Clash(grants, others []grant.Record) error {
	for _, r := range grants {
		if both := Filter(others, r.Application, r.Environment); len(both) > 0 {
			return &ClashError{One: r.ID, Other: both[0].ID}
		}
	}
	return nil
}

// Rename gives a company with its grants another name. The name may belong to a
// company to merge with. The next command finishes an interrupted Rename.
func (s *Session) Rename(ctx context.Context, old string, grants []grant.Record, name string) error {
	// What can't be read may be a grant of either.
	if err := s.unread(ctx, old); err != nil {
		return err
	}
	if err := s.unread(ctx, name); err != nil {
		return err
	}
	survey, err := s.Vault.Survey(ctx, old)
	if err != nil {
		return err
	}
	unsettled := slices.DeleteFunc(slices.Clone(grants), func(r grant.Record) bool { return !survey.Unsettled(r) })
	if err := s.Open(ctx, false, unsettled...); err != nil {
		return err
	}
	work, err := s.Disk.Announce(ctx, files.Work{Kind: files.WorkRename, Company: old, To: name, Keys: keysOf(grants)})
	if err != nil {
		return err
	}
	for i, r := range grants {
		if err := s.Keeper.Rename(ctx, r.ID, name); err != nil {
			if i == 0 {
				work.Done() // nothing was begun
			} else {
				work.Leave()
			}
			return err
		}
	}
	// Last, so that a rename that fails can be made again. The grants have the new name.
	ctx = context.WithoutCancel(ctx)
	other, _ := s.Companies.Identities(ctx, name)
	if err := s.Companies.Rename(ctx, old, name, s.options.Now()); err != nil {
		work.Leave()
		return err
	}
	work.Done()
	if len(other) == 0 || grant.CompanySlot(old) == grant.CompanySlot(name) {
		return nil
	}
	// Two companies became one.
	if err := s.SettleInvitations(ctx); err != nil {
		s.step(ctx, err.Error()) // the next invitation tries again
	}
	return nil
}

// Forget removes a company with its grants. Nothing is told, where it is set, of each
// grant whose tokens were not where its record says.
func (s *Session) Forget(ctx context.Context, name string, grants []grant.Record, nothing func(*vault.NothingThereError)) error {
	work, err := s.Disk.Announce(ctx, files.Work{Kind: files.WorkForget, Company: name, Keys: keysOf(grants)})
	if err != nil {
		return err
	}
	for i, r := range grants {
		var none *vault.NothingThereError
		if err := s.Keeper.Revoke(ctx, r.ID); errors.As(err, &none) {
			nothing(none)
		} else if err != nil {
			if i == 0 {
				work.Done() // the tombstone, where there is one, tells of itself
			} else {
				work.Leave()
			}
			return err
		}
	}
	ctx = context.WithoutCancel(ctx)
	if err := s.Companies.Remove(ctx, name); err != nil {
		work.Leave()
		return err
	}
	work.Done()
	if err := s.SettleInvitations(ctx); err != nil {
		s.step(ctx, err.Error()) // they are judged to have ended all the same
	}
	return nil
}

// NearName is a name that is new beside a known one that people may take it for.
type NearName struct{ Name, Known string }

// Odd are the characters of the new name that are no ASCII and not in the known one.
func (n NearName) Odd() []rune {
	var odd []rune
	for _, r := range n.Name {
		if r > '~' && !strings.ContainsRune(n.Known, r) {
			odd = append(odd, r)
		}
	}
	return odd
}

// Sentence says that a name is new beside a known one that people may take it for.
func (n NearName) Sentence() string {
	text := fmt.Sprintf("The company %q is new; %q is known already.", n.Name, legible.Line(n.Known))
	if odd := n.Odd(); len(odd) > 0 {
		text += fmt.Sprintf(" The new name has %s in it.", legible.CodePoints(odd))
	}
	return text
}

// Near finds the new ones among names that are near a known one, or near each other.
// The company that is about to lose its name does not count.
func (s *Session) Near(ctx context.Context, names []string, besides string) ([]NearName, error) {
	// What is damaged among them was told already.
	there, _, err := s.Vault.List(ctx, "")
	if err != nil {
		return nil, err
	}
	added, _, err := s.Companies.List(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, c := range added {
		there = append(there, grant.Record{Facts: grant.Facts{ID: grant.ID{Company: c.Name}}})
	}
	all, err := s.withRemembered(ctx, Listing{Records: there})
	if err != nil {
		return nil, err
	}
	var known legible.Names
	seen := map[grant.Folded]bool{}
	for _, r := range all.Records {
		if key := grant.Fold(r.Company); !seen[key] {
			seen[key] = true
			if besides == "" || key != grant.Fold(besides) {
				known.Add(r.Company)
			}
		}
	}
	var found []NearName
	for _, name := range names {
		if key := grant.Fold(name); !seen[key] {
			seen[key] = true
			if like, ok := known.Near(name); ok {
				found = append(found, NearName{name, like})
			}
			known.Add(name)
		}
	}
	return found, nil
}

// People knows who signed in for which company.
type People struct {
	id     grant.ID
	before []string          // for the company until now
	others map[string]string // folded user -> another company of theirs
}

// People collects who signed in for companies so far, beside the one that is
// about to be authorized.
func (s *Session) People(ctx context.Context, id grant.ID) People {
	p := People{id: id, others: map[string]string{}}
	records, _, err := s.Vault.List(ctx, "")
	if err != nil {
		s.step(ctx, err.Error())
		return p
	}
	sortByName(records)
	for _, r := range records {
		user := strings.ToLower(r.User)
		switch {
		case user == "" || r.Environment != id.Environment:
		case grant.Fold(r.Company) == grant.Fold(id.Company):
			p.before = append(p.before, r.User)
		case p.others[user] == "":
			p.others[user] = r.Company
		}
	}
	return p
}

// Doubts are the reasons to think that the wrong person signed in, as sentences.
func (p People) Doubts(user string) []string {
	if user == "" {
		return nil
	}
	var doubts []string
	same := func(before string) bool { return keeper.SameUser(before, user) }
	if len(p.before) > 0 && !slices.ContainsFunc(p.before, same) {
		doubts = append(doubts, fmt.Sprintf("%s was authorized by %s before, and by %s now.", p.id.Company, p.before[0], user))
	}
	return append(doubts, p.Elsewhere(user)...)
}

// Elsewhere are the doubts about a user who stands for another company.
func (p People) Elsewhere(user string) []string {
	other := p.others[strings.ToLower(strings.TrimSpace(user))]
	if other == "" {
		return nil
	}
	return []string{fmt.Sprintf("%s has already signed in for %s: perhaps the browser's ups.com session does not belong to %s.", user, other, p.id.Company)}
}
