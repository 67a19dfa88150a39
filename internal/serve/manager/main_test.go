package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/uuid"

	"github.com/upsauth/upsauth/internal/checkup"
	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/serve/door"
	"github.com/upsauth/upsauth/internal/serve/signins"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
)

// world is the pages behind their door, over a session with directories of its own. The
// environment lab is a sandbox.
type world struct {
	*session.Session
	t       *testing.T
	dir     string
	ups     *sandbox.Server
	url     string
	browser *http.Client
	door    *door.Door
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	var err error
	if w.ups, err = sandbox.New(sandbox.Options{DisplayNames: map[string]string{"cid": "Customer Solutions"}}); err != nil {
		t.Fatal(err)
	}
	lab := httptest.NewServer(w.ups)
	t.Cleanup(lab.Close)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w.write("identity.txt", identity.String()+"\n")
	w.write("config/config.toml", "[environments.lab]\nbase_url = \""+lab.URL+"\"\n[serve]\npublic_url = \""+publicURL+"\"\nfrom = \"Agency GmbH\"\nreturn_urls = [\"https://shop.example/\"]\n")
	settings := map[string]string{
		"HOME": w.dir, "USERPROFILE": w.dir, "UPSAUTH_CONFIG_DIR": filepath.Join(w.dir, "config"), "UPSAUTH_STATE_DIR": filepath.Join(w.dir, "state"),
		"UPSAUTH_VAULT": "file", "UPSAUTH_IDENTITY": filepath.Join(w.dir, "identity.txt"),
	}
	transport := ups.NewTransport()
	t.Cleanup(transport.CloseIdleConnections)
	if w.Session, err = session.Open(session.Options{
		Getenv: func(name string) string { return settings[name] }, Now: time.Now, Transport: transport,
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Session.Close)
	if w.door, err = door.New(door.Options{Now: time.Now}); err != nil {
		t.Fatal(err)
	}
	sessions := func(context.Context) (*session.Session, error) { return w.Session, nil }
	room := &room{t: t, session: w.Session, all: map[string]*signIn{}}
	t.Cleanup(room.close)
	pages, err := New(Options{
		Session: sessions, SignIns: room, Machine: "this machine, where upsauth serve runs", Host: "box", Now: time.Now,
		Doctor: func(ctx context.Context, s *session.Session) ([]checkup.Finding, error) {
			return checkup.Machine(ctx, s, checkup.Options{
				Words:   checkup.Words{Time: render.UTCTime, Span: render.Span, Grants: render.Summary},
				CanMake: func(context.Context) error { return nil },
			})
		},
		Log: t.Logf,
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.Config.Handler, server.Config.ConnContext = w.door.Wrap(pages), door.ConnContext
	server.Start()
	t.Cleanup(server.Close)
	w.url = server.URL
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	w.browser = &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	path, _ := w.door.Link()
	if p := w.get(path); p.status != http.StatusSeeOther {
		t.Fatalf("the door says %d", p.status)
	}
	return w
}

func (w *world) write(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// publicURL is where customers' browsers come. The sandbox answers on this machine alone.
const publicURL = "http://localhost:8489"

// register registers an application in the lab.
func (w *world) register(name string) {
	w.t.Helper()
	if _, err := w.RegisterApplication(w.t.Context(), config.Registration{Name: name, Environment: "lab", ClientID: "cid", RedirectURI: "http://localhost:8400/callback"}, "s3cret"); err != nil {
		w.t.Fatal(err)
	}
}

// grant puts a grant in the vault, as change makes it.
func (w *world) grant(company, application string, change func(*grant.Grant)) grant.Record {
	w.t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	environment, err := w.Environment("lab")
	if err != nil {
		w.t.Fatal(err)
	}
	g := grant.Grant{
		Record: grant.Record{Facts: grant.Facts{
			ID:            grant.ID{Company: company, Application: application, Environment: "lab"},
			TokenVaultKey: strings.ToUpper(uuid.NewString()), Generation: 1, ClientID: "cid", BaseURL: environment.BaseURL, Home: "file", User: "jane@acme.example",
			Requested: now, Issued: now, Expires: now.Add(time.Hour), AccessUntil: now.Add(time.Hour),
			RefreshTokenIssued: now, RefreshTokenExpires: now.Add(60 * 24 * time.Hour), RefreshUntil: now.Add(60 * 24 * time.Hour),
		}},
		Secrets: grant.Secrets{AccessToken: "access-of-" + company, RefreshToken: "refresh-of-" + company},
	}
	if change != nil {
		change(&g)
	}
	if _, err := w.Keeper.Import(w.t.Context(), g); err != nil {
		w.t.Fatal(err)
	}
	record, err := w.Vault.Record(w.t.Context(), g.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	return record
}

// expired makes a grant's refresh token one that has expired.
func expired(g *grant.Grant) {
	for _, at := range []*time.Time{&g.Requested, &g.Issued, &g.Expires, &g.AccessUntil, &g.RefreshTokenIssued, &g.RefreshTokenExpires, &g.RefreshUntil} {
		*at = at.Add(-61 * 24 * time.Hour)
	}
}

func (w *world) add(name, contact, note string) {
	w.t.Helper()
	if err := w.AddCompanies(w.t.Context(), []company.New{{Name: name, Contact: &contact, Note: &note}}, func(string, session.Outcome) {}); err != nil {
		w.t.Fatal(err)
	}
}

// shown is a page that came back.
type shown struct {
	t        *testing.T
	status   int
	location string
	html     string
}

func (w *world) ask(method, path string, form url.Values) shown {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", w.url)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	resp, err := w.browser.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(text) > 15<<10 {
		w.t.Errorf("%s %s has %d bytes", method, path, len(text))
	}
	if strings.Contains(string(text), "s3cret") || strings.Contains(string(text), "access-of-") || strings.Contains(string(text), "refresh-of-") {
		w.t.Errorf("%s %s shows a secret", method, path)
	}
	return shown{w.t, resp.StatusCode, resp.Header.Get("Location"), string(text)}
}

func (w *world) get(path string) shown {
	w.t.Helper()
	return w.ask(http.MethodGet, path, nil)
}

// page is get for a page that is there.
func (w *world) page(path string) shown {
	w.t.Helper()
	p := w.get(path)
	if p.status != http.StatusOK {
		w.t.Fatalf("%s got %d to %q:\n%s", path, p.status, p.location, p.text())
	}
	return p
}

// change posts a form that ends at another page, and goes there.
func (w *world) change(path string, form url.Values) shown {
	w.t.Helper()
	p := w.ask(http.MethodPost, path, form)
	if p.status != http.StatusSeeOther {
		w.t.Fatalf("%s got %d:\n%s", path, p.status, p.text())
	}
	return w.page(p.location)
}

var (
	tags    = regexp.MustCompile(`(?s)<style>.*?</style>|<[^>]*>`)
	forms   = regexp.MustCompile(`(?s)<form(?: class="row")? action="([^"]*)">(.*?)</form>`)
	hidden  = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
	buttons = regexp.MustCompile(`<button([^>]*)>(.*?)</button>`)
	values  = regexp.MustCompile(`([a-z]+)="([^"]*)"`)
	inline  = regexp.MustCompile(`</?(?:bdi|a|span|strong|code|button)\b[^>]*>`)
	ids     = regexp.MustCompile(`<(?:input|select) id="([^"]*)"`)
	links   = regexp.MustCompile(`<a[^>]* href="([^"]*)"[^>]*>(.*?)</a>`)
)

// text is what the page shows.
func (p shown) text() string {
	return strings.Join(strings.Fields(html.UnescapeString(tags.ReplaceAllString(inline.ReplaceAllString(p.html, ""), " "))), " ")
}

func (p shown) has(want ...string) {
	p.t.Helper()
	for _, one := range want {
		if !strings.Contains(p.text(), one) {
			p.t.Errorf("the page does not say %q:\n%s", one, p.text())
		}
	}
}

func (p shown) lacks(bad ...string) {
	p.t.Helper()
	for _, one := range bad {
		if strings.Contains(p.text(), one) {
			p.t.Errorf("the page says %q:\n%s", one, p.text())
		}
	}
}

// link is where a link leads, or a button of a form that changes nothing.
func (p shown) link(text string) string {
	p.t.Helper()
	words := func(inside string) string {
		return strings.TrimSpace(html.UnescapeString(tags.ReplaceAllString(inside, "")))
	}
	for _, form := range forms.FindAllStringSubmatch(p.html, -1) {
		q := url.Values{}
		for _, m := range hidden.FindAllStringSubmatch(form[2], -1) {
			q.Set(m[1], html.UnescapeString(m[2]))
		}
		for _, m := range buttons.FindAllStringSubmatch(form[2], -1) {
			at := attributes(m[1])
			if words(m[2]) != text || at["formmethod"] == "post" {
				continue
			}
			if at["name"] != "" {
				q.Set(at["name"], at["value"])
			}
			return cmp.Or(at["formaction"], form[1]) + "?" + q.Encode()
		}
	}
	for _, m := range links.FindAllStringSubmatch(p.html, -1) {
		if words(m[2]) == text {
			return html.UnescapeString(m[1])
		}
	}
	p.t.Fatalf("the page has no link %q:\n%s", text, p.html)
	return ""
}

// attributes are those of a tag.
func attributes(tag string) map[string]string {
	found := map[string]string{}
	for _, m := range values.FindAllStringSubmatch(tag, -1) {
		found[m[1]] = html.UnescapeString(m[2])
	}
	return found
}

// room carries out sign-ins whose answers are pasted.
type room struct {
	t       *testing.T
	session *session.Session
	mu      sync.Mutex
	all     map[string]*signIn
}

type signIn struct {
	room   *room
	handle string
	id     grant.ID
	login  *keeper.SignIn
	mu     sync.Mutex
	view   signins.View
}

func (r *room) Begin(ctx context.Context, q Request) (SignIn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, other := range r.all {
		if other.id == q.ID {
			_ = other.End(ctx)
		}
	}
	ctx = context.WithoutCancel(ctx)
	a, err := r.session.Authorizing(ctx, target(q.ID))
	if err != nil {
		return nil, err
	}
	if err := a.Ready(ctx); err != nil {
		return nil, err
	}
	login, err := r.session.Keeper.Begin(ctx, keeper.Request{ID: q.ID, Home: r.session.Config.Vault, Client: a.Client(), Asks: true})
	if err != nil {
		return nil, err
	}
	s := &signIn{room: r, handle: uuid.NewString(), id: q.ID, login: login}
	at := login.Address(login.State())
	s.view = signins.View{State: signins.Waiting, Address: at, AtUPS: at, RedirectURI: a.Registration.RedirectURI, Until: time.Now().Add(10 * time.Minute), Machine: "box"}
	if !q.Elsewhere {
		s.view.ListensAt, s.view.Port = "127.0.0.1:8400", 8400
	}
	r.all[s.handle] = s
	return s, nil
}

func (r *room) Get(handle string) (SignIn, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.all[handle]
	return s, ok
}

func (r *room) close() {
	for _, s := range r.all {
		_ = s.End(context.Background())
	}
}

func (s *signIn) Handle() string { return s.handle }
func (s *signIn) ID() grant.ID   { return s.id }
func (s *signIn) View() signins.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view
}

func (s *signIn) Paste(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Query().Get("state") != s.login.State() {
		return errors.New("the address is not that of this sign-in")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := u.Query()
	outcome, err := s.login.Finish(ctx, grant.Callback{Code: q.Get("code"), Error: q.Get("error"), ErrorDescription: q.Get("error_description")})
	if awaited := new(keeper.AwaitedError); errors.As(err, &awaited) {
		s.view.Last = awaited.Err
		return nil
	}
	if err != nil {
		s.over("failed", err)
		return nil
	}
	s.view.User = outcome.User
	if doubts := s.room.session.People(ctx, s.id).Doubts(outcome.User); len(doubts) > 0 {
		s.view.State, s.view.Doubts = signins.Asking, doubts
		return nil
	}
	s.keep(ctx)
	return nil
}

func (s *signIn) keep(ctx context.Context) {
	g, err := s.login.Keep(ctx)
	if err != nil {
		s.over("failed", err)
		return
	}
	s.view.Record = g.Record
	s.over(signins.Done, nil)
}

func (s *signIn) over(state signins.State, err error) {
	s.view.State, s.view.Err = state, err
	s.login.Close(context.Background())
}

func (s *signIn) Answer(ctx context.Context, yes bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view.State != signins.Asking {
		return errors.New("nobody is asked")
	}
	if yes {
		s.keep(ctx)
		return nil
	}
	s.login.Drop(ctx)
	s.over("refused", fmt.Errorf("the authorization by %s was not kept", s.view.User))
	return nil
}

func (s *signIn) End(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.view.State.Over() {
		s.over("ended", errors.New("the sign-in was ended"))
	}
	return nil
}

// signInAs signs in at the lab's pages and returns the address that the browser ends at.
func (w *world) signInAs(user, address string) string {
	w.t.Helper()
	last, err := (sandbox.Person{User: user, Password: "right"}).Callback(w.t.Context(), address)
	if err != nil {
		w.t.Fatal(err)
	}
	return last
}
