package sandbox

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"mime"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Person walks the sign-in pages as somebody at a browser would: follows
// redirects, keeps cookies, finds the form on the page, fills it in, ticks
// the box and presses the button.
type Person struct {
	User     string
	Password string
	HTTP     http.RoundTripper // nil means http.DefaultTransport
	Jar      http.CookieJar    // nil means one of their own
}

// Page is what a person sees.
type Page struct {
	URL    string // where they ended, with the query
	Status int
	Text   string // what is visible, with every run of white space made one space
	// Before is what was visible on a page that gave way to this one by itself.
	Before string

	// again is how long it stands there before it is loaded anew, negative for ever.
	again time.Duration
}

// SignIn opens the authorize URL, or an address that leads to it, that of a private
// file included, signs in, agrees, and follows the browser back to the client. It
// returns the last page; with an error too if that is not the client's.
func (p Person) SignIn(ctx context.Context, authorizeURL string) (Page, error) {
	w, err := p.newWalk(authorizeURL)
	if err != nil {
		return Page{}, err
	}
	return w.run(ctx, authorizeURL)
}

// Decline does as SignIn does, except that it presses Cancel.
func (p Person) Decline(ctx context.Context, authorizeURL string) (Page, error) {
	w, err := p.newWalk(authorizeURL)
	if err != nil {
		return Page{}, err
	}
	w.cancel = true
	return w.run(ctx, authorizeURL)
}

// Callback does as SignIn does, except that it stops before it goes back to
// the client, and returns the URL where it would have gone.
func (p Person) Callback(ctx context.Context, authorizeURL string) (string, error) {
	w, err := p.newWalk(authorizeURL)
	if err != nil {
		return "", err
	}
	w.stop = true
	page, err := w.run(ctx, authorizeURL)
	return page.URL, err
}

// walk is one way through the pages.
type walk struct {
	person  Person
	client  *http.Client
	home    *url.URL // the client's redirect URI, nil until an authorize URL names it
	arrived *url.URL // its URL when the browser was sent there
	cancel  bool
	stop    bool
}

func (p Person) newWalk(authorizeURL string) (*walk, error) {
	u, err := url.Parse(authorizeURL)
	if err != nil {
		return nil, fmt.Errorf("the authorize URL can't be read: %w", err)
	}
	jar := p.Jar
	if jar == nil {
		if jar, err = cookiejar.New(nil); err != nil {
			return nil, err
		}
	}
	w := &walk{person: p}
	if w.leave(u); w.home == nil && strings.HasSuffix(u.Path, "/oauth/authorize") {
		return nil, errors.New("the authorize URL has no redirect URI to come back to")
	}
	w.client = &http.Client{Transport: p.HTTP, Jar: jar, CheckRedirect: w.follow}
	return w, nil
}

// leave notes where an authorize URL says that the browser comes back to.
func (w *walk) leave(u *url.URL) {
	if home, err := url.Parse(u.Query().Get("redirect_uri")); err == nil && home.Host != "" && w.home == nil {
		w.home = home
	}
}

// follow notices when a redirect leads back to the client.
func (w *walk) follow(r *http.Request, via []*http.Request) error {
	w.leave(r.URL)
	path := func(u *url.URL) string { return strings.TrimSuffix(u.Path, "/") }
	q := r.URL.Query()
	if w.home != nil && w.arrived == nil && r.URL.Scheme == w.home.Scheme && r.URL.Host == w.home.Host && path(r.URL) == path(w.home) &&
		(q.Has("code") || q.Has("error")) {
		w.arrived = r.URL
		if w.stop {
			return http.ErrUseLastResponse
		}
	}
	if len(via) == 10 {
		return errors.New("the browser was redirected ten times")
	}
	return nil
}

func (w *walk) run(ctx context.Context, authorizeURL string) (Page, error) {
	authorizeURL, err := opened(authorizeURL)
	if err != nil {
		return Page{}, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, authorizeURL, nil)
	if err != nil {
		return Page{}, err
	}
	for range 5 {
		page, doc, err := w.do(r)
		if err != nil {
			return page, err
		}
		if w.arrived != nil {
			if w.stop {
				page.URL = w.arrived.String()
				return page, nil
			}
			return w.stay(ctx, page)
		}
		if doc.alert != "" {
			return page, fmt.Errorf("the sign-in page says: %s", doc.alert)
		}
		if w.home == nil {
			return page, fmt.Errorf("the address does not lead to an authorize URL with a redirect URI to come back to, but to status %d: %s", page.Status, page.Text)
		}
		if doc.form == nil {
			return page, fmt.Errorf("the way to the client ended with status %d: %s", page.Status, page.Text)
		}
		if r, err = w.submit(ctx, page, doc.form); err != nil {
			return page, err
		}
	}
	return Page{}, errors.New("the sign-in pages do not end")
}

// opened is where a file with a page in it leads at once, as a browser goes that is
// given one; any other address is itself.
func opened(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "file" {
		return address, nil //nolint:nilerr // what is wrong with it, its request tells
	}
	path := u.Path
	if runtime.GOOS == "windows" {
		path = strings.TrimPrefix(path, "/") // before a drive's letter
	}
	page, err := os.ReadFile(filepath.FromSlash(path))
	if err != nil {
		return "", err
	}
	refresh := regexp.MustCompile(`<meta http-equiv="refresh" content="0; url=([^"]*)">`).FindSubmatch(page)
	if refresh == nil {
		return "", fmt.Errorf("the page %s leads nowhere", path)
	}
	return html.UnescapeString(string(refresh[1])), nil
}

// stay looks at a page for as long as it gives way to another by itself.
func (w *walk) stay(ctx context.Context, page Page) (Page, error) {
	for page.again >= 0 {
		select {
		case <-time.After(page.again):
		case <-ctx.Done():
			return page, ctx.Err()
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, page.URL, nil)
		if err != nil {
			return page, err
		}
		before := page.Text
		if page, _, err = w.do(r); err != nil {
			return page, err
		}
		page.Before = before
	}
	return page, nil
}

func (w *walk) do(r *http.Request) (Page, document, error) {
	resp, err := w.client.Do(r)
	if err != nil {
		return Page{}, document{}, err
	}
	defer resp.Body.Close()
	page := Page{URL: resp.Request.URL.String(), Status: resp.StatusCode, again: -1}
	if seconds, err := strconv.Atoi(resp.Header.Get("Refresh")); err == nil && seconds >= 0 {
		page.again = time.Duration(seconds) * time.Second
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return page, document{}, err
	}
	if t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || t != "text/html" {
		page.Text = strings.Join(strings.Fields(string(body)), " ")
		return page, document{}, nil
	}
	doc := readHTML(body)
	page.Text = doc.text
	return page, doc, nil
}

// submit fills the form in and presses a button.
func (w *walk) submit(ctx context.Context, page Page, f *form) (*http.Request, error) {
	data := url.Values{}
	pressed := false
	for _, field := range f.fields {
		switch field.kind {
		case "text", "email":
			data.Set(field.name, w.person.User)
		case "password":
			data.Set(field.name, w.person.Password)
		case "hidden", "checkbox":
			data.Set(field.name, field.value)
		case "submit":
			if !pressed && (field.value == "cancel") == w.cancel {
				data.Set(field.name, field.value)
				pressed = true
			}
		}
	}
	if !pressed {
		return nil, errors.New("the form on the sign-in page lacks the button")
	}
	base, err := url.Parse(page.URL)
	if err != nil {
		return nil, err
	}
	target := base
	if f.action != "" {
		if target, err = base.Parse(f.action); err != nil {
			return nil, err
		}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), strings.NewReader(data.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", base.Scheme+"://"+base.Host)
	return r, nil
}

// document is what a person takes from a page.
type document struct {
	text  string
	alert string // the text of its first element with role="alert"
	form  *form  // its first
}

type form struct {
	action string
	fields []field
}

type field struct{ kind, name, value string }

// readHTML reads as much of a page as encoding/xml makes of HTML, which is
// all of one without scripts that closes its elements.
func readHTML(page []byte) document {
	d := xml.NewDecoder(bytes.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	var doc document
	var text, alert strings.Builder
	hidden, alerting := 0, 0 // how deep in a head or style; in an alert
	for {
		token, err := d.Token()
		if err != nil {
			break
		}
		switch t := token.(type) {
		case xml.StartElement:
			attr := func(name string) string {
				for _, a := range t.Attr {
					if a.Name.Local == name {
						return a.Value
					}
				}
				return ""
			}
			if hidden > 0 || t.Name.Local == "head" || t.Name.Local == "style" || t.Name.Local == "script" {
				hidden++
			}
			if alerting > 0 || attr("role") == "alert" && alert.Len() == 0 {
				alerting++
			}
			switch t.Name.Local {
			case "form":
				if doc.form == nil {
					doc.form = &form{action: attr("action")}
				}
			case "input", "button":
				if doc.form == nil {
					break
				}
				kind := attr("type")
				if kind == "" && t.Name.Local == "button" {
					kind = "submit"
				}
				doc.form.fields = append(doc.form.fields, field{kind, attr("name"), attr("value")})
			}
		case xml.EndElement:
			switch t.Name.Local {
			case "a", "b", "bdi", "code", "em", "i", "span", "strong":
			default:
				text.WriteByte(' ')
				if alerting > 0 {
					alert.WriteByte(' ')
				}
			}
			hidden, alerting = max(hidden-1, 0), max(alerting-1, 0)
		case xml.CharData:
			if hidden == 0 {
				text.Write(t)
			}
			if alerting > 0 {
				alert.Write(t)
			}
		}
	}
	doc.text = strings.Join(strings.Fields(text.String()), " ")
	doc.alert = strings.Join(strings.Fields(alert.String()), " ")
	return doc
}
