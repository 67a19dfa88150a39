// Package door decides who gets to the company manager's pages: one browser for each
// address that the service gave out, and nobody else.
//
// A request passes these, in this order, and nothing has happened before it passed all:
// the exact list of hosts, the rule for requests from other origins, the session.
package door

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/peer"
	"github.com/upsauth/upsauth/internal/serve/page"
)

// Options are what a door is made with.
type Options struct {
	// Hosts are those of the manager's address beside the loopback names, exactly as a
	// browser sends them: HostOf makes one of an address.
	Hosts []string
	// Secure says that the manager's address is https: cookies that come by one of Hosts
	// stay on https then.
	Secure bool
	Now    func() time.Time
	// NewAddress says how a person gets a new address, as a sentence; empty: where the
	// service runs.
	NewAddress string
	// Log, where set, is told who was refused and why, without a secret.
	Log func(format string, args ...any)
}

const (
	codeLasts   = 10 * time.Minute
	idle        = 12 * time.Hour
	renewAfter  = 10 * time.Minute // before that a cookie is not given again
	maxCodes    = 64
	maxSessions = 64
	maxBody     = 64 << 10 // bytes of a form
)

// Door keeps the codes and the sessions, in memory: a restart ends them. It may be used by
// several goroutines at once.
type Door struct {
	options Options
	look    *page.Look
	cross   *http.CrossOriginProtection
	cookie  string // its name: localhost's cookies are shared by all ports

	mu       sync.Mutex
	codes    []*code    // the oldest first
	sessions []*session // the oldest first
}

// The names of the sessions' cookies: cookieStart and what each door has of its own, behind
// secureCookie where they came by https.
const cookieStart, secureCookie = "upsauth-manager-", "__Host-"

// New makes a door that nobody has an address of yet.
func New(o Options) (*Door, error) {
	look, err := page.New()
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	o.NewAddress = cmp.Or(o.NewAddress, "To get a new address, go to where the service runs.")
	return &Door{options: o, look: look, cross: http.NewCrossOriginProtection(), cookie: cookieStart + random()[:8]}, nil
}

// HostOf is the host that browsers send for an address, and whether it is https. The
// address has no user, path, query or fragment.
func HostOf(address string) (host string, secure bool, err error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", false, fmt.Errorf("%q is no address: %w", address, errors.Unwrap(err))
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return "", false, fmt.Errorf("%q begins neither with https:// nor with http://", address)
	case u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return "", false, fmt.Errorf("%q is not a scheme and a host alone, such as https://upsauth.agency.example", address)
	}
	host = strings.ToLower(u.Host)
	if name, port, err := net.SplitHostPort(host); err == nil && (port == "443" && u.Scheme == "https" || port == "80" && u.Scheme == "http" || port == "") {
		host = name
		if strings.Contains(name, ":") {
			host = "[" + name + "]"
		}
	}
	return host, u.Scheme == "https", nil
}

// ConnContext is the [http.Server.ConnContext] of whatever serves a door.
func ConnContext(ctx context.Context, c net.Conn) context.Context { return peer.ConnContext(ctx, c) }

// Wrap puts the door before the pages. It serves /login, /login/CODE and /logout itself.
func (d *Door) Wrap(inside http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page.Headers(w.Header())
		here, ok := d.host(r.Host)
		if !ok {
			d.options.Log("refused a request for the host %q", r.Host)
			d.refuse(w, http.StatusForbidden, "This is another address", "The company manager does not answer at this address.",
				"If a proxy brought you here, set manager_url under [serve] in config.toml to the proxy's address. Otherwise, open the address that the service gives out.")
			return
		}
		switch r.Method {
		case http.MethodGet, http.MethodHead, http.MethodPost:
		default:
			w.Header().Set("Allow", "GET, HEAD, POST")
			d.refuse(w, http.StatusMethodNotAllowed, "This can't be done", "The company manager knows no such request.")
			return
		}
		if err := d.origin(r); err != nil {
			d.options.Log("refused a %s from elsewhere: %v", r.Method, err)
			d.refuse(w, http.StatusForbidden, "This request was refused", "The request did not come from a page of the company manager. Nothing was changed.",
				"Open the company manager and try again there.")
			return
		}
		uid, err := peer.Of(r.Context()).User()
		if err != nil {
			d.options.Log("refused a request: %v", err)
			d.refuse(w, http.StatusForbidden, "This request was refused", "Nobody can tell any more who sent the request. Nothing was changed.")
			return
		}
		if r.ContentLength > maxBody {
			w.Header().Set("Connection", "close")
			d.refuse(w, http.StatusRequestEntityTooLarge, "This is too much", "The request is too large. Nothing was changed.")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		v := visit{w, r, uid, d.options.Secure && here}
		switch path := r.URL.Path; {
		case path == "/login":
			d.entrance(v)
		case strings.HasPrefix(path, "/login/"):
			d.login(v, strings.TrimPrefix(path, "/login/"))
		default:
			d.enter(v, inside)
		}
	})
}

// visit is a request that comes from a page of ours, or from nowhere.
type visit struct {
	w      http.ResponseWriter
	r      *http.Request
	uid    int  // whose the connection is
	secure bool // it came by https
}

// host reports whether a Host is one that the manager has, and whether it is that of its
// address, which is no loopback name. A name of somebody else's that leads here would look
// like the same origin to the browser.
func (d *Door) host(host string) (address, ok bool) {
	lower := strings.ToLower(host)
	if slices.Contains(d.options.Hosts, lower) {
		return true, true
	}
	return false, isLoopback(lower)
}

// IsLoopback reports whether a request came by a loopback name, so that the browser is on
// this machine, or at the other end of a tunnel.
func IsLoopback(r *http.Request) bool { return isLoopback(strings.ToLower(r.Host)) }

// isLoopback reports whether a host is localhost, 127.0.0.1 or [::1], with any port: a
// tunnel may have another than the service.
func isLoopback(host string) bool {
	for _, name := range []string{"localhost", "127.0.0.1", "[::1]"} {
		rest, ok := strings.CutPrefix(host, name)
		if !ok {
			continue
		}
		if rest == "" {
			return true
		}
		port, ok := strings.CutPrefix(rest, ":")
		if !ok || port == "" || len(port) > 5 || strings.Trim(port, "0123456789") != "" {
			return false
		}
		at, err := netip.ParseAddrPort("127.0.0.1:" + port)
		return err == nil && at.Port() != 0
	}
	return false
}

// origin refuses what another origin's page sends, and a POST of which nothing tells where
// it comes from: every browser of today tells.
func (d *Door) origin(r *http.Request) error {
	if err := d.cross.Check(r); err != nil {
		return err
	}
	if r.Method == http.MethodPost && r.Header.Get("Sec-Fetch-Site") == "" && r.Header.Get("Origin") == "" {
		return errors.New("it has neither Sec-Fetch-Site nor Origin")
	}
	return nil
}

// enter lets a session in.
func (d *Door) enter(v visit, inside http.Handler) {
	s := d.find(v)
	switch {
	case s == nil && wantsPage(v.r):
		v.w.Header().Set("Location", "/login")
		d.refuse(v.w, http.StatusSeeOther, howTitle, d.options.NewAddress)
		return
	case s == nil:
		d.refuse(v.w, http.StatusUnauthorized, howTitle, append(ended(v), d.options.NewAddress)...)
		return
	}
	if v.r.URL.Path == "/logout" {
		if v.r.Method != http.MethodPost {
			v.w.Header().Set("Allow", "POST")
			d.refuse(v.w, http.StatusMethodNotAllowed, "Sign out with the button", "Use the button Sign out of any page.")
			return
		}
		d.drop(s)
		http.SetCookie(v.w, d.cookieOf(v, "", -1))
		redirect(v.w, "/login?out")
		return
	}
	if value, due := d.renew(s, v); due {
		http.SetCookie(v.w, d.cookieOf(v, value, int(idle/time.Second)))
	}
	inside.ServeHTTP(v.w, v.r)
}

// wantsPage reports whether a browser goes to a page, so that it can be led to another.
func wantsPage(r *http.Request) bool {
	if r.Method != http.MethodGet {
		return false
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

const howTitle = "Sign in to the company manager"

// entrance is the page that says how to get in.
func (d *Door) entrance(v visit) {
	if v.r.Method == http.MethodPost {
		v.w.Header().Set("Allow", "GET, HEAD")
		d.refuse(v.w, http.StatusMethodNotAllowed, howTitle, d.options.NewAddress)
		return
	}
	if d.find(v) != nil {
		redirect(v.w, "/")
		return
	}
	var text []string
	if v.r.URL.RawQuery == "out" {
		text = append(text, "You have signed out.")
	} else {
		text = ended(v)
	}
	text = append(text, "The company manager opens with an address that works once, within 10\u00a0minutes.", d.options.NewAddress)
	d.refuse(v.w, http.StatusOK, howTitle, text...)
}

// ended says why a browser that was signed in is not any more. A service knows the sessions
// of no other one: each has a cookie of its own name.
func ended(v visit) []string {
	for _, c := range v.r.Cookies() {
		if strings.HasPrefix(strings.TrimPrefix(c.Name, secureCookie), cookieStart) {
			return []string{"This browser was signed in before, and that session has ended. " +
				"A session ends when the service is started anew, when nobody uses it for 12\u00a0hours, and when another browser opens its address."}
		}
	}
	return nil
}

// login turns an address that was given out into a session.
func (d *Door) login(v visit, text string) {
	switch v.r.Method {
	case http.MethodHead: // programs that look what is behind a link use nothing up
		v.w.WriteHeader(http.StatusOK)
		return
	case http.MethodPost:
		v.w.Header().Set("Allow", "GET, HEAD")
		d.refuse(v.w, http.StatusMethodNotAllowed, howTitle, d.options.NewAddress)
		return
	}
	value, came := d.use(v, text)
	switch came {
	case fresh:
		http.SetCookie(v.w, d.cookieOf(v, value, int(idle/time.Second)))
		redirect(v.w, "/")
	case again:
		redirect(v.w, "/")
	case otherUser:
		d.options.Log("refused a program of another user at a sign-in address")
		d.refuse(v.w, http.StatusForbidden, "This request was refused", "The request comes from a program of another user of this machine than the one who runs the service. Nothing was changed.")
	case stolen:
		d.options.Log("a sign-in address was opened by a second browser: its session has ended")
		d.refuse(v.w, http.StatusConflict, "This address was used before",
			"Another browser opened this address before. The session of that browser has ended, so nobody is signed in by this address any more.",
			"If you did not open the address twice, somebody else may have it. "+d.options.NewAddress)
	case unknown:
		d.refuse(v.w, http.StatusNotFound, "This address does not work", "The address is not known, or its 10\u00a0minutes are over.", d.options.NewAddress)
	}
}

// cookieOf is the session's cookie; a negative age ends it. Strict would not be sent on the
// way back from ups.com.
func (d *Door) cookieOf(v visit, value string, age int) *http.Cookie {
	return &http.Cookie{Name: d.cookieName(v), Value: value, Path: "/", MaxAge: age, HttpOnly: true, Secure: v.secure, SameSite: http.SameSiteLaxMode} //nolint:gosec // loopback is http
}

// cookieName is one that over https no other host and no plain http can set.
func (d *Door) cookieName(v visit) string {
	if v.secure {
		return secureCookie + d.cookie
	}
	return d.cookie
}

// redirect leads to a page of ours.
func redirect(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
}

// refuse answers with a page of a few sentences.
func (d *Door) refuse(w http.ResponseWriter, status int, heading string, text ...string) {
	if err := d.look.Write(w, status, page.Page{Heading: heading, Body: text}); err != nil {
		d.options.Log("%v", err)
	}
}
