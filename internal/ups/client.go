package ups

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

// CallTimeout is how long one exchange with UPS may take, from the first dial
// to the last byte of the answer.
const CallTimeout = 30 * time.Second

var errCallTimeout = fmt.Errorf("no answer within %s", CallTimeout)

const (
	// stoodStill is how late a call's end is noticed where the process or its machine was paused,
	// and catchUp how long it then has for what came meanwhile.
	stoodStill = time.Second
	catchUp    = 2 * time.Second
)

// withinCall is a context that ends once a call has lasted CallTimeout. A process that goes on
// after a pause reads first what is there, if the request was sent before: an answer that came
// meanwhile may have the only refresh token.
func (c *Client) withinCall(ctx context.Context, sent func() bool) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	ends := c.now().Add(CallTimeout)
	timer := time.NewTimer(CallTimeout)
	go func() {
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			if c.now().Sub(ends) < stoodStill || !sent() {
				cancel(errCallTimeout)
				return
			}
			ends = c.now().Add(catchUp)
			timer.Reset(catchUp)
		}
	}()
	return ctx, func() { cancel(nil) }
}

// Client asks one environment on behalf of one application.
type Client struct {
	Environment
	Application
	// Transport carries the requests; nil is NewTransport's, without keeping
	// connections.
	Transport http.RoundTripper
	// Now is the clock; nil is time.Now.
	Now       func() time.Time
	UserAgent string
	// Ready, where set, is called for an exchange once there is a connection, before a byte
	// of the request is written. With an error, which the call then returns as a
	// *NotReadyError, nothing is. It may be called again for the same exchange, by a
	// connection that turns out to be dead.
	Ready func() error
}

// NotReadyError says that a request was not sent, as Ready of the client had an error.
type NotReadyError struct{ Err error }

func (e *NotReadyError) Error() string { return e.Err.Error() }

func (e *NotReadyError) Unwrap() error { return e.Err }

// NewTransport returns the transport for UPS: what never connects fails within
// 10 seconds, so that whoever waits for an exchange that can't be cancelled
// does not wait long for nothing. It is HTTP/1.1 only: net/http sends a POST
// again by itself when an HTTP/2 server resets the stream with PROTOCOL_ERROR,
// and one broken connection would lose the answers of several companies.
//
// Every connection, also one to a proxy, ends with the process and within
// CallTimeout: see [dial].
func NewTransport() *http.Transport { return newTransport(CallTimeout) }

func newTransport(limit time.Duration) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Transport{
		Protocols:   &protocols,
		Proxy:       proxyFromEnvironment,
		DialContext: dial(limit),
		OnProxyConnectResponse: func(_ context.Context, proxy *url.URL, connect *http.Request, answer *http.Response) error {
			return refusedByProxy(proxy, connect, answer)
		},
		TLSHandshakeTimeout:    10 * time.Second,
		MaxIdleConnsPerHost:    32,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// AuthorizeURL is where the browser goes (RFC 6749 4.1.1, RFC 7636 4.3). The
// verifier is not used where the application does without PKCE.
func (c *Client) AuthorizeURL(state, verifier string) string {
	var options []oauth2.AuthCodeOption
	if c.PKCE != PKCEOff {
		options = append(options, oauth2.S256ChallengeOption(verifier))
	}
	config := c.config(tokenPath, oauth2.AuthStyleInHeader)
	return config.AuthCodeURL(state, options...)
}

func (c *Client) config(path string, style oauth2.AuthStyle) *oauth2.Config {
	config := &oauth2.Config{
		ClientID:     c.ClientID,
		ClientSecret: c.ClientSecret,
		RedirectURL:  c.RedirectURI,
		Endpoint: oauth2.Endpoint{
			AuthURL:   c.BaseURL + authorizePath,
			TokenURL:  c.BaseURL + path,
			AuthStyle: style,
		},
	}
	if c.Scope != "" {
		config.Scopes = []string{c.Scope}
	}
	return config
}

// Preflight asks /authorize once what the browser would be told there, with a
// state and a challenge of its own, and follows nothing. Only what certainly
// ends a sign-in is an error: a refusal in UPS's own words, UPS's error page,
// or no connection; everything else the browser shall find out.
func (c *Client) Preflight(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, CallTimeout, errCallTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.AuthorizeURL(oauth2.GenerateVerifier(), oauth2.GenerateVerifier()), nil)
	if err != nil {
		return fmt.Errorf("the address of UPS's sign-in can't be made: %w", err)
	}
	request.Header.Set("Accept", "application/json, text/html;q=0.9")
	c.setUserAgent(request)
	response, err := c.transport().RoundTrip(request)
	if err != nil {
		return c.networkError(ctx, AuthorizeEndpoint, false, err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, MaxAnswer))
	return c.named(judgePreflight(response.StatusCode, response.Header, body))
}

// named puts into a refusal what UPS may mean by it.
func (c *Client) named(err error) error {
	var e *Error
	if errors.As(err, &e) {
		e.ClientID, e.RedirectURI = Presentable(c.ClientID), Presentable(c.RedirectURI)
	}
	return err
}

// Ping asks whether the environment answers at all, and returns the Date header
// of whatever it says. It sends nothing of the application's.
func (c *Client) Ping(ctx context.Context) (date string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, CallTimeout, errCallTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.BaseURL+authorizePath, nil)
	if err != nil {
		return "", fmt.Errorf("the environment's base URL can't be used: %w", err)
	}
	c.setUserAgent(request)
	response, err := c.transport().RoundTrip(request)
	if err != nil {
		return "", c.networkError(ctx, AuthorizeEndpoint, false, err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, MaxAnswer))
	return response.Header.Get("Date"), nil
}

func judgePreflight(status int, header http.Header, body []byte) error {
	if location, err := url.Parse(header.Get("Location")); status >= 300 && status <= 399 && err == nil {
		if isErrorPage(location) {
			return &Error{Endpoint: AuthorizeEndpoint, Kind: Down, Status: status,
				Code: Presentable(header.Get("errorcode")), Message: "UPS shows its error page instead of the sign-in"}
		}
		return nil
	}
	code, message := codeAndMessage(body)
	if code == "" && message == "" && header.Get("errorcode") == "" {
		return nil
	}
	e := errorIn(AuthorizeEndpoint, status, header, body)
	if e.Kind == Unknown && status >= 200 && status <= 299 {
		return nil
	}
	return e
}

// Keep puts a granted answer away before it is read. Its error is returned by
// the call beside the answer, which is good all the same.
type Keep func(Answer) error

// Exchange trades the authorization code for tokens, once. NeedsBasic is what is
// now known of [Client].PKCENeedsBasic: that UPS wanted the Authorization header
// beside the verifier and was asked a second time, which PKCEAuto allows, as
// such a refusal looks at no code; or that it refused what it had wanted before,
// in words that are about nothing else. The code may be spent by then, so that
// is for the next sign-in.
func (c *Client) Exchange(ctx context.Context, code, verifier string, keep Keep) (answer Answer, needsBasic bool, err error) {
	exchange := func(style oauth2.AuthStyle, secret string, options ...oauth2.AuthCodeOption) (Answer, error) {
		return c.ask(ctx, TokenEndpoint, keep, []string{code, verifier, c.ClientSecret}, func(ctx context.Context) error {
			config := c.config(tokenPath, style)
			config.ClientSecret = secret
			_, err := config.Exchange(ctx, code, options...)
			return err
		})
	}
	proof := oauth2.VerifierOption(verifier)
	if c.PKCE == PKCEOff {
		answer, err = exchange(oauth2.AuthStyleInHeader, c.ClientSecret)
		return answer, c.PKCENeedsBasic, err
	}
	var refusal *Error
	if c.PKCE == PKCEAuto && c.PKCENeedsBasic {
		answer, err = exchange(oauth2.AuthStyleInHeader, c.ClientSecret, proof)
		unwanted := errors.As(err, &refusal) && refusal.Kind == Unknown && refusal.Status == http.StatusBadRequest
		return answer, !unwanted, err
	}
	answer, err = exchange(oauth2.AuthStyleInParams, "", proof)
	if c.PKCE == PKCEAuto && errors.As(err, &refusal) && refusal.Kind == HeaderMissing {
		answer, err = exchange(oauth2.AuthStyleInHeader, c.ClientSecret, proof)
		return answer, answer.OK(), err
	}
	return answer, c.PKCENeedsBasic, err
}

// Refresh spends the refresh token, once.
func (c *Client) Refresh(ctx context.Context, refreshToken string, keep Keep) (Answer, error) {
	return c.ask(ctx, RefreshEndpoint, keep, []string{refreshToken, c.ClientSecret}, func(ctx context.Context) error {
		config := c.config(refreshPath, oauth2.AuthStyleInHeader)
		_, err := config.TokenSource(ctx, &oauth2.Token{RefreshToken: refreshToken}).Token()
		return err
	})
}

// ask lets x/oauth2 make and send one request and listens in. What x/oauth2
// makes of the answer is of no interest: it throws a granted answer away over
// an empty expires_in or a text/plain, and with it the only refresh token.
func (c *Client) ask(ctx context.Context, endpoint Endpoint, keep Keep, secrets []string, send func(context.Context) error) (Answer, error) {
	r := &recorder{client: c, endpoint: endpoint, keep: keep}
	ctx, cancel := c.withinCall(ctx, r.wrote.Load)
	defer cancel()
	// As it stands in the Authorization header, which a server may quote.
	basic := url.QueryEscape(c.ClientID) + ":" + url.QueryEscape(c.ClientSecret)
	secrets = append(secrets, base64.StdEncoding.EncodeToString([]byte(basic)))
	err := send(context.WithValue(ctx, oauth2.HTTPClient, c.httpClient(r)))
	switch {
	case r.answer == nil && err == nil:
		return Answer{}, fmt.Errorf("the request to UPS's %s endpoint was not sent", endpoint)
	case r.answer == nil && r.gate.err != nil:
		return Answer{}, r.gate.err
	case r.answer == nil:
		return Answer{}, c.networkError(ctx, endpoint, r.connected.Load(), err, secrets...)
	case r.answer.OK():
		return *r.answer, r.keepErr
	}
	return *r.answer, c.named(errorIn(endpoint, r.answer.Status, r.header, r.answer.Body, secrets...))
}

// NoAccessToken is the error of a granted answer that has a refresh token and no
// access token that can be used.
func NoAccessToken(a Answer, t Tokens, secrets ...string) *Error {
	if !t.Unclean {
		return NoTokens(a, secrets...)
	}
	return &Error{Endpoint: a.Endpoint, Kind: Unusable, Status: a.Status, Message: "its access token has invalid characters"}
}

// NoTokens is the error of a granted answer in which no token was found.
func NoTokens(a Answer, secrets ...string) *Error {
	if code, message := codeAndMessage(a.Body); code != "" || message != "" {
		// Granted by its status, refused by its words: the words count.
		e := errorIn(a.Endpoint, http.StatusBadRequest, http.Header{}, a.Body, secrets...)
		e.Status = a.Status
		return e
	}
	message := describeBody(http.Header{}, a.Body)
	if a.Cut {
		message = "the connection ended in the middle of the answer"
	}
	return &Error{Endpoint: a.Endpoint, Kind: Unusable, Status: a.Status, Message: Presentable(message, secrets...)}
}

// recorder is the transport under x/oauth2: it takes the whole answer, bounded,
// and lets it be kept before anybody above reads a byte of it.
type recorder struct {
	client    *Client
	endpoint  Endpoint
	keep      Keep
	connected atomic.Bool
	wrote     atomic.Bool // the whole request
	gate      gate
	answer    *Answer
	header    http.Header
	keepErr   error
}

func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	requested := r.client.now().UTC()
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		r.connected.Store(true)
		r.gate.look()
	}, WroteRequest: func(w httptrace.WroteRequestInfo) {
		r.wrote.Store(w.Err == nil)
	}}
	request = request.Clone(httptrace.WithClientTrace(request.Context(), trace))
	request.Header.Set("Accept", "application/json")
	r.client.setUserAgent(request)
	if r.client.Ready != nil && request.Body != nil {
		r.gate.ready = r.client.Ready
		if err := r.gate.before(request); err != nil {
			return nil, err
		}
	}
	response, err := r.client.transport().RoundTrip(request)
	if err != nil {
		return nil, err
	}
	body, readErr := io.ReadAll(io.LimitReader(response.Body, MaxAnswer+1))
	response.Body.Close()
	a := &Answer{
		Endpoint:   r.endpoint,
		Requested:  requested,
		Status:     response.StatusCode,
		Date:       response.Header.Get("Date"),
		RetryAfter: response.Header.Get("Retry-After"),
		Body:       body[:min(len(body), MaxAnswer)],
		Cut:        readErr != nil || len(body) > MaxAnswer,
	}
	if a.OK() && r.keep != nil {
		r.keepErr = r.keep(*a)
	}
	r.answer, r.header = a, response.Header
	response.Body = http.NoBody
	return response, nil
}

// gate is before a request that is made and has a connection, and of which no byte is written
// yet. It is asked by the goroutine of whoever sends.
type gate struct {
	ready func() error
	// body is what is about to be written: the transport knows that kind, so it writes
	// nothing of the header before it.
	body *bytes.Buffer
	err  *NotReadyError
}

// before puts the gate before a request. A transport that finds its idle connection gone takes
// another body for the next, and asks again.
func (g *gate) before(request *http.Request) error {
	text, err := io.ReadAll(request.Body)
	if err != nil {
		return err
	}
	request.GetBody = func() (io.ReadCloser, error) {
		g.body = bytes.NewBuffer(text)
		return io.NopCloser(g.body), nil
	}
	request.Body, err = request.GetBody()
	return err
}

// look asks whether the request may be written. Without its body, the transport gives it up
// before it has written anything.
func (g *gate) look() {
	if g.ready == nil {
		return
	}
	if err := g.ready(); err != nil {
		g.err = &NotReadyError{Err: err}
		g.body.Reset()
	}
}

func (c *Client) httpClient(transport http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (c *Client) transport() http.RoundTripper {
	if c.Transport != nil {
		return c.Transport
	}
	once := NewTransport()
	once.DisableKeepAlives = true
	return once
}

func (c *Client) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

func (c *Client) setUserAgent(request *http.Request) {
	if c.UserAgent != "" {
		request.Header.Set("User-Agent", c.UserAgent)
	}
}

// networkError tells a request that never left from an answer that never came,
// without the URL, which may hold a state.
func (c *Client) networkError(ctx context.Context, endpoint Endpoint, sent bool, err error, secrets ...string) *Error {
	kind := Unreachable
	if sent {
		kind = Lost
	}
	var inURL *url.Error
	if errors.As(err, &inURL) {
		err = inURL.Err
	}
	message := err.Error()
	host := ""
	if base, err := url.Parse(c.BaseURL); err == nil {
		host = base.Hostname()
	}
	byProxy := c.proxyError(err, sent)
	if byProxy != nil {
		host = "the proxy " + byProxy.Proxy
	}
	distrust, why := distrusted(err, host, c.now())
	var lookup *net.DNSError
	switch {
	case distrust != "":
		message = why
	case errors.Is(context.Cause(ctx), errCallTimeout):
		err, message = context.DeadlineExceeded, errCallTimeout.Error()
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		message = "no answer in time"
	case byProxy != nil:
		err, message = byProxy, byProxy.Error()
	case errors.As(err, &lookup):
		message = fmt.Sprintf("the name %s can't be looked up (%s)", lookup.Name, lookup.Err)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		message = "the connection was closed before the answer came"
	}
	return &Error{Endpoint: endpoint, Kind: kind, Distrust: distrust, Message: Presentable(message, secrets...), Err: err}
}
