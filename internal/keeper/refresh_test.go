package keeper_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/realpart"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/signin"
	"github.com/upsauth/upsauth/internal/ups"
)

var always = keeper.Need{Always: true}

// fate is what becomes of a grant by the answer to a refresh.
type fate int

const (
	renewed fate = iota // the answer's tokens are kept, the next refresh spends them
	unspent             // all is as it was, the next refresh spends the same token
	unknown             // all is as it was, the same token is sent again, but not soon
	void                // the company must be authorized again
)

func TestEveryAnswerHasItsConsequence(t *testing.T) {
	t.Parallel()
	refused := func(status int, code, message string) *sandbox.Fault {
		return &sandbox.Fault{Status: status, Code: code, Message: message}
	}
	body := func(change func(body string) string) func(*answer) {
		return func(a *answer) { a.body = []byte(change(string(a.body))) }
	}
	cutIn := func(field string, n int) func(*answer) {
		return body(func(b string) string { return b[:strings.Index(b, field)+len(field)+n] })
	}
	field := func(name string, value any) func(*answer) {
		return func(a *answer) { a.fields(t, func(f map[string]any) { f[name] = value }) }
	}

	tests := []struct {
		name string
		// What happens to the one refresh: a fault of UPS's, a change of its
		// answer, or a client that is not on its way to UPS.
		fault  *sandbox.Fault
		change func(*answer)
		client func(*testing.T, *ups.Client)
		before func(*world)

		// What is expected.
		fate
		kind       ups.Kind // of the error, empty for none
		code       string   // of the record's last error, empty for none
		unreached  bool     // the request does not get to UPS
		committed  bool     // UPS spent the token and nobody here has what came for it
		withoutNew bool     // the answer brings no refresh token: the old one stays
		check      func(t *testing.T, before, after grant.Grant)
	}{
		{name: "granted", fate: renewed},
		{name: "granted, as text/plain", fate: renewed, change: func(a *answer) { a.header.Set("Content-Type", "text/plain") }},
		{name: "granted, with 201", fate: renewed, change: func(a *answer) { a.status = http.StatusCreated }},
		{name: "granted, with numbers", fate: renewed, fault: &sandbox.Fault{Numbers: true}},
		{name: "granted, with tokens of 8 KB", fate: renewed, fault: &sandbox.Fault{Huge: true},
			check: func(t *testing.T, _, after grant.Grant) {
				if n := len(after.AccessToken) + len(after.RefreshToken); n < 15<<10 {
					t.Errorf("the tokens have %d bytes together", n)
				}
			}},
		{name: "granted, with an empty expires_in", fate: renewed, change: field("expires_in", ""),
			check: func(t *testing.T, _, after grant.Grant) {
				if after.Lifetime() != lifetime {
					t.Errorf("the lifetime is %s, not that of the access token's own claims", after.Lifetime())
				}
			}},
		{name: "granted, with expires_in 3599.0 and unknown fields", fate: renewed,
			change: func(a *answer) {
				a.fields(t, func(f map[string]any) { f["expires_in"], f["extra"] = "3599.0", map[string]any{"a": []int{1}} })
			}},
		{name: "granted to another client ID", fate: renewed, code: "other-client", change: field("client_id", "somebody-else")},
		{name: "granted, cut off behind the refresh token", fate: renewed, code: "damaged-answer", change: cutIn(`,"scope`, 0),
			check: func(t *testing.T, _, after grant.Grant) {
				if !after.AccessGood(after.Requested, 0) {
					t.Error("the access token is not good")
				}
			}},
		{name: "granted, cut off before the access token and behind the refresh token", fate: renewed,
			kind: ups.Unusable, code: "no-access-token",
			change: body(func(b string) string {
				return "{" + regexp.MustCompile(`"refresh_token":"[^"]*"`).FindString(b) + `,"access_token":"eyJ`
			})},
		{name: "granted without access token", fate: renewed, kind: ups.Unusable, code: "no-access-token",
			fault: &sandbox.Fault{Omit: []string{"access_token"}},
			check: func(t *testing.T, _, after grant.Grant) {
				if after.AccessToken != "" || after.AccessGood(after.Requested, 0) {
					t.Error("an access token that never came is there, or good")
				}
			}},
		{name: "granted without refresh token", fate: renewed, committed: true, withoutNew: true, code: "no-new-refresh-token",
			fault: &sandbox.Fault{Omit: []string{"refresh_token", "refresh_token_issued_at", "refresh_token_expires_in"}},
			check: func(t *testing.T, before, after grant.Grant) {
				if after.RefreshTokenIssued != before.RefreshTokenIssued || after.RefreshTokenExpires != before.RefreshTokenExpires || after.RefreshUntil != before.RefreshUntil {
					t.Error("the old refresh token has new times")
				}
			}},

		{name: "200 with an empty body", fate: unknown, kind: ups.Unusable, code: "unusable", committed: true, fault: &sandbox.Fault{Body: "empty"}},
		{name: "200 with a web page", fate: unknown, kind: ups.Unusable, code: "unusable", committed: true, fault: &sandbox.Fault{Body: "html"}},
		{name: "200 cut off in the access token", fate: unknown, kind: ups.Unusable, code: "unusable", committed: true, change: cutIn(`"access_token":"`, 30)},
		{name: "200 with half a body under the whole length", fate: unknown, kind: ups.Unusable, code: "unusable", committed: true, fault: &sandbox.Fault{Drop: "during"}},
		{name: "200 with half a body and a reset", fate: unknown, kind: ups.Unusable, code: "unusable", committed: true, fault: &sandbox.Fault{Drop: "during", Reset: true}},

		{name: "200 with a refusal of the refresh token in it", fate: void, kind: ups.RefreshTokenRefused, code: "10400",
			before: changePassword, change: func(a *answer) { a.status = http.StatusOK }},
		{name: "the refresh token refused, after a changed password", fate: void, kind: ups.RefreshTokenRefused, code: "10400", before: changePassword},
		{name: "the refresh token refused, in RFC 6749's words", fate: void, kind: ups.RefreshTokenRefused, code: "invalid_grant",
			before: changePassword, change: body(func(string) string { return `{"error":"invalid_grant"}` })},

		{name: "10400 about something else", fate: unspent, kind: ups.Unknown, code: "10400", fault: refused(400, "10400", "Invalid Content Type")},
		{name: "10400 about the header", fate: unspent, kind: ups.HeaderMissing, code: "10400", fault: refused(400, "10400", "Invalid/Missing Authorization Header")},
		{name: "10401 about the client", fate: unspent, kind: ups.ClientRefused, code: "10401", fault: refused(401, "10401", "ClientId is Invalid")},
		{name: "401 without a word", fate: unspent, kind: ups.Unknown, code: "unknown", fault: &sandbox.Fault{Status: 401, Body: "empty"}, change: func(a *answer) {
			a.header.Del("errorcode")
			a.header.Del("errordescription")
		}},
		{name: "403, the merchant is blocked", fate: unspent, kind: ups.Blocked, code: "10403", fault: refused(403, "10403", "Blocked Merchant")},

		{name: "500, nothing done", fate: unknown, kind: ups.Down, code: "10500", fault: refused(500, "", "")},
		{name: "503, nothing done", fate: unknown, kind: ups.Down, code: "10500", fault: &sandbox.Fault{Status: 503, RetryAfter: "1"}},
		{name: "500, the token spent", fate: unknown, kind: ups.Down, code: "10500", committed: true, fault: &sandbox.Fault{Status: 500, Commit: true}},
		{name: "the error page, nothing done", fate: unknown, kind: ups.Down, code: "down", fault: &sandbox.Fault{ErrorPage: true}},
		{name: "the error page, the token spent", fate: unknown, kind: ups.Down, code: "down", committed: true, fault: &sandbox.Fault{ErrorPage: true, Commit: true}},

		{name: "dropped before anything is done", fate: unknown, kind: ups.Lost, code: "lost", fault: &sandbox.Fault{Drop: "before"}},
		{name: "reset before anything is done", fate: unknown, kind: ups.Lost, code: "lost", fault: &sandbox.Fault{Drop: "before", Reset: true}},
		{name: "dropped after the token is spent", fate: unknown, kind: ups.Lost, code: "lost", committed: true, fault: &sandbox.Fault{Drop: "after"}},
		{name: "reset after the token is spent", fate: unknown, kind: ups.Lost, code: "lost", committed: true, fault: &sandbox.Fault{Drop: "after", Reset: true}},
		{name: "answered too late", fate: unknown, kind: ups.Lost, code: "lost", committed: true,
			fault: &sandbox.Fault{Latency: 200 * time.Millisecond},
			client: func(t *testing.T, c *ups.Client) {
				impatient := ups.NewTransport()
				impatient.ResponseHeaderTimeout = 20 * time.Millisecond
				c.Transport = impatient
				t.Cleanup(impatient.CloseIdleConnections)
			}},

		{name: "no connection", fate: unspent, kind: ups.Unreachable, code: "unreachable", unreached: true,
			client: func(t *testing.T, c *ups.Client) {
				c.BaseURL = fmt.Sprintf("http://127.0.0.1:%d", realpart.Port(t))
			}},
		{name: "no such host", fate: unspent, kind: ups.Unreachable, code: "unreachable", unreached: true,
			client: func(_ *testing.T, c *ups.Client) {
				c.BaseURL = "http://onlinetools.ups.example"
				nowhere := ups.NewTransport()
				nowhere.DialContext = (&net.Dialer{Resolver: &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
					return nil, errors.New("no name server answers")
				}}}).DialContext
				c.Transport = nowhere
			}},
		{name: "a certificate that nobody vouches for", fate: unspent, kind: ups.Unreachable, code: "unreachable", unreached: true,
			client: func(t *testing.T, c *ups.Client) {
				server := httptest.NewUnstartedServer(http.NotFoundHandler())
				server.Config.ErrorLog = log.New(io.Discard, "", 0)
				server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
				server.StartTLS()
				t.Cleanup(server.Close)
				c.BaseURL = server.URL
			}},
	}

	all := newWorld(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := all.of(t, tt.name)
			before := w.authorize()
			w.pass(10 * time.Minute) // the access token stays good throughout
			if tt.before != nil {
				tt.before(w)
			}
			if tt.fault != nil {
				fault := *tt.fault
				fault.Endpoint, fault.Times = "refresh", 1
				if err := w.ups.AddFault(fault); err != nil {
					t.Fatal(err)
				}
			}
			served := make(chan struct{}, 99)
			w.front.set(func() {
				w.front.served = func(string) { served <- struct{}{} }
				if tt.change != nil {
					w.front.change = func(_ string, a *answer) { tt.change(a) }
				}
			})
			good := w.client
			if tt.client != nil {
				tt.client(t, &w.client)
			}

			p := w.start(nil)
			w.pass(time.Second) // so that the error is later than the process
			var err error
			sent := w.requests(func() {
				_, err = p.Refresh(t.Context(), w.id, always)
				if !tt.unreached {
					<-served // a late one is carried out all the same
				}
			})
			w.front.set(func() { w.front.served, w.front.change = nil, nil })
			w.client = good

			if want := 1; tt.unreached && sent != 0 || !tt.unreached && sent != want {
				t.Errorf("%d requests reached UPS", sent)
			}
			checkKind(t, err, tt.kind)
			after := w.disk()
			checkLastError(t, after, tt.code, w.clock.Now())
			if after.Generation != after.item.Generation || after.RefreshCount != after.item.RefreshCount {
				t.Errorf("the record (%s) is not that of the item (generation %d)", after, after.item.Generation)
			}
			if tt.check != nil {
				tt.check(t, before, after.item)
			}
			if tt.fate == renewed {
				w.wantRenewed(before, after)
				if (after.item.RefreshToken == before.RefreshToken) != tt.withoutNew {
					t.Errorf("kept the old refresh token: %t, want %t", !tt.withoutNew, tt.withoutNew)
				}
			} else {
				w.wantKept(before, after)
			}
			switch tt.fate {
			case renewed:
				w.wantSettled(after, grant.Authorized, grant.Refreshable)
				if !tt.withoutNew {
					w.wantNextRefresh()
					break
				}
				// UPS had spent it after all, and the message knows that.
				var gone *keeper.GoneError
				if _, err := w.start(nil).Refresh(t.Context(), w.id, always); !errors.As(err, &gone) || !strings.Contains(gone.Why, "most likely it was spent then") {
					t.Errorf("the next refresh: %v", err)
				}
				return
			case unspent:
				w.wantSettled(after, grant.Authorized)
				w.wantNextRefresh()
			case unknown:
				w.wantPending(before, tt.committed)
			case void:
				w.wantVoid(before, err)
			}
			double := 0
			if tt.fate == unknown && tt.committed {
				double = 1
			}
			if n := w.outcomes(sandbox.Reused); n != double {
				t.Errorf("a spent refresh token was sent %d times, want %d", n, double)
			}
		})
	}
}

// changePassword voids what the company's person agreed to.
func changePassword(w *world) {
	if err := w.ups.ChangePassword(w.user); err != nil {
		w.t.Fatal(err)
	}
}

// checkKind checks for an error of UPS's of this kind, for none where it is
// empty.
func checkKind(t *testing.T, err error, kind ups.Kind) {
	t.Helper()
	var refusal *ups.Error
	switch {
	case kind == "" && err != nil:
		t.Errorf("error %v, want none", err)
	case kind != "" && !errors.As(err, &refusal):
		t.Errorf("error %v, want one of UPS's, %s", err, kind)
	case kind != "" && refusal.Kind != kind:
		t.Errorf("error %v is %s, want %s", err, refusal.Kind, kind)
	}
}

func checkLastError(t *testing.T, d disk, code string, now time.Time) {
	t.Helper()
	switch {
	case code == "" && d.LastError != nil:
		t.Errorf("the record's last error is %+v, want none", *d.LastError)
	case code != "" && d.LastError == nil:
		t.Errorf("the record has no last error, want %s", code)
	case code != "" && (d.LastError.Code != code || d.LastError.Message == "" || !d.LastError.Time.Equal(now)):
		t.Errorf("the record's last error is %+v, want %s at %s", *d.LastError, code, now)
	}
}

// wantRenewed checks that the vault has the next generation of the grant.
func (w *world) wantRenewed(before grant.Grant, after disk) {
	w.t.Helper()
	switch {
	case after.Generation != before.Generation+1 || after.RefreshCount != before.RefreshCount+1:
		w.t.Errorf("the vault has generation %d, refreshed %d times; want one more than %d and %d",
			after.Generation, after.RefreshCount, before.Generation, before.RefreshCount)
	case after.TokenVaultKey != before.TokenVaultKey || after.item.AccessToken == before.AccessToken:
		w.t.Error("the grant is another, or still has the old access token")
	case after.item.AccessToken != "" && !w.works(after.item.AccessToken):
		w.t.Error("UPS does not take the access token")
	}
}

// wantKept checks that the vault has the grant as it was, with both tokens.
func (w *world) wantKept(before grant.Grant, after disk) {
	w.t.Helper()
	if after.Generation != before.Generation || after.item.Secrets != before.Secrets {
		w.t.Errorf("the grant is not as it was: %s", after)
	}
}

// wantSettled checks that no exchange is open and that the state is one of
// those.
func (w *world) wantSettled(d disk, states ...grant.State) {
	w.t.Helper()
	if len(d.journals) != 0 || !slices.Contains(states, d.state) {
		w.t.Errorf("%s; want no journal and one of the states %v", d, states)
	}
}

// wantNextRefresh checks that the next refresh sends one request and succeeds:
// the refresh token in the vault is the one that UPS waits for.
func (w *world) wantNextRefresh() {
	w.t.Helper()
	before := w.disk()
	w.pass(time.Second)
	p := w.start(nil)
	w.pass(time.Second)
	sent := w.requests(func() {
		if result, err := p.Refresh(w.t.Context(), w.id, always); err != nil || !result.Refreshed {
			w.t.Errorf("the next refresh: refreshed %t, %v", result.Refreshed, err)
		}
	})
	if sent != 1 {
		w.t.Errorf("the next refresh made %d requests, want 1", sent)
	}
	after := w.disk()
	w.wantRenewed(before.item, after)
	w.wantSettled(after, grant.Authorized)
	checkLastError(w.t, after, "", time.Time{})
}

// wantPending follows a refresh of unknown fate to its end: until the same
// token may be sent again nothing is, and an access token that is still good is
// served; then it is sent once, and either works or is refused with the truth.
func (w *world) wantPending(before grant.Grant, committed bool) {
	t := w.t
	t.Helper()
	after := w.disk()
	if after.state != grant.Interrupted || len(after.journals) != 1 || after.journals[0].Attempt != 1 || after.journals[0].Outcome == "" {
		t.Fatalf("%s, journals %+v; want interrupted, with one attempt and what became of it", after, after.journals)
	}
	sentAt := after.journals[0].Time

	sent := w.requests(func() {
		for _, wait := range []time.Duration{0, retryUnknownAfter - time.Nanosecond} {
			w.pass(sentAt.Add(wait).Sub(w.clock.Now()))
			if g, err := w.start(nil).Token(t.Context(), w.id, 0); err != nil || g.AccessToken != before.AccessToken {
				t.Errorf("the access token, which is good, is not served: %v", err)
			}
			_, err := w.start(nil).Refresh(t.Context(), w.id, always)
			var pending *keeper.PendingError
			if !errors.As(err, &pending) || pending.Again != retryUnknownAfter-wait || !pending.Since.Equal(sentAt) || pending.What != after.journals[0].Outcome {
				t.Errorf("after %s: error %+v, want that the token may be sent again in %s", wait, err, retryUnknownAfter-wait)
			}
		}
	})
	if sent != 0 {
		t.Errorf("%d requests were sent too early", sent)
	}

	w.pass(time.Nanosecond)
	if !committed {
		w.wantNextRefresh()
		return
	}
	var err error
	sent = w.requests(func() { _, err = w.start(nil).Refresh(t.Context(), w.id, always) })
	if sent != 1 {
		t.Errorf("%d requests were sent after the wait, want 1", sent)
	}
	w.wantKept(before, w.disk())
	w.wantVoid(before, err)
	if !strings.Contains(err.Error(), "attempt 2") || !strings.Contains(err.Error(), "earlier attempt") {
		t.Errorf("the error does not tell of the earlier attempt: %v", err)
	}
}

// wantVoid checks that the grant is void, for which err is the error, that its
// secrets are kept, and that nothing is sent on its behalf any more.
func (w *world) wantVoid(before grant.Grant, err error) {
	t := w.t
	t.Helper()
	var gone *keeper.GoneError
	if !errors.As(err, &gone) || !gone.Void || gone.ID != w.id {
		t.Errorf("error %v, want that the company must be authorized again", err)
	}
	after := w.disk()
	w.wantSettled(after, grant.Void)
	w.wantKept(before, after)
	sent := w.requests(func() {
		for name, call := range map[string]func() error{
			"Refresh": func() error { _, err := w.start(nil).Refresh(t.Context(), w.id, always); return err },
			"Token":   func() error { _, err := w.start(nil).Token(t.Context(), w.id, 0); return err },
		} {
			if err := call(); !errors.As(err, &gone) || gone.Why != after.LastError.Message {
				t.Errorf("%s of a void grant: %v, want its last error", name, err)
			}
		}
	})
	if sent != 0 {
		t.Errorf("%d requests were sent on behalf of a void grant", sent)
	}
}

// The pauses that UPS asks for are waited out, and never for long.
func TestRateLimited(t *testing.T) {
	t.Parallel()
	seconds := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	tests := []struct {
		name       string
		times      int // how often UPS refuses
		retryAfter func(now time.Time) string
		after      *sandbox.Fault // what comes then
		requests   int
		waits      [][2]time.Duration // from, to
		kind       ups.Kind
		asked      time.Duration // what the error says that UPS asks for
	}{
		{name: "Retry-After in seconds", times: 1, retryAfter: func(time.Time) string { return "7" },
			requests: 2, waits: [][2]time.Duration{{seconds(7), seconds(7.71)}}},
		{name: "Retry-After as a date", times: 1, retryAfter: func(now time.Time) string { return now.Add(30 * time.Second).UTC().Format(http.TimeFormat) },
			requests: 2, waits: [][2]time.Duration{{seconds(25), seconds(34.1)}}},
		{name: "Retry-After that is over", times: 1, retryAfter: func(time.Time) string { return "0" },
			requests: 2, waits: [][2]time.Duration{{seconds(0.5), seconds(1.5)}}},
		{name: "without Retry-After, longer each time", times: 3,
			requests: 4, waits: [][2]time.Duration{{seconds(0.5), seconds(1.5)}, {seconds(1), seconds(3)}, {seconds(2), seconds(6)}}},
		{name: "without end", times: 99, kind: ups.RateLimited,
			requests: 6, waits: [][2]time.Duration{{seconds(0.5), seconds(1.5)}, {seconds(1), seconds(3)}, {seconds(2), seconds(6)}, {seconds(4), seconds(12)}, {seconds(8), seconds(24)}}},
		{name: "Retry-After that is too long to wait", times: 1, retryAfter: func(time.Time) string { return "121" }, kind: ups.RateLimited,
			requests: 1, asked: seconds(121)},
		{name: "then refused for another reason", times: 1, retryAfter: func(time.Time) string { return "1" },
			after: &sandbox.Fault{Status: 401, Code: "10401", Message: "ClientId is Invalid"}, kind: ups.ClientRefused,
			requests: 2, waits: [][2]time.Duration{{seconds(1), seconds(1.11)}}},
	}
	all := newWorld(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := all.of(t, tt.name)
			before := w.authorize()
			limit := sandbox.Fault{Endpoint: "refresh", Status: http.StatusTooManyRequests, Times: tt.times}
			if tt.retryAfter != nil {
				limit.RetryAfter = tt.retryAfter(w.clock.Now())
			}
			faults := []sandbox.Fault{limit}
			if tt.after != nil {
				tt.after.Endpoint, tt.after.Times = "refresh", 1
				faults = append(faults, *tt.after)
			}
			for _, fault := range faults {
				if err := w.ups.AddFault(fault); err != nil {
					t.Fatal(err)
				}
			}
			w.pass(time.Second)
			p := w.start(nil)
			p.during = func() {
				// A process that ends in the pause leaves nothing unknown.
				if d := w.disk(); len(d.journals) != 0 || d.LastError == nil || d.LastError.Code != "10429" {
					t.Errorf("in the pause: %s", d)
				}
			}
			var err error
			sent := w.requests(func() { _, err = p.Refresh(t.Context(), w.id, always) })
			w.ups.ClearFaults()

			if sent != tt.requests {
				t.Errorf("%d requests were sent, want %d", sent, tt.requests)
			}
			checkKind(t, err, tt.kind)
			if len(p.waits) != len(tt.waits) {
				t.Fatalf("waited %v, want %d times", p.waits, len(tt.waits))
			}
			for i, d := range p.waits {
				if d < tt.waits[i][0] || d > tt.waits[i][1] {
					t.Errorf("wait %d took %s, want %v", i+1, d, tt.waits[i])
				}
			}
			after := w.disk()
			w.wantSettled(after, grant.Authorized)
			if tt.kind == "" {
				w.wantRenewed(before, after)
			} else {
				w.wantKept(before, after)
			}
			if refusal := new(ups.Error); tt.asked > 0 && errors.As(err, &refusal) && refusal.RetryAfter != tt.asked {
				t.Errorf("the error says to wait %s, want %s", refusal.RetryAfter, tt.asked)
			}
			w.wantNextRefresh()
			if n := w.outcomes(sandbox.Reused); n != 0 {
				t.Errorf("a spent token was sent %d times", n)
			}
		})
	}
}

// lose lets the next refresh be granted and its answer be lost.
func (w *world) lose() {
	w.t.Helper()
	if err := w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Drop: "after", Times: 1}); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.start(nil).Refresh(w.t.Context(), w.id, always); err == nil {
		w.t.Fatal("the refresh whose answer is lost succeeded")
	}
}

// Each attempt counts, and each waits for the one before it.
func TestAttemptsOfUnknownFateAreCountedAndKeptApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.authorize()
	if err := w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Status: 503, Times: 3}); err != nil {
		t.Fatal(err)
	}
	for attempt := 1; attempt <= 3; attempt++ {
		_, err := w.start(nil).Refresh(t.Context(), w.id, always)
		checkKind(t, err, ups.Down)
		d := w.disk()
		if len(d.journals) != 1 || d.journals[0].Attempt != attempt || !d.journals[0].Time.Equal(w.clock.Now()) {
			t.Fatalf("after attempt %d: journals %+v", attempt, d.journals)
		}
		w.wantKept(before, d)
		w.pass(retryUnknownAfter - 1)
		var pending *keeper.PendingError
		sent := w.requests(func() { _, err = w.start(nil).Refresh(t.Context(), w.id, always) })
		if !errors.As(err, &pending) || sent != 0 {
			t.Fatalf("after attempt %d: %d requests, %v", attempt, sent, err)
		}
		w.pass(1)
	}
	w.wantNextRefresh()
	if n := w.outcomes(sandbox.Reused); n != 0 {
		t.Errorf("a spent token was sent %d times", n)
	}
}

// What spends nothing says nothing of an earlier attempt: its fate is as
// unknown as before, and whoever asks later is told of it.
func TestWhatSpendsNothingLeavesAnEarlierAttemptUnknown(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		fault  *sandbox.Fault
		client func(*ups.Client)
		wire   wire
	}{
		{name: "429", fault: &sandbox.Fault{Status: 429, RetryAfter: "3600"}},
		{name: "the client refused", fault: &sandbox.Fault{Status: 401, Code: "10401", Message: "ClientId is Invalid"}},
		{name: "an unknown refusal", fault: &sandbox.Fault{Status: 400, Code: "10400", Message: "Invalid Content Type"}},
		{name: "no connection", client: func(c *ups.Client) { c.BaseURL = "http://127.0.0.1:1" }},
		{name: "a request that can't be made", client: func(c *ups.Client) { c.BaseURL = "http://\x7f" }},
		{name: "another client", client: func(c *ups.Client) { c.ClientID = "client-2" }},
		{name: "a locked home", wire: failing(errLocked, "home.Put probe")},
		{name: "a full disk", wire: failing(errFull, "Claim")},
	}
	all := newWorld(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := all.of(t, tt.name)
			before := w.authorize()
			w.lose()
			earlier := w.disk().journals
			w.pass(retryUnknownAfter)
			if tt.fault != nil {
				tt.fault.Endpoint, tt.fault.Times = "refresh", 1
				if err := w.ups.AddFault(*tt.fault); err != nil {
					t.Fatal(err)
				}
			}
			good := w.client
			if tt.client != nil {
				tt.client(&w.client)
			}
			if _, err := w.start(tt.wire).Refresh(t.Context(), w.id, always); err == nil {
				t.Fatal("the second attempt succeeded")
			}
			w.client = good
			d := w.disk()
			w.wantKept(before, d)
			if !slices.Equal(d.journals, earlier) {
				t.Errorf("the journal says %+v, want %+v", d.journals, earlier)
			}

			_, err := w.start(nil).Refresh(t.Context(), w.id, always)
			w.wantVoid(before, err)
			if err == nil || !strings.Contains(err.Error(), "attempt 2") {
				t.Errorf("the error does not tell of the attempt that was lost: %v", err)
			}
		})
	}
}

// Where UPS forgives a second use, the retry brings the grant back.
func TestARetryOfUnknownFateWorksWhereUPSForgives(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *sandbox.Options) { o.Strict, o.Grace = false, time.Hour })
	before := w.authorize()
	w.lose()
	w.pass(retryUnknownAfter)
	result, err := w.start(nil).Refresh(t.Context(), w.id, always)
	if err != nil || !result.Refreshed || w.outcomes(sandbox.Graced) != 1 {
		t.Fatalf("refreshed %t, %v", result.Refreshed, err)
	}
	d := w.disk()
	w.wantRenewed(before, d)
	w.wantSettled(d, grant.Authorized)
	w.wantNextRefresh()
}

// A damaged answer whose refresh token is in the part that is lost: its access
// token is of use, and the old refresh token, most likely spent, is what nobody
// knows the fate of.
func TestAnAnswerCutOffInItsRefreshToken(t *testing.T) {
	t.Parallel()
	cut := func(_ string, a *answer) {
		name := []byte(`"refresh_token":"`)
		a.body = a.body[:strings.Index(string(a.body), string(name))+len(name)+40]
	}
	tests := []struct {
		name string
		// The process may have ended before it could do anything with the answer.
		wire wire
	}{
		{name: "at once"},
		{name: "by the next process", wire: failing(errLocked, "home.Put item")},
	}
	for _, forgiving := range []bool{false, true} {
		all := newWorld(t, func(o *sandbox.Options) {
			if forgiving {
				o.Strict, o.Grace = false, 24*time.Hour
			}
		})
		for _, tt := range tests {
			name := tt.name + ", UPS is strict"
			if forgiving {
				name = tt.name + ", UPS forgives"
			}
			t.Run(name, func(t *testing.T) {
				w := all.of(t, tt.name)
				before := w.authorize()
				w.pass(2 * time.Hour)
				w.front.set(func() { w.front.change = cut })
				result, err := w.start(tt.wire).Refresh(t.Context(), w.id, always)
				w.front.set(func() { w.front.change = nil })
				if tt.wire != nil {
					result, err = w.start(nil).Refresh(t.Context(), w.id, keeper.Need{})
				}
				if err != nil || !w.works(result.AccessToken) {
					t.Fatalf("the access token is not given: %v", err)
				}
				d := w.disk()
				checkLastError(t, d, "damaged-answer", w.clock.Now())
				if d.state != grant.Interrupted || len(d.journals) != 1 || d.journals[0].Attempt != 1 || d.item.RefreshToken != before.RefreshToken {
					t.Fatalf("%s, journals %+v", d, d.journals)
				}

				sent := w.requests(func() {
					if g, err := w.start(nil).Token(t.Context(), w.id, 0); err != nil || g.AccessToken != result.AccessToken {
						t.Errorf("the access token is not served: %v", err)
					}
					var pending *keeper.PendingError
					if _, err := w.start(nil).Refresh(t.Context(), w.id, always); !errors.As(err, &pending) {
						t.Errorf("error %v, want that it is too early", err)
					}
				})
				if sent != 0 {
					t.Errorf("%d requests were sent too early", sent)
				}

				w.pass(lifetime)
				var g grant.Grant
				sent = w.requests(func() { g, err = w.start(nil).Token(t.Context(), w.id, 0) })
				if sent != 1 {
					t.Errorf("%d requests were sent, want 1", sent)
				}
				if forgiving {
					if err != nil || !w.works(g.AccessToken) {
						t.Fatalf("the next token: %v", err)
					}
					w.wantSettled(w.disk(), grant.Authorized)
					w.wantNextRefresh()
					return
				}
				w.wantVoid(d.item, err)
				if err == nil || !strings.Contains(err.Error(), "attempt 2") {
					t.Errorf("the error does not tell of the first attempt: %v", err)
				}
			})
		}
	}
}

// Whatever shows before the request goes out stops it.
func TestNothingIsSentUnlessAllIsReady(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		client func(*ups.Client)
		wire   wire
		check  func(t *testing.T, err error)
	}{
		{name: "another client ID", client: func(c *ups.Client) { c.ClientID = "client-2" }, check: wantChanged("client ID")},
		{name: "another base URL", client: func(c *ups.Client) { c.Origin = "https://elsewhere.example" }, check: wantChanged("base URL")},
		{name: "a home that can't be written", wire: failing(errLocked, "home.Put probe"), check: wantError(errLocked)},
		{name: "a home that can't be cleaned", wire: failing(errLocked, "home.Delete probe"), check: wantError(errLocked)},
		{name: "a home that can't be read", wire: failing(errLocked, "home.Get item"), check: wantError(errLocked)},
		{name: "a disk without room for the journal", wire: failing(errFull, "Claim"), check: wantError(errFull)},
		{name: "journals that can't be read", wire: failing(errFull, "Attempts"), check: wantError(errFull)},
		{name: "a lock that can't be taken", wire: failing(errFull, "Lock"), check: wantError(errFull)},
	}
	all := newWorld(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := all.of(t, tt.name)
			before := w.authorize()
			good := w.client
			if tt.client != nil {
				tt.client(&w.client)
			}
			var err error
			sent := w.requests(func() { _, err = w.start(tt.wire).Refresh(t.Context(), w.id, always) })
			w.client = good
			if sent != 0 {
				t.Errorf("%d requests were sent", sent)
			}
			tt.check(t, err)
			d := w.disk()
			w.wantKept(before, d)
			w.wantSettled(d, grant.Authorized)
			w.wantNextRefresh()
		})
	}

	t.Run("a client that so none can stay valid", func(t *testing.T) {
		w := all.of(t, "no client")
		w.authorize()
		p := w.start(nil)
		p.Client = func(context.Context, grant.ID) (*ups.Client, error) { return nil, errLocked }
		sent := w.requests(func() { _, err := p.Refresh(t.Context(), w.id, always); wantError(errLocked)(t, err) })
		if sent != 0 {
			t.Errorf("%d requests were sent", sent)
		}
		w.wantNextRefresh()
	})
}

func wantChanged(what string) func(*testing.T, error) {
	return func(t *testing.T, err error) {
		t.Helper()
		var changed *keeper.ClientChangedError
		if !errors.As(err, &changed) || changed.What != what || changed.Made == changed.Have {
			t.Errorf("error %#v, want that the %s is another", err, what)
		}
	}
}

func wantError(want error) func(*testing.T, error) {
	return func(t *testing.T, err error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
	}
}

// loseJournals lets the journals vanish when a request comes to the endpoint, so
// that there is none to seal an answer into.
func (w *world) loseJournals(endpoint string) {
	w.front.set(func() {
		w.front.arrives = func(at string) {
			if at != endpoint {
				return
			}
			w.loseJournalsNow()
			w.front.set(func() { w.front.arrives = nil })
		}
	})
}

func (w *world) loseJournalsNow() {
	if w.memory != nil {
		w.memory.LoseAttempts()
	} else if err := os.RemoveAll(filepath.Join(w.dir, "journals")); err != nil {
		w.t.Error(err)
	}
}

// The last line of defence: where the answer can't be sealed, the grant is
// still written.
func TestAnAnswerThatCanNotBeSealedIsStoredAllTheSame(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.authorize()
	w.pass(time.Second)
	w.loseJournals("refresh")
	p := w.start(nil)
	if _, err := p.Refresh(t.Context(), w.id, always); err != nil {
		t.Fatal(err)
	}
	if !p.heard("can't be sealed") {
		t.Errorf("nobody was told that the answer could not be sealed: %q", p.said)
	}
	d := w.disk()
	w.wantRenewed(before, d)
	w.wantSettled(d, grant.Authorized)
	w.wantNextRefresh()
}

// Ctrl-C stops a refresh as long as nothing was sent. From then on it is
// finished and saved first.
func TestCancelling(t *testing.T) {
	t.Parallel()
	tests := []struct {
		when  moment
		saved bool
	}{
		{when: moment{call: "Lock"}},
		{when: moment{call: "Lock", after: true}},
		{when: moment{call: "Get", after: true}},
		{when: moment{call: "home.Put probe", after: true}},
		{when: moment{call: "Prove", after: true}},
		{when: moment{call: "Claim", after: true}, saved: true},
		{when: moment{call: "send refresh"}, saved: true},
		{when: moment{call: "send refresh", after: true}, saved: true},
		{when: moment{call: "Seal", after: true}, saved: true},
		{when: moment{call: "home.Put item"}, saved: true},
		{when: moment{call: "Put", after: true}, saved: true},
	}
	all := newWorld(t)
	for _, tt := range tests {
		t.Run(tt.when.String(), func(t *testing.T) {
			w := all.of(t, tt.when.String())
			before := w.authorize()
			w.pass(time.Second)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var result keeper.Result
			var err error
			sent := w.requests(func() { result, err = w.start(then(tt.when, cancel)).Refresh(ctx, w.id, always) })
			if ctx.Err() == nil {
				t.Fatal("the moment never came")
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want that it was cancelled", err)
			}
			var saved *keeper.SavedError
			if errors.As(err, &saved) != tt.saved {
				t.Errorf("error %#v; says that the tokens are saved: %t, want %t", err, !tt.saved, tt.saved)
			}
			d := w.disk()
			w.wantSettled(d, grant.Authorized)
			if tt.saved {
				if sent != 1 || result.AccessToken != d.item.AccessToken {
					t.Errorf("%d requests were sent, want 1, and the tokens given back are those saved: %t", sent, result.AccessToken == d.item.AccessToken)
				}
				w.wantRenewed(before, d)
			} else {
				if sent != 0 {
					t.Errorf("%d requests were sent", sent)
				}
				w.wantKept(before, d)
			}
			w.wantNextRefresh()
		})
	}

	t.Run("in a pause", func(t *testing.T) {
		w := all.of(t, "in a pause")
		before := w.authorize()
		if err := w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Status: 429, Times: 1}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		p := w.start(nil)
		p.during = cancel
		var err error
		sent := w.requests(func() { _, err = p.Refresh(ctx, w.id, always) })
		if sent != 1 || !errors.Is(err, context.Canceled) || errors.As(err, new(*keeper.SavedError)) {
			t.Errorf("%d requests, error %#v", sent, err)
		}
		d := w.disk()
		w.wantKept(before, d)
		w.wantSettled(d, grant.Authorized)
		w.wantNextRefresh()
	})
}

// What the tool says and keeps outside of the home has no usable token in it, not even
// where UPS quotes one.
func TestNoTokenInTheClear(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.authorize()
	p := w.start(nil)
	for _, status := range []int{400, 401, 429, 500} {
		if err := w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Status: status, RetryAfter: "3600",
			Code: "10400", Message: "no good: " + g.RefreshToken, Times: 1}); err != nil {
			t.Fatal(err)
		}
		_, err := p.Refresh(t.Context(), w.id, always)
		if err == nil || strings.Contains(err.Error(), g.RefreshToken) {
			t.Errorf("HTTP %d: the error is missing, or has the token in it: %v", status, err)
		}
		for what, secret := range map[string]string{"access": g.AccessToken, "refresh": g.RefreshToken} {
			if found := w.inTheClear(secret); len(found) > 0 {
				t.Errorf("HTTP %d: the %s token is in the clear in %v", status, what, found)
			}
			if p.heard(secret) {
				t.Errorf("HTTP %d: the %s token was told", status, what)
			}
		}
	}
	// A sealed answer lies there now.
	w.pass(retryUnknownAfter)
	if _, err := w.start(failing(errLocked, "home.Put item")).Refresh(t.Context(), w.id, always); !errors.Is(err, errLocked) {
		t.Fatal(err)
	}
	result, err := w.start(nil).Refresh(t.Context(), w.id, keeper.Need{})
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{result.AccessToken, result.RefreshToken} {
		if found := w.inTheClear(secret); len(found) > 0 {
			t.Errorf("a token is in the clear in %v", found)
		}
	}
}

// A refusal that can't be written down is found out again, and no sooner than
// any other request of unknown fate is sent again.
func TestRefusalThatCanNotBeNoted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.authorize()
	changePassword(w)
	_, err := w.start(failing(errFull, "Note")).Refresh(t.Context(), w.id, always)
	if gone := new(keeper.GoneError); !errors.As(err, &gone) || !errors.Is(err, errFull) {
		t.Errorf("error %v, want that the grant is gone and that the disk is full", err)
	}
	w.wantKept(before, w.disk())
	if _, err = w.start(nil).Refresh(t.Context(), w.id, always); !errors.As(err, new(*keeper.PendingError)) {
		t.Errorf("error %v, want that it is too early", err)
	}
	w.pass(retryUnknownAfter)
	_, err = w.start(nil).Refresh(t.Context(), w.id, always)
	w.wantVoid(before, err)
}

func TestErrorsSayWhatThereIsToKnow(t *testing.T) {
	t.Parallel()
	id := grant.ID{Company: "Acme Corp", Application: "intelligent-rating", Environment: "lab"}
	for _, tt := range []struct {
		err  error
		says []string
	}{
		{&keeper.ClientChangedError{ID: id, What: "client ID", Made: "one", Have: "other"}, []string{"Acme Corp", "client ID", "one", "other", "nothing was sent"}},
		{&keeper.GoneError{ID: id, Why: "the reason"}, []string{"Acme Corp", "authorized again", "the reason"}},
		{&keeper.PendingError{ID: id, Since: time.Date(2026, 11, 21, 16, 5, 3, 0, time.UTC), Again: 41 * time.Second, What: "it was lost"},
			[]string{"Acme Corp", "2026-11-21T16:05:03Z", "41s", "it was lost"}},
		{&keeper.TooShortError{Asked: 2 * time.Hour, Lifetime: lifetime}, []string{"another 2h", "last 1h,"}},
		{&keeper.TooShortError{Asked: 5 * time.Minute, Lifetime: 39 * time.Second}, []string{"another 5m", "last 39s,"}},
		{&keeper.SavedError{Err: context.Canceled}, []string{context.Canceled.Error()}},
		{&keeper.DeclinedError{Code: "access_denied"}, []string{"declined", "nothing was changed"}},
		{&keeper.DeclinedError{Code: "server_error", Description: "Try later"}, []string{"server_error", "Try later", "nothing was changed"}},
		{&signin.NobodyError{Waited: 3 * time.Minute}, []string{"within 3m;", "nothing was changed"}},
	} {
		for _, part := range tt.says {
			if !strings.Contains(tt.err.Error(), part) {
				t.Errorf("%T says %q, without %q", tt.err, tt.err, part)
			}
		}
	}
}
