package loopback

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/upsauth/upsauth/internal/legible"
)

// Page says what came of a login, in words for the person at the browser.
// Everything in it is escaped.
type Page struct {
	// Names are those of companies and people in the texts. Each is set apart, as
	// one that is written from right to left would turn the sentence around it.
	Names []string

	start string // where the browser begins again, empty for nowhere
	waits bool   // the result takes its place by itself

	OK      bool
	Title   string // of the window, after the outcome; empty: Heading
	Heading string
	Text    []string // paragraphs
	Rows    []Row
	Next    string // what to do now; line breaks are kept
	Warning string
}

// Row is one name and value of a Page.
type Row struct{ Name, Value string }

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string
)

// pages writes the pages of a server. policy is the Content-Security-Policy
// they are made for: no script, no resource, and no style but the one they carry.
// Home is the page on which a login began, empty for a terminal.
type pages struct {
	template *template.Template
	policy   string
	home     string
}

func newPages(home string) (*pages, error) {
	t, err := template.New("page").Funcs(template.FuncMap{"apart": apart}).Parse(pageHTML)
	if err != nil {
		return nil, fmt.Errorf("the callback server's pages: %w", err)
	}
	style := sha256.Sum256([]byte(pageCSS))
	return &pages{
		template: t,
		home:     home,
		policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(style[:]) + "'; " +
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	}, nil
}

// shown is the page without what nobody sees, or what turns the text around it:
// names and messages come from outside.
func (p Page) shown() Page {
	for _, text := range []*string{&p.Title, &p.Heading, &p.Next, &p.Warning} {
		lines := strings.Split(*text, "\n")
		for i, line := range lines {
			lines[i] = legible.Line(line)
		}
		*text = strings.Join(lines, "\n")
	}
	p.Text, p.Rows = slices.Clone(p.Text), slices.Clone(p.Rows)
	for i := range p.Text {
		p.Text[i] = legible.Line(p.Text[i])
	}
	for i := range p.Rows {
		p.Rows[i] = Row{Name: legible.Line(p.Rows[i].Name), Value: legible.Line(p.Rows[i].Value)}
	}
	return p
}

func (p *pages) result(page Page) ([]byte, error) {
	outcome := "Failed"
	if page.OK {
		outcome = "Success"
	}
	return p.render("result", outcome, page)
}

// refusal is the page for a request that was refused with status because of why.
// It does not say "Failed": that is for the login, which may well succeed.
func (p *pages) refusal(status int, why string) Page {
	page := Page{Text: []string{"The request was refused: " + why + "."}}
	switch status {
	case http.StatusNotFound:
		page.Heading = "There is nothing here"
		page.Text = append(page.Text, p.words("At this port, a terminal waits for UPS's answer to its sign-in, and accepts nothing else.",
			"At this port, upsauth waits for UPS's answer to a sign-in, and accepts nothing else."))
	case http.StatusGone:
		page.Heading = "This sign-in has ended"
		page.Text = []string{p.words("The sign-in ended in the terminal before there was a result. The terminal shows the reason. You can close this window.",
			"The sign-in ended before there was a result. The company manager shows the reason.")}
	case http.StatusConflict:
		page.Heading = "This sign-in already has its answer"
		page.Text = append(page.Text, p.words("Nothing was changed. The terminal shows the result of the sign-in. You can close this window.",
			"Nothing was changed. The company manager shows the result of the sign-in."))
	default:
		page.Heading = "This answer was not accepted"
		page.Text = append(page.Text, p.words("Nothing was changed, and the sign-in in the terminal still waits. "+
			"Go back to the terminal and start from the address it shows.",
			"Nothing was changed. Go back to the company manager, and begin the sign-in there."))
	}
	return page
}

// words are those for a login that began in a terminal, or on a page.
func (p *pages) words(terminal, page string) string {
	if p.home == "" {
		return terminal
	}
	return page
}

// otherBrowser is the page of an answer that lacks the login's cookie. On a page the
// address can still be pasted: whoever has the page and the address has both ends.
func (p *pages) otherBrowser() Page {
	page := p.refusal(http.StatusBadRequest, errBrowser.Error())
	if p.home != "" {
		page.Text[1] = "Nothing was changed, and the sign-in still waits. Go back to the company manager, and open the sign-in from there."
		page.Text = append(page.Text, "If the company manager is open in another browser of yours, copy the address of this page, and paste it there within 30 seconds.")
	}
	return page
}

// void is the page of a start address that two browsers opened. It has no link to the
// new address: perhaps it is the second browser that is not the person's.
func (p *pages) void() Page {
	return Page{
		Heading: "This address is no longer valid",
		Text: []string{
			"Two browsers opened the address of this sign-in, so neither can finish it. Nothing was changed.",
			p.words("The terminal shows a new address: open that one.", "The company manager shows a new address: open that one.") +
				" If you did not open the address twice, somebody else on this machine may have done so.",
		},
	}
}

func (p *pages) render(name, outcome string, page Page) ([]byte, error) {
	if page.Title == "" {
		page.Title = page.Heading
	}
	page = page.shown()
	var b bytes.Buffer
	err := p.template.ExecuteTemplate(&b, name, struct {
		Page
		Start   string
		Waits   bool
		Home    string
		Outcome string
		Style   template.CSS
	}{page, page.start, page.waits, p.home, outcome, template.CSS(pageCSS)})
	if err != nil {
		return nil, fmt.Errorf("writing the page for the browser: %w", err)
	}
	return b.Bytes(), nil
}

// apart writes a text with each of the names in it in a <bdi> element.
func apart(text string, names []string) template.HTML {
	var b strings.Builder
	for len(text) > 0 {
		at, name := nextName(text, names)
		b.WriteString(template.HTMLEscapeString(text[:at]))
		if name != "" {
			b.WriteString("<bdi>" + template.HTMLEscapeString(name) + "</bdi>")
		}
		text = text[at+len(name):]
	}
	return template.HTML(b.String()) // every piece is escaped
}

// nextName finds where in a text the first name stands as a whole word, the
// longest where several begin there; the text's end where none does.
func nextName(text string, names []string) (at int, name string) {
	at = len(text)
	for _, n := range names {
		for from := 0; n != ""; {
			i := strings.Index(text[from:], n)
			if i < 0 {
				break
			}
			i += from
			if whole(text, i, i+len(n)) {
				if i < at || i == at && len(n) > len(name) {
					at, name = i, n
				}
				break
			}
			_, size := utf8.DecodeRuneInString(text[i:])
			from = i + size
		}
	}
	return at, name
}

// whole reports whether what stands from start to end of a text is not a part of
// a longer word.
func whole(text string, start, end int) bool {
	letter := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) }
	before, _ := utf8.DecodeLastRuneInString(text[:start])
	first, _ := utf8.DecodeRuneInString(text[start:])
	last, _ := utf8.DecodeLastRuneInString(text[:end])
	after, _ := utf8.DecodeRuneInString(text[end:])
	return !(letter(before) && letter(first)) && !(letter(last) && letter(after))
}
