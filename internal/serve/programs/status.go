package programs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// filter is what a query says of the grants to be shown.
type filter struct {
	states   []grant.State
	expiring bool
	within   time.Duration
	order    render.Order
}

func (q query) filter() (f filter, err error) {
	if _, f.expiring = q["expiring"]; f.expiring {
		if f.within, err = q.span("expiring", 0); err != nil {
			return f, err
		}
	}
	if text, there := q["state"]; there {
		for part := range strings.SplitSeq(text, ",") {
			state := grant.State(strings.TrimSpace(part))
			if !slices.Contains(grant.States(), state) {
				return f, usage(fmt.Sprintf("the parameter state: %s is not a state", quoted(part)), "The states are: "+states()+". Separate states with commas.")
			}
			f.states = append(f.states, state)
		}
	}
	f.order = render.ByCompany
	if text, there := q["sort"]; there {
		if f.order, err = render.ParseOrder(text); err != nil {
			return f, usage("the parameter sort: "+err.Error(), "Leave the parameter out, or use one of these orders.")
		}
	}
	return f, nil
}

func states() string {
	var names []string
	for _, state := range grant.States() {
		names = append(names, string(state))
	}
	return strings.Join(names, ", ")
}

// status answers with the state of the grants that the caller covers.
func (p *Programs) status(r asked) (answer, error) {
	target, err := r.query.target()
	if err != nil {
		return answer{}, err
	}
	f, err := r.query.filter()
	if err != nil {
		return answer{}, err
	}
	s, covers, err := p.begin(r)
	if err != nil {
		return answer{}, err
	}
	narrow := covers.narrow
	if session.IsPattern(target.Company) {
		narrow = covers.within
	}
	if target, err = narrow(target); err != nil {
		return answer{}, err
	}
	list, err := covers.known(r.Context(), s, target)
	if err != nil {
		return answer{}, covers.told(err)
	}
	now := p.Now()
	records := list.Records
	if len(f.states) > 0 {
		records = slices.DeleteFunc(records, func(r grant.Record) bool { return !slices.Contains(f.states, r.StateAt(now)) })
	}
	if f.expiring {
		records = session.EndingWithin(records, f.within, now)
	}
	render.SortRecords(records, f.order, now)
	var body bytes.Buffer
	err = render.StatusJSON(&body, records, now, problemsOf(list.Problems)...)
	return answer{kind: kindJSON, body: body.Bytes()}, err
}

// known lists what the caller covers of what a target names. Nothing that is not covered
// decides what is found.
func (c coverage) known(ctx context.Context, s *session.Session, t session.Target) (session.Listing, error) {
	covered := func(ctx context.Context, company string) (session.Listing, error) {
		list, err := s.Known(ctx, company)
		if err != nil {
			return list, err
		}
		// By all grants, also those that the caller must not see: a refusal of one says
		// much of the others of the same user.
		s.MarkVoid(ctx, list.Records, company == "")
		if err := s.MarkInvitedFor(ctx, list.Records, c.covers); err != nil {
			return list, err
		}
		if c.limited() {
			list.Records = slices.DeleteFunc(list.Records, func(r grant.Record) bool { return !c.covers(r.ID) })
			list.Problems = slices.DeleteFunc(slices.Clone(list.Problems), func(err error) bool { return !c.concerns(list.Records, err) })
			for i, err := range list.Problems {
				if old := new(shared.StaleError); errors.As(err, &old) {
					list.Problems[i] = &shared.StaleError{Read: old.Read, Err: errAway}
				}
			}
		}
		return list, nil
	}
	list, err := session.Matching(ctx, t.Company, covered)
	if err != nil {
		return list, err
	}
	if err := s.CheckNames(ctx, list, t.Application, t.Environment); err != nil {
		return list, err
	}
	list.Records = session.Filter(list.Records, t.Application, t.Environment)
	if t.Company == "" || len(list.Records) > 0 {
		return list, nil
	}
	if session.IsPattern(t.Company) {
		if len(list.Problems) > 0 {
			return list, nil
		}
		return list, s.NothingFits(ctx, t)
	}
	// It says which is missing, the company or the grant.
	_, err = s.Pick(ctx, t)
	return list, err
}

// concerns reports whether a file that can't be read is of one of the companies that are
// shown: it would say which others there are.
func (c coverage) concerns(shown []grant.Record, err error) bool {
	if c.identified == nil && c.scope.Application == "" && c.scope.Environment == "" || errors.As(err, new(*shared.StaleError)) {
		return true
	}
	name := filepath.Base(pathOf(err))
	return slices.ContainsFunc(shown, func(r grant.Record) bool { return strings.HasPrefix(name, grant.CompanySlot(r.Company)) })
}

func pathOf(err error) string {
	if file := new(company.FileError); errors.As(err, &file) {
		return file.Path
	}
	return vault.PathOf(err)
}

// problemsOf are the files that can't be read.
func problemsOf(problems []error) []render.Problem {
	var list []render.Problem
	for _, err := range problems {
		what, advice := explain.Error(err).Plain()
		list = append(list, render.Problem{Path: pathOf(err), Message: strings.TrimSpace(what + " " + advice)})
	}
	return list
}

// metrics answers with what monitors watch, of what the caller covers. The last round is
// of all grants, so it is for those who may see all of them.
func (p *Programs) metrics(r asked) (answer, error) {
	s, covers, err := p.begin(r)
	if err != nil {
		return answer{}, err
	}
	list, err := covers.known(r.Context(), s, session.Target{})
	if err != nil {
		return answer{}, covers.told(err)
	}
	var body bytes.Buffer
	err = render.Prometheus(&body, list.Records, p.Now())
	if err == nil && s.Shared != nil {
		err = render.PrometheusDatabase(&body, s.LookForDatabase(r.Context()) == nil)
	}
	if err == nil && p.Last != nil && !covers.limited() {
		if last := p.Last(); last != nil {
			err = render.PrometheusRound(&body, render.LastRound{End: last.End, Refreshed: last.Refreshed, Failed: last.Failed, ExitCode: last.ExitCode})
		}
	}
	return answer{kind: kindMetrics, body: body.Bytes()}, err
}

// alive answers for as long as the process can. It waits for nothing.
func (p *Programs) alive(r asked) (answer, error) { return p.ok(r), nil }

// ok says that all is well, and what is not so well that nothing could be served.
func (p *Programs) ok(r asked) answer {
	text := "ok\n"
	if s, err := p.Session(r.Context()); err == nil && s.AwayError() != nil {
		text += legible.Sentence(errAway.Error()+"; access tokens that are still valid are served") + "\n"
	}
	return answer{kind: kindText, body: []byte(text)}
}

// ready answers whether the service does what it is for.
func (p *Programs) ready(r asked) (answer, error) {
	err := p.notReady(r.Context())
	if err == nil || shared.IsAway(err) {
		// Good tokens are served while the database is away. A balancer that took all hosts
		// out would make an outage of what is none yet.
		return p.ok(r), nil
	}
	a := failure(err)
	a.status = http.StatusServiceUnavailable
	return a, nil
}

func (p *Programs) notReady(ctx context.Context) error {
	s, err := p.Session(ctx)
	if err != nil {
		return err
	}
	if s.Vault.Stuck() {
		return &vault.HomeError{Home: "vault", TimedOut: true, What: "A write to the vault got no answer and may still happen, so the service is about to end."}
	}
	// A round opens it with a session of its own, and that may have been minutes ago.
	if home := s.Files.Name(); s.Config.Vault == home || s.Files.Failed() {
		if err := s.Vault.Open(ctx, home); err != nil {
			return err
		}
	}
	if p.Ready == nil {
		return nil
	}
	return p.Ready(ctx)
}
