package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
)

// token returns the one grant that a command is about, with an access token that
// is good for at least minValid.
func (s *session) token(ctx context.Context, t target, minValid time.Duration) (grant.Grant, error) {
	if minValid < 0 {
		return grant.Grant{}, usagef("--min-valid is a length of time from now on, it can't be negative")
	}
	record, err := s.pick(ctx, t)
	if err != nil {
		return grant.Grant{}, err
	}
	if err := s.open(ctx, !record.AccessGood(s.env.Now(), minValid), record); err != nil {
		return grant.Grant{}, err
	}
	g, err := s.keeper.Token(ctx, record.ID, minValid)
	return g, s.withContact(err)
}

func joined(names []string) string { return strings.Join(names, ", ") }

// records lists grants, of one company where it is not empty, and tells on
// standard error what could not be read.
func (s *session) records(company string) ([]grant.Record, error) {
	records, problems, err := s.vault.List(company)
	if err != nil {
		return nil, err
	}
	s.problems = problems
	for _, problem := range problems {
		fmt.Fprintf(s.env.Err, "Warning: %v\n", problem)
	}
	sortByName(records)
	return records, nil
}

// finishRemovals finishes revokes that were cut off, and returns what it
// removed, and whatever else was cut off between two steps. What can't be finished
// now is for the next command.
func (s *session) finishRemovals(ctx context.Context) []grant.ID {
	removed, err := s.vault.FinishRemovals(ctx)
	if err != nil {
		s.log(err.Error())
	}
	for _, id := range removed {
		s.log(fmt.Sprintf("finished an earlier removal of %s", id))
		s.keeper.Happened(ctx, grant.Event{Time: s.env.Now().UTC(), What: grant.EventRevoked, ID: id, Detail: "finished after it was cut off"})
	}
	s.settleWork(ctx)
	return removed
}

func ids(records []grant.Record) []grant.ID {
	list := make([]grant.ID, len(records))
	for i, r := range records {
		list[i] = r.ID
	}
	return list
}

// filterIDs keeps those of one company that the flags fit.
func filterIDs(ids []grant.ID, t target) []grant.ID {
	return slices.DeleteFunc(slices.Clone(ids), func(id grant.ID) bool {
		return grant.Fold(id.Company) != grant.Fold(t.Company) ||
			t.Application != "" && id.Application != t.Application || t.Environment != "" && id.Environment != t.Environment
	})
}

// filter keeps the grants of an application and an environment, empty for any.
// Where it is any for both, the result is the records themselves.
func filter(records []grant.Record, application, environment string) []grant.Record {
	if application == "" && environment == "" {
		return records
	}
	return slices.DeleteFunc(slices.Clone(records), func(r grant.Record) bool {
		return application != "" && r.Application != application || environment != "" && r.Environment != environment
	})
}

// checkFilter refuses names that no grant can have: a misspelt one must not look
// like a place where all is well.
func (s *session) checkFilter(all []grant.Record, application, environment string) error {
	if len(s.problems) > 0 {
		return nil // what can't be read may be of that name
	}
	if environment != "" && !slices.Contains(s.config.EnvironmentNames(), environment) && len(filter(all, "", environment)) == 0 {
		return s.noEnvironment(environment)
	}
	if application == "" || len(filter(all, application, "")) > 0 || config.BuiltinDisplayName(application) != "" {
		return nil
	}
	applications, err := config.LoadApplications(s.config.Paths.Config)
	if err != nil || len(applications.Find(application, "")) > 0 {
		return err
	}
	return &notFoundError{what: fmt.Sprintf("there is no application %q", application), advice: "upsauth app list shows all."}
}

// pick finds the one grant that a command is about: the only one that fits, or
// among several that of the default application.
func (s *session) pick(ctx context.Context, t target) (grant.Record, error) {
	if strings.TrimSpace(t.Company) == "" {
		return grant.Record{}, usagef("--company is missing: name the company")
	}
	all, err := s.records(t.Company)
	if err != nil {
		return grant.Record{}, err
	}
	if len(all) == 0 {
		// Perhaps a revoke was cut off: then its secrets go now.
		s.finishRemovals(ctx)
		return grant.Record{}, s.noCompany(t.Company)
	}
	fit := filter(all, t.Application, t.Environment)
	if len(fit) == 0 {
		return grant.Record{}, s.noGrant(all, t)
	}
	if len(fit) > 1 {
		applications, err := config.LoadApplications(s.config.Paths.Config)
		if err != nil {
			return grant.Record{}, err
		}
		if d := applications.Default; d != nil {
			if byDefault := filter(fit, d.Application, d.Environment); len(byDefault) == 1 {
				fit = byDefault
			}
		}
	}
	if len(fit) > 1 {
		return grant.Record{}, usagef("%s has several grants%s: %s\n  Say which with --app and --env.", fit[0].Company, describe(t.Application, t.Environment), listed(fit))
	}
	return fit[0], nil
}

// noGrant says that a company has grants, and none that the flags fit.
func (s *session) noGrant(all []grant.Record, t target) error {
	if err := s.unread(t.Company); err != nil {
		return err
	}
	return &notFoundError{
		what:   fmt.Sprintf("%s has no grant%s", all[0].Company, describe(t.Application, t.Environment)),
		advice: "It has: " + listed(all),
	}
}

func listed(records []grant.Record) string {
	var names []string
	for _, r := range records {
		names = append(names, fmt.Sprintf("--app %s --env %s", r.Application, r.Environment))
	}
	return strings.Join(names, "; ")
}

func describe(application, environment string) string {
	text := ""
	if application != "" {
		text += " for the application " + application
	}
	if environment != "" {
		text += " in the environment " + environment
	}
	return text
}

// noCompany says that a company is not known or has no grant, and which one may be
// meant.
func (s *session) noCompany(name string) error {
	if err := s.unread(name); err != nil {
		return err
	}
	known, err := s.known("")
	if err != nil {
		return err
	}
	var names []string
	for _, r := range known {
		names = append(names, r.Company)
		if grant.Fold(r.Company) == grant.Fold(name) && r.TokenVaultKey == "" {
			return &notFoundError{what: r.Company + " has no authorization yet", advice: "Run: upsauth authorize --company " + shellQuote(r.Company)}
		}
	}
	e := &notFoundError{
		what:   fmt.Sprintf("no company %q is known here", name),
		advice: "upsauth company list shows all companies; upsauth authorize --company NAME authorizes one.",
	}
	if text := s.neverUsed(); text != "" && len(known) == 0 && len(s.problems) == 0 {
		e.advice = sentence(text) + " " + e.advice
	}
	if near := nearest(name, names); near != "" {
		e.advice = fmt.Sprintf("Did you mean %q? %s", near, e.advice)
	}
	return e
}

// unread returns what keeps this user from knowing all of a company: what can't be
// read must not look as if it were not there.
func (s *session) unread(company string) error {
	_, problems, err := s.vault.List(company)
	if err != nil {
		return err
	}
	_, more, err := s.companies.List(company)
	if err != nil {
		return err
	}
	return errors.Join(append(problems, more...)...)
}

// whole is the error of a command that has told all that it could read, and that
// there is more.
func (s *session) whole() error {
	if len(s.problems) > 0 {
		return &statusError{code: exitFailed}
	}
	return nil
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

// pickApplication finds the application for a new authorization: what the flags
// say, else what the company was authorized for before, else the only one
// registered, else the default.
func (s *session) pickApplication(t target) (config.Registration, error) {
	none := config.Registration{}
	if t.Application != "" {
		if _, err := grant.CleanName("application", t.Application); err != nil {
			return none, usagef("%v", err)
		}
	}
	if t.Environment != "" && !slices.Contains(s.config.EnvironmentNames(), t.Environment) {
		return none, s.noEnvironment(t.Environment)
	}
	var before []grant.Record
	if t.Company != "" { // what others have decides nothing
		var err error
		if before, err = s.records(t.Company); err != nil {
			return none, err
		}
	}
	applications, err := config.LoadApplications(s.config.Paths.Config)
	if err != nil {
		return none, err
	}
	// A grant from trying things out in the sandbox does not decide where a
	// registered application is meant.
	fit := slices.DeleteFunc(filter(before, t.Application, t.Environment), func(r grant.Record) bool {
		return r.Environment == config.Sandbox && t.Environment == "" && len(applications.Applications) > 0
	})
	if len(fit) == 1 {
		return s.registration(fit[0].Application, fit[0].Environment)
	}
	found := applications.Find(t.Application, t.Environment)
	if len(found) > 1 && applications.Default != nil {
		d := applications.Default
		if byDefault := (config.Applications{Applications: found}).Find(d.Application, d.Environment); len(byDefault) == 1 {
			found = byDefault
		}
	}
	fromEnvironment := s.env.Getenv(config.EnvClientID) != ""
	switch {
	case len(found) == 1:
		return s.registration(found[0].Name, found[0].Environment)
	case len(found) > 1:
		return none, usagef("several applications are registered: %s\n  Say which with --app and --env, or once and for all with upsauth app set-default.", listedApplications(found))
	case t.Environment == config.Sandbox || fromEnvironment:
		return s.registration(orElse(t.Application, config.IntelligentRating), orElse(t.Environment, "production"))
	}
	what := "no application is registered" + describe("", t.Environment)
	if t.Application != "" {
		what = fmt.Sprintf("the application %q is not registered%s", t.Application, describe("", t.Environment))
	}
	if len(applications.Applications) > 0 {
		what += "; registered are: " + listedApplications(applications.Applications)
	}
	return none, &notFoundError{
		what: what,
		advice: fmt.Sprintf("Run: upsauth app add %s --env %s --client-id ID --redirect-uri URI, with what UPS's developer portal shows. To try without an account: add --env sandbox.",
			orElse(t.Application, config.IntelligentRating), orElse(t.Environment, "production")),
	}
}

func listedApplications(applications []config.Registration) string {
	var names []string
	for _, r := range applications {
		names = append(names, fmt.Sprintf("--app %s --env %s", r.Name, r.Environment))
	}
	return strings.Join(names, "; ")
}

func orElse(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
