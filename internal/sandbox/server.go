// Package sandbox is an authorization server that speaks UPS's OAuth
// authorization-code protocol as UPS does, with the two sign-in pages, and
// fails on demand. It is for tests and for trying things out: nothing it
// issues opens anything but itself.
//
// The protocol is that of UPS's OAuthAuthCode.yaml, of RFC 6749 and of RFC
// 7636. Where these are silent and UPS's behaviour is not known, the sandbox
// takes the side that shows a client's mistake.
package sandbox

import (
	"bytes"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options say how a [Server] behaves. The zero value serves anybody from
// memory, with UPS's lifetimes.
type Options struct {
	// Dir is the state directory, created with mode 0700 where it is missing.
	// Several servers, in one process or in many, may share it. Empty means
	// that the state is in memory and ends with the server.
	Dir string

	// Clients are the applications that may ask. Where none is listed, any
	// does that has a loopback redirect URI (127.0.0.0/8, ::1 or localhost),
	// an ID and, where it uses Basic, a secret. One ID may be listed several
	// times, once for each of its redirect URIs.
	Clients []Client

	// DisplayNames are what clients that are not listed are called, by ID;
	// without one, their ID.
	DisplayNames map[string]string

	// Users are the people who may sign in. Where none is listed, everybody
	// may, with any password, and becomes known at the first sign-in.
	Users []User

	// Now tells the time; nil means time.Now.
	Now func() time.Time

	// Log is given one line per request, and one per mishap, without secrets
	// and without a line break; nil means silence. It is never called twice
	// at a time.
	Log func(line string)

	// CodeLifetime, AccessLifetime and RefreshLifetime are those of what is
	// issued; zero means 30 s, 1 h and 60 days. Like UPS's, the answers
	// announce one second less: 3599 and 5183999.
	CodeLifetime, AccessLifetime, RefreshLifetime time.Duration

	// Strict lets the second use of a refresh token void its whole family:
	// every access and refresh token that descends from the same sign-in
	// (RFC 9700 section 4.14.2).
	Strict bool

	// Grace is how long after its first use a refresh token goes on working.
	Grace time.Duration

	key *rsa.PrivateKey // for tests, where making one takes long
}

// Client is an application registered with the sandbox.
type Client struct {
	ID          string
	Secret      string // empty: the client can only use PKCE, and never refresh
	RedirectURI string // compared to the letter
	DisplayName string // what the person is asked to authorize; empty: the ID
}

// User is a person who can sign in.
type User struct {
	Name       string   `json:"name"` // a user name or an e-mail address; letter case and outer space do not matter
	Password   string   `json:"password"`
	Company    string   `json:"company"`
	Accounts   []string `json:"accounts"`    // shipping account numbers
	CampusShip bool     `json:"campus_ship"` // has a CampusShip profile, which UPS does not let authorize anything
	Declines   bool     `json:"declines"`    // signs in and then withholds consent
	Unlinked   bool     `json:"unlinked"`    // has linked no shipping account: signs in, and API calls fail that need one
	Nameless   bool     `json:"nameless"`    // signs in, and no access token says who that was
}

// ParseUsers reads a JSON list of users, each with a name and a password.
func ParseUsers(text []byte) ([]User, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(text, &list); err != nil || len(list) == 0 {
		return nil, errors.New("it is not a JSON list of users, with one at least")
	}
	var users []User
	for i, raw := range list {
		var u User
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields()
		if err := d.Decode(&u); err != nil {
			return nil, fmt.Errorf("user %d: %w", i+1, inWords("a user", err))
		}
		switch {
		case userKey(u.Name) == "" || u.Password == "":
			return nil, fmt.Errorf("user %d has no name or no password", i+1)
		case !isName(u.Name):
			return nil, fmt.Errorf("user %d could not sign in: the name is too long, or has characters that can't be shown", i+1)
		case u.Unlinked && len(u.Accounts) > 0:
			return nil, fmt.Errorf("user %d is unlinked and has accounts", i+1)
		case slices.ContainsFunc(users, func(other User) bool { return userKey(other.Name) == userKey(u.Name) }):
			return nil, fmt.Errorf("user %d has the name of another", i+1)
		}
		users = append(users, u)
	}
	return users, nil
}

// ParseClient reads a client from "ID:SECRET:REDIRECT_URI". ID and secret
// have no colon. An error never holds the secret.
func ParseClient(s string) (Client, error) {
	parts := strings.SplitN(s, ":", 3)
	if len(parts) != 3 {
		return Client{}, errors.New(`a client is written "ID:SECRET:REDIRECT_URI"`)
	}
	c := Client{ID: parts[0], Secret: parts[1], RedirectURI: parts[2]}
	if c.ID == "" || c.Secret == "" {
		return Client{}, errors.New(`a client is written "ID:SECRET:REDIRECT_URI", with neither ID nor secret empty, and no colon in them`)
	}
	if err := c.check(); err != nil {
		return Client{}, err
	}
	return c, nil
}

func (c Client) check() error {
	if c.ID == "" || !isName(c.ID) || !isName(c.DisplayName) {
		return fmt.Errorf("a client's ID and display name must be printable, and the ID not empty: %q, %q", c.ID, c.DisplayName)
	}
	u, err := url.Parse(c.RedirectURI)
	if err != nil || u.Scheme == "" || u.Opaque != "" || u.Host == "" && u.Path == "" || strings.Contains(c.RedirectURI, "#") {
		return fmt.Errorf("the redirect URI of client %q must be an absolute URL without a fragment; it begins behind the second colon", c.ID)
	}
	return nil
}

func (c Client) displayName() string {
	if c.DisplayName != "" {
		return c.DisplayName
	}
	return c.ID
}

// Server is the authorization server. It is an [http.Handler] that expects to
// be served at the root of its host, and safe for concurrent use.
type Server struct {
	opts   Options
	store  store
	mux    *http.ServeMux
	cross  *http.CrossOriginProtection
	pages  func() (map[string]*template.Template, error)
	faults faults
	events events
	logMu  sync.Mutex
}

// New returns a server. It fails if the options contradict themselves, and if
// Dir can't be used or holds the state of a newer release.
func New(opts Options) (*Server, error) {
	for _, c := range opts.Clients {
		if err := c.check(); err != nil {
			return nil, err
		}
	}
	seen := map[string]bool{}
	for _, u := range opts.Users {
		key := userKey(u.Name)
		if key == "" || seen[key] {
			return nil, fmt.Errorf("user %q has no name, or the name of another", u.Name)
		}
		seen[key] = true
	}
	if opts.CodeLifetime < 0 || opts.AccessLifetime < 0 || opts.RefreshLifetime < 0 || opts.Grace < 0 {
		return nil, errors.New("a lifetime is negative")
	}
	opts.Clients, opts.Users = slices.Clone(opts.Clients), slices.Clone(opts.Users)
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = func(string) {}
	}
	if opts.CodeLifetime == 0 {
		opts.CodeLifetime = 30 * time.Second
	}
	if opts.AccessLifetime == 0 {
		opts.AccessLifetime = time.Hour
	}
	if opts.RefreshLifetime == 0 {
		opts.RefreshLifetime = 60 * 24 * time.Hour
	}
	s := &Server{
		opts:  opts,
		cross: http.NewCrossOriginProtection(),
		pages: sync.OnceValues(parsePages),
	}
	if opts.Dir == "" {
		s.store = &memoryStore{now: opts.Now, rsa: opts.key}
	} else {
		if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("the sandbox's state directory can't be made: %w", err)
		}
		s.store = &dirStore{dir: opts.Dir, now: opts.Now, log: s.log, rsa: opts.key}
	}
	if err := s.store.do(func(*state) bool { return false }); err != nil {
		return nil, err
	}

	s.mux = http.NewServeMux()
	s.mux.HandleFunc("/security/v1/oauth/authorize", s.endpoint("authorize", s.authorize))
	s.mux.HandleFunc("/security/v1/oauth/validate-client", s.endpoint("authorize", s.validateClient))
	s.mux.HandleFunc("/lasso/validated", s.endpoint("authorize", s.authorize))
	s.mux.HandleFunc("/security/v1/oauth/token", s.endpoint("token", s.token))
	s.mux.HandleFunc("/security/v1/oauth/refresh", s.endpoint("refresh", s.refresh))
	s.mux.HandleFunc("/security/v1/oauth/keys", s.endpoint("", s.keys))
	s.mux.HandleFunc("/api/", s.endpoint("api", s.api))
	s.mux.HandleFunc("/lasso/signin", s.signIn)
	s.mux.HandleFunc("/lasso/forgot", s.forgot)
	s.mux.HandleFunc("/error.page", s.errorPage)
	s.mux.HandleFunc("/sandbox/faults", s.control(s.controlFaults))
	s.mux.HandleFunc("/sandbox/log", s.control(s.controlLog))
	s.mux.HandleFunc("/sandbox/users/{name}/password", s.control(s.controlPassword))
	s.mux.HandleFunc("/{$}", s.start)
	s.mux.HandleFunc("/robots.txt", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "User-agent: *\nDisallow: /\n")
	})
	s.mux.HandleFunc("/favicon.ico", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})
	s.mux.HandleFunc("/", s.endpoint("", func(*http.Request, []byte, Fault) *answer {
		return refuse(http.StatusNotFound, "10404", "Not Found")
	}))
	return s, nil
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w}
	defer func() { s.log(requestLine(r, rec)) }()
	rec.Header().Set("Date", s.opts.Now().UTC().Format(http.TimeFormat))
	if s.faults.refusing() {
		rec.note = "fault"
		drop(rec, true)
		return
	}
	// UPS takes two slashes in front, as a base URL that ends in one makes them;
	// [http.ServeMux] would redirect, after which a POST is none any more.
	served := r // the log shows what came
	if strings.HasPrefix(r.URL.Path, "//") {
		cleaned, u := *r, *r.URL
		u.Path = "/" + strings.TrimLeft(u.Path, "/")
		if u.RawPath != "" {
			u.RawPath = "/" + strings.TrimLeft(u.RawPath, "/")
		}
		cleaned.URL = &u
		served = &cleaned
	}
	s.mux.ServeHTTP(rec, served)
}

// ChangePassword does what a changed ups.com password does: it voids every
// grant of the user, and every code not yet exchanged. The password itself
// stays what it was. It fails for a user who is neither listed nor ever
// signed in.
func (s *Server) ChangePassword(user string) error {
	key := userKey(user)
	_, known := s.listed(user)
	err := s.store.do(func(st *state) (changed bool) {
		if _, ok := st.People[key]; ok {
			known = true
		}
		for family, g := range st.Grants {
			if userKey(g.User) == key {
				delete(st.Grants, family)
				changed = true
			}
		}
		for k, c := range st.Codes {
			if userKey(c.User) == key {
				delete(st.Codes, k)
				changed = true
			}
		}
		return changed
	})
	if err == nil && !known {
		return &unknownUserError{user}
	}
	return err
}

type unknownUserError struct{ name string }

func (e *unknownUserError) Error() string {
	return fmt.Sprintf("the sandbox knows no user %q", e.name)
}

func (s *Server) listed(name string) (User, bool) {
	for _, u := range s.opts.Users {
		if userKey(u.Name) == userKey(name) {
			return u, true
		}
	}
	return User{}, false
}

// userKey is what two spellings of one user's name have in common.
func userKey(name string) string { return strings.ToLower(strings.TrimSpace(name)) }

func (s *Server) log(line string) {
	s.logMu.Lock()
	defer s.logMu.Unlock()
	s.opts.Log(line)
}

func isGet(r *http.Request) bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead
}

// parseParams reads a query or a form. RFC 6749 section 3.1 allows each
// parameter once.
func parseParams(raw string) (url.Values, error) {
	params, err := url.ParseQuery(raw)
	if err != nil {
		return nil, errors.New("a parameter is not URL-encoded")
	}
	for name, values := range params {
		if len(values) > 1 {
			return nil, fmt.Errorf("%q is there more than once", name)
		}
	}
	return params, nil
}

// baseURL is the server's own, as the client addressed it.
func baseURL(r *http.Request) string {
	if r.Host == "" {
		return ""
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}
