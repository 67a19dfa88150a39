package serve

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	// headerPatience is how long a header may take, bodyPatience a body, and
	// answerPatience a whole answer: the lock of a grant is waited for during a minute,
	// and UPS for half of one.
	headerPatience = 5 * time.Second
	bodyPatience   = 10 * time.Second
	answerPatience = 3 * time.Minute
	idlePatience   = 2 * time.Minute
	// longestHeader has room for the cookies of everything else on localhost.
	longestHeader = 64 << 10
	longestBody   = 256 << 10
	// programsBody is longestBody for programs, whose requests have small bodies or none: it
	// is read before anybody looks at a key.
	programsBody = 16 << 10
	// publicBody is longestBody for anybody, whose requests name a sign-in at most.
	publicBody = 4 << 10
	// mostRequests is how many are worked on at the same time, once they have
	// come whole.
	mostRequests = 2048
)

// requests are those that are under way at one or several servers.
type requests struct {
	// context is what those work with that outlast a connection: whoever asked may hang
	// up in the middle of a write to the keychain, and that has to have its answer.
	context context.Context
	// done is called after each.
	done func()

	slots    chan struct{}
	underWay atomic.Int64
	ended    atomic.Uint64 // how many have been answered
}

func newRequests(ctx context.Context, done func()) *requests {
	return &requests{context: ctx, done: done, slots: make(chan struct{}, mostRequests)}
}

// endWithin reports whether none is under way any more within a time.
func (rs *requests) endWithin(d time.Duration) bool {
	const every = 5 * time.Millisecond
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for end := time.Now().Add(d); rs.underWay.Load() > 0; <-ticker.C {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// lasting is the context of a request that goes on when nobody waits for its answer any
// more.
type lasting struct {
	context.Context
	request context.Context
}

func (l lasting) Value(key any) any { return l.request.Value(key) }

// outlasting is whole for a handler that goes on when whoever asked hangs up.
func (rs *requests) outlasting(longest int64, next http.Handler) http.Handler {
	return rs.whole(longest, refuse, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(lasting{rs.context, r.Context()}))
	}))
}

// refusal answers a request that no handler sees.
type refusal func(w http.ResponseWriter, r *http.Request, status int, text string)

// whole lets a handler see requests whose bodies have come, of so many bytes at most.
func (rs *requests) whole(longest int64, refuse refusal, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rs.underWay.Add(1)
		defer func() {
			rs.ended.Add(1)
			rs.done()
			rs.underWay.Add(-1)
		}()
		if r.Body != nil && r.Body != http.NoBody && !readBody(w, r, longest, refuse) {
			return
		}
		wholeCame(r.Context())
		select {
		case rs.slots <- struct{}{}:
			defer func() { <-rs.slots }()
		default:
			w.Header().Set("Retry-After", "1")
			refuse(w, r, http.StatusServiceUnavailable, "too many requests at the same time")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// readBody reads a request's body to its end.
func readBody(w http.ResponseWriter, r *http.Request, longest int64, refuse refusal) bool {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(bodyPatience))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, longest))
	if err != nil {
		w.Header().Set("Connection", "close")
		if errors.As(err, new(*http.MaxBytesError)) {
			refuse(w, r, http.StatusRequestEntityTooLarge, "the request's body is too long")
		} else {
			refuse(w, r, http.StatusRequestTimeout, "the request's body did not come")
		}
		return false
	}
	_ = c.SetReadDeadline(time.Time{})
	r.Body = io.NopCloser(bytes.NewReader(body))
	return true
}

// refuse answers in one line, for who is no program of ours.
func refuse(w http.ResponseWriter, _ *http.Request, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}
