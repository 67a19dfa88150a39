package session

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

const publicURL = "https://auth.agency.example/ups"

// inviting is a session with an application whose customers can be invited.
type inviting struct {
	*world
	ahead time.Duration
	asks  func() // where set, is called whenever somebody asks for the time
}

func newInviting(t *testing.T) *inviting {
	t.Helper()
	w := &inviting{world: &world{t: t, dir: t.TempDir()}}
	now := func() time.Time {
		if w.asks != nil {
			w.asks()
		}
		return time.Now().Add(w.ahead)
	}
	server, err := sandbox.New(sandbox.Options{Now: now, Clients: []sandbox.Client{{ID: "cid", Secret: "s3cret", RedirectURI: publicURL + "/callback"}}})
	if err != nil {
		t.Fatal(err)
	}
	at := httptest.NewServer(server)
	t.Cleanup(at.Close)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w.write("identity.txt", identity.String()+"\n")
	w.write("config/config.toml", fmt.Sprintf("[environments.lab]\nbase_url = %q\n[serve]\npublic_url = %q\nreturn_urls = [\"https://shop.example/done\"]\n", at.URL, publicURL))
	settings := map[string]string{
		"HOME": w.dir, "USERPROFILE": w.dir, "UPSAUTH_CONFIG_DIR": filepath.Join(w.dir, "config"), "UPSAUTH_STATE_DIR": filepath.Join(w.dir, "state"),
		"UPSAUTH_VAULT": "file", "UPSAUTH_IDENTITY": filepath.Join(w.dir, "identity.txt"),
	}
	transport := ups.NewTransport()
	t.Cleanup(transport.CloseIdleConnections)
	w.Session, err = Open(Options{Getenv: func(name string) string { return settings[name] }, Now: now, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	w.registerPublic("mine", "cid", publicURL+"/callback")
	return w
}

func (w *inviting) registerPublic(name, clientID, redirectURI string) {
	w.t.Helper()
	r := config.Registration{Name: name, Environment: "lab", ClientID: clientID, RedirectURI: "http://localhost:0/cb", PublicRedirectURI: redirectURI, Home: "file"}
	err := w.EditApplications(w.t.Context(), func(a *config.Applications, save func() error) error {
		return w.AddSecret(w.t.Context(), a, save, r, "s3cret")
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *inviting) invite(company string, change ...func(*InviteRequest)) Invited {
	w.t.Helper()
	r := InviteRequest{Target: Target{Company: company, Application: "mine", Environment: "lab"}, Lasts: 7 * 24 * time.Hour, Another: true}
	for _, f := range change {
		f(&r)
	}
	i, address, err := w.Invite(w.t.Context(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	secret, ok := strings.CutPrefix(address, publicURL+"/i/")
	if !ok || len(address) > 76 {
		w.t.Fatalf("the address is %s", address)
	}
	found, err := w.Invitation(w.t.Context(), strings.ToUpper(secret)+".")
	if err != nil || found.Key != i.Key {
		w.t.Fatalf("%+v, %v", found, err)
	}
	return i
}

// comeBack lets a customer press and sign in, and returns what the browser brings back.
func (w *inviting) comeBack(i Invited, user string) (keeper.Remembered, grant.Callback) {
	w.t.Helper()
	pressed, err := w.Press(w.t.Context(), w.now(i))
	if err != nil {
		w.t.Fatal(err)
	}
	back, err := sandbox.Person{User: user, Password: "pw"}.Callback(w.t.Context(), pressed.Address)
	if err != nil {
		w.t.Fatal(err)
	}
	u, err := url.Parse(back)
	if err != nil || !strings.HasPrefix(back, publicURL+"/callback?") {
		w.t.Fatalf("the browser came back at %s (%v)", back, err)
	}
	remembered, err := w.OpenPress(w.t.Context(), pressed.Sealed)
	if err != nil || remembered.State() != u.Query().Get("state") {
		w.t.Fatalf("%v, %v", remembered, err)
	}
	return remembered, grant.Callback{Code: u.Query().Get("code"), Error: u.Query().Get("error")}
}

// signIn is the whole way of a customer.
func (w *inviting) signIn(i Invited, user string) (Came, error) {
	w.t.Helper()
	remembered, callback := w.comeBack(i, user)
	return w.Return(w.t.Context(), remembered, callback)
}

// now is an invitation as it is now.
func (w *inviting) now(i Invited) Invited {
	w.t.Helper()
	i, err := w.InvitationOf(w.t.Context(), i.Key)
	if err != nil {
		w.t.Fatal(err)
	}
	return i
}

func (w *inviting) want(i Invited, state invitation.State, why invitation.Why) Invited {
	w.t.Helper()
	i = w.now(i)
	got := invitation.Why("")
	if i.End != nil {
		got = i.End.Why
	}
	if i.State(w.Now()) != state || got != why {
		w.t.Errorf("the invitation for %s is %s, %q; not %s, %q", i.Company, i.State(w.Now()), got, state, why)
	}
	return i
}

// users are who stands for a company, empty for nobody.
func (w *inviting) user(company string) string {
	w.t.Helper()
	r, err := w.Vault.Record(w.t.Context(), grant.ID{Company: company, Application: "mine", Environment: "lab"})
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		w.t.Fatal(err)
	}
	return r.User
}

// wantNothingHeld wants no secret of a customer to wait.
func (w *inviting) wantNothingHeld() {
	w.t.Helper()
	accounts, err := w.Files.Accounts(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if slices.ContainsFunc(accounts, func(a string) bool { return strings.HasPrefix(a, "held/") }) {
		w.t.Errorf("the home has %q", accounts)
	}
}

// Only a completed authorization uses an invitation up.
func TestInvitedCustomerSignsIn(t *testing.T) {
	w := newInviting(t)
	i := w.invite("Nord AG")
	for range 20 { // a scanner presses
		if _, err := w.Press(t.Context(), w.now(i)); err != nil {
			t.Fatal(err)
		}
	}
	remembered, _ := w.comeBack(i, "jane")
	var awaited *keeper.AwaitedError
	if _, err := w.Return(t.Context(), remembered, grant.Callback{Error: "access_denied"}); !errors.As(err, &awaited) {
		t.Errorf("declined: %v", err)
	}
	if _, err := w.Return(t.Context(), remembered, grant.Callback{Code: "invented"}); !errors.As(err, &awaited) {
		t.Errorf("an invented code: %v", err)
	}
	w.want(i, invitation.StateOpen, "")
	remembered, callback := w.comeBack(i, "jane")
	came, err := w.Return(t.Context(), remembered, callback)
	if err != nil || came.Held || came.User != "jane" || came.Grant.User != "jane" {
		t.Fatalf("%+v, %v", came, err)
	}
	if end := w.want(i, invitation.StateCompleted, invitation.Completed).End; end.User != "jane" {
		t.Errorf("%+v", end)
	}
	var over *invitation.OverError
	if _, err := w.Return(t.Context(), remembered, callback); !errors.As(err, &over) {
		t.Errorf("the same again: %v", err)
	}
	if _, err := w.Press(t.Context(), w.now(i)); !errors.As(err, &over) {
		t.Errorf("a press afterwards: %v", err)
	}
	if w.user("Nord AG") != "jane" {
		t.Errorf("it is %q", w.user("Nord AG"))
	}
	w.wantNothingHeld()
}

// Another user than that of the earlier authorization leaves everything as it was.
func TestWrongUserLeavesEverything(t *testing.T) {
	w := newInviting(t)
	if _, err := w.signIn(w.invite("Nord AG"), "jane"); err != nil {
		t.Fatal(err)
	}
	i := w.invite("Nord AG")
	var other *keeper.OtherUserError
	if _, err := w.signIn(i, "joe"); !errors.As(err, &other) || other.User != "joe" || other.Expect != "jane" {
		t.Fatalf("%v", err)
	}
	if i := w.want(i, invitation.StateWrongUser, ""); i.Wrong.User != "joe" || w.user("Nord AG") != "jane" {
		t.Errorf("%+v, %s", i.Wrong, w.user("Nord AG"))
	}
	if _, err := w.signIn(i, "JANE"); err != nil {
		t.Errorf("the right one: %v", err)
	}
	w.want(i, invitation.StateCompleted, invitation.Completed)

	anybody := w.invite("Nord AG", func(r *InviteRequest) { r.AnyUser = true })
	if _, err := w.signIn(anybody, "joe"); err != nil || w.user("Nord AG") != "joe" {
		t.Errorf("anybody: %v, %s", err, w.user("Nord AG"))
	}
	only := w.invite("Nord AG", func(r *InviteRequest) { r.ExpectUser = "max" })
	if _, err := w.signIn(only, "joe"); !errors.As(err, &other) {
		t.Errorf("only max: %v", err)
	}
	if _, err := w.signIn(only, "max"); err != nil || w.user("Nord AG") != "max" {
		t.Errorf("max: %v", err)
	}
}

// A user who stands for another company waits for the sender, whose yes or no both leave
// nothing behind.
func TestHeldUntilTheSenderSays(t *testing.T) {
	w := newInviting(t)
	if _, err := w.signIn(w.invite("Acme"), "jane"); err != nil {
		t.Fatal(err)
	}
	hold := func() Invited {
		t.Helper()
		i := w.invite("Nord AG")
		came, err := w.signIn(i, "jane")
		if err != nil || !came.Held || came.User != "jane" {
			t.Fatalf("%+v, %v", came, err)
		}
		if w.user("Nord AG") != "" {
			t.Fatal("it is in place")
		}
		return w.want(i, invitation.StateHeld, "")
	}
	i := hold()
	if len(i.SignIn.Doubts) != 1 {
		t.Errorf("the doubts are %q", i.SignIn.Doubts)
	}
	w.ahead += 30 * 24 * time.Hour
	came, err := w.Confirm(t.Context(), w.want(i, invitation.StateHeld, ""))
	if err != nil || w.user("Nord AG") != "jane" || came.Grant.User != "jane" {
		t.Fatalf("%+v, %v", came, err)
	}
	w.want(i, invitation.StateCompleted, invitation.Completed)
	if _, err := w.Confirm(t.Context(), w.now(i)); !errors.As(err, new(*NotHeldError)) {
		t.Errorf("again: %v", err)
	}
	if _, err := w.Keeper.Refresh(t.Context(), i.GrantID(), keeper.Need{Always: true}); err != nil {
		t.Errorf("its tokens: %v", err)
	}
	w.wantNothingHeld()

	if err := w.Keeper.Revoke(t.Context(), i.GrantID()); err != nil {
		t.Fatal(err)
	}
	i = hold()
	if err := w.Refuse(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	w.want(i, invitation.StateEnded, invitation.Refused)
	w.wantNothingHeld()

	i = hold()
	if err := w.Withdraw(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	w.want(i, invitation.StateEnded, invitation.Withdrawn)
	w.wantNothingHeld()
	if w.user("Nord AG") != "" {
		t.Error("it is in place")
	}
}

// What happens between the press and the return ends the sign-in before anything is
// exchanged or put in place.
func TestWhatEndsAnInvitationMeanwhile(t *testing.T) {
	for name, test := range map[string]struct {
		happens func(*inviting, Invited) error
		why     invitation.Why
	}{
		"withdrawn": {func(w *inviting, i Invited) error { return w.Withdraw(w.t.Context(), i) }, invitation.Withdrawn},
		"a new one": {func(w *inviting, i Invited) error { w.invite(i.Company); return nil }, invitation.Replaced},
		"expired":   {func(w *inviting, _ Invited) error { w.ahead += 25 * time.Minute; return nil }, invitation.Expired},
		"removed":   {func(w *inviting, i Invited) error { return w.Companies.Remove(w.t.Context(), i.Company) }, invitation.CompanyRemoved},
		"overtaken": {func(w *inviting, i Invited) error { w.grant(i.Company, "mine", "lab"); return nil }, invitation.Overtaken},
		"new client": {func(w *inviting, _ Invited) error {
			w.registerPublic("mine", "another", publicURL+"/callback")
			return nil
		}, invitation.ClientChanged},
	} {
		t.Run(name, func(t *testing.T) {
			w := newInviting(t)
			i := w.invite("Nord AG", func(r *InviteRequest) { r.Lasts = 20 * time.Minute })
			remembered, callback := w.comeBack(i, "jane")
			if err := test.happens(w, i); err != nil {
				t.Fatal(err)
			}
			var over *invitation.OverError
			if _, err := w.Return(t.Context(), remembered, callback); !errors.As(err, &over) || over.Invitation.End.Why != test.why {
				t.Errorf("%v", err)
			}
			w.want(i, invitation.StateEnded, test.why)
			if w.user("Nord AG") == "jane" {
				t.Error("it is in place")
			}
		})
	}
}

// A process that ends between UPS's answer and the last look at the invitation puts nobody
// in place whom the sender would have to confirm.
func TestCutOffBeforeTheUserIsJudged(t *testing.T) {
	w := newInviting(t)
	if _, err := w.signIn(w.invite("Acme"), "jane"); err != nil {
		t.Fatal(err)
	}
	i := w.invite("Nord AG")
	remembered, callback := w.comeBack(i, "jane")
	cut := errors.New("cut off")
	looks := 0
	w.asks = func() {
		if strings.Contains(string(debug.Stack()), "(*Session).judged(") {
			if looks++; looks == 3 { // the one after the exchange
				panic(cut)
			}
		}
	}
	func() {
		defer func() {
			if recover() != cut {
				t.Error("it was not cut off")
			}
		}()
		_, _ = w.Return(t.Context(), remembered, callback)
	}()
	w.asks = nil
	if err := w.Keeper.SettleLogins(t.Context(), i.GrantID()); err != nil {
		t.Fatal(err)
	}
	if w.user("Nord AG") != "" {
		t.Errorf("%s is in place", w.user("Nord AG"))
	}
	w.want(i, invitation.StateOpen, "")
	if came, err := w.signIn(i, "jane"); err != nil || !came.Held {
		t.Errorf("again: %+v, %v", came, err)
	}
	// So does one that ends while it puts in place what the sender confirmed: that still
	// waits.
	looks = 0
	held := w.want(i, invitation.StateHeld, "")
	w.asks = func() {
		if strings.Contains(string(debug.Stack()), "(*Session).announce(") {
			panic(cut)
		}
	}
	func() {
		defer func() {
			if recover() != cut {
				t.Error("it was not cut off")
			}
		}()
		_, _ = w.Confirm(t.Context(), held)
	}()
	w.asks = nil
	if err := w.Keeper.SettleLogins(t.Context(), i.GrantID()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Confirm(t.Context(), w.want(i, invitation.StateHeld, "")); err != nil || w.user("Nord AG") != "jane" {
		t.Errorf("confirmed again: %v", err)
	}
	w.want(i, invitation.StateCompleted, invitation.Completed)
	w.wantNothingHeld()
}

// Nor does it come to life later, once its invitation was withdrawn: what is as good as in
// place is settled first, and then nothing is left to withdraw.
func TestWithdrawAfterACutOff(t *testing.T) {
	w := newInviting(t)
	i := w.invite("Nord AG")
	w.leftBeforeTheFlip(i, w.returned(i))
	w.want(i, invitation.StateOpen, "")
	var over *invitation.OverError
	if err := w.Withdraw(t.Context(), w.now(i)); !errors.As(err, &over) || over.Invitation.End.Why != invitation.Completed {
		t.Errorf("withdrawn: %v", err)
	}
	if err := w.Keeper.SettleLogins(t.Context(), i.GrantID()); err != nil {
		t.Fatal(err)
	}
	w.want(i, invitation.StateCompleted, invitation.Completed)
	if w.user("Nord AG") != "jane" {
		t.Error("it is not in place")
	}
}

// Whoever confirms a user and is cut off right before the flip has as good as put the user
// in place. Whatever ends the invitation then settles that first: nothing of it comes to
// life once the sender has said no.
func TestEndAfterACutOffConfirmation(t *testing.T) {
	for name, end := range map[string]func(*inviting, Invited) error{
		"refused":   func(w *inviting, i Invited) error { return w.Refuse(w.t.Context(), i) },
		"withdrawn": func(w *inviting, i Invited) error { return w.Withdraw(w.t.Context(), i) },
		"new client": func(w *inviting, i Invited) error {
			w.registerPublic("mine", "another", publicURL+"/callback")
			if err := w.SettleInvitations(w.t.Context()); err != nil {
				return err
			}
			return &invitation.OverError{Invitation: w.now(i).Invitation}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newInviting(t)
			if _, err := w.signIn(w.invite("Acme"), "jane"); err != nil {
				t.Fatal(err)
			}
			i := w.invite("Nord AG")
			if came, err := w.signIn(i, "jane"); err != nil || !came.Held {
				t.Fatalf("%+v, %v", came, err)
			}
			w.leftBeforeTheFlip(i, w.takenUp(i))
			var over *invitation.OverError
			if err := end(w, w.want(i, invitation.StateHeld, "")); !errors.As(err, &over) || over.Invitation.End == nil || over.Invitation.End.Why != invitation.Completed {
				t.Errorf("%v", err)
			}
			if err := w.Keeper.SettleLogins(t.Context(), i.GrantID()); err != nil {
				t.Fatal(err)
			}
			w.want(i, invitation.StateCompleted, invitation.Completed)
			if w.user("Nord AG") != "jane" {
				t.Error("it is not in place")
			}
			w.wantNothingHeld()
		})
	}
}

// A new address after such a cut-off counts for what is in place by then.
func TestNewAddressAfterACutOff(t *testing.T) {
	w := newInviting(t)
	i := w.invite("Nord AG")
	w.leftBeforeTheFlip(i, w.returned(i))
	w.want(i, invitation.StateOpen, "")
	anew := w.invite("Nord AG")
	if err := w.Keeper.SettleLogins(t.Context(), i.GrantID()); err != nil {
		t.Fatal(err)
	}
	w.want(i, invitation.StateCompleted, invitation.Completed)
	w.want(anew, invitation.StateOpen, "")
	if _, err := w.signIn(anew, "joe"); !errors.As(err, new(*keeper.OtherUserError)) {
		t.Errorf("another user: %v", err)
	}
	if w.user("Nord AG") != "jane" {
		t.Error("it is not in place")
	}
}

// leftBeforeTheFlip leaves of a sign-in what a process does that ends when the sign-in is
// certain to be put in place, and before it is.
func (w *inviting) leftBeforeTheFlip(i Invited, signIn *keeper.SignIn) {
	w.t.Helper()
	_, err := w.Invitations.Change(w.t.Context(), i.Key, func(i *invitation.Invitation) error {
		next := invitation.SignIn{Visit: invitation.Visit{User: "jane", At: w.stamp()}}
		if i.SignIn != nil {
			next = *i.SignIn
		}
		next.TokenVaultKey = signIn.TokenVaultKey()
		i.SignIn = &next
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	signIn.Close(w.t.Context())
}

// returned is a customer's sign-in up to there.
func (w *inviting) returned(i Invited) *keeper.SignIn {
	w.t.Helper()
	remembered, callback := w.comeBack(i, "jane")
	remembered.Company = i.Company
	signIn, err := w.Keeper.Resume(w.t.Context(), remembered)
	if err == nil {
		_, err = signIn.Finish(w.t.Context(), callback)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return signIn
}

// takenUp is what was held for the sender, up to there.
func (w *inviting) takenUp(i Invited) *keeper.SignIn {
	w.t.Helper()
	client, err := w.ClientFor(w.t.Context(), i.GrantID())
	if err != nil {
		w.t.Fatal(err)
	}
	text, err := w.Vault.Secret(w.t.Context(), "file", vault.HeldAccount(string(i.Key)))
	if err != nil {
		w.t.Fatal(err)
	}
	signIn, err := w.Keeper.Begin(w.t.Context(), keeper.Request{ID: i.GrantID(), Home: "file", Client: client, Lasts: pressLasts})
	if err == nil {
		_, err = signIn.TakeUp(w.t.Context(), text)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return signIn
}

// A completion that a process had no time to note stays one when the authorization is
// removed: the address is used up, and what the sender has decided is not asked again.
func TestCompletedStaysSo(t *testing.T) {
	w := newInviting(t)
	i := w.invite("Nord AG")
	w.leftBeforeTheFlip(i, w.returned(i))
	// jane is as good as in place for Nord AG: for Acme she is expected.
	if _, err := w.signIn(w.invite("Acme", func(r *InviteRequest) { r.ExpectUser = "jane" }), "jane"); err != nil {
		t.Fatal(err)
	}
	held := w.invite("Süd GmbH")
	if came, err := w.signIn(held, "jane"); err != nil || !came.Held {
		t.Fatalf("%+v, %v", came, err)
	}
	w.leftBeforeTheFlip(held, w.takenUp(held))
	for _, i := range []Invited{i, held} {
		if err := w.Keeper.SettleLogins(t.Context(), i.GrantID()); err != nil {
			t.Fatal(err)
		}
		w.want(i, invitation.StateCompleted, invitation.Completed)
		if err := w.Revoke(t.Context(), i.GrantID()); err != nil {
			t.Fatal(err)
		}
		w.want(i, invitation.StateCompleted, invitation.Completed)
	}
	w.wantNothingHeld()
}

// A rename between the invitation, the press and the return changes nothing.
func TestInvitationFollowsARename(t *testing.T) {
	w := newInviting(t)
	i := w.invite("Nord AG")
	rename := func(old, name string) {
		t.Helper()
		plan, err := w.PlanRename(t.Context(), old, name)
		if err == nil {
			err = w.Rename(t.Context(), plan.Old, plan.Grants, plan.New)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	rename("Nord AG", "Nord GmbH")
	remembered, callback := w.comeBack(i, "jane")
	rename("Nord GmbH", "Süd GmbH")
	came, err := w.Return(t.Context(), remembered, callback)
	if err != nil || came.Company != "Süd GmbH" || w.user("Süd GmbH") != "jane" || w.user("Nord GmbH") != "" {
		t.Errorf("%+v, %v", came, err)
	}
	w.want(i, invitation.StateCompleted, invitation.Completed)
}

func TestWhoCanNotBeInvited(t *testing.T) {
	w := newInviting(t)
	w.registerPublic("private", "other", "")
	w.registerPublic("astray", "third", "https://auth.agency.example/upsnot/callback")
	request := func(application string) InviteRequest {
		return InviteRequest{Target: Target{Company: "Nord AG", Application: application, Environment: "lab"}, Lasts: time.Hour}
	}
	for _, application := range []string{"private", "astray"} {
		var missing *PublicRedirectError
		if _, _, err := w.Invite(t.Context(), request(application)); !errors.As(err, &missing) || missing.Proposed != publicURL+"/callback" {
			t.Errorf("%s: %v", application, err)
		}
	}
	r := request("mine")
	for _, elsewhere := range []string{
		"https://shop.example/donenot", "https://shop.example/done/../account", "https://shop.example/done/%2E%2e/account", "https://shop.example/done/./x",
		"https://jane:pw@shop.example/done/x",
	} {
		if r.ReturnURL = elsewhere; !errors.As(onlyError(w.Invite(t.Context(), r)), new(*ReturnURLError)) {
			t.Errorf("a return URL of somebody else's is taken: %s", elsewhere)
		}
	}
	r = request("mine")
	r.Lasts = 365 * 24 * time.Hour
	if _, _, err := w.Invite(t.Context(), r); !errors.As(err, new(*invitation.LastingError)) {
		t.Errorf("a year: %v", err)
	}
	r = request("mine")
	r.Note = strings.Repeat("x", company.MaxDetail+1)
	if _, _, err := w.Invite(t.Context(), r); !errors.As(err, new(*invitation.DraftError)) {
		t.Errorf("a note that is too long: %v", err)
	}
	if known, err := w.Known(t.Context(), ""); err != nil || len(known.Records) > 0 {
		t.Errorf("somebody who was not invited is known: %+v, %v", known.Records, err)
	}
	r = request("mine")
	r.Company = " \u200b"
	if _, _, err := w.Invite(t.Context(), r); !errors.As(err, new(*NameError)) {
		t.Errorf("nobody: %v", err)
	}
	r = request("mine")
	r.Company = " Nord AG\t"
	if i, _, err := w.Invite(t.Context(), r); err != nil || i.Company != "Nord AG" {
		t.Fatalf("%q, %v", i.Company, err)
	}
	r = request("mine")
	r.Company = "Nord A G"
	if _, _, err := w.Invite(t.Context(), r); !errors.As(err, new(*NearNameError)) {
		t.Errorf("a name that is near: %v", err)
	}
	w.Config.Serve.PublicURL = ""
	if _, _, err := w.Invite(t.Context(), request("mine")); !errors.As(err, new(*NoPublicURLError)) {
		t.Errorf("without public_url: %v", err)
	}
}

func onlyError(_ Invited, _ string, err error) error { return err }

// What a browser sends is opened with this vault's key alone.
func TestPressesOfOthers(t *testing.T) {
	w, other := newInviting(t), newInviting(t)
	pressed, err := other.Press(t.Context(), other.invite("Nord AG"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "x", pressed.Sealed, pressed.Sealed[:20]} {
		if _, err := w.OpenPress(context.Background(), text); err == nil {
			t.Errorf("%q is opened", text)
		}
	}
	if _, err := w.Vault.Secret(t.Context(), "file", vault.InvitationKeyAccount); !errors.Is(err, vault.ErrNoItem) {
		t.Errorf("a stranger made the key: %v", err)
	}
	if err := w.ReadyForCustomers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Vault.Secret(t.Context(), "file", vault.InvitationKeyAccount); err != nil {
		t.Errorf("no key was made: %v", err)
	}
	var foreign *ForeignPressError
	if _, err := w.OpenPress(t.Context(), pressed.Sealed); !errors.As(err, &foreign) {
		t.Errorf("another vault's: %v", err)
	}
}

// A list says until when a customer is invited, and nothing of an invitation that has ended.
func TestListsSayUntilWhen(t *testing.T) {
	w := newInviting(t)
	w.registerPublic("other", "oid", publicURL+"/callback")
	w.grant("Acme", "mine", "lab")
	w.grant("Acme", "other", "lab")
	w.grant("Süd AG", "mine", "lab")
	until := func(company, application string) string {
		t.Helper()
		list, err := w.Known(t.Context(), "")
		if err == nil {
			err = w.MarkInvited(t.Context(), list.Records)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list.Records {
			if r.Company == company && r.Application == application && !r.InvitedUntil.IsZero() {
				return r.InvitedUntil.UTC().Format(time.RFC3339)
			}
		}
		return ""
	}
	want := func(company, application, want string) {
		t.Helper()
		if got := until(company, application); got != want {
			t.Errorf("%s, %s is invited until %q, not %q", company, application, got, want)
		}
	}
	at := func(i Invited) string { return i.Expires.UTC().Format(time.RFC3339) }
	want("Acme", "mine", "")
	fresh, again := w.invite("Nord AG"), w.invite("Acme")
	later := w.invite("Nord AG", func(r *InviteRequest) { r.Application, r.Lasts = "other", 8*24*time.Hour })
	want("Nord AG", "", at(later)) // no grant: one line for the company
	want("Acme", "mine", at(again))
	want("Acme", "other", "")
	want("Süd AG", "mine", "")
	if err := w.Withdraw(t.Context(), w.now(later)); err != nil {
		t.Fatal(err)
	}
	want("Nord AG", "", at(fresh))
	plan, err := w.PlanRename(t.Context(), "Nord AG", "West AG")
	if err == nil {
		err = w.Rename(t.Context(), plan.Old, plan.Grants, plan.New)
	}
	if err != nil {
		t.Fatal(err)
	}
	want("West AG", "", at(fresh))
	if err := w.Keeper.Revoke(t.Context(), again.GrantID()); err != nil {
		t.Fatal(err)
	}
	w.grant("Acme", "mine", "lab") // otherwise
	want("Acme", "mine", "")
	w.ahead += 7 * 24 * time.Hour
	want("West AG", "", "")
}

// Whatever takes away what an invitation hangs on ends the invitation for good, with the
// sign-in that waits for the sender.
// One user who comes back for two companies at the same instant stands for one of them at
// most before the sender says so.
func TestOneUserForTwoCompaniesAtOnce(t *testing.T) {
	w := newInviting(t)
	for n := range 12 {
		user := fmt.Sprint("user", n)
		var both sync.WaitGroup
		var came [2]Came
		var errs [2]error
		for k := range came {
			remembered, callback := w.comeBack(w.invite(fmt.Sprintf("Company %d of %s", k, user)), user)
			both.Go(func() { came[k], errs[k] = w.Return(t.Context(), remembered, callback) })
		}
		both.Wait()
		if err := errors.Join(errs[0], errs[1]); err != nil {
			t.Fatal(err)
		}
		if !came[0].Held && !came[1].Held {
			t.Errorf("%s stands for two companies unasked", user)
		}
	}
}

// A user who waits for the sender is not dropped by a new address: the sender decides first.
func TestNobodyIsInvitedWhileAUserWaits(t *testing.T) {
	w := newInviting(t)
	if _, err := w.signIn(w.invite("Acme"), "jane"); err != nil {
		t.Fatal(err)
	}
	i := w.invite("Nord AG")
	if came, err := w.signIn(i, "jane"); err != nil || !came.Held {
		t.Fatalf("%+v, %v", came, err)
	}
	again := InviteRequest{Target: Target{Company: i.Company, Application: i.Application, Environment: i.Environment}, Lasts: time.Hour}
	held := new(HeldError)
	if _, _, err := w.Invite(t.Context(), again); !errors.As(err, &held) || held.Invited.Key != i.Key {
		t.Fatalf("invited again: %v", err)
	}
	w.want(i, invitation.StateHeld, "")
	if err := w.Refuse(t.Context(), w.now(i)); err != nil {
		t.Fatal(err)
	}
	made, _, err := w.Invite(t.Context(), again)
	if err != nil || made.Earlier {
		t.Fatalf("%+v, %v", made, err)
	}
	if made, _, err = w.Invite(t.Context(), again); err != nil || !made.Earlier {
		t.Errorf("%+v, %v", made, err)
	}
}

func TestWhatEndsAnInvitationForGood(t *testing.T) {
	for name, test := range map[string]struct {
		happens func(*inviting, Invited) error
		why     invitation.Why
	}{
		"removed": {func(w *inviting, i Invited) error { return w.Forget(w.t.Context(), i.Company, nil, nil) }, invitation.CompanyRemoved},
		"authorized otherwise": {func(w *inviting, i Invited) error {
			client, err := w.publicClient(w.t.Context(), i.GrantID())
			if err != nil {
				return err
			}
			signIn, err := w.Keeper.Begin(w.t.Context(), keeper.Request{ID: i.GrantID(), Home: "file", Client: client, Lasts: time.Minute})
			if err != nil {
				return err
			}
			defer signIn.Close(w.t.Context())
			back, err := sandbox.Person{User: "max", Password: "pw"}.Callback(w.t.Context(), signIn.Address(signIn.State()))
			if err != nil {
				return err
			}
			u, err := url.Parse(back)
			if err != nil {
				return err
			}
			if _, err = signIn.Finish(w.t.Context(), grant.Callback{Code: u.Query().Get("code")}); err != nil {
				return err
			}
			_, err = signIn.Keep(w.t.Context())
			return err
		}, invitation.Overtaken},
		"another client ID": {func(w *inviting, _ Invited) error {
			r, err := w.FindApplication(w.t.Context(), "mine", "lab")
			if err == nil {
				r.ClientID = "another"
				_, err = w.RegisterApplication(w.t.Context(), r, "s3cret")
			}
			return err
		}, invitation.ClientChanged},
		"application removed": {func(w *inviting, _ Invited) error {
			err := w.UpdateApplications(w.t.Context(), func(a *config.Applications) { a.Remove("mine", "lab") })
			return errors.Join(err, w.SettleInvitations(w.t.Context()))
		}, invitation.ApplicationRemoved},
	} {
		t.Run(name, func(t *testing.T) {
			w := newInviting(t)
			if _, err := w.signIn(w.invite("Acme"), "jane"); err != nil {
				t.Fatal(err)
			}
			i := w.invite("Nord AG")
			if came, err := w.signIn(i, "jane"); err != nil || !came.Held {
				t.Fatalf("%+v, %v", came, err)
			}
			if err := test.happens(w, w.now(i)); err != nil {
				t.Fatal(err)
			}
			kept, err := w.Invitations.Get(t.Context(), i.Key)
			if err != nil || kept.End == nil || kept.End.Why != test.why {
				t.Errorf("%+v, %v", kept.End, err)
			}
			w.wantNothingHeld()
		})
	}
}

// Of two companies that become one, the invitation that was made last counts, and it alone
// is open also once another one is made.
func TestMergedCompaniesHaveOneInvitation(t *testing.T) {
	w := newInviting(t)
	if _, err := w.signIn(w.invite("Acme"), "jane"); err != nil {
		t.Fatal(err)
	}
	first := w.invite("Nord AG")
	if came, err := w.signIn(first, "jane"); err != nil || !came.Held {
		t.Fatalf("%+v, %v", came, err)
	}
	w.ahead += time.Minute
	second := w.invite("Süd AG")
	plan, err := w.PlanRename(t.Context(), "Nord AG", "Süd AG")
	if err == nil {
		err = w.Rename(t.Context(), plan.Old, plan.Grants, plan.New)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.want(first, invitation.StateEnded, invitation.Replaced)
	w.wantNothingHeld()
	w.want(second, invitation.StateOpen, "")
	third := w.invite("Süd AG")
	w.want(second, invitation.StateEnded, invitation.Replaced)
	if _, err := w.signIn(third, "max"); err != nil || w.user("Süd AG") != "max" {
		t.Errorf("%v, %s", err, w.user("Süd AG"))
	}
}

// A file of a company that can't be read for a while ends nothing.
func TestUnreadCompanyEndsNothing(t *testing.T) {
	w := newInviting(t)
	i := w.invite("Nord AG")
	paths, err := filepath.Glob(filepath.Join(w.dir, "state", "companies", "*.json"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("%q, %v", paths, err)
	}
	text, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	w.write(strings.TrimPrefix(paths[0], w.dir+"/"), "{")
	if i, err := w.InvitationOf(t.Context(), i.Key); err == nil {
		t.Errorf("%+v", i)
	}
	if err := w.SettleInvitations(t.Context()); err == nil {
		t.Error("it says nothing")
	}
	if list, problems, err := w.ListInvitations(t.Context(), Target{}); err != nil || len(list) != 0 || len(problems) != 1 {
		t.Errorf("%v, %v, %v", list, problems, err)
	}
	w.write(strings.TrimPrefix(paths[0], w.dir+"/"), string(text))
	w.want(i, invitation.StateOpen, "")
}

// Invitations that ended long ago are forgotten.
func TestOldInvitationsAreForgotten(t *testing.T) {
	w := newInviting(t)
	old := w.invite("Nord AG")
	sweep := func() {
		t.Helper()
		if err := w.SweepInvitations(t.Context()); err != nil {
			t.Error(err)
		}
	}
	w.ahead += (7 + 179) * 24 * time.Hour
	sweep()
	w.want(old, invitation.StateEnded, invitation.Expired)
	w.ahead += 2 * 24 * time.Hour
	sweep()
	if _, err := w.InvitationOf(t.Context(), old.Key); !errors.Is(err, invitation.ErrUnknown) {
		t.Errorf("it is known: %v", err)
	}
}

// A damaged file is told of, and is not taken for an invitation that there is not, or that
// another one has replaced.
func TestDamagedInvitationIsNoMissingOne(t *testing.T) {
	for _, ending := range []string{"json", "latest"} {
		t.Run(ending, func(t *testing.T) {
			w := newInviting(t)
			i := w.invite("Nord AG")
			path, err := filepath.Glob(filepath.Join(w.dir, "state", "invitations", "*."+ending))
			if err != nil || len(path) != 1 {
				t.Fatalf("%q, %v", path, err)
			}
			w.write(strings.TrimPrefix(path[0], w.dir+"/"), "{")
			other := w.invite("Acme")
			var damaged *invitation.FileError
			if _, err := w.InvitationOf(t.Context(), i.Key); !errors.As(err, &damaged) || !damaged.Damaged || damaged.Path != path[0] {
				t.Errorf("by its address: %v", err)
			}
			if _, err := w.FindInvitation(t.Context(), i.ID); !errors.As(err, &damaged) || errors.Is(err, invitation.ErrUnknown) {
				t.Errorf("by its ID: %v", err)
			}
			list, problems, err := w.ListInvitations(t.Context(), Target{})
			if err != nil || len(list) != 1 || list[0].Key != other.Key || len(problems) != 1 {
				t.Errorf("%v, %v, %v", list, problems, err)
			}
			w.want(other, invitation.StateOpen, "")
		})
	}
}

// A damaged key of the cookies is made anew.
func TestDamagedKeyOfCookies(t *testing.T) {
	w := newInviting(t)
	i := w.invite("Nord AG")
	for _, text := range []string{"", "no key"} {
		if err := w.Vault.PutSecret(t.Context(), "file", vault.InvitationKeyAccount, text); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Press(t.Context(), w.now(i)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := w.signIn(i, "jane"); err != nil {
		t.Error(err)
	}
}
