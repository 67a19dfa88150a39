package chromiumtest

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/chromedp/chromedp"

	"github.com/upsauth/upsauth/internal/sandbox"
)

// TestChromiumSignsIn guards the minute at the browser from end to end, with
// the sandbox that is in the program: both pages of the sign-in, and a last page
// that says what really happened, at an address without the code.
func TestChromiumSignsIn(t *testing.T) {
	t.Parallel()
	b := newTab(t)
	l := newTerminal(t).authorize("Acme & Söhne", "--env", "sandbox")
	b.open(l.address)
	at, err := url.Parse(run(b, chromedp.Location()))
	if err != nil {
		t.Fatal(err)
	}
	l.lab = at.Host
	if page := b.text("body"); !strings.Contains(page, "UPS® Intelligent Rating") || !strings.Contains(page, "sandbox") {
		t.Errorf("the first page names neither the application nor the sandbox: %s", page)
	}
	b.enter("jane")
	b.wantText("Welcome back, jane")
	b.logIn("any")
	b.wantHeading("Acme & Söhne is authorized")
	l.wantExit(0)
	b.checkTraffic(l.hosts()...)
}

// TestWaitingIsNeverShownAsDone guards against a page that says success while
// the code is still being exchanged, and one that says anything else than the
// terminal afterwards.
func TestWaitingIsNeverShownAsDone(t *testing.T) {
	for _, test := range []struct {
		name    string
		fault   sandbox.Fault
		exit    int
		heading string
		says    []string
	}{
		{name: "granted", heading: "Acme & Söhne is authorized", says: []string{"An OAuth token exists for this company!"}},
		{name: "UPS is down", fault: sandbox.Fault{Status: 500}, exit: 6,
			heading: "Acme & Söhne was not authorized", says: []string{"UPS is not working right now", "HTTP 500", "Try again later."}},
		{name: "too many requests", fault: sandbox.Fault{Status: 429, RetryAfter: "7"}, exit: 6,
			heading: "Acme & Söhne was not authorized", says: []string{"too many requests", "Try again in 7s."}},
		{name: "client refused", fault: sandbox.Fault{Status: 401, Code: "10401", Message: "ClientId is Invalid"}, exit: 7,
			heading: "Acme & Söhne was not authorized", says: []string{"client secret is not accepted", "ClientId is Invalid", "UPS's developer portal"}},
		{name: "answer lost", fault: sandbox.Fault{Drop: "after"}, exit: 6,
			heading: "Acme & Söhne was not authorized", says: []string{"was lost", "Try again later."}},
		{name: "answer without tokens", fault: sandbox.Fault{Body: "html"}, exit: 6,
			heading: "Acme & Söhne was not authorized", says: []string{"its answer has no usable token"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b, lab := newTab(t), newLab(t, sandbox.Options{})
			if test.exit != 0 {
				test.fault.Endpoint = "token"
				if err := lab.AddFault(test.fault); err != nil {
					t.Fatal(err)
				}
			}
			release := lab.hold(t)
			l := labLogin(t, lab, "Acme & Söhne")
			b.open(l.address)
			b.enter("jane")
			b.typePassword("any")
			run(b, chromedp.Click(chromedp.CSS("button[value=login]")))
			<-lab.arrived

			// The browser was sent to the callback server and is kept there, for
			// longer than another tab takes for a whole page. Until it has another
			// page, Chromium tells of this one only its entry in the history.
			newTab(t).open(l.address)
			before := run(b, chromedp.NavigationEntries())
			if entry := before.Entries[before.CurrentIndex]; !strings.HasPrefix(entry.URL, "http://"+lab.host+"/lasso/signin?") || entry.Title != "Password · UPS sandbox" {
				t.Errorf("while it waits, the browser shows %q at %s", entry.Title, entry.URL)
			}
			if out := l.out.String(); out != "" {
				t.Errorf("while it waits, the terminal says %s", out)
			}
			if !b.asked("/callback?") || b.asked("/done/") {
				t.Errorf("while it waits, the browser has asked for %q", b.requests)
			}

			release()
			run(b, chromedp.WaitVisible(chromedp.CSS(".outcome")))
			b.wantHeading(test.heading)
			b.wantText(test.says...)
			outcome, title := "Success", "Success: Authorized"
			if test.exit != 0 {
				outcome, title = "Failed", "Failed: Not authorized"
			}
			if got := b.text(".outcome"); got != outcome {
				t.Errorf("the outcome is %q, not %q", got, outcome)
			}
			if got := b.title(); got != title {
				t.Errorf("the window is called %q, not %q", got, title)
			}
			l.wantExit(test.exit)
			b.checkTraffic(l.hosts()...)
			if test.exit != 0 {
				b.wantText("The terminal shows the same error.", "What to do now")
				agrees(t, b.text("main"), l.errOut.String())
			}
			if exit, status := l.run("status", "--company", "Acme & Söhne"); (exit == 0) != (test.exit == 0) {
				t.Errorf("upsauth status ends with %d: %s", exit, status)
			}
		})
	}
}

// agrees fails the test unless the page has every sentence that the terminal ends
// with, except for those with a command to run: the page has no commands.
func agrees(t *testing.T, page, terminal string) {
	t.Helper()
	_, message, found := strings.Cut(terminal, "upsauth: ")
	if !found {
		t.Fatalf("the terminal has no message: %s", terminal)
	}
	page = strings.Join(strings.Fields(page), " ")
	lines := strings.Split(strings.TrimSpace(message), "\n")
	for _, line := range lines {
		for sentence := range strings.SplitSeq(strings.TrimSpace(line), ". ") {
			sentence = strings.TrimSuffix(sentence, ".")
			if strings.Contains(sentence, "upsauth ") {
				continue
			}
			// The page begins its sentences with a capital letter.
			if r := []rune(sentence); len(r) > 0 && !strings.Contains(page, sentence) && !strings.Contains(page, string(unicode.ToUpper(r[0]))+string(r[1:])) {
				t.Errorf("the terminal says %q, and the page\n%s", sentence, page)
			}
		}
	}
	if len(lines) < 2 {
		t.Errorf("the terminal does not say what to do: %s", message)
	}
}

// TestSuccessPage guards what people copy from the last page: the panel of UPS
// Intelligent Rating, with the same values as on the terminal.
func TestSuccessPage(t *testing.T) {
	t.Parallel()
	b, lab := newTab(t), newLab(t, sandbox.Options{})
	l := labLogin(t, lab, "Acme & Söhne")
	b.signIn(l.address, "jane@acme.example")
	l.wantExit(0)

	b.wantHeading("Acme & Söhne is authorized")
	b.wantText("An OAuth token exists for this company!", "You can close this window.")
	if got := b.text(".warning"); !strings.HasPrefix(got, "Warning: ") || !strings.Contains(got, "ups.com password") || !strings.Contains(got, "must authorize again") {
		t.Errorf("the warning about the password is %q", got)
	}
	const stamp = `^\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d\d:\d\d [AP]M \+00:00$`
	rows := [][2]string{
		{"Signed in", `^jane@acme\.example$`},
		{"Token Vault Key", `^[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}$`},
		{"Issued", stamp}, {"Expires", stamp}, {"Refresh Token Issued", stamp}, {"Refresh Token Expires", stamp},
	}
	type row struct{ Name, Value string }
	got := evaluate[[]row](b, `[...document.querySelectorAll("dl div")].map(div => ({
		Name: div.querySelector("dt").textContent, Value: div.querySelector("dd").textContent }))`)
	if len(got) != len(rows) {
		t.Fatalf("the page has the rows %q", got)
	}
	panel := regexp.MustCompile(` +`).ReplaceAllString(l.out.String(), " ")
	for i, want := range rows {
		if got[i].Name != want[0] || !regexp.MustCompile(want[1]).MatchString(got[i].Value) {
			t.Errorf("row %d is %q", i, got[i])
		}
		if i > 0 && !strings.Contains(panel, got[i].Name+" "+got[i].Value+"\n") {
			t.Errorf("the terminal does not show %q:\n%s", got[i], panel)
		}
	}
	if !strings.Contains(l.errOut.String(), "jane@acme.example") {
		t.Errorf("the terminal does not say who signed in:\n%s", &l.errOut)
	}
}
