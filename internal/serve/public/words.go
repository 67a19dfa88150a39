package public

import (
	"cmp"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/session"
)

// All that customers read is in this file, so that another language is another file.

// words are a page of sentences.
type words struct {
	Heading string
	Text    []string
	Button  string
}

var (
	wordsGo = words{
		Heading: "Continue to UPS",
		Text:    []string{"Your browser goes to ups.com now. If it stays here, use this link."},
		Button:  "Go to ups.com",
	}
	wordsNothing = words{
		Heading: "There is no page here",
		Text: []string{
			"If you were invited, open the link of your invitation again. Copy the whole link if a click does not open it.",
			"If that does not help, ask whoever invited you for a new link.",
		},
	}
	wordsNoAnswer = words{
		Heading: "This page is for answers of UPS",
		Text:    []string{"Open the link of your invitation, and begin there."},
	}
	wordsOtherBrowser = words{
		Heading: "You came back in another browser",
		Text: []string{
			"UPS sent you to another browser than the one in which you began, or the browser keeps no cookies. Nothing was changed.",
			"Some mail programs have a browser of their own. Open the link of your invitation in this browser, and begin again.",
		},
	}
	wordsForgotten = words{
		Heading: "This page has ended",
		Text:    []string{"Open the link of your invitation to see how things are."},
	}
	wordsTrouble = words{
		Heading: "This does not work at the moment",
		Text:    []string{"The fault is on our side, and nothing was changed. Please try again in a few minutes."},
	}
	wordsUPSDown = words{
		Heading: "UPS does not answer at the moment",
		Text: []string{
			"You signed in, but UPS could not complete the authorization. Nothing was changed.",
			"Try again in a few minutes. Your invitation is still good.",
		},
		Button: "Begin again",
	}
	wordsDeclined = words{
		Heading: "You did not agree at ups.com",
		Text:    []string{"Nothing was changed. If that was a mistake, begin again, and agree on the page of UPS."},
		Button:  "Begin again",
	}
	wordsTooLate = words{
		Heading: "UPS did not accept the sign-in",
		Text: []string{
			"Perhaps it took too long, or the page was loaded twice. Nothing was changed.",
			"Begin again, and finish without a pause.",
		},
		Button: "Begin again",
	}
	wordsNotYet = words{
		Heading: "Nobody has signed in yet",
		Text:    []string{"Your invitation is still good."},
		Button:  "Begin again",
	}
	wordsHeld = words{
		Heading: "Thank you. The user is still to be confirmed",
		Text: []string{
			"UPS has authorized the application. We now check that the user who signed in is the right one.",
			"You need not do anything. Until then, nothing is changed.",
			"You can close this page.",
		},
	}
	wordsWrongUser = words{
		Heading: "Another ups.com user is needed",
		Text: []string{
			"Nothing was changed.",
			"Sign out at ups.com, or use a private window. Then begin again, and sign in with the right user.",
		},
		Button: "Begin again",
	}
)

// invited is the page that the address of an invitation opens.
type invited struct {
	Heading                            string
	From, Contact, Company, Name, Note string
	Environment                        string // empty for production
	Until                              time.Time
	User                               string // the expected one, masked
	Shares, Ready, Signing, Password   []string
}

// before are the words before UPS.
func before(i session.Invited, r config.Registration, s config.Serve) invited {
	from := cmp.Or(s.From, "Your service provider")
	name := displayName(r)
	p := invited{
		Heading: fmt.Sprintf("Authorize %s for %s", name, i.Company),
		From:    from, Contact: s.Contact, Company: i.Company, Name: name, Note: i.Note, Until: i.Expires, User: mask(i.ExpectUser),
		Shares: []string{
			fmt.Sprintf("%s may then use UPS's services in your name, with the shipping accounts of your ups.com profile: rates, shipments, tracking, as UPS allows the application.", name),
			"You can end that at ups.com, in your profile's settings, at any time.",
		},
		Ready: []string{
			"Have your ups.com user name and password ready. A CampusShip profile does not work.",
			"Your shipping account must be linked to your ups.com profile first. At ups.com, open Accounts and Payment, then Add Existing Account.",
			"If somebody else is signed in at ups.com in this browser, sign out there first.",
		},
		Signing: []string{
			"You type your password at ups.com and nowhere else. We never see it.",
		},
		Password: []string{
			"If the password of this ups.com user is changed later, the authorization ends. Then you need a new invitation.",
		},
	}
	if i.Environment != "production" {
		p.Environment = i.Environment
	}
	return p
}

// ended are the words about an invitation that has ended. They name no company: the
// address may be in other hands.
func ended(end invitation.End) words {
	w := words{Heading: "This invitation has ended"}
	switch end.Why {
	case invitation.Completed:
		w.Heading = "This invitation was used"
		w.Text = []string{fmt.Sprintf("The authorization was completed on %s. You need not do anything.", when(end.At))}
		return w
	case invitation.Expired:
		w.Text = []string{fmt.Sprintf("It was good until %s.", when(end.At))}
	case invitation.Withdrawn:
		w.Text = []string{"It was withdrawn by whoever sent it."}
	case invitation.Replaced:
		w.Text = []string{"A newer invitation took its place. Use the link of the latest one."}
	case invitation.Refused:
		w.Text = []string{"The user who signed in was not the right one."}
	case invitation.Overtaken:
		w.Text = []string{"The authorization was made in another way since then."}
	default:
		w.Text = []string{"What it was for has changed since then."}
	}
	w.Text = append(w.Text, "Nothing of yours was changed. Ask for a new invitation if you still need one.")
	return w
}

// completed are the words after a sign-in that is in place.
func completed(user, name string, until time.Time) words {
	w := words{Heading: "Thank you. " + name + " is authorized"}
	if user != "" {
		w.Text = append(w.Text, fmt.Sprintf("%s signed in at ups.com.", mask(user)))
	}
	if !until.IsZero() {
		w.Text = append(w.Text, fmt.Sprintf("The authorization is good until %s, and is renewed before then while it is used.", when(until)))
	}
	w.Text = append(w.Text,
		"If the password of this ups.com user is changed, the authorization ends. Then you need a new invitation.",
		"You can close this page.")
	return w
}

// when is a moment as customers read it, in UTC.
func when(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") }

// mask is a user of whom only the ends show, for a page that others may see: j…e@acme.example.
func mask(user string) string {
	if user == "" {
		return ""
	}
	name, host, _ := strings.Cut(user, "@")
	first, _ := utf8.DecodeRuneInString(name)
	last, size := utf8.DecodeLastRuneInString(name)
	masked := "…"
	if utf8.RuneCountInString(name) > 2 {
		masked = string(first) + "…" + string(last)
	} else if size > 0 {
		masked = string(first) + "…"
	}
	if host != "" {
		masked += "@" + host
	}
	return masked
}
