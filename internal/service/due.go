package service

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// Work says which grants are kept alive, and how.
type Work struct {
	// Application and Environment are those whose grants are meant, each empty for
	// any.
	Application, Environment string
	// Within is how soon an access token has to end to be due.
	Within time.Duration
	// Force refreshes also what is not due.
	Force bool
	// Jobs is how many grants are refreshed at the same time.
	Jobs int
}

// Due reports whether a grant should be refreshed now. A refresh token that the
// clock calls expired is tried all the same: UPS decides.
func Due(r grant.Record, within time.Duration, now time.Time) bool {
	switch r.StateAt(now) {
	case grant.Void, grant.Unauthorized:
		return false
	case grant.Interrupted:
		return true
	case grant.Expiring, grant.Expired:
		return !r.NoRefreshToken
	}
	return !r.NoRefreshToken && !r.AccessGood(now, within)
}

// Round is what became of the grants when those due were refreshed.
type Round struct {
	Done, Failed, NotDue, Void, Left int
	// Unread is how many files could not be read, whose grants nobody knows.
	Unread int
	// Unused says why there is nothing to refresh, where nothing was ever kept
	// here.
	Unused string
}

func (r Round) String() string {
	if r.Unused != "" {
		return "nothing to refresh: " + r.Unused
	}
	text := fmt.Sprintf("%d refreshed, %d failed, %d not due", r.Done, r.Failed, r.NotDue)
	if r.Void > 0 {
		text += fmt.Sprintf(", %d void: they must be authorized again", r.Void)
	}
	if r.Left > 0 {
		text += fmt.Sprintf(", %d not begun", r.Left)
	}
	return text
}

// Teller is told what becomes of each grant, of one at a time.
type Teller interface {
	// Gone is a grant that only a person brings back.
	Gone(r grant.Record, state grant.State)
	// Begin comes before UPS is asked for so many grants.
	Begin(total int)
	// Saved is a grant with new tokens, Failed one without.
	Saved(id grant.ID, result keeper.Result)
	Failed(id grant.ID, err error)
}

// RefreshDue refreshes several grants at the same time, each by itself: what
// fails for one company stops no other. An error says that it could not begin.
func RefreshDue(ctx context.Context, s *session.Session, w Work, tell Teller) (r Round, err error) {
	all, err := s.Records(ctx, "")
	if err != nil {
		return r, err
	}
	if err := s.CheckNames(ctx, all, w.Application, w.Environment); err != nil {
		return r, err
	}
	r.Unread = len(all.Problems)
	now := s.Now()
	known := len(all.Records) + len(all.Problems)
	due := all.Records[:0] // the list is this function's, and large: it is not kept twice
	for _, g := range session.Filter(all.Records, w.Application, w.Environment) {
		switch state := g.StateAt(now); {
		case state == grant.Void, state == grant.Expired && g.NoRefreshToken:
			r.Void++
			g.Contact = s.Contact(ctx, g.Company)
			tell.Gone(g, state)
		case w.Force || Due(g, w.Within, now):
			due = append(due, g)
		default:
			r.NotDue++
		}
	}
	// While the database is away, each grant says so by itself.
	if err := s.Open(ctx, true, due...); err != nil && !shared.IsAway(err) {
		return r, err
	}
	if s.Shared != nil {
		// Hosts that go the same way at the same time wait for each other at each grant.
		rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	}
	tell.Begin(len(due))
	var mu sync.Mutex
	add := func(id grant.ID, result keeper.Result, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err == nil || errors.As(err, new(*keeper.SavedError)) {
			r.Done++
			tell.Saved(id, result)
			return
		}
		r.Failed++
		tell.Failed(id, err)
	}
	var group errgroup.Group
	group.SetLimit(w.Jobs)
	for _, g := range due {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			if ctx.Err() == nil {
				result, err := s.Refresh(ctx, g)
				add(g.ID, result, err)
			}
			return nil
		})
	}
	_ = group.Wait()
	r.Left = len(due) - r.Done - r.Failed
	if known == 0 {
		r.Unused = s.NeverUsed()
	}
	return r, nil
}
