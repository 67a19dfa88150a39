package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/realpart"
)

// fault orders it the way a program outside would.
func (h *harness) fault(f string) {
	h.t.Helper()
	if r := h.do("POST", "/sandbox/faults", f, "Content-Type", "application/json"); r.status != 200 {
		h.t.Fatalf("%s: %d %s", f, r.status, r.body)
	}
}

func (h *harness) tryRefresh(token string) (reply, error) {
	h.t.Helper()
	return h.try("POST", "/security/v1/oauth/refresh", "grant_type=refresh_token&refresh_token="+token,
		"Content-Type", formType, "Authorization", basic(testClient, testSecret))
}

func TestFaultsInsteadOfTheAnswer(t *testing.T) {
	tests := []struct {
		fault   string
		status  int
		code    string
		message string
		header  string
		want    string
	}{
		{`{"endpoint":"refresh","times":1,"status":429,"retry_after":1}`, 429, "10429", "Too Many Requests", "Retry-After", "1"},
		{`{"endpoint":"refresh","times":1,"status":429}`, 429, "10429", "Too Many Requests", "Retry-After", ""},
		{`{"endpoint":"refresh","times":1,"status":503,"retry_after":"Sat, 21 Nov 2026 16:06:00 GMT"}`, 503, "10500", "Service Unavailable", "Retry-After", "Sat, 21 Nov 2026 16:06:00 GMT"},
		{`{"endpoint":"refresh","times":1,"status":403,"message":"Blocked Merchant"}`, 403, "10403", "Blocked Merchant", "", ""},
		{`{"endpoint":"refresh","times":1,"status":400,"code":"10999","message":"Else"}`, 400, "10999", "Else", "", ""},
	}
	h := start(t, Options{})
	token := h.grant("jane").RefreshToken
	for _, tt := range tests {
		h.fault(tt.fault)
		r := h.refresh(token)
		r.wantError(t, tt.status, tt.code, tt.message)
		if got := r.header.Get(tt.header); tt.header != "" && got != tt.want {
			t.Errorf("%s: %s is %q", tt.fault, tt.header, got)
		}
	}
	h.fault(`{"endpoint":"refresh","times":1,"error_page":true}`)
	r := h.refresh(token)
	if location := r.header.Get("Location"); r.status != 302 || location != h.url+"/error.page" || !strings.Contains(h.do("GET", location, "").body, "Something went wrong") {
		t.Errorf("%d to %s", r.status, location)
	}
	h.fault(`{"endpoint":"authorize","times":1,"status":500}`)
	h.do("GET", h.authorizeURL(), "").wantError(t, 500, "10500", "Internal Server Error")
	h.fault(`{"endpoint":"token","times":1,"status":400,"message":"Invalid/Missing Authorization Header"}`)
	code := h.code("jane")
	h.exchange(code).wantError(t, 400, "10400", "Invalid/Missing Authorization Header")
	h.tokens(h.exchange(code))

	a := h.tokens(h.refresh(token)) // none of them has spent it
	h.fault(`{"endpoint":"api","times":1,"status":401}`)
	h.do("GET", "/api/x", "", "Authorization", "Bearer "+a.AccessToken).wantError(t, 401, "250002", "Unauthorized")

	h.fault(`{"endpoint":"refresh","times":1,"status":502,"commit":true}`)
	h.refresh(a.RefreshToken).wantError(t, 502, "10500", "Bad Gateway")
	h.refresh(a.RefreshToken).wantError(t, 400, "10400", "Invalid Refresh Token")
}

func TestFaultsThatDropTheConnection(t *testing.T) {
	for _, tt := range []struct {
		drop      string
		committed bool
	}{{"before", false}, {"after", true}, {"during", true}} {
		for _, reset := range []bool{false, true} {
			h := start(t, Options{})
			token := h.grant("jane").RefreshToken
			order, err := json.Marshal(Fault{Endpoint: "refresh", Times: 1, Drop: tt.drop, Reset: reset})
			if err != nil {
				t.Fatal(err)
			}
			h.fault(string(order))
			r, err := h.tryRefresh(token)
			if err == nil {
				t.Fatalf("%s: %d %s", order, r.status, r.body)
			}
			if tt.drop == "during" && (r.status != 200 || len(r.body) == 0 || r.header.Get("Content-Length") == "" || !reset && !errors.Is(err, io.ErrUnexpectedEOF)) {
				t.Errorf("%s: %v, %+v", order, err, r)
			}
			// Wine may tell of a reset behind data as of an end.
			cut := runtime.GOOS == "windows" && tt.drop == "during" && errors.Is(err, io.ErrUnexpectedEOF)
			if reset && !cut && !isErrno(err, syscall.ECONNRESET, wsaeconnreset) {
				t.Errorf("%s: %v is no reset", order, err)
			}
			if !reset && isErrno(err, syscall.ECONNRESET, wsaeconnreset) {
				t.Errorf("%s: %v", order, err)
			}
			if again := h.refresh(token); (again.status == 200) == tt.committed {
				t.Errorf("%s: the token then gave %d %s", order, again.status, again.body)
			}
		}
	}
}

func TestFaultsThatDeformTheAnswer(t *testing.T) {
	h := start(t, Options{})
	token := h.grant("jane").RefreshToken
	whole := len(h.refresh(token).body)
	answer := func(fault string) reply {
		t.Helper()
		token := h.grant("jane").RefreshToken
		h.fault(fault)
		r := h.refresh(token)
		if r.status != 200 {
			t.Fatalf("%s: %d %s", fault, r.status, r.body)
		}
		h.refresh(token).wantError(t, 400, "10400", "Invalid Refresh Token")
		return r
	}
	if r := answer(`{"endpoint":"refresh","times":1,"body":"truncated"}`); len(r.body) < whole/3 || json.Valid([]byte(r.body)) {
		t.Errorf("truncated: %s", r.body)
	}
	if r := answer(`{"endpoint":"refresh","times":1,"body":"empty"}`); r.body != "" {
		t.Errorf("empty: %s", r.body)
	}
	if r := answer(`{"endpoint":"refresh","times":1,"body":"html"}`); !strings.HasPrefix(r.body, "<!DOCTYPE html>") || !strings.HasPrefix(r.header.Get("Content-Type"), "text/html") {
		t.Errorf("html: %s", r.body)
	}

	var fields map[string]any
	r := answer(`{"endpoint":"refresh","times":1,"numbers":true,"omit":["scope","refresh_count"]}`)
	if err := json.Unmarshal([]byte(r.body), &fields); err != nil {
		t.Fatal(err)
	}
	if fields["expires_in"] != 3599.0 || fields["issued_at"] != 1795277103000.0 || fields["client_id"] != testClient || len(fields) != 10 {
		t.Errorf("numbers: %s", r.body)
	}

	a := h.tokens(answer(`{"endpoint":"refresh","times":1,"huge":true}`))
	if n, m := len(a.AccessToken), len(a.RefreshToken); n < 7500 || n > 8192 || m != 8192 {
		t.Errorf("huge: %d and %d characters", n, m)
	}
	if !h.works(a.AccessToken) {
		t.Error("the huge access token does not work")
	}
	h.tokens(h.refresh(a.RefreshToken))

	a = h.tokens(answer(`{"endpoint":"refresh","times":1,"clock_offset":"-2h","access_lifetime":"10s","refresh_lifetime":"1m"}`))
	if a.IssuedAt != "1795269903000" || a.RefreshTokenIssuedAt != a.IssuedAt || a.ExpiresIn != "9" || a.RefreshTokenExpiresIn != "59" {
		t.Errorf("clock and lifetimes: %+v", a)
	}
	c, err := verifyJWT(publicKey(t), a.AccessToken)
	if err != nil || c.IssuedAt != 1795269903 {
		t.Errorf("%+v, %v", c, err)
	}
	if !h.works(a.AccessToken) {
		t.Error("the server believes the wrong clock itself")
	}
	h.clock.advance(10 * time.Second)
	if h.works(a.AccessToken) {
		t.Error("the access token outlives its lifetime")
	}
}

func TestFaultsOfModes(t *testing.T) {
	h := start(t, Options{})
	token := h.grant("jane").RefreshToken
	a := h.tokens(h.refresh(token))
	h.fault(`{"endpoint":"refresh","times":1,"grace":"10s"}`)
	b := h.tokens(h.refresh(token)) // spent, within its grace
	h.refresh(token).wantError(t, 400, "10400", "Invalid Refresh Token")
	if !h.works(a.AccessToken) || !h.works(b.AccessToken) {
		t.Error("an access token is void without strict")
	}
	h.fault(`{"endpoint":"refresh","times":1,"strict":true}`)
	h.refresh(token).wantError(t, 400, "10400", "Invalid Refresh Token")
	if h.works(a.AccessToken) || h.works(b.AccessToken) {
		t.Error("an access token survived strict")
	}

	h.fault(`{"endpoint":"token","pkce_basic":true}`)
	code := h.code("jane", "code_challenge", challenge)
	h.exchange(code, "Authorization", "", "client_id", testClient, "code_verifier", verifier).
		wantError(t, 400, "10400", "Invalid/Missing Authorization Header")
	h.tokens(h.exchange(code, "code_verifier", verifier))
}

func TestFaultRefusesConnections(t *testing.T) {
	h := start(t, Options{})
	l, err := h.srv.Listen(fmt.Sprintf("127.0.0.1:%d", realpart.Port(t))) // which nobody else gets while it is closed
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h.srv, ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	h.url = "http://" + l.Addr().String()

	token := h.grant("jane").RefreshToken // on a connection that stays
	h.fault(`{"refuse":"1h"}`)
	if r, err := h.tryRefresh(token); err == nil {
		t.Fatalf("the old connection still answers: %d %s", r.status, r.body)
	}
	if r, err := h.tryRefresh(token); !isErrno(err, syscall.ECONNREFUSED, wsaeconnrefused) {
		t.Fatalf("%d %s, %v", r.status, r.body, err)
	}
	if err := h.srv.AddFault(Fault{Refuse: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	for {
		r, err := h.tryRefresh(token)
		if err == nil {
			h.tokens(r) // unspent by then
			break
		}
		if !isErrno(err, syscall.ECONNREFUSED, wsaeconnrefused) {
			t.Fatal(err)
		}
	}

	// A refusal that ends does not end the next.
	for round := range 300 {
		if round > 0 && !h.srv.faults.refusing() {
			t.Fatalf("after %d rounds somebody listens", round)
		}
		for _, d := range []time.Duration{time.Microsecond, time.Hour} {
			if err := h.srv.AddFault(Fault{Refuse: d}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if r, err := h.tryRefresh(token); err == nil {
		t.Errorf("somebody listens: %d %s", r.status, r.body)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

func TestFaultLatency(t *testing.T) {
	const latency = 50 * time.Millisecond
	h := start(t, Options{})
	token := h.grant("jane").RefreshToken
	for _, f := range []Fault{
		{Endpoint: "refresh", Times: 1, Latency: latency},
		{Endpoint: "refresh", Times: 1, LatencyAfter: latency},
	} {
		if err := h.srv.AddFault(f); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		token = h.tokens(h.refresh(token)).RefreshToken
		if took := time.Since(began); took < latency {
			t.Errorf("%+v took %v", f, took)
		}
	}
}

// TestLateRequestIsCarriedOut guards what makes a lost answer dangerous: the
// client is gone, and its refresh token is spent all the same.
func TestLateRequestIsCarriedOut(t *testing.T) {
	served := make(chan string, 100)
	h := start(t, Options{Log: func(line string) { served <- line }})
	token := h.grant("jane").RefreshToken
	if err := h.srv.AddFault(Fault{Endpoint: "refresh", Times: 1, Latency: 50 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { leave() }})
	form := strings.NewReader("grant_type=refresh_token&refresh_token=" + token)
	r, err := http.NewRequestWithContext(ctx, "POST", h.url+"/security/v1/oauth/refresh", form)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", formType)
	r.SetBasicAuth(testClient, testSecret)
	if resp, err := h.http.Do(r); err == nil {
		resp.Body.Close()
		t.Fatal("the client stayed for the answer")
	}
	for line := range served {
		if strings.HasSuffix(line, "(fault)") {
			break
		}
	}
	events := h.srv.Refreshes()
	if last := events[len(events)-1]; last.Endpoint != "refresh" || last.Outcome != Committed {
		t.Errorf("the late request: %+v", last)
	}
	h.refresh(token).wantError(t, 400, "10400", "Invalid Refresh Token")
}

func TestFaultsAreCounted(t *testing.T) {
	h := start(t, Options{})
	token := h.grant("jane").RefreshToken
	h.fault(`{"endpoint":"refresh","status":429,"times":2}`)
	h.fault(`{"endpoint":"refresh","status":500}`)
	h.grant("jane") // another endpoint
	h.refresh(token).wantError(t, 429, "10429", "")
	if r := h.do("GET", "/sandbox/faults", ""); r.body != `{"faults":[{"endpoint":"refresh","status":429,"times":1},{"endpoint":"refresh","status":500}]}` {
		t.Errorf("pending: %s", r.body)
	}
	h.refresh(token).wantError(t, 429, "10429", "")
	h.refresh(token).wantError(t, 500, "10500", "")
	h.refresh(token).wantError(t, 500, "10500", "")
	if r := h.do("DELETE", "/sandbox/faults", ""); r.body != `{"faults":[]}` {
		t.Errorf("cleared: %s", r.body)
	}
	h.tokens(h.refresh(token))

	if err := h.srv.AddFault(Fault{Endpoint: "api", Probability: 0.5, Status: 418}); err != nil {
		t.Fatal(err)
	}
	befallen := 0
	for range 200 {
		if h.do("GET", "/api/x", "").status == 418 {
			befallen++
		}
	}
	if befallen < 50 || 150 < befallen {
		t.Errorf("a probability of 0.5 befell %d of 200 requests", befallen)
	}
	h.srv.ClearFaults()
	for range maxFaults {
		if err := h.srv.AddFault(Fault{Endpoint: "api", Status: 500}); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.srv.AddFault(Fault{Endpoint: "api", Status: 500}); err == nil {
		t.Error("faults are unbounded")
	}
}

func TestFaultsThatMakeNoSense(t *testing.T) {
	h := start(t, Options{})
	for _, f := range []string{
		``, `[]`, `{}`, `{"endpoint":"signin"}`, `{"endpoint":"api","stauts":500}`, `{"endpoint":"api","times":-1}`,
		`{"endpoint":"api","probability":1.5}`, `{"endpoint":"api","status":200}`, `{"endpoint":"api","status":700}`,
		`{"endpoint":"api","retry_after":1}`, `{"endpoint":"api","status":429,"retry_after":-1}`, `{"endpoint":"api","drop":"never"}`,
		`{"endpoint":"api","reset":true}`, `{"endpoint":"api","body":"xml"}`, `{"endpoint":"api","latency":"-1s"}`, `{"endpoint":"api","latency":5}`,
		`{"endpoint":"api","strict":true}`, `{"endpoint":"token","grace":"1s"}`, `{"endpoint":"refresh","grace":"-1s"}`,
		`{"endpoint":"refresh","pkce_basic":true}`, `{"refuse":"-1s"}`, `{"refuse":"1s","endpoint":"api"}`, `{"refuse":"1s","times":1}`,
		`{"refuse":"1s"}`, // the port is httptest's
		`{"endpoint":"api","status":500,"error_page":true}`, `{"endpoint":"api","commit":true}`, `{"endpoint":"api"} x`,
		// Nothing would come of these.
		`{"endpoint":"api"}`, `{"endpoint":"refresh","times":1,"probability":0.5}`,
		`{"endpoint":"authorize","huge":true}`, `{"endpoint":"authorize","access_lifetime":"1s"}`, `{"endpoint":"api","clock_offset":"1h"}`,
		`{"endpoint":"refresh","omit":["acces_token"]}`, `{"endpoint":"refresh","status":503,"numbers":true}`, `{"endpoint":"token","error_page":true,"refresh_lifetime":"1s"}`,
		`{"endpoint":"refresh","drop":"before","commit":true,"status":500}`, `{"endpoint":"refresh","drop":"before","latency_after":"1s"}`,
		`{"endpoint":"refresh","drop":"after","body":"html"}`, `{"endpoint":"refresh","drop":"after","omit":["scope"]}`,
		`{"endpoint":"authorize","drop":"during"}`, `{"endpoint":"authorize","body":"truncated"}`, `{"endpoint":"token","error_page":true,"body":"html"}`,
		`{"endpoint":"refresh","drop":"during","body":"empty"}`, `{"endpoint":"api","status":500,"commit":true}`,
		`{"endpoint":"refresh","drop":"before","strict":true}`, `{"endpoint":"refresh","status":429,"grace":"1s"}`, `{"endpoint":"token","status":429,"pkce_basic":true}`,
	} {
		h.do("POST", "/sandbox/faults", f).wantError(t, 400, "10400", "Invalid Fault")
	}
	for f, want := range map[string]string{
		`{"endpoint":"api","latency":5}`:                  `a fault's latency is a string such as "300ms", not a JSON number`,
		`{"endpoint":"api","latency":"5"}`:                `"5" is no length of time such as "300ms" or "2m"`,
		`{"endpoint":"api","times":"2"}`:                  `a fault's times is a whole number, not a JSON string`,
		`{"endpoint":"api","omit":"scope"}`:               `a fault's omit is a list of strings, not a JSON string`,
		`{"endpoint":"api","status":"500"}`:               `a fault's status is a whole number, not a JSON string`,
		`{"endpoint":"api","retry_after":{}}`:             `a fault's retry_after is a number of seconds, or a string`,
		`{"endpoint":"api","reset":1}`:                    `a fault's reset is true or false, not a JSON number`,
		`{"endpoint":"api","stauts":500}`:                 `unknown field "stauts"`,
		`{"endpoint":"api","status":500,"times":0}`:       `a fault's times can't be zero; leave it out`,
		`{"endpoint":"api","status":500,"probability":0}`: `a fault's probability can't be zero; leave it out`,
		`{"endpoint":"token","access_lifetime":"0s"}`:     `a fault's access_lifetime can't be zero; leave it out`,
		`{"refuse":"0s"}`:                                 `a fault's refuse can't be zero; leave it out`,
		`[]`:                                              `a fault is a JSON object, not a JSON array`,
		``:                                                `unexpected end of JSON input`,
	} {
		r := h.do("POST", "/sandbox/faults", f)
		r.wantError(t, 400, "10400", "Invalid Fault: ")
		if got := strings.TrimPrefix(r.header.Get("errordescription"), "Invalid Fault: "); got != want {
			t.Errorf("%s: %s", f, got)
		}
	}
	h.do("PUT", "/sandbox/faults", "").wantError(t, 405, "10405", "Method Not Allowed")
}

func TestFaultJSONRoundTrip(t *testing.T) {
	// Every field is set, so that one that JSON forgets is noticed.
	f := Fault{
		Endpoint: "refresh", Times: 2, Probability: 0.1, Latency: 300 * time.Millisecond, LatencyAfter: time.Second,
		Status: 429, Code: "1", Message: "m", RetryAfter: "7", ErrorPage: true, Commit: true, Drop: "during", Reset: true, Body: "html",
		Numbers: true, Omit: []string{"scope"}, Huge: true, ClockOffset: -time.Minute, AccessLifetime: time.Hour, RefreshLifetime: 2 * time.Hour,
		Refuse: time.Minute, Strict: true, Grace: time.Second, PKCEBasic: true,
	}
	for v := range reflect.TypeFor[Fault]().NumField() {
		if reflect.ValueOf(f).Field(v).IsZero() {
			t.Fatalf("this test leaves %s out", reflect.TypeFor[Fault]().Field(v).Name)
		}
	}
	raw, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var back Fault
	if err := json.Unmarshal(raw, &back); err != nil || !reflect.DeepEqual(back, f) {
		t.Errorf("%s became %+v, %v", raw, back, err)
	}
	if !strings.Contains(string(raw), `"latency":"300ms"`) {
		t.Errorf("%s", raw)
	}
}

func TestControlIsForThisMachine(t *testing.T) {
	h := start(t, Options{})
	h.grant("jane")
	h.grant("a.name@acme.example")
	const path = "/sandbox/users/jane/password"
	for _, header := range [][]string{
		{"Host", "sandbox.example"}, {"Host", "sandbox.example:80"}, {"Origin", "https://evil.example"}, {"Origin", "null"},
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"},
		// What a proxy or a tunnel on this machine says of a request from elsewhere,
		// also where it claims that the request is from here.
		{"X-Forwarded-For", "192.0.2.1"}, {"X-Forwarded-For", "127.0.0.1"}, {"X-Forwarded-For", ""}, {"X-Forwarded-Host", "sandbox.example"},
		{"X-Forwarded-Proto", "https"}, {"x-forwarded-port", "443"}, {"X-Forwarded-Server", "proxy"}, {"X-Forwarded", "for=192.0.2.1"},
		{"Forwarded", "for=192.0.2.1"}, {"Forwarded", "for=127.0.0.1;host=localhost"}, {"Forwarded-For", "192.0.2.1"},
		{"Via", "1.1 proxy"}, {"X-Real-Ip", "192.0.2.1"}, {"X-Original-Host", "sandbox.example"}, {"Cf-Connecting-Ip", "192.0.2.1"},
		{"True-Client-Ip", "192.0.2.1"}, {"X-Client-Ip", "192.0.2.1"}, {"X-Cluster-Client-Ip", "192.0.2.1"},
	} {
		h.do("POST", path, "", header...).wantError(t, 403, "10403", "")
		if header[0] != "Origin" { // which browsers do not send with GET
			h.do("GET", "/sandbox/log", "", header...).wantError(t, 403, "10403", "")
		}
	}
	for _, peer := range []string{"192.0.2.1:1234", "[2001:db8::1]:1234", "garbage"} {
		r := httptest.NewRequest("DELETE", "http://localhost/sandbox/faults", nil)
		r.RemoteAddr = peer
		w := httptest.NewRecorder()
		h.srv.ServeHTTP(w, r)
		if w.Code != http.StatusForbidden {
			t.Errorf("%s: %d", peer, w.Code)
		}
	}
	if page := h.do("GET", "/", "", "X-Forwarded-For", "192.0.2.1"); page.status != http.StatusOK || strings.Contains(page.body, "a.name@acme.example") {
		t.Errorf("the start page tells who signed in: %d", page.status)
	}
	if page := h.do("GET", "/", ""); !strings.Contains(page.body, "a.name@acme.example") {
		t.Errorf("the start page tells this machine nothing: %d", page.status)
	}
	h.do("POST", "/sandbox/users/joe/password", "").wantError(t, 404, "10404", "")
	h.do("GET", path, "").wantError(t, 405, "10405", "")
	if r := h.do("POST", path, "", "Sec-Fetch-Site", "same-origin"); r.status != 204 || r.body != "" {
		t.Errorf("%d %s", r.status, r.body)
	}
	var log struct{ Events []Event }
	if err := json.Unmarshal([]byte(h.do("GET", "/sandbox/log", "").body), &log); err != nil || len(log.Events) != 2 || log.Events[0].Outcome != Committed {
		t.Errorf("%+v, %v", log, err)
	}
}

// Winsock's numbers: on Windows the constants of package syscall with these
// names are inventions that no call returns.
const (
	wsaeconnreset   syscall.Errno = 10054
	wsaeconnrefused syscall.Errno = 10061
)

func isErrno(err error, posix, winsock syscall.Errno) bool {
	return errors.Is(err, posix) || errors.Is(err, winsock)
}
