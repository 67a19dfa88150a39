package session

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// Target names grants: of a company, for an application, in an environment, each
// empty for any.
type Target struct{ Company, Application, Environment string }

// Fits reports whether a target means a grant.
func (t Target) Fits(id grant.ID) bool {
	return (t.Company == "" || grant.Fold(t.Company) == grant.Fold(id.Company)) &&
		(t.Application == "" || t.Application == id.Application) && (t.Environment == "" || t.Environment == id.Environment)
}

// Listing is what is known of some grants and companies. A company that has no grant
// has a record without Token Vault Key.
type Listing struct {
	Records []grant.Record
	// Problems are the files that could not be read, and may be about any company.
	// They were told by notices, too.
	Problems []error
}

// isStale reports whether a list is what this host knew of a database that is away.
func (l Listing) isStale() bool {
	return slices.ContainsFunc(l.Problems, func(err error) bool { return errors.As(err, new(*shared.StaleError)) })
}

// Records lists grants, of one company where it is not empty, in the order of names.
func (s *Session) Records(ctx context.Context, company string) (Listing, error) {
	records, problems, err := s.Vault.List(ctx, company)
	if err != nil {
		return Listing{}, err
	}
	if company == "" || len(records) > 0 {
		s.problems(ctx, problems)
	} else {
		// That all of a company has moved away, whoever looks for it says.
		s.problems(ctx, slices.DeleteFunc(slices.Clone(problems), func(err error) bool { return errors.As(err, new(*vault.MovedError)) }))
	}
	sortByName(records)
	return Listing{records, problems}, nil
}

// Filter keeps the grants of an application and an environment, empty for any.
// Where it is any for both, the result is the records themselves.
func Filter(records []grant.Record, application, environment string) []grant.Record {
	if application == "" && environment == "" {
		return records
	}
	return slices.DeleteFunc(slices.Clone(records), func(r grant.Record) bool {
		return !Target{Application: application, Environment: environment}.Fits(r.ID)
	})
}

// Authorized leaves the records of grants.
func Authorized(records []grant.Record) []grant.Record {
	return slices.DeleteFunc(slices.Clone(records), func(r grant.Record) bool { return r.TokenVaultKey == "" })
}

// CheckNames refuses names of applications and environments that no grant can have: a
// misspelt one must not look like a place where all is well.
func (s *Session) CheckNames(ctx context.Context, all Listing, application, environment string) error {
	if len(all.Problems) > 0 {
		return nil // what can't be read may be of that name
	}
	if environment != "" && !slices.Contains(s.Config.EnvironmentNames(), environment) && len(Filter(all.Records, "", environment)) == 0 {
		return s.NoEnvironment(environment)
	}
	if application == "" || len(Filter(all.Records, application, "")) > 0 || config.BuiltinDisplayName(application) != "" {
		return nil
	}
	applications, err := s.Applications(ctx)
	if err != nil || len(applications.Find(application, "")) > 0 {
		return err
	}
	return &NotFoundError{Kind: NoApplication, Application: application}
}

// Pick finds the one grant that is meant: the only one that fits, or among several
// that of the default application.
func (s *Session) Pick(ctx context.Context, t Target) (grant.Record, error) {
	list, err := s.Records(ctx, t.Company)
	if err != nil {
		return grant.Record{}, err
	}
	all := list.Records
	if len(all) == 0 {
		// Perhaps a revoke was cut off: then its secrets go now.
		s.FinishRemovals(ctx)
		return grant.Record{}, s.NoCompany(ctx, t.Company)
	}
	fit := Filter(all, t.Application, t.Environment)
	if len(fit) == 0 {
		return grant.Record{}, s.noGrant(ctx, all, t)
	}
	if len(fit) > 1 {
		applications, err := s.Applications(ctx)
		if err != nil {
			return grant.Record{}, err
		}
		if d := applications.Default; d != nil {
			if byDefault := Filter(fit, d.Application, d.Environment); len(byDefault) == 1 {
				fit = byDefault
			}
		}
	}
	if len(fit) > 1 {
		return grant.Record{}, &SeveralError{Target: t, Grants: IDs(fit)}
	}
	return fit[0], nil
}

// PickForToken is Pick for whoever only wants a token: a vault that several hosts share need
// not be asked for what this host knew some minutes ago.
func (s *Session) PickForToken(ctx context.Context, t Target) (grant.Record, error) {
	return s.Pick(vault.Recent(ctx), t)
}

// Chosen lists the grants that are meant: of one company, or all. Where a company is
// named and none of its fit, that is an error.
func (s *Session) Chosen(ctx context.Context, t Target) (Listing, error) {
	all, err := s.Records(ctx, t.Company)
	if err != nil {
		return Listing{}, err
	}
	if err := s.CheckNames(ctx, all, t.Application, t.Environment); err != nil {
		return Listing{}, err
	}
	if t.Company != "" && len(all.Records) == 0 {
		return Listing{}, s.NoCompany(ctx, t.Company)
	}
	fit := Filter(all.Records, t.Application, t.Environment)
	if t.Company != "" && len(fit) == 0 {
		return Listing{}, s.noGrant(ctx, all.Records, t)
	}
	return Listing{fit, all.Problems}, nil
}

// noGrant says that a company has grants, and none that the target fits.
func (s *Session) noGrant(ctx context.Context, all []grant.Record, t Target) error {
	if err := s.unread(ctx, t.Company); err != nil {
		return err
	}
	return &NotFoundError{Kind: NoGrant, Company: all[0].Company, Application: t.Application, Environment: t.Environment, Has: IDs(all)}
}

// NoCompany says that a company is not known or has no grant, and which one may be
// meant.
func (s *Session) NoCompany(ctx context.Context, name string) error {
	if err := s.unread(ctx, name); err != nil {
		return err
	}
	known, err := s.Known(ctx, "")
	if err != nil {
		return err
	}
	e := &NotFoundError{Kind: NoCompany, Company: name}
	var names []string
	for _, r := range known.Records {
		names = append(names, r.Company)
		if grant.Fold(r.Company) == grant.Fold(name) && r.TokenVaultKey == "" {
			return &NotFoundError{Kind: NoAuthorization, Company: r.Company}
		}
	}
	if len(known.Records) == 0 && len(known.Problems) == 0 {
		e.Unused = s.NeverUsed()
	}
	e.Near = nearest(name, names)
	return e
}

// NothingFits says that no company fits a pattern, or that there is none of a name.
func (s *Session) NothingFits(ctx context.Context, t Target) error {
	if !IsPattern(t.Company) {
		return s.NoCompany(ctx, t.Company)
	}
	return &NotFoundError{Kind: NothingFits, Company: t.Company, Application: t.Application, Environment: t.Environment}
}

// unread returns what keeps this user from knowing all of a company: what can't be
// read must not look as if it were not there.
func (s *Session) unread(ctx context.Context, company string) error {
	_, problems, err := s.Vault.List(ctx, company)
	if err != nil {
		return err
	}
	_, more, err := s.Companies.List(ctx, company)
	if err != nil {
		return err
	}
	return errors.Join(append(problems, more...)...)
}

// IsPattern reports whether a company is named by a pattern.
func IsPattern(name string) bool { return strings.ContainsAny(name, "*?[") }

// Matching is what list returns for a company's name or a pattern of names.
func Matching(ctx context.Context, name string, list func(context.Context, string) (Listing, error)) (Listing, error) {
	if !IsPattern(name) {
		return list(ctx, name)
	}
	if exact, err := list(ctx, name); err != nil || len(exact.Records) > 0 {
		return exact, err // a name may have such a character
	}
	all, err := list(ctx, "")
	if err != nil {
		return Listing{}, err
	}
	pattern := legible.Fold(name)
	if _, err := path.Match(pattern, ""); err != nil {
		return Listing{}, &NotFoundError{Kind: NoPattern, Company: name}
	}
	all.Records = slices.DeleteFunc(all.Records, func(r grant.Record) bool {
		// A slash is a character like any other here.
		fits, _ := path.Match(strings.ReplaceAll(pattern, "/", "\x00"), strings.ReplaceAll(legible.Fold(r.Company), "/", "\x00"))
		return !fits
	})
	return all, nil
}

// Token returns a grant with an access token that is good for at least minValid.
func (s *Session) Token(ctx context.Context, record grant.Record, minValid time.Duration) (grant.Grant, error) {
	ctx = vault.Recent(ctx)
	if err := s.Open(ctx, !record.AccessGood(s.options.Now(), minValid), record); err != nil {
		return grant.Grant{}, err
	}
	g, err := s.Keeper.Token(ctx, record.ID, minValid)
	return g, s.WithContact(ctx, err)
}

// Refresh refreshes the tokens of a grant in any case, unless somebody else did since
// its record was read.
func (s *Session) Refresh(ctx context.Context, record grant.Record) (keeper.Result, error) {
	result, err := s.Keeper.Refresh(ctx, record.ID, keeper.Need{Always: true, Seen: keeper.SeenIn(record)})
	return result, s.WithContact(ctx, err)
}

// MarkVoid finds out which grants are probably void. Records that are all that
// there are need no look at the others.
func (s *Session) MarkVoid(ctx context.Context, records []grant.Record, whole bool) {
	now := s.options.Now()
	all := records
	if !whole {
		asks := func(r grant.Record) bool { return r.User != "" && r.TokenVaultKey != "" }
		if !slices.ContainsFunc(records, asks) {
			return
		}
		var err error
		if all, _, err = s.Vault.List(ctx, ""); err != nil {
			s.step(ctx, err.Error())
			return
		}
	}
	grant.MarkProbablyVoid(records, all, now)
}

// Good reports whether a grant needs nobody at a browser, as far as is known.
func (s *Session) Good(ctx context.Context, r grant.Record) bool {
	if state := r.StateAt(s.options.Now()); state != grant.Authorized && state != grant.Refreshable {
		return false
	}
	records := []grant.Record{r}
	s.MarkVoid(ctx, records, false)
	return !records[0].ProbablyVoid()
}

// NeedsPerson reports whether a grant needs somebody at a browser, now or within
// a time.
func NeedsPerson(r grant.Record, within time.Duration, now time.Time) bool {
	switch r.StateAt(now) {
	case grant.Void, grant.Expired:
		return true
	case grant.Unauthorized:
		return false // nobody has begun with it yet
	}
	until := r.RefreshEnds(now)
	return !until.IsZero() && until.Sub(now) <= within
}

// EndingWithin keeps the grants whose refresh token ends within a time, and those that
// need a person already.
func EndingWithin(records []grant.Record, within time.Duration, now time.Time) []grant.Record {
	var found []grant.Record
	for _, r := range records {
		if NeedsPerson(r, within, now) || r.ProbablyVoid() {
			found = append(found, r)
		}
	}
	return found
}

// Names are those of companies and of the applications of their grants, as they come
// and as far as they can be read. Nothing is opened for them.
func (s *Session) Names(ctx context.Context) (companies, applications []string) {
	added, _, _ := s.Companies.List(ctx, "")
	for _, c := range added {
		companies = append(companies, c.Name)
	}
	records, _, _ := s.Vault.List(ctx, "")
	for _, r := range records {
		companies, applications = append(companies, r.Company), append(applications, r.Application)
	}
	return companies, applications
}

// WithRegistration keeps the grants whose application is known here, so that somebody
// can sign in for them again.
func (s *Session) WithRegistration(ctx context.Context, records []grant.Record) []grant.Record {
	return slices.DeleteFunc(slices.Clone(records), func(r grant.Record) bool {
		if r.TokenVaultKey == "" {
			return true
		}
		_, err := s.Registration(ctx, r.Application, r.Environment)
		return err != nil
	})
}

// InNeed are the grants that fit a target and need a person at a browser, and the
// companies that have no grant which fits.
func (s *Session) InNeed(ctx context.Context, t Target) ([]grant.Record, error) {
	all, err := s.Listed(ctx, "")
	if err != nil {
		return nil, err
	}
	if err := s.CheckNames(ctx, all, t.Application, t.Environment); err != nil {
		return nil, err
	}
	s.MarkVoid(ctx, all.Records, true)
	now := s.options.Now()
	has := map[grant.Folded]bool{}
	var need []grant.Record
	for _, r := range Filter(Authorized(all.Records), t.Application, t.Environment) {
		has[grant.Fold(r.Company)] = true
		if NeedsPerson(r, 0, now) || r.ProbablyVoid() {
			need = append(need, r)
		}
	}
	for _, r := range all.Records {
		if has[grant.Fold(r.Company)] {
			continue
		}
		has[grant.Fold(r.Company)] = true
		need = append(need, grant.Record{Facts: grant.Facts{ID: grant.ID{Company: r.Company}}, Found: grant.Found{Contact: r.Contact, Note: r.Note}})
	}
	return need, nil
}

// DueForInvitation are the grants that fit a target and whose customers have to sign in
// again, now or soon: void, expired, expiring, or probably void.
func (s *Session) DueForInvitation(ctx context.Context, t Target) ([]grant.Record, error) {
	all, err := s.Known(ctx, "")
	if err != nil {
		return nil, err
	}
	if err := s.CheckNames(ctx, all, t.Application, t.Environment); err != nil {
		return nil, err
	}
	s.MarkVoid(ctx, all.Records, true)
	now := s.options.Now()
	return slices.DeleteFunc(Filter(Authorized(all.Records), t.Application, t.Environment), func(r grant.Record) bool {
		return r.StateAt(now) != grant.Expiring && !NeedsPerson(r, 0, now) && !r.ProbablyVoid()
	}), nil
}

// NeverUsed says that the state directory never had a company in it, and is empty if
// it had one. A directory that can't be read does not count as unused: the caller
// that reads it reports the error.
func (s *Session) NeverUsed() string {
	if s.Shared != nil {
		return "" // other hosts use it
	}
	dir := s.Config.Paths.State
	absent := func(path string) bool {
		_, err := os.Stat(path)
		return errors.Is(err, fs.ErrNotExist)
	}
	switch {
	case absent(dir):
		return fmt.Sprintf("the state directory %s was never used: it does not exist", dir)
	case absent(filepath.Join(dir, "records")) && absent(filepath.Join(dir, "companies")):
		return fmt.Sprintf("the state directory %s was never used: it has no company", dir)
	}
	return ""
}

// nearest returns the name that differs least from the one given, if it is
// near enough to be a slip of the finger, else empty.
func nearest(name string, names []string) string {
	folded := []rune(grant.Fold(name))
	best, bestDistance := "", min(max(2, len(folded)/3)+1, len(folded))
	for _, candidate := range names {
		if d := distance(folded, []rune(grant.Fold(candidate))); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// distance is how many characters have to be put in, taken out or exchanged to
// make one text of the other (Levenshtein).
func distance(a, b []rune) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i, x := range a {
		diagonal := row[0]
		row[0] = i + 1
		for j, y := range b {
			cost := diagonal
			if x != y {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
