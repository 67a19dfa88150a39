package sandbox

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/upsauth/upsauth/internal/address"
)

//go:embed pages/*.html
var pageFiles embed.FS

// page is what the templates are given.
type page struct {
	Title  string
	Nonce  string
	Listed bool // only listed users can sign in

	// The sign-in pages.
	Application string
	URL         string // of the first page
	Forgot      string // the help page's URL
	Name        string
	Agreed      bool
	NameError   string
	AgreeError  string
	PassError   string

	// A page with nothing to fill in, and a link to URL where there is one.
	Paragraphs []string
	Link       string

	// The start page.
	Base    string
	Local   bool // asked by this machine, and by no name of another
	Clients []Client
	Grants  []liveGrant
	Session string
}

type liveGrant struct {
	User, Client                              string
	Authorized, AccessExpires, RefreshExpires time.Time
	Refreshes                                 int
}

// Stamp is how a page writes a time.
func (page) Stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func parsePages() (map[string]*template.Template, error) {
	pages := map[string]*template.Template{}
	for _, name := range []string{"signin", "password", "message", "start"} {
		t, err := template.ParseFS(pageFiles, "pages/layout.html", "pages/"+name+".html")
		if err != nil {
			return nil, fmt.Errorf("a page of the sandbox can't be read: %w", err)
		}
		pages[name] = t
	}
	return pages, nil
}

// render answers with a page. formAction, where it is not empty, is where a
// form on it may lead.
func (s *Server) render(w http.ResponseWriter, status int, name string, p page, formAction string) {
	pages, err := s.pages()
	if err != nil {
		s.broken(err).write(w)
		return
	}
	p.Nonce = randomToken(18)
	p.Listed = len(s.opts.Users) > 0
	var b bytes.Buffer
	if err := pages[name].ExecuteTemplate(&b, "layout.html", p); err != nil {
		s.broken(err).write(w)
		return
	}
	if formAction == "" {
		formAction = "'none'"
	}
	a := &answer{status: status, body: b.Bytes(), header: http.Header{"Content-Type": {"text/html; charset=utf-8"}}}
	a.header.Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+p.Nonce+"'; form-action "+formAction+
		"; base-uri 'none'; frame-ancestors 'none'")
	pageHeader(a.header)
	a.write(w)
}

// pageHeader is common to pages and to the redirects that leave them. Browsers
// name no origin in a form sent under "no-referrer", and the check against
// forged forms needs it: under "same-origin" other sites learn as little.
func pageHeader(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
}

// formAction lists where a sign-in form may lead: Chromium holds the redirect
// to the client against it, and those that follow. A client on this machine
// may send its browser on to any other port of it.
func formAction(redirectURI string) string {
	u, err := url.Parse(redirectURI)
	if err != nil {
		return "'self'"
	}
	sources := "'self' " + u.Scheme + ":"
	if u.Host != "" && !strings.Contains(u.Host, "[") { // an IPv6 address is no host-source of CSP 3
		sources = "'self' " + u.Scheme + "://" + u.Host
		if address.IsLoopback(u.Hostname()) {
			sources += " http://localhost:* https://localhost:* http://127.0.0.1:* https://127.0.0.1:*"
		}
	}
	return sources
}

// signIn serves the two pages. Everything about the request is in their URL,
// and so is, once a form was sent, what the person typed, but for the password:
// a form leads to the URL of the page that comes next. So going back,
// reloading and a second tab all work, where browsers would not show the
// answer to a form again without a question. A program can send both pages'
// fields at once.
func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	if !isGet(r) && r.Method != http.MethodPost {
		notAllowed("GET, HEAD, POST").write(w)
		return
	}
	seal, err := s.seal()
	if err != nil {
		s.broken(err).write(w)
		return
	}
	a, typed, ok := parseQuery(seal, r.URL.RawQuery)
	client, refusal := s.client(a.ClientID, a.RedirectURI)
	if !ok || refusal != nil {
		s.render(w, http.StatusBadRequest, "message", page{
			Title: "This address does not work",
			Paragraphs: []string{
				"This sandbox did not make it, or it was changed, or the sandbox's state has been deleted since.",
				"Go back to the application and start again.",
			},
		}, "")
		return
	}
	p := page{
		Title:       "Log In",
		Application: client.displayName(),
		URL:         "/lasso/signin?" + a.query(seal),
		Forgot:      "/lasso/forgot?" + r.URL.RawQuery,
	}
	if r.Method == http.MethodPost {
		s.signInForm(w, r, a, p)
		return
	}

	target := formAction(a.RedirectURI)
	if !typed.Has("username") {
		s.render(w, http.StatusOK, "signin", p, target)
		return
	}
	if !s.readName(&p, typed) {
		s.render(w, http.StatusUnprocessableEntity, "signin", p, target)
		return
	}
	p.Title = "Password"
	status := http.StatusUnprocessableEntity
	switch typed.Get("problem") {
	case problemEmpty:
		p.PassError = "Enter your password."
	case problemWrong:
		p.PassError = "The password is wrong."
	case problemProfile:
		s.render(w, http.StatusForbidden, "message", page{
			Title: "This profile can't be used",
			Paragraphs: []string{
				"You signed in with a CampusShip profile. A CampusShip profile can't authorize an application.",
				"Sign in with a ups.com profile that has the shipping accounts.",
			},
			URL: p.URL, Link: "Log in as somebody else",
		}, "")
		return
	default:
		status = http.StatusOK
	}
	s.render(w, status, "password", p, target)
}

// What was wrong on the second page, in a page's URL.
const (
	problemEmpty   = "no-password"
	problemWrong   = "wrong-password"
	problemProfile = "wrong-profile"
)

// readName takes over what the first page asks for, and reports whether it will
// do.
func (s *Server) readName(p *page, form url.Values) bool {
	p.Name, p.Agreed = strings.TrimSpace(form.Get("username")), form.Get("agree") != ""
	_, listed := s.listed(p.Name)
	switch {
	case p.Name == "":
		p.NameError = "Enter your email or username."
	case !isName(p.Name):
		p.NameError = "That can't be a username: it is too long, or has characters that can't be shown."
	case len(s.opts.Users) > 0 && !listed:
		p.NameError = "The sandbox does not know this user name."
	}
	if !p.Agreed {
		p.AgreeError = "To continue, agree by ticking the box."
	}
	return p.NameError == "" && p.AgreeError == ""
}

// signInForm takes a form of either page.
func (s *Server) signInForm(w http.ResponseWriter, r *http.Request, a authorization, p page) {
	if err := s.cross.Check(r); err != nil {
		s.render(w, http.StatusForbidden, "message", page{
			Title:      "Not from here",
			Paragraphs: []string{"This form was sent by a page of another site. Go back to the application and start again."},
		}, "")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		s.render(w, http.StatusBadRequest, "message", page{
			Title:      "This form can't be read",
			Paragraphs: []string{"Go back and send it again."},
		}, "")
		return
	}
	form := r.PostForm
	if form.Get("action") == "cancel" {
		leave(w, r, a.denied())
		return
	}
	// On to the page that comes next, or to the same with what was wrong.
	turn := func(problem string) {
		next := url.Values{"username": {p.Name}}
		if len(p.Name) > 1000 { // too long already, and stays so
			next.Set("username", p.Name[:1000])
		}
		if p.Agreed {
			next.Set("agree", "yes")
		}
		if problem != "" {
			next.Set("problem", problem)
		}
		leave(w, r, p.URL+"&"+next.Encode())
	}
	if !s.readName(&p, form) || !form.Has("password") {
		turn("")
		return
	}
	user, listed := s.listed(p.Name)
	switch password := form.Get("password"); {
	case password == "":
		turn(problemEmpty)
		return
	case listed && !equal(password, user.Password):
		turn(problemWrong)
		return
	}
	if user.CampusShip {
		turn(problemProfile)
		return
	}
	if user.Declines {
		leave(w, r, a.denied())
		return
	}
	issued, err := s.issueCode(a, p.Name, !listed)
	if err != nil {
		s.broken(err).write(w)
		return
	}
	leave(w, r, a.granted(issued))
}

// issueCode makes an authorization code, and a person of whoever is new here.
func (s *Server) issueCode(a authorization, name string, unlisted bool) (string, error) {
	issued := opaqueToken(132)
	now := s.opts.Now()
	err := s.store.do(func(st *state) bool {
		st.Codes[hash(issued)] = code{authorization: a, User: name, Expires: now.Add(s.opts.CodeLifetime)}
		key := userKey(name)
		if _, known := st.People[key]; unlisted && !known {
			account := strings.ToUpper(hash("account " + key)[:6])
			st.People[key] = person{Name: name, Company: name + " Inc.", Accounts: []string{account}, Since: now}
		}
		return true
	})
	return issued, err
}

// leave sends the browser on, to the client or to another page.
func leave(w http.ResponseWriter, r *http.Request, to string) {
	pageHeader(w.Header())
	w.Header()["Content-Type"] = nil // no page around the address, which holds the code
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// isName accepts what a page can show and a token carry.
func isName(name string) bool {
	return utf8.ValidString(name) && utf8.RuneCountInString(name) <= 200 &&
		!strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
}

// forgot is where the sign-in pages' help link leads; its query is theirs, so
// that it can lead back.
func (s *Server) forgot(w http.ResponseWriter, r *http.Request) {
	p := page{Title: "Forgot Username/Password", Paragraphs: []string{"Type any name and any password. Make them up."}}
	if len(s.opts.Users) > 0 {
		p.Paragraphs[0] = "Only the users that this sandbox was started with can sign in."
	}
	if r.URL.RawQuery != "" {
		p.URL, p.Link = "/lasso/signin?"+r.URL.RawQuery, "Back to the sign-in"
	}
	s.showMessage(w, r, p)
}

func (s *Server) errorPage(w http.ResponseWriter, r *http.Request) {
	s.showMessage(w, r, page{Title: "Something went wrong", Paragraphs: []string{
		"UPS shows a page like this when it is down. Here, a fault of the sandbox was asked for.",
		"Go back to the application and start again later.",
	}})
}

func (s *Server) showMessage(w http.ResponseWriter, r *http.Request, p page) {
	if !isGet(r) {
		notAllowed("GET, HEAD").write(w)
		return
	}
	s.render(w, http.StatusOK, "message", p, "")
}

// start tells what this is and what there is.
func (s *Server) start(w http.ResponseWriter, r *http.Request) {
	if !isGet(r) {
		notAllowed("GET, HEAD").write(w)
		return
	}
	p := page{Title: "Sandbox", Base: baseURL(r), Local: fromThisMachine(r)}
	for _, c := range s.opts.Clients {
		p.Clients = append(p.Clients, Client{ID: c.ID, RedirectURI: c.RedirectURI, DisplayName: c.displayName()})
	}
	// Whoever started the sandbox knows the secrets; whoever reads this page
	// need not.
	if client, user, ok := s.example(); ok {
		client.Secret, user.Password = "", ""
		p.Session = curlSession(p.Base, client, user)
	}
	now := s.opts.Now()
	err := s.store.do(func(st *state) bool {
		for _, g := range st.Grants {
			if p.Local && now.Before(g.RefreshExpires) {
				p.Grants = append(p.Grants, liveGrant{g.User, g.ClientID, g.Authorized, g.AccessExpires, g.RefreshExpires, g.Count})
			}
		}
		return false
	})
	if err != nil {
		s.broken(err).write(w)
		return
	}
	slices.SortFunc(p.Grants, func(a, b liveGrant) int { return b.Authorized.Compare(a.Authorized) })
	s.render(w, http.StatusOK, "start", p, "")
}

// example returns a client, and a user who can authorize it, for whom a session
// with curl works; the zero value of what is not listed. It is not ok where
// nobody who is listed can authorize anything.
func (s *Server) example() (c Client, u User, ok bool) {
	if len(s.opts.Clients) > 0 {
		c = s.opts.Clients[0]
	}
	for _, listed := range s.opts.Users {
		if !listed.CampusShip && !listed.Declines && listed.Password != "" {
			return c, listed, true
		}
	}
	return c, u, len(s.opts.Users) == 0
}

// CurlSession returns a shell script, ready to be pasted, that takes one of the
// server's clients through the whole life of a grant. It holds the client's
// secret and the user's password. It is empty where nobody who is listed can
// authorize anything.
func (s *Server) CurlSession(baseURL string) string {
	client, user, ok := s.example()
	if !ok {
		return ""
	}
	return curlSession(baseURL, client, user)
}

// curlSession takes zero values for a client and a user that are not listed. A
// client without a secret leaves it to be filled in, as does a user without a
// password.
func curlSession(baseURL string, c Client, u User) string {
	if c.ID == "" {
		c = Client{ID: "my-client", Secret: "any-secret", RedirectURI: "http://localhost:8000/callback"}
	}
	if c.Secret == "" {
		c.Secret = "its client secret"
	}
	if u.Name == "" {
		u = User{Name: "jane", Password: "made-up"}
	}
	if u.Password == "" {
		u.Password = "the password"
	}
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	// No comments: an interactive zsh takes them for commands.
	return "BASE=" + quote(baseURL) + "\nCLIENT=" + quote(c.ID) + "\nSECRET=" + quote(c.Secret) + "\nREDIRECT=" + quote(c.RedirectURI) +
		"\nNAME=" + quote(u.Name) + "\nPASSWORD=" + quote(u.Password) + `

echo '1. The application sends its browser to UPS, and UPS to its sign-in page.'
SIGNIN=$(curl -sS -G -o /dev/null -w '%{redirect_url}' "$BASE/security/v1/oauth/authorize" \
  --data-urlencode "client_id=$CLIENT" --data-urlencode "redirect_uri=$REDIRECT" -d response_type=code -d state=af0ifjsldkj)
echo "$SIGNIN"

echo '2. Somebody signs in and agrees: the fields of both pages at once.'
CALLBACK=$(curl -sS -o /dev/null -w '%{redirect_url}' "$SIGNIN" \
  --data-urlencode "username=$NAME" -d agree=yes --data-urlencode "password=$PASSWORD")
echo "$CALLBACK"

echo '3. The application exchanges the code, which lives for a short time only.'
CODE=$(printf %s "$CALLBACK" | sed -n 's/.*[?&]code=\([^&]*\).*/\1/p')
TOKENS=$(curl -sS -u "$CLIENT:$SECRET" "$BASE/security/v1/oauth/token" \
  -d grant_type=authorization_code --data-urlencode "code=$CODE" --data-urlencode "redirect_uri=$REDIRECT")
echo "$TOKENS"

echo '4. The access token opens an API.'
ACCESS=$(printf %s "$TOKENS" | sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p')
curl -sS -H "Authorization: Bearer $ACCESS" -H 'transId: 1' -H 'transactionSrc: curl' "$BASE/api/track/v1/details/1Z12345E0205271688"
echo

echo '5. The refresh token gets a new pair, once.'
REFRESH=$(printf %s "$TOKENS" | sed -n 's/.*"refresh_token":"\([^"]*\)".*/\1/p')
curl -sS -u "$CLIENT:$SECRET" "$BASE/security/v1/oauth/refresh" -d grant_type=refresh_token --data-urlencode "refresh_token=$REFRESH"
echo

echo '6. The second time it is refused.'
curl -sS -u "$CLIENT:$SECRET" "$BASE/security/v1/oauth/refresh" -d grant_type=refresh_token --data-urlencode "refresh_token=$REFRESH"
echo
`
}
