package programs

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/serve/keys"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// caller is who asks. The zero value may do everything.
type caller struct {
	keyed bool
	name  string // the key's
	scope keys.Scope
}

// in is a context in which companies' histories say who asked.
func (c caller) in(ctx context.Context) context.Context {
	if c.keyed {
		return company.By(ctx, "key "+c.name)
	}
	return company.By(ctx, "program")
}

// callerOf says who asks: whoever the key says, or where none is needed and none is
// given, whoever could open the socket.
func (p *Programs) callerOf(r *http.Request, keyed bool) (caller, error) {
	given := r.Header["Authorization"]
	if len(given) == 0 && !keyed {
		return caller{}, nil
	}
	if len(given) == 0 {
		return caller{}, unauthorized("a key is needed")
	}
	scheme, secret, _ := strings.Cut(given[0], " ")
	if p.Keys == nil || len(given) > 1 || !strings.EqualFold(scheme, "Bearer") || secret == "" {
		return caller{}, unauthorized("the header Authorization has no key")
	}
	key, err := p.Keys.Find(r.Context(), strings.TrimSpace(secret))
	switch {
	case errors.Is(err, keys.ErrWrong):
		return caller{}, unauthorized(err.Error())
	case shared.IsAway(err) && r.Context().Err() == nil:
		// It passes. Where the database is, is nobody's business who has no key.
		p.Log("%v", err)
		return caller{}, &requestError{
			status: http.StatusServiceUnavailable, code: 5, class: explain.Vault.String(), what: "the key can't be looked up: " + errAway.Error(),
			advice: "Try again in a while. The log of the service says why.",
		}
	case err != nil && r.Context().Err() == nil:
		// Whoever asks may be anybody, and the error tells of paths and users here.
		p.Log("%v", err)
		return caller{}, &requestError{
			status: http.StatusInternalServerError, code: 1, class: explain.Failed.String(), what: "the keys of programs can't be used",
			advice: "The log of the service says why.",
		}
	}
	return caller{keyed: true, name: key.Name, scope: key.Scope}, err
}

// errAway is what a program may know of a database that can't be reached.
var errAway = errors.New("the database that hosts share can't be reached")

// may reports whether the caller has a right.
func (c caller) may(r keys.Right) bool { return !c.keyed || c.scope.Allows(r) }

// limited reports whether there may be grants that the caller may not see.
func (c caller) limited() bool {
	return c.keyed && (c.scope.Companies != nil || c.scope.Application != "" || c.scope.Environment != "")
}

// coverage is what a caller covers, at one moment.
type coverage struct {
	caller
	// identified are the companies with identities, nil where the caller covers all.
	identified *company.Identified
}

// begin returns the session of a request and what its caller covers.
func (p *Programs) begin(r asked) (*session.Session, coverage, error) {
	s, err := p.Session(r.Context())
	if err != nil {
		return nil, coverage{}, err
	}
	covers, err := p.coverage(r, s)
	return s, covers, err
}

// coverage finds out what the caller covers. It looks at no company that is asked for.
func (p *Programs) coverage(r asked, s *session.Session) (coverage, error) {
	c := coverage{caller: r.by}
	if !c.keyed || c.scope.Companies == nil {
		return c, nil
	}
	var err error
	c.identified, err = s.Identified(r.Context())
	return c, err
}

// narrowed is narrow for a request that is content with what was known some minutes ago. What
// is beyond the limits by that is asked for again: a name may be covered since.
func (p *Programs) narrowed(r asked, s *session.Session, t session.Target) (session.Target, coverage, error) {
	r.Request = r.WithContext(vault.Recent(r.Context()))
	c, err := p.coverage(r, s)
	if err != nil {
		return t, c, err
	}
	narrow, refused := c.narrow(t)
	if refused == nil || s.Shared == nil {
		return narrow, c, refused
	}
	r.Request = r.WithContext(vault.Latest(r.Context()))
	if c, err = p.coverage(r, s); err != nil {
		return t, c, err
	}
	narrow, refused = c.narrow(t)
	return narrow, c, refused
}

// narrow is a target with the limits of the caller, or the error of one that is beyond
// them. It is decided by names alone, so that nothing tells whether there is such a
// company.
func (c coverage) narrow(t session.Target) (session.Target, error) {
	if c.identified != nil && t.Company != "" && !c.identified.Has(t.Company, c.scope.Companies) {
		return t, notCovered()
	}
	return c.within(t)
}

// within is narrow for a target whose company may be a pattern of names: that is beyond
// the limits only by what it finds.
func (c coverage) within(t session.Target) (session.Target, error) {
	if !c.keyed {
		return t, nil
	}
	if t.Application != "" && c.scope.Application != "" && t.Application != c.scope.Application ||
		t.Environment != "" && c.scope.Environment != "" && t.Environment != c.scope.Environment {
		return t, notCovered()
	}
	if t.Application == "" {
		t.Application = c.scope.Application
	}
	if t.Environment == "" {
		t.Environment = c.scope.Environment
	}
	return t, nil
}

// covers reports whether the caller covers a grant, or a company without one.
func (c coverage) covers(id grant.ID) bool {
	switch {
	case !c.keyed:
		return true
	case c.identified != nil && !c.identified.Is(id.Company, c.scope.Companies):
		return false
	case id.Application == "":
		return true
	}
	return (c.scope.Application == "" || id.Application == c.scope.Application) &&
		(c.scope.Environment == "" || id.Environment == c.scope.Environment)
}

// among are the grants that the caller covers.
func (c coverage) among(ids []grant.ID) []grant.ID {
	var covered []grant.ID
	for _, id := range ids {
		if c.covers(id) {
			covered = append(covered, id)
		}
	}
	return covered
}

// told is an error as far as the caller may know what it says: names of other companies
// and grants are left out.
func (c coverage) told(err error) error {
	if !c.limited() {
		return err
	}
	var (
		unknown *session.NotFoundError
		several *session.SeveralError
	)
	switch {
	case errors.As(err, &unknown):
		less := *unknown
		less.Near, less.Unused, less.Registered = "", "", nil
		less.Has = c.among(less.Has)
		return &less
	case errors.As(err, &several):
		less := *several
		less.Grants = c.among(less.Grants)
		return &less
	}
	return err
}
