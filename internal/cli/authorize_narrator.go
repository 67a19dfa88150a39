package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

// narrator tells the person at the terminal what happens, in numbered steps on
// standard error, and asks where it has to.
type narrator struct {
	env     *Env
	opts    authorizeOptions
	client  *ups.Client
	home    string
	people  func() people
	known   *people // once somebody signed in
	quiet   bool    // the warning was said for an earlier company
	pasting bool
	prompt  bool // the cursor stands behind a question
	// listening is where on this machine the callback is awaited, empty for
	// nowhere.
	listening string
	number    int
	stop      func()
}

func (n *narrator) begin(id grant.ID) {
	fmt.Fprintf(n.env.Err, "Authorizing %s for %s in %s.\n", id.Company, n.client.DisplayName, id.Environment)
	if !n.quiet {
		fmt.Fprint(n.env.Err, "Mind: the authorization belongs to the ups.com user who signs in. When that\n"+
			"user's ups.com password is changed, it is void and has to be given again.\n")
	}
	fmt.Fprintln(n.env.Err)
}

func (n *narrator) say(format string, args ...any) {
	n.number++
	fmt.Fprintf(n.env.Err, "%d. %s\n", n.number, fmt.Sprintf(format, args...))
}

func (n *narrator) step(step keeper.Step) {
	switch step.Kind {
	case keeper.StepListen:
		n.listening = step.At
		if n.opts.Listen == "" {
			n.say("Listening for UPS's answer on %s.", step.Address)
			return
		}
		n.say("Listening on %s for what arrives at %s.", step.At, step.Address)
	case keeper.StepPreflight:
		n.say("Asking UPS whether it knows the application and its redirect URI.")
	case keeper.StepExchange:
		n.stopWaiting()
		n.say("UPS answered. Exchanging its code for tokens.")
	case keeper.StepSignedIn:
		if step.User == "" {
			n.say("Signed in at ups.com; UPS does not say who it was.")
			return
		}
		n.say("Signed in at ups.com: %s.", step.User)
		if !n.doubts(step.User) {
			for _, doubt := range n.doubtsOf(step.User) {
				fmt.Fprintf(n.env.Err, "   Warning: %s\n", doubt)
			}
		}
	case keeper.StepSaved:
		n.say("Saved the tokens in the %s.", vault.Describe(n.home))
	}
}

// open opens the browser and always shows the address too, as nobody can know
// whether a window really appeared.
func (n *narrator) open(ctx context.Context, address string) {
	const whoever = "Sign in as the company's ups.com user; if the browser is still\n" +
		"   signed in to ups.com as somebody else, sign out there first. That user's profile needs\n" +
		"   the company's shipping accounts linked; a CampusShip profile does not work."
	if n.opts.NoBrowser {
		n.say("Open this address in a browser. %s", whoever)
	} else {
		n.say("Opening the browser. %s If no window opens, go to:", whoever)
	}
	fmt.Fprintf(n.env.Err, "   %s\n", address)
	if !n.opts.NoBrowser {
		if err := n.env.OpenBrowser(ctx, address); err != nil {
			fmt.Fprintf(n.env.Err, "   (No browser could be opened: %v)\n", err)
		}
	}
	if n.opts.NoBrowser && n.listening != "" && loopback.IsLoopback(n.client.RedirectURI) {
		fmt.Fprintf(n.env.Err, "   A browser on another machine comes back here through a tunnel: %s\n", tunnel(n.client.RedirectURI, n.listening))
	}
	n.startWaiting()
	if n.pasting {
		fmt.Fprint(n.env.Err, "   Or paste the address that the browser ends on, also where it shows an error, and at\n"+
			"   once: the code in it lives for about 30 seconds.\n")
		n.askForPaste()
	}
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
func (n *narrator) paste(ctx context.Context, read func(string) (loopback.Callback, error)) (loopback.Callback, error) {
	for {
		text, err := readLine(ctx, n.env)
		if ctx.Err() != nil {
			return loopback.Callback{}, ctx.Err()
		}
		if err != nil {
			// Standard input that can't be read has nothing to paste.
			return loopback.Callback{}, io.EOF
		}
		if strings.TrimSpace(text) == "" {
			continue
		}
		callback, err := read(text)
		if err == nil {
			return callback, nil
		}
		fmt.Fprintf(n.env.Err, "   %s Nothing was changed; the sign-in is still awaited.\n", sentence(err.Error()))
		n.askForPaste()
	}
}

// doubts reports whether somebody has to confirm the user who signed in.
func (n *narrator) doubts(user string) bool {
	return n.asks() && len(n.doubtsOf(user)) > 0
}

// asks reports whether somebody is there to be asked.
func (n *narrator) asks() bool {
	return !n.opts.Yes && n.opts.ExpectUser == "" && n.env.InTerminal && n.env.ErrTerminal
}

// doubtsOf are the doubts as things are when somebody has signed in: an earlier
// sign-in may have been finished since the command began.
func (n *narrator) doubtsOf(user string) []string {
	if n.known == nil {
		now := n.people()
		n.known = &now
	}
	return n.known.doubts(user)
}

// confirm asks whether the user who signed in is the right one.
func (n *narrator) confirm(ctx context.Context, user string) error {
	question := strings.Join(n.doubtsOf(user), " ") + " Keep this authorization?"
	err := confirm(ctx, n.env, question, false)
	if errors.Is(err, errDeclined) {
		return fmt.Errorf("the authorization by %s was not kept; %w", user, err)
	}
	return err
}

// startWaiting says how long the sign-in is awaited; on a terminal where nothing
// is typed the time left counts down.
func (n *narrator) startWaiting() {
	end := n.env.Now().Add(n.opts.Timeout)
	fmt.Fprintf(n.env.Err, "   Waiting for the sign-in until %s (%s from now). Ctrl-C ends it and changes nothing.\n",
		end.In(n.env.Zone).Format("15:04:05"), n.opts.Timeout)
	if !n.env.ErrTerminal || n.pasting {
		return
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		countDown(n.env.Err, n.env.Now, end, done)
	}()
	n.stop = func() {
		close(done)
		<-ended
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

func countDown(w io.Writer, now func() time.Time, end time.Time, done <-chan struct{}) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		if left := end.Sub(now()).Round(time.Second); left > 0 {
			fmt.Fprintf(w, "\r   %s left   ", left)
		}
		select {
		case <-ticker.C:
		case <-done:
			fmt.Fprintf(w, "\r%20s\r", "") // which every console understands
			return
		}
	}
}

// people knows who signed in for which company.
type people struct {
	id     grant.ID
	before []string          // for the company until now
	others map[string]string // folded user -> another company of theirs
}

// people collects who signed in for companies so far, beside the one that is
// about to be authorized.
func (s *session) people(id grant.ID) people {
	p := people{id: id, others: map[string]string{}}
	records, _, err := s.vault.List("")
	if err != nil {
		s.log(err.Error())
		return p
	}
	sortByName(records)
	for _, r := range records {
		user := strings.ToLower(r.User)
		switch {
		case user == "" || r.Environment != id.Environment:
		case grant.Fold(r.Company) == grant.Fold(id.Company):
			p.before = append(p.before, r.User)
		case p.others[user] == "":
			p.others[user] = r.Company
		}
	}
	return p
}

// doubts are the reasons to think that the wrong person signed in, as sentences.
func (p people) doubts(user string) []string {
	if user == "" {
		return nil
	}
	var doubts []string
	same := func(before string) bool { return keeper.SameUser(before, user) }
	if len(p.before) > 0 && !slices.ContainsFunc(p.before, same) {
		doubts = append(doubts, fmt.Sprintf("%s was authorized by %s before, and now by %s.", p.id.Company, p.before[0], user))
	}
	if other := p.others[strings.ToLower(strings.TrimSpace(user))]; other != "" {
		doubts = append(doubts, fmt.Sprintf("%s signed in for %s already: perhaps the browser's ups.com session is not that of %s.", user, other, p.id.Company))
	}
	return doubts
}
