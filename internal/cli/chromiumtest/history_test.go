package chromiumtest

import (
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/sandbox"
)

// wantNoCode fails the test if the address bar, the history or the page's
// referrer has a code, or the callback that brought it.
func (b *tab) wantNoCode() {
	b.t.Helper()
	addresses := []string{run(b, chromedp.Location()), evaluate[string](b, "document.referrer")}
	for _, entry := range b.history() {
		addresses = append(addresses, entry.URL, entry.UserTypedURL)
	}
	for _, address := range addresses {
		u, err := url.Parse(address)
		if err != nil || u.Query().Has("code") || u.Path == "/callback" {
			b.t.Errorf("the browser keeps %s", address)
		}
	}
}

// TestTheCodeIsGone guards against a code that stays in the address bar or the
// history, and against a way back that sends it again.
func TestTheCodeIsGone(t *testing.T) {
	t.Parallel()
	b, lab := newTab(t), newLab(t, sandbox.Options{})
	l := labLogin(t, lab, "Acme & Söhne")
	b.signIn(l.address, "jane")
	b.wantHeading("Acme & Söhne is authorized")
	l.wantExit(0)
	if address := run(b, chromedp.Location()); !strings.HasPrefix(address, "http://"+l.hosts()[1]+"/done/") || strings.ContainsAny(address, "?#") {
		t.Errorf("the result stands at %s", address)
	}
	b.wantNoCode()

	b.back()
	b.wantHeading("Password")
	b.wantNoCode()
	if n := len(lab.arrived); n != 1 {
		t.Errorf("the code was exchanged %d times", n)
	}
	l.wantStatus("Acme & Söhne", "jane")
}

// TestResultStays guards the result page while the callback server is there:
// whatever the browser does, it shows the same, and nothing is answered twice.
func TestResultStays(t *testing.T) {
	t.Parallel()
	for _, outcome := range []loopback.Page{
		{OK: true, Title: "Authorized", Heading: "Acme is authorized", Text: []string{"All is well."}, Rows: []loopback.Row{{Name: "Signed in", Value: "jane"}}},
		{Title: "Not authorized", Heading: "Acme was not authorized", Text: []string{"UPS is down."}, Next: "Try again."},
	} {
		t.Run(outcome.Title, func(t *testing.T) {
			t.Parallel()
			b, s := newTab(t), newCallbackServer(t)
			finished := make(chan error, 1)
			go func() {
				_, err := s.Wait(b.ctx)
				if err == nil {
					err = s.Finish(b.ctx, outcome)
				}
				finished <- err
			}()
			lab := newLab(t, sandbox.Options{})
			b.signIn(lab.signInURL(s.RedirectURI()), "jane")
			if err := <-finished; err != nil {
				t.Fatal(err)
			}
			want := b.text("body")
			same := func(after string) {
				t.Helper()
				b.wantHeading(outcome.Heading)
				if got := b.text("body"); got != want {
					t.Errorf("%s, the page says\n%s\ninstead of\n%s", after, got, want)
				}
				b.wantNoCode()
			}
			same("at first")
			b.reload()
			same("loaded again")
			b.back()
			b.wantHeading("Password")
			b.forward()
			same("after back and forward")
			b.open(s.RedirectURI() + "?code=another&state=" + callbackState)
			b.wantHeading("This sign-in already has its answer")
			b.back()
			b.wantHeading(outcome.Heading)
			if got := b.text("body"); got != want {
				t.Errorf("gone back to, the page says\n%s\ninstead of\n%s", got, want)
			}
		})
	}
}
