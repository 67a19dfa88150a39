package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/browser"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/signin"
	"github.com/upsauth/upsauth/internal/signin/pages"
	"github.com/upsauth/upsauth/internal/terminal"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

// narrator tells the person at the terminal what happens, in numbered steps on
// standard error, and asks where it has to.
type narrator struct {
	env     *Env
	opts    authorizeOptions
	client  *ups.Client
	listen  string // another address for the callback than the redirect URI's
	company string
	home    string
	people  func() session.People
	known   *session.People // once somebody signed in
	quiet   bool            // the warning was said for an earlier company
	pasting bool
	prompt  bool // the cursor stands behind a question
	// leaves says that somebody is there to pass this company over, among many.
	leaves bool
	failed bool                         // a try came to nothing
	shown  string                       // where a person can go
	end    time.Time                    // of the sign-in
	user   string                       // who signed in
	warned map[loopback.NoticeKind]bool // of what once is enough
	drop   func()                       // removes what was made for the opener
	// listening is where on this machine the callback is awaited, empty for
	// nowhere.
	listening string
	number    int
	stop      func()
}

func (n *narrator) begin(id grant.ID) {
	n.company = id.Company
	fmt.Fprintf(n.env.Err, "Authorizing %s for %s in %s.\n", id.Company, n.client.DisplayName, id.Environment)
	if !n.quiet {
		fmt.Fprint(n.env.Err, "The authorization belongs to the ups.com user who signs in. If that user changes\n"+
			"the ups.com password, the company must authorize again.\n")
	}
	fmt.Fprintln(n.env.Err)
}

func (n *narrator) say(format string, args ...any) {
	n.number++
	fmt.Fprintf(n.env.Err, "%d. %s\n", n.number, fmt.Sprintf(format, args...))
}

func (n *narrator) step(step signin.Step) {
	switch step.Kind {
	case signin.Uncaught:
		fmt.Fprintf(n.env.Err, "upsauth can't catch the callback here, so paste the address: %s.\n", message(step.Err))
	case signin.Listening:
		n.listening = step.At
		if n.listen == "" {
			n.say("Listening for UPS's answer on %s.", step.Address)
			return
		}
		n.say("Listening on %s for UPS's answer to %s.", step.At, step.Address)
	case signin.Preflight:
		n.say("Asking UPS whether it knows the application and its redirect URI.")
	case signin.Opening:
		n.shown = step.Address
		n.open(step.Open)
	case signin.Awaited:
		n.awaited(step.Err)
	case signin.Noticed:
		n.notice(step.Notice)
	case signin.Exchanging:
		n.stopWaiting()
		n.say("UPS answered. Exchanging its code for tokens.")
	}
}

// decide keeps what somebody signed in for, or drops it where they are the wrong
// person.
func (n *narrator) decide(ctx context.Context, login *signin.SignIn, user string) (grant.Grant, error) {
	var doubts []string
	if n.asks() {
		doubts = n.doubtsOf(user)
	}
	if len(doubts) == 0 {
		n.signedIn(user)
	}
	g, err := login.Conclude(ctx, doubts, pages.Asked(n.company, user, true), func(ctx context.Context) error {
		n.signedIn(user)
		return n.confirm(ctx, user)
	})
	if g.TokenVaultKey != "" { // whatever could not be done afterwards
		n.say("Saved the tokens in the %s.", vault.Describe(n.home))
	}
	return g, err
}

// signedIn says who signed in, and what is to be minded about them where nobody is
// asked.
func (n *narrator) signedIn(user string) {
	n.user = user
	if user == "" {
		n.say("Signed in at ups.com; UPS does not say who it was.")
		return
	}
	n.say("Signed in at ups.com: %s.", user)
	if !n.doubts(user) {
		for _, doubt := range n.doubtsOf(user) {
			fmt.Fprintf(n.env.Err, "   Warning: %s\n", doubt)
		}
	}
}

// open opens the browser and always shows the address too, as nobody can know
// whether a window really appeared.
func (n *narrator) open(open signin.Open) {
	const asUser = "Sign in as the company's ups.com user. If the browser is still\n" +
		"   signed in to ups.com as somebody else, sign out there first. That user's profile\n" +
		"   needs the company's shipping accounts; a CampusShip profile does not work."
	if open.ByHand {
		n.say("Open this address in a browser. %s", asUser)
	} else {
		n.say("Opening the browser. %s\n   If no window opens, go to:", asUser)
	}
	fmt.Fprintf(n.env.Err, "   %s\n", n.shown)
	if !open.ByHand {
		if err := n.openBrowser(open); err != nil {
			fmt.Fprintf(n.env.Err, "   (No browser could be opened: %v)\n", err)
		}
	}
	if n.opts.NoBrowser && n.listening != "" && loopback.IsLoopback(n.client.RedirectURI) {
		fmt.Fprintf(n.env.Err, "   If the browser is on another machine, open a tunnel there first: %s\n", tunnel(n.client.RedirectURI, n.listening))
	}
	n.startWaiting()
	if n.pasting {
		fmt.Fprint(n.env.Err, "   Or paste the address of the browser's last page here, even if it shows an error.\n"+
			"   Paste the address at once: its code is valid for about 30 seconds.\n")
		n.askForPaste()
	}
}

// openBrowser opens an address. Where other users could read it on the opener's
// command line and the callback server could not tell them from this one, the
// opener gets a private page that leads there.
func (n *narrator) openBrowser(open signin.Open) error {
	if !open.Private {
		return n.env.OpenBrowser(open.Context, open.Address, n.browserFailed)
	}
	page, drop, err := browser.PrivatePage(open.Address)
	if err != nil {
		return err
	}
	n.drop = drop
	return n.env.OpenBrowser(open.Context, page, n.browserFailed)
}

// browserFailed says that the browser's program ended with an error.
func (n *narrator) browserFailed(program string, err error) {
	fmt.Fprintf(n.env.Err, "   (The browser %s ended with an error: %v. Open the address by hand.)\n", program, err)
}

// awaited says that a try came to nothing, and how to go on.
func (n *narrator) awaited(err error) {
	n.stopWaiting()
	n.failed = true
	fmt.Fprintf(n.env.Err, "   %s The sign-in waits until %s.\n   %s\n",
		legible.Sentence(err.Error()), n.clock(n.end), pages.OnceMore(err, n.pasting))
	switch {
	case n.leaves:
		fmt.Fprint(n.env.Err, passOver)
		n.prompt = true
	case n.pasting:
		n.askForPaste()
	}
	n.count()
}

const passOver = "   Or type s to skip this company, q to stop: "

// What a person says who leaves a company that did not consent.
var (
	errPassedOver = errors.New("the company was skipped; nothing was changed")
	errStopped    = errors.New("stopped; nothing was changed")
)

// leaving is what the answer to passOver means, nil for neither.
func leaving(answer string) error {
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "s":
		return errPassedOver
	case "q":
		return errStopped
	}
	return nil
}

// giveUp waits until somebody passes the company over.
func (n *narrator) giveUp(ctx context.Context) error {
	for {
		answer, err := n.env.person().Lines.Read(ctx)
		if err != nil {
			return err
		}
		if err := leaving(answer); err != nil {
			return err
		}
		fmt.Fprint(n.env.Err, passOver)
	}
}

// notice tells what the person should know about others who took part. That
// somebody was refused is told once: a program may try a thousand times.
func (n *narrator) notice(notice loopback.Notice) {
	if notice.Kind != loopback.Voided && n.warned[notice.Kind] {
		return
	}
	if n.warned == nil {
		n.warned = map[loopback.NoticeKind]bool{}
	}
	n.warned[notice.Kind] = true
	var text string
	switch notice.Kind {
	case loopback.Voided:
		n.shown = notice.Address
		text = "Two browsers opened the address of this sign-in, so neither can finish it.\n" +
			"   If you did not open the address twice, somebody else on this machine may have done so.\n" +
			"   Open this new address:\n   " + notice.Address
	case loopback.OtherUser:
		text = fmt.Sprintf("A program of the user %s on this machine tried to take part in this sign-in and was refused.\n"+
			"   If that is your browser, press Ctrl-C and run the command again with --no-browser.", notice.User)
	case loopback.OtherBrowser:
		text = "UPS's answer came from a browser that did not open the address above, or that keeps no cookies.\n" +
			"   The answer was refused, and the sign-in still waits. For a browser without cookies, use --no-browser."
	case loopback.OtherIssuer:
		text = fmt.Sprintf("An answer was refused, because its issuer is not %s. The sign-in still waits.\n"+
			"   The answer may be from the sign-in page of another environment.", n.client.Issuer)
	}
	if n.pasting {
		// The prompt is that of another goroutine.
		fmt.Fprintf(n.env.Err, "\n   Warning: %s\n", text)
		return
	}
	n.stopWaiting()
	fmt.Fprintf(n.env.Err, "   Warning: %s\n", text)
	n.count()
}

// tunnel is the command that brings a callback on another machine to this one.
func tunnel(redirectURI, at string) string {
	port := "80"
	if u, err := url.Parse(redirectURI); err == nil && u.Port() != "" && u.Port() != "0" {
		port = u.Port()
	} else if _, there, err := net.SplitHostPort(at); err == nil {
		port = there
	}
	return fmt.Sprintf("ssh -L %s:%s this-machine", port, at)
}

func (n *narrator) askForPaste() {
	if n.env.InTerminal {
		n.prompt = true
		fmt.Fprint(n.env.Err, "   Address: ")
	}
}

// paste reads addresses until one is the login's answer. What is wrong with the
// others is said, and changes nothing.
func (n *narrator) paste(ctx context.Context, read signin.Reader) (grant.Callback, error) {
	for {
		text, err := n.env.person().Lines.Read(ctx)
		if ctx.Err() != nil {
			return grant.Callback{}, ctx.Err()
		}
		if err != nil {
			// Standard input that can't be read has nothing to paste.
			return grant.Callback{}, io.EOF
		}
		if strings.TrimSpace(text) == "" {
			continue
		}
		if n.leaves && n.failed {
			if err := leaving(text); err != nil {
				return grant.Callback{}, err
			}
		}
		callback, err := read(text)
		if err == nil {
			return callback, nil
		}
		fmt.Fprintf(n.env.Err, "   %s Nothing was changed; the sign-in still waits.\n", legible.Sentence(err.Error()))
		n.askForPaste()
	}
}

// doubts reports whether somebody has to confirm the user who signed in.
func (n *narrator) doubts(user string) bool {
	return n.asks() && len(n.doubtsOf(user)) > 0
}

// asks reports whether somebody is there to be asked.
func (n *narrator) asks() bool {
	return !n.opts.Yes && n.opts.ExpectUser == "" && n.env.attended()
}

// doubtsOf are the doubts as things are when somebody has signed in: an earlier
// sign-in may have been finished since the command began.
func (n *narrator) doubtsOf(user string) []string {
	if n.known == nil {
		now := n.people()
		n.known = &now
	}
	return n.known.Doubts(user)
}

// confirm asks whether the user who signed in is the right one.
func (n *narrator) confirm(ctx context.Context, user string) error {
	question := strings.Join(n.doubtsOf(user), " ") + " Keep this authorization?"
	err := confirmKeeping(ctx, n.env, question)
	if errors.Is(err, errDeclined) {
		return fmt.Errorf("the authorization by %s was not kept; %w", user, err)
	}
	return err
}

// startWaiting says how long the sign-in is awaited.
func (n *narrator) startWaiting() {
	n.end = n.env.Now().Add(n.opts.Timeout)
	fmt.Fprintf(n.env.Err, "   Waiting for the sign-in until %s (%s from now). Ctrl-C ends it and changes nothing.\n",
		n.clock(n.end), legible.Duration(n.opts.Timeout))
	n.count()
}

// clock is a time of the reader's day, with the date where that is another day.
func (n *narrator) clock(t time.Time) string {
	t, now := t.In(n.env.Zone), n.env.Now().In(n.env.Zone)
	if t.Format(time.DateOnly) != now.Format(time.DateOnly) {
		return t.Format(time.DateTime)
	}
	return t.Format(time.TimeOnly)
}

// count counts the time left down on a terminal where nothing is typed.
func (n *narrator) count() {
	if !n.env.ErrTerminal || n.pasting || n.prompt {
		return
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		terminal.CountDown(n.env.Err, n.env.Now, n.end, done)
	}()
	n.stop = func() {
		close(done)
		<-ended
	}
}

// close ends what the sign-in has begun here.
func (n *narrator) close() {
	n.stopWaiting()
	if n.drop != nil {
		n.drop()
	}
}

func (n *narrator) stopWaiting() {
	if n.prompt {
		n.prompt = false
		fmt.Fprintln(n.env.Err)
	}
	if n.stop != nil {
		n.stop()
		n.stop = nil
	}
}
