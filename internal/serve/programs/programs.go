// Package programs is what programs ask of a service over HTTP: access tokens, the state
// of grants, a refresh, and what monitors watch. A good token is answered from memory, and
// what any process changes is seen by the next request.
package programs

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/upsauth/upsauth/internal/serve/keys"
	"github.com/upsauth/upsauth/internal/service"
	"github.com/upsauth/upsauth/internal/session"
)

// patience is how long a request waits for new tokens. What is under way with UPS goes on.
const patience = 100 * time.Second

// Options are what programs are served with.
type Options struct {
	// Session is that of the configuration as it is now: the same one until that
	// changes. Nobody closes what it returns.
	Session func(context.Context) (*session.Session, error)
	Keys    *keys.Book // nil where there are none
	// Ready, where set, says why the service isn't ready, nil if it is.
	Ready func(context.Context) error
	// Last, where set, is the last round, nil before the first.
	Last func() *service.Last
	Now  func() time.Time
	// Log, where set, is told what is no caller's fault.
	Log func(format string, args ...any)
}

// Programs answers programs. It may be used by several goroutines at once.
type Programs struct {
	Options
	tokens  cache
	flights singleflight.Group

	// ctx ends with Close, and under is what is under way.
	ctx   context.Context
	end   context.CancelFunc
	mu    sync.Mutex
	ended bool
	under sync.WaitGroup
}

// New returns what serves programs. The caller closes it.
func New(o Options) *Programs {
	p := &Programs{Options: o}
	if p.Log == nil {
		p.Log = func(string, ...any) {}
	}
	p.ctx, p.end = context.WithCancel(context.Background())
	return p
}

// Close ends what was begun for clients, also for those that are gone. What is under way
// with UPS is saved first. No request is served well afterward.
func (p *Programs) Close() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.end()
	p.under.Wait()
}

// errEnding is the error of what is asked for while the service ends.
var errEnding = errors.New("the service is ending")

// errSlow is the error of a request that has waited for long enough.
var errSlow = errors.New("the new tokens are not there yet, and the service goes on waiting for them")

// detached runs a call that no client can cancel, and waits for it as long as the client
// does.
func detached[T any](ctx context.Context, p *Programs, call func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	done := make(chan result, 1)
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return none, errEnding
	}
	p.under.Go(func() {
		whole, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		defer context.AfterFunc(p.ctx, cancel)()
		value, err := call(whole)
		done <- result{value, err}
	})
	p.mu.Unlock()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case r := <-done:
		if r.err != nil && p.ctx.Err() != nil && errors.Is(r.err, context.Canceled) {
			r.err = errEnding
		}
		return r.value, r.err
	case <-ctx.Done():
		return none, ctx.Err()
	case <-limit.C:
		return none, errSlow
	}
}

// asked is a request that may be answered: who asks, and for what.
type asked struct {
	*http.Request
	by    caller
	query query
	body  query
}

// route is what is served at a path.
type route struct {
	post   bool // else it is GET, and HEAD
	right  keys.Right
	params []string
	// fields are those of the body, none where there is no body.
	fields []string
	// keyed says that a key is needed, also from those who may open the socket.
	keyed bool
	serve func(p *Programs, r asked) (answer, error)
}

func routeOf(path string) (route, bool) {
	switch path {
	case "/v1/token":
		return route{right: keys.Token, params: []string{"company", "app", "env", "min_valid"}, serve: (*Programs).token}, true
	case "/v1/status":
		return route{params: []string{"company", "app", "env", "state", "expiring", "sort"}, serve: (*Programs).status}, true
	case "/v1/refresh":
		return route{post: true, right: keys.Refresh, params: []string{"company", "app", "env"}, serve: (*Programs).refresh}, true
	case "/v1/invitations":
		return route{
			post: true, keyed: true, right: keys.Invite, serve: (*Programs).invite,
			fields: []string{"company", "app", "env", "expires", "expect_user", "note", "return_url"},
		}, true
	case "/metrics":
		return route{serve: (*Programs).metrics}, true
	case "/healthz":
		return route{serve: (*Programs).alive}, true
	case "/readyz":
		return route{serve: (*Programs).ready}, true
	}
	return route{}, false
}

// Handler serves programs. Keyed says that a key is always needed. Otherwise whoever
// reaches the handler may do everything, and a key that is given is obeyed.
func (p *Programs) Handler(keyed bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, err := p.serve(r, keyed)
		if err != nil {
			if a = failure(err); a.status == http.StatusInternalServerError {
				p.Log("%s %s: %v", r.Method, r.URL.Path, err)
			}
		}
		a.write(w, r)
	})
}

// serve decides who asks before it looks at what is asked for.
func (p *Programs) serve(r *http.Request, keyed bool) (answer, error) {
	by, err := p.callerOf(r, keyed)
	if err != nil {
		return answer{}, err
	}
	route, found := routeOf(r.URL.EscapedPath())
	if !found {
		return answer{}, &requestError{status: http.StatusNotFound, class: "usage", code: 2, what: "there is nothing at this path", advice: "The paths are: /v1/token, /v1/status, /v1/refresh, /v1/invitations, /metrics, /healthz and /readyz."}
	}
	if allow := route.allow(r.Method); allow != "" {
		return answer{}, &requestError{
			status: http.StatusMethodNotAllowed, class: "usage", code: 2, allow: allow,
			what: "the method " + quoted(r.Method) + " does not work here", advice: "Use " + strings.ReplaceAll(allow, ",", " or") + ".",
		}
	}
	if route.keyed && !by.keyed {
		return answer{}, unauthorized("a key with the right " + string(route.right) + " is needed")
	}
	if route.right != "" && !by.may(route.right) {
		return answer{}, forbidden("this key does not have the right " + string(route.right))
	}
	var body query
	if route.fields != nil {
		body, err = readBody(r, route.fields)
	} else {
		err = refuseBody(r)
	}
	if err != nil {
		return answer{}, err
	}
	query, err := parseQuery(r.URL.RawQuery, route.params)
	if err != nil {
		return answer{}, err
	}
	return route.serve(p, asked{Request: r, by: by, query: query, body: body})
}

// allow are the methods of a route, empty where the one that was used is among them.
func (r route) allow(method string) string {
	switch {
	case r.post && method != http.MethodPost:
		return http.MethodPost
	case !r.post && method != http.MethodGet && method != http.MethodHead:
		return http.MethodGet + ", " + http.MethodHead
	}
	return ""
}

// refuseBody refuses a request with a body: what is in it would have no effect.
func refuseBody(r *http.Request) error {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	if r.ContentLength < 0 {
		// A body of unknown length may be none.
		if n, err := r.Body.Read(make([]byte, 1)); n == 0 && err != nil {
			return nil //nolint:nilerr // there was none, or the connection is gone
		}
	}
	return usage("the request has a body, and none is expected", "Put the parameters into the query.")
}
