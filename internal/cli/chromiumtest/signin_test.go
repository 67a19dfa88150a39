package chromiumtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/security"
	"github.com/chromedp/chromedp"

	"github.com/upsauth/upsauth/internal/realpart"
	"github.com/upsauth/upsauth/internal/sandbox"
)

var jane = sandbox.Options{Users: []sandbox.User{{Name: "jane", Password: "right"}, {Name: "joan", Password: "right"}}}

// alerts are what the page says is wrong.
func (b *tab) alerts() string {
	b.t.Helper()
	return evaluate[string](b, `[...document.querySelectorAll("[role=alert]")].map(e => e.innerText).join(" ")`)
}

func (b *tab) wantAlerts(want string) {
	b.t.Helper()
	if got := b.alerts(); got != want {
		b.t.Errorf("the page says that %q is wrong, not %q", got, want)
	}
	if got := strings.HasPrefix(b.title(), "Error: "); got != (want != "") {
		b.t.Errorf("the window is called %q", b.title())
	}
}

// TestDetours takes every wrong turn of the sign-in pages in one login: each has
// to say what is wrong, each page has to come back as it was when it is loaded
// again or gone back to, and the login has to succeed in the end.
func TestDetours(t *testing.T) {
	t.Parallel()
	const (
		noName    = "Enter your email or username."
		nobody    = "The sandbox does not know this user name."
		notAgreed = "To continue, agree by ticking the box."
		empty     = "Enter your password."
		wrong     = "The password is wrong."
	)
	b := newTab(t)
	l := labLogin(t, newLab(t, jane), "Acme & Söhne")
	// at is where the tab has to be, before and after it loads the page again.
	at := func(heading, alerts string) {
		t.Helper()
		b.wantHeading(heading)
		b.wantAlerts(alerts)
		b.reload()
		b.wantHeading(heading)
		b.wantAlerts(alerts)
	}
	name := func() string { return run(b, chromedp.Value(chromedp.CSS("#username"))) }

	b.open(l.address)
	at("Log In", "")
	b.follow(forgotLink)
	b.wantText("the users that this sandbox was started with")
	b.follow(somebodyElseLink)
	at("Log In", "")

	b.follow("button[value=continue]")
	at("Log In", noName+" "+notAgreed)
	run(b, chromedp.SendKeys(chromedp.CSS("#username"), "jane"))
	b.follow("button[value=continue]")
	at("Log In", notAgreed)
	if got := name(); got != "jane" {
		t.Errorf("the name is %q after the agreement was left out", got)
	}
	b.paste("joe")
	at("Log In", nobody)
	if got := name(); got != "joe" || !evaluate[bool](b, `document.querySelector("#agree").checked`) {
		t.Errorf("after a wrong name, the name is %q, or the tick is lost", got)
	}
	b.back()
	b.wantAlerts(notAgreed)
	b.forward()
	b.wantAlerts(nobody)

	run(b, chromedp.SetValue(chromedp.CSS("#username"), "jane"))
	b.follow("button[value=continue]")
	at("Password", "")
	b.wantText("Welcome back, jane")
	b.back()
	b.wantHeading("Log In")
	b.wantAlerts(nobody)
	b.forward()
	b.wantHeading("Password")
	b.follow("button[value=login]")
	at("Password", empty)
	b.logIn("wrong")
	at("Password", wrong)
	b.follow(forgotLink)
	b.back()
	b.wantAlerts(wrong)
	b.follow(forgotLink)
	b.follow(somebodyElseLink)
	b.wantHeading("Password")
	b.wantAlerts(wrong)
	b.wantText("Welcome back, jane")

	b.follow(somebodyElseLink)
	at("Log In", "")
	if got := name(); got != "" {
		t.Errorf("the page for somebody else has the name %q", got)
	}
	b.enter("joan")
	b.wantText("Welcome back, joan")
	b.logIn("right")
	b.wantHeading("Acme & Söhne is authorized")
	l.wantExit(0)
	l.wantStatus("Acme & Söhne", "joan")
	b.checkTraffic(l.hosts()...)
	for _, entry := range b.history() {
		if strings.Contains(entry.URL, "right") || strings.Contains(entry.URL, "password=") {
			t.Errorf("the history keeps a password: %s", entry.URL)
		}
	}
}

// TestCancel guards that no is taken for an answer on the second page too, with
// and without something wrong on it; TestPages has the first.
func TestCancel(t *testing.T) {
	for name, walk := range map[string]func(*tab){
		"the second page":  func(b *tab) { b.enter("jane") },
		"a wrong password": func(b *tab) { b.enter("jane"); b.logIn("wrong") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newTab(t)
			l := labLogin(t, newLab(t, jane), "Acme & Söhne")
			b.open(l.address)
			walk(b)
			b.follow("button[value=cancel]")
			b.wantHeading("Acme & Söhne was not authorized")
			b.wantText("Failed", "The consent was declined at ups.com; nothing was changed", "The terminal still waits for the sign-in.",
				"To authorize the company, open the address again, tick the agreement and continue.")
			b.wantNoCode()
			l.wantAwaited("The consent was declined at ups.com; nothing was changed.")
			// Whoever said no by mistake says yes at the same address.
			b.follow("a[href^='/start/']")
			b.enter("jane")
			b.logIn("right")
			b.wantHeading("Acme & Söhne is authorized")
			b.wantNoCode()
			l.wantExit(0)
			l.wantStatus("Acme & Söhne", "jane")
			b.checkTraffic(l.hosts()...)
		})
	}
}

// TestSecondTab opens the same address twice: the tab that is left lying changes
// nothing, the first that signs in is the login's, and the other is told so.
func TestSecondTab(t *testing.T) {
	t.Parallel()
	b, lab := newTab(t), newLab(t, jane)
	l := labLogin(t, lab, "Acme & Söhne")
	b.open(l.address)
	b.enter("jane")
	second := b.another()
	second.open(l.address)
	second.wantHeading("Log In")
	second.enter("joan")
	third := b.another()
	third.open(l.address)
	third.enter("joe")
	third.wantAlerts("The sandbox does not know this user name.")

	release := lab.hold(t)
	b.typePassword("right")
	run(b, chromedp.Click(chromedp.CSS("button[value=login]")))
	<-lab.arrived
	second.logIn("right")
	second.wantHeading("This sign-in already has its answer")
	second.wantText("Nothing was changed.", "The terminal shows the result of the sign-in")
	release()
	run(b, chromedp.WaitVisible(chromedp.CSS(".outcome")))
	b.wantHeading("Acme & Söhne is authorized")
	l.wantExit(0)
	l.wantStatus("Acme & Söhne", "jane")
	if n := len(lab.arrived); n != 0 {
		t.Errorf("%d more codes were exchanged", n)
	}
}

// TestTwoLogins signs two companies in at once, in two tabs of one window: each
// gets its own person.
func TestTwoLogins(t *testing.T) {
	t.Parallel()
	first, lab := newTab(t), newLab(t, jane)
	second := first.another()
	acme, globex := labLogin(t, lab, "Acme"), labLogin(t, lab, "Globex")
	first.open(acme.address)
	second.open(globex.address)
	first.enter("jane")
	second.enter("joan")
	first.wantText("Welcome back, jane")
	second.logIn("right")
	second.wantHeading("Globex is authorized")
	globex.wantExit(0)
	first.reload()
	first.logIn("right")
	first.wantHeading("Acme is authorized")
	acme.wantExit(0)
	globex.wantStatus("Globex", "joan")
	acme.wantStatus("Acme", "jane")
	first.checkTraffic(acme.hosts()...)
	second.checkTraffic(globex.hosts()...)
}

// TestTabOfYesterday finishes the sign-in of a login that has ended, at the port
// where another waits: that one is not touched.
func TestTabOfYesterday(t *testing.T) {
	t.Parallel()
	old, lab := newTab(t), newLab(t, jane)
	term := newTerminal(t).at(lab)
	term.settings["UPSAUTH_REDIRECT_URI"] = "http://localhost:" + strconv.Itoa(realpart.Port(t)) + "/callback"
	flags := []string{"--env", "lab", "--app", "intelligent-rating"}

	ended := term.authorize("Acme", flags...)
	old.open(ended.address)
	old.enter("joan")
	ended.interrupt()
	ended.wantExit(130)

	l := term.authorize("Acme", flags...)
	old.logIn("right")
	old.wantHeading("This answer was not accepted")
	old.wantText("the address may be from an earlier sign-in", "the sign-in in the terminal still waits", "start from the address it shows")
	fresh := old.another()
	fresh.signIn(l.address, "jane")
	fresh.wantHeading("Acme is authorized")
	l.wantExit(0)
	l.wantStatus("Acme", "jane")
}

// loginAt is a login at the lab with a redirect URI of one's own.
func loginAt(t *testing.T, lab *lab, company, redirectURI string, flags ...string) *login {
	t.Helper()
	term := newTerminal(t).at(lab)
	term.settings["UPSAUTH_REDIRECT_URI"] = redirectURI
	l := term.authorize(company, append(flags, "--env", "lab", "--app", "intelligent-rating")...)
	l.lab = lab.host
	return l
}

// TestCookiesOfEveryRedirectURI guards the way back to each kind of redirect URI:
// localhost and 127.0.0.1 share no cookies, and all ports of one host share them.
func TestCookiesOfEveryRedirectURI(t *testing.T) {
	t.Parallel()
	lab := newLab(t, sandbox.Options{})
	first := newTab(t)
	second := first.another()
	acme := loginAt(t, lab, "Acme", "http://127.0.0.1:"+strconv.Itoa(realpart.Port(t))+"/start/here")
	globex := loginAt(t, lab, "Globex", "http://127.0.0.1:"+strconv.Itoa(realpart.Port(t))+"/")
	for _, l := range []*login{acme, globex} {
		if strings.Contains(l.address, "state=") || !strings.HasPrefix(l.address, "http://127.0.0.1:") {
			t.Errorf("the browser is opened at %s", l.address)
		}
	}
	first.open(acme.address)
	second.open(globex.address)
	first.enter("jane")
	second.enter("joan")
	second.logIn("right")
	second.wantHeading("Globex is authorized")
	globex.wantExit(0)
	first.logIn("right")
	first.wantHeading("Acme is authorized")
	acme.wantExit(0)
	acme.wantStatus("Acme", "jane")
	globex.wantStatus("Globex", "joan")
	first.wantNoCode()
}

// TestCookieOverHTTPS is the same way with an https redirect URI on loopback.
func TestCookieOverHTTPS(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	b := newTab(t)
	call(b, security.SetIgnoreCertificateErrors, security.SetIgnoreCertificateErrorsParams{Ignore: true})
	t.Cleanup(func() {
		_ = command(b.raw, security.SetIgnoreCertificateErrors, security.SetIgnoreCertificateErrorsParams{})
	})
	l := loginAt(t, newLab(t, sandbox.Options{}), "Acme", "https://localhost:"+strconv.Itoa(realpart.Port(t))+"/callback", "--tls-cert", cert, "--tls-key", key)
	if !strings.HasPrefix(l.address, "https://localhost:") {
		t.Errorf("the browser is opened at %s", l.address)
	}
	b.signIn(l.address, "jane")
	b.wantHeading("Acme is authorized")
	b.wantNoCode()
	l.wantExit(0)
	l.wantStatus("Acme", "jane")
}

// certificate makes one for localhost, and returns the files of it and its key.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// TestTwoBrowsersAtOneAddress guards against whoever reads the opener's command line
// and opens the address too: neither browser gets on, page and terminal say so, and
// the terminal's new address works.
func TestTwoBrowsersAtOneAddress(t *testing.T) {
	t.Parallel()
	mine, other := newTab(t), newTab(t)
	l := labLogin(t, newLab(t, jane), "Acme & Söhne")
	mine.open(l.address)
	mine.enter("jane")
	other.open(l.address)
	other.wantHeading("This address is no longer valid")
	other.wantText("The terminal shows a new address: open that one.")
	mine.logIn("right")
	mine.wantHeading("This answer was not accepted")
	l.wantTerminal("Two browsers opened the address of this sign-in")
	at := strings.LastIndex(l.errOut.String(), "http://localhost:")
	address := strings.Fields(l.errOut.String()[at:])[0]
	if address == l.address {
		t.Fatalf("the terminal shows no new address:\n%s", &l.errOut)
	}
	mine.signIn(address, "jane")
	mine.wantHeading("Acme & Söhne is authorized")
	l.wantExit(0)
	l.wantStatus("Acme & Söhne", "jane")
}
