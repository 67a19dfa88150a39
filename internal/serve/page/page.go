// Package page is how the pages of the service look: their frame, their style, and the
// headers that keep them to themselves.
package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
)

var (
	//go:embed layout.html
	layoutHTML string
	//go:embed page.css
	styleCSS string
)

// Page is one page. Everything in it is escaped.
type Page struct {
	Title   string // of the window; empty: Heading
	Heading string
	// Site is whose page it is, behind the title; empty: upsauth.
	Site string
	// Nav are the pages that every page of somebody who is signed in leads to.
	Nav []Link
	// Go is an http or https address that the browser goes to at once, empty for none. An
	// answer to a POST must not redirect there: form-action would forbid that.
	Go string
	// Body is what the template "body" is for; of a Look without one of its own it is
	// paragraphs, []string.
	Body any
}

// Link leads to a page.
type Link struct {
	Text, Address string
	Here          bool // it is this page
}

// Look writes pages.
type Look struct {
	template *template.Template
}

// New returns what writes pages whose body is made of paragraphs.
func New() (*Look, error) {
	t, err := template.New("").Funcs(template.FuncMap{"style": func() template.CSS { return template.CSS(styleCSS) }}).Parse(layoutHTML)
	if err != nil {
		return nil, fmt.Errorf("the pages' frame: %w", err)
	}
	return &Look{t}, nil
}

// With returns what writes pages with a body of their own. The text defines "body", and may
// use functions and more templates.
func (l *Look) With(text string, functions template.FuncMap) (*Look, error) {
	t, err := l.template.Clone()
	if err == nil {
		t, err = t.Funcs(functions).Parse(text)
	}
	if err != nil {
		return nil, fmt.Errorf("a page: %w", err)
	}
	return &Look{t}, nil
}

// Write answers with a page.
func (l *Look) Write(w http.ResponseWriter, status int, p Page) error {
	if p.Title == "" {
		p.Title = p.Heading
	}
	var b bytes.Buffer
	if err := l.template.ExecuteTemplate(&b, "page", p); err != nil {
		http.Error(w, "This page can't be written.", http.StatusInternalServerError)
		return fmt.Errorf("writing the page %q: %w", p.Title, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, err := w.Write(b.Bytes())
	return err
}

// Headers are those that keep an answer to itself: no script, nothing from elsewhere, no
// frame around it, no copy of it kept. Referrers stay, for this origin alone: without them
// browsers send forms with "Origin: null".
func Headers(h http.Header) {
	style := sha256.Sum256([]byte(styleCSS))
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'sha256-"+base64.StdEncoding.EncodeToString(style[:])+"'; "+
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}
