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

// All that customers read is in this file, so that another language is another file. They
// have never heard of tokens, and know us as whoever invited them.

// words are a page of sentences.
type words struct {
	Heading string
	Text    []string
	Button  string
	// Ask lets the page say whom to ask.
	Ask bool
}

// labels are the words that stand in the pages themselves.
type labels struct {
	Questions, ReadyHeading, SharesHeading, KnowHeading, Continue string
}

var theLabels = labels{
	Questions:     "Questions? Ask",
	ReadyHeading:  "Before you continue",
	SharesHeading: "What you allow",
	KnowHeading:   "Good to know",
	Continue:      "Continue to UPS",
}

// site is what the window says behind the title.
func site(from string) string { return cmp.Or(from, "Invitation") }

// contactOf is whom customers ask, empty where nobody is named.
func contactOf(s config.Serve) string {
	if s.From != "" && s.Contact != "" {
		return s.From + ": " + s.Contact
	}
	return cmp.Or(s.Contact, s.From)
}

// backTo stands on the link to where the customer came from.
func backTo(host string) string { return "Back to " + host }

var (
	wordsGo = words{
		Heading: "Continue to UPS",
		Text:    []string{"Your browser goes to ups.com now. If nothing happens, use this link."},
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
		Heading: "Begin at the link of your invitation",
		Text:    []string{"This page only takes you back from ups.com. Open the link of your invitation, and begin there."},
	}
	wordsOtherBrowser = words{
		Heading: "You came back in another browser",
		Text: []string{
			"Nothing was changed. You began in another browser, or more than 30 minutes ago, or this browser keeps no cookies.",
			"Some mail programs open links in a browser of their own. Open the link of your invitation in this browser, and begin again.",
		},
	}
	// wordsElsewhere are for whoever came without an invitation, where UPS sends them here
	// too. They do not ask for the address of the page: somebody who forwarded UPS's address
	// could want that.
	wordsElsewhere    = "If you began without an invitation, go back to where you began. There you read what to do next."
	wordsOtherAddress = words{
		Heading: "UPS sent you to the wrong page",
		Text:    []string{"Nothing was changed.", "Begin again. If this happens a second time, please tell us."},
		Button:  "Begin again",
		Ask:     true,
	}
	wordsForgotten = words{
		Heading: "This page can't be shown any more",
		Text:    []string{"Open the link of your invitation. It says whether all is done."},
	}
	wordsTrouble = words{
		Heading: "This does not work at the moment",
		Text:    []string{"The fault is on our side. Nothing was changed.", "Load this page again in a few minutes. Your invitation still works."},
		Ask:     true,
	}
	wordsTroubleAfter = words{
		Heading: "This does not work at the moment",
		Text:    []string{"The fault is on our side. Nothing was changed.", "Begin again in a few minutes. Your invitation still works."},
		Button:  "Begin again",
		Ask:     true,
	}
	wordsNotOurs = words{
		Heading: "UPS does not accept our application",
		Text:    []string{"You did nothing wrong, and nothing was changed. Only we can mend this.", "Please tell us, and try again later. Your invitation still works."},
		Button:  "Try again",
		Ask:     true,
	}
	wordsBusy = words{
		Heading: "Somebody else is signing in for your company",
		Text:    []string{"Nothing was changed. Wait a moment, then try again."},
		Button:  "Try again",
		Ask:     true,
	}
	wordsUPSDownBefore = words{
		Heading: "UPS does not answer at the moment",
		Text:    []string{"You can't sign in at ups.com now. Nothing was changed.", "Try again in a few minutes. Your invitation still works."},
		Button:  "Try again",
		Ask:     true,
	}
	wordsUPSDownAfter = words{
		Heading: "UPS does not answer at the moment",
		Text: []string{
			"You signed in, but UPS could not complete the authorization. Nothing was changed.",
			"Try again. You may have to sign in once more. Your invitation still works.",
		},
		Button: "Try again",
		Ask:    true,
	}
	wordsDeclined = words{
		Heading: "You did not agree at ups.com",
		Text:    []string{"Nothing was changed.", "If you want to authorize the application, begin again, and agree on the page of UPS."},
		Button:  "Begin again",
		Ask:     true,
	}
	wordsTooLate = words{
		Heading: "UPS did not accept the sign-in",
		Text:    []string{"Perhaps it took too long, or a page was loaded twice. Nothing was changed.", "Begin again, and finish without a pause."},
		Button:  "Begin again",
		Ask:     true,
	}
	wordsNotYet = words{
		Heading: "The sign-in is not complete",
		Text:    []string{"Nothing was changed. Your invitation still works."},
		Button:  "Begin again",
		Ask:     true,
	}
	wordsWrongUser = words{
		Heading: "Another ups.com user is needed",
		Text: []string{
			"Nothing was changed.",
			"Sign out at ups.com, or open the link of your invitation in a private window. Then begin again, and sign in as the right user.",
		},
		Button: "Begin again",
		Ask:    true,
	}
)

// wordsPressHere are for whoever comes from a page of another site.
const wordsPressHere = "Another page sent you here. Read this page, then continue. If this page appears again, copy the link of your invitation into a new window."

// wrongUser says who signed in, and who should have.
func wrongUser(user, expected string) []string {
	said := "UPS does not say who signed in."
	if user != "" {
		said = mask(user) + " signed in."
	}
	if expected != "" {
		said += " The authorization needs " + mask(expected) + "."
	}
	return []string{said}
}

// held are the words while the sender has to confirm who signed in.
func held(user, from string) words {
	w := words{Heading: "Thank you. Your part is done", Ask: true}
	if user != "" {
		w.Text = append(w.Text, mask(user)+" signed in at ups.com.")
	}
	w.Text = append(w.Text, fmt.Sprintf("%s checks that this is the right user, and then confirms the authorization.", cmp.Or(from, "Whoever invited you")),
		"Nothing is changed until then. You need not do anything, and you can close this page.")
	return w
}

// invited is the page that the address of an invitation opens.
type invited struct {
	Heading                      string
	From, Asks, Company          string // the first sentence, in three parts
	In, Note, SignInAs, User     string // User is the expected one, masked
	Again                        string // asks for another press, empty for none
	Contact                      string
	Signing, Ready, Shares, Know []string
}

// before are the words before UPS.
func before(i session.Invited, r config.Registration, s config.Serve, user string) invited {
	name := session.DisplayName(r)
	p := invited{
		Heading: fmt.Sprintf("Authorize %s for %s", name, i.Company),
		From:    cmp.Or(s.From, "Your service provider"), Asks: fmt.Sprintf("asks you to authorize %s at UPS for", name), Company: i.Company,
		Note: i.Note, User: mask(user), SignInAs: "Please sign in as", Contact: contactOf(s),
		Signing: []string{"You sign in at ups.com, and agree there. That takes about three minutes. You type your password at ups.com only: we never see it."},
		Ready: []string{
			"Have your ups.com user name and password ready. A CampusShip profile does not work.",
			"Link your UPS shipping account to your ups.com profile. At ups.com, open Accounts and Payment, then Add Existing Account.",
			"Sign out at ups.com first if somebody else is signed in there in this browser.",
		},
		Shares: []string{
			fmt.Sprintf("UPS gives %s access to data of your ups.com user: shipping account numbers, contact information, rates and the tracking status of packages.", name),
			"You read this again at ups.com before you agree.",
		},
		Know: []string{
			fmt.Sprintf("This link works until %s.", when(i.Expires)),
			"If you change the password of this ups.com user later, the authorization ends. Then ask for a new link.",
		},
	}
	if i.Environment != "production" {
		p.In = fmt.Sprintf("(UPS environment: %s)", i.Environment)
	}
	return p
}

// ended are the words about an invitation that has ended. They name no company: the
// address may be in other hands.
func ended(end invitation.End) words {
	w := words{Heading: "This invitation has ended", Ask: true}
	switch end.Why {
	case invitation.Completed:
		w.Heading = "This invitation was used"
		w.Text = []string{fmt.Sprintf("The authorization was completed on %s. You need not do anything.", when(end.At))}
		return w
	case invitation.Expired:
		w.Text = []string{fmt.Sprintf("The link worked until %s.", when(end.At))}
	case invitation.Withdrawn:
		w.Text = []string{"It was withdrawn by whoever sent it."}
	case invitation.Replaced:
		w.Text = []string{"A newer invitation took its place. Use the link of the latest one."}
	case invitation.Refused:
		w.Text = []string{"The user who signed in was not the right one."}
	case invitation.Overtaken:
		w.Text = []string{"The authorization was made in another way since then. You need not do anything."}
		return w
	default:
		w.Text = []string{"What it was for has changed since then."}
	}
	w.Text = append(w.Text, "Nothing was changed. Ask for a new link if you still need one.")
	return w
}

// completed are the words after a sign-in that is in place.
func completed(user, name string, at, until time.Time) words {
	w := words{Heading: "Thank you. " + name + " is authorized", Ask: true}
	if user != "" {
		w.Text = append(w.Text, fmt.Sprintf("%s signed in at ups.com on %s.", mask(user), when(at)))
	}
	if !until.IsZero() {
		w.Text = append(w.Text, fmt.Sprintf("The authorization works until %s. It is renewed before then while it is in use.", when(until)))
	}
	w.Text = append(w.Text,
		"If you change the password of this ups.com user, the authorization ends. Then ask for a new link.",
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
