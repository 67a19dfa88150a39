package programs

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
)

// usualMinValid is how long a token stays good where the request does not say.
const usualMinValid = 5 * time.Minute

// token answers with an access token that is good for a while. It is that of memory where
// everything is as it was when it was put there.
func (p *Programs) token(r asked) (answer, error) {
	target, err := r.query.company("parameter")
	if err != nil {
		return answer{}, err
	}
	minValid, err := r.query.span("min_valid", usualMinValid)
	if err != nil {
		return answer{}, err
	}
	s, err := p.Session(r.Context())
	if err != nil {
		return answer{}, err
	}
	target, covers, err := p.narrowed(r, s, target)
	if err != nil {
		return answer{}, err
	}
	now, err := stateOf(r.Context(), s, target)
	if err != nil {
		return answer{}, err
	}
	key := keyOf(target)
	k, ok := p.tokens.get(s, key)
	if !ok || !k.holds(now, p.Now(), minValid) || s.Vault.Stuck() {
		if k, err = p.fetch(r.Context(), s, target, key, now, minValid, covers); err != nil {
			return answer{}, covers.told(err)
		}
	}
	if !covers.covers(k.id) {
		return answer{}, notCovered()
	}
	return answer{kind: kindJSON, body: k.body}, nil
}

// state is what decides which grant a target means and which tokens it has, as of one
// moment. Zero is where nobody can tell.
type state struct {
	grants       uint64 // of the records, see session.Session's Disk
	applications string // the applications' revision, where the default one decides
}

// stateOf is the state that a target is in now. It is taken before anything is read that
// is remembered with it, so what changes meanwhile makes it another one.
func stateOf(ctx context.Context, s *session.Session, t session.Target) (state, error) {
	if s.Shared != nil {
		return state{}, nil // whoever shares the vault may change it at any moment
	}
	version, grants := s.Disk.Version(t.Company, t.Application, t.Environment)
	now := state{grants: version}
	if grants > 1 {
		applications, err := s.Applications(ctx)
		if err != nil {
			return state{}, err
		}
		now.applications = applications.Revision
	}
	return now, nil
}

// fetch gets a token that is not in memory, or not good for long enough. Of requests for
// the same in the same state one does it for all.
func (p *Programs) fetch(ctx context.Context, s *session.Session, t session.Target, key key, now state, minValid time.Duration, covers coverage) (kept, error) {
	ctx = covers.in(ctx)
	get := func(ctx context.Context) (kept, error) {
		k, err := p.get(ctx, s, t, now, minValid, covers)
		if err == nil && now.grants != 0 && key.slot == grant.CompanySlot(k.id.Company) {
			p.tokens.put(s, key, k, p.Now())
		}
		return k, err
	}
	if now.grants == 0 {
		return detached(ctx, p, get)
	}
	// Another session, and another key of a program's, has a flight of its own.
	name := fmt.Sprintf("%p %q %x %q %d %q", s, key, now.grants, now.applications, minValid, covers.scope.Companies)
	return detached(ctx, p, func(ctx context.Context) (kept, error) {
		v, err, _ := p.flights.Do(name, func() (any, error) { return get(ctx) })
		k, _ := v.(kept)
		return k, err
	})
}

// get finds the grant and gets its token, refreshed where need be.
func (p *Programs) get(ctx context.Context, s *session.Session, t session.Target, now state, minValid time.Duration, covers coverage) (kept, error) {
	record, err := s.PickForToken(ctx, t)
	if err != nil {
		return kept{}, err
	}
	if !covers.covers(record.ID) {
		return kept{}, notCovered()
	}
	if err := s.Vault.Unanswered(record.ID); err != nil {
		return kept{}, err
	}
	g, err := s.Token(ctx, record, minValid)
	if err != nil {
		return kept{}, err
	}
	var body bytes.Buffer
	if err := render.JSON(&body, render.NewToken(g)); err != nil {
		return kept{}, err
	}
	k := kept{state: now, id: g.ID, body: body.Bytes()}
	k.times.Requested, k.times.AccessUntil = g.Requested, g.AccessUntil
	return k, nil
}

// refresh refreshes a grant's tokens in any case, and answers with its state. Requests
// that have read the same tokens share one refresh.
func (p *Programs) refresh(r asked) (answer, error) {
	target, err := r.query.company("parameter")
	if err != nil {
		return answer{}, err
	}
	s, covers, err := p.begin(r)
	if err != nil {
		return answer{}, err
	}
	if target, err = covers.narrow(target); err != nil {
		return answer{}, err
	}
	record, err := s.Pick(r.Context(), target)
	if err != nil {
		return answer{}, covers.told(err)
	}
	if !covers.covers(record.ID) {
		return answer{}, notCovered()
	}
	if err := s.Vault.Unanswered(record.ID); err != nil {
		return answer{}, err
	}
	_, err = detached(covers.in(r.Context()), p, func(ctx context.Context) (struct{}, error) {
		if err := s.Open(ctx, true, record); err != nil {
			return struct{}{}, err
		}
		_, err := s.Refresh(ctx, record)
		return struct{}{}, err
	})
	if err != nil {
		return answer{}, covers.told(err)
	}
	list, err := s.Known(r.Context(), record.Company)
	if err != nil {
		return answer{}, err
	}
	if err := s.MarkInvitedFor(r.Context(), list.Records, covers.covers); err != nil {
		return answer{}, err
	}
	one := session.Filter(list.Records, record.Application, record.Environment)
	if len(one) == 0 {
		return answer{}, grant.ErrNoGrant // it was removed since
	}
	s.MarkVoid(r.Context(), one, false)
	var body bytes.Buffer
	err = render.StatusJSON(&body, one, p.Now())
	return answer{kind: kindJSON, body: body.Bytes()}, err
}

// key is what a token is remembered by.
type key struct{ slot, application, environment string }

func keyOf(t session.Target) key {
	return key{slot: grant.CompanySlot(t.Company), application: t.Application, environment: t.Environment}
}

// kept is a token in memory, as an answer.
type kept struct {
	state
	id    grant.ID
	times grant.Record // with the access token's times alone
	body  []byte
}

// holds reports whether the answer is what a command would give now.
func (k kept) holds(is state, now time.Time, minValid time.Duration) bool {
	return is.grants != 0 && k.state == is && k.times.AccessGood(now, minValid)
}

// cache are the tokens in memory, those of one session.
type cache struct {
	mu      sync.RWMutex
	s       *session.Session
	kept    map[key]kept
	sweepAt int // how many there are when those that have ended go
}

func (c *cache) get(s *session.Session, k key) (kept, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.s != s {
		return kept{}, false
	}
	found, ok := c.kept[k]
	return found, ok
}

// put remembers a token. Those of an earlier session are forgotten.
func (c *cache) put(s *session.Session, k key, fresh kept, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.s != s {
		c.s, c.kept, c.sweepAt = s, map[key]kept{}, 64
	}
	if len(c.kept) >= c.sweepAt {
		for other, old := range c.kept {
			if !old.times.AccessGood(now, 0) {
				delete(c.kept, other)
			}
		}
		c.sweepAt = 2*len(c.kept) + 64
	}
	c.kept[k] = fresh
}
