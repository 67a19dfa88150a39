package checkup

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

// Guards against: an address that customers were sent and that leads nowhere; a customer who
// signed in and of whom nobody hears; a sign-in that is removed because its invitation could
// not be read.

// hold makes an invitation whose sign-in waits in the file vault.
func (w *world) hold(company string) session.Invited {
	w.t.Helper()
	ctx, now := w.t.Context(), time.Now()
	id, err := w.Companies.Identify(ctx, company, now)
	if err != nil {
		w.t.Fatal(err)
	}
	_, secret, err := w.Invitations.Make(ctx, invitation.Draft{CompanyID: id, Company: company, Application: "mine", Environment: "lab", ClientID: "cid", Lasts: time.Hour}, now)
	if err != nil {
		w.t.Fatal(err)
	}
	key, _ := invitation.KeyOf(secret)
	if err := w.Vault.PutSecret(ctx, "file", vault.HeldAccount(string(key)), "what UPS granted"); err != nil {
		w.t.Fatal(err)
	}
	made, err := w.Invitations.Change(ctx, key, func(i *invitation.Invitation) error {
		i.SignIn = &invitation.SignIn{Visit: invitation.Visit{User: "jane", At: now}, TokenVaultKey: "TVK", Home: "file", Held: true}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return session.Invited{Invitation: made, Key: key}
}

func (w *world) hasItem(account string) bool {
	w.t.Helper()
	_, err := w.Vault.Secret(w.t.Context(), "file", account)
	return err == nil
}

func TestPublicFace(t *testing.T) {
	w := newWorld(t)
	w.register()
	for _, f := range w.machine(Options{}) {
		if f.Check == "invitations" {
			t.Errorf("nobody invites, and it says %+v", f)
		}
	}
	header := session.PublicFace
	front := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) {
		out.Header().Set(session.FaceHeader, header)
		out.WriteHeader(http.StatusNotFound)
	}))
	defer front.Close()
	w.write("config/config.toml", fmt.Sprintf("[environments.lab]\nbase_url = %q\n[serve]\npublic_url = %q\n", w.server.URL, front.URL))
	w.open()
	w.wants(w.machine(Options{}), want{OK, "invitations", 0, front.URL + " answers", ""},
		want{Warning, "invitations", 0, "The customers' pages do not say who invites, or whom to ask", "Set from and contact under [serve]"},
		want{Warning, "invitations", 0, "Mine (lab) has no public redirect URI", "add this Callback URL: " + front.URL + "/callback"})
	register := func(uri string) {
		t.Helper()
		if err := w.UpdateApplications(t.Context(), func(a *config.Applications) { a.Applications[0].PublicRedirectURI = uri }); err != nil {
			t.Fatal(err)
		}
	}
	register("http://localhost:1/callback")
	w.wants(w.machine(Options{}), want{Warning, "invitations", 0, "which is not below public_url", "add this Callback URL"})
	register(front.URL + "/callback")
	header = "another's"
	found := w.machine(Options{})
	w.wants(found, want{Warning, "invitations", 0, "is not the service that customers need (HTTP 404)", "the proxy brings public_url there"})
	for _, f := range found {
		if f.Check == "invitations" && f.Level != Warning {
			t.Errorf("it says %+v", f)
		}
	}
	front.Close()
	w.wants(w.machine(Options{}), want{Warning, "invitations", 0, "Nothing answers at public_url " + front.URL, "the proxy brings public_url there"})
}

func TestSignInsThatWait(t *testing.T) {
	w := newWorld(t)
	w.register()
	i := w.hold("Nord AG")
	account := vault.HeldAccount(string(i.Key))
	w.wants(w.machine(Options{}), want{Warning, "invitations", 0, "Nord AG (mine, lab): the sign-in of jane waits for your answer", "Confirm or refuse the user."})
	w.wants(w.vault(Options{}), want{OK, "invitations", 0, "1 of 1 sign-in to be confirmed found", ""})

	// The secret alone is lost.
	if err := w.Vault.DeleteSecret(t.Context(), "file", account); err != nil {
		t.Fatal(err)
	}
	gone := want{Failure, "invitations", explain.Vault, "the sign-in of the invitation " + i.ID + " for Nord AG (mine, lab) is not in the file vault any more", "Then invite the customer again."}
	gone.what = "T" + gone.what[1:]
	w.wants(w.machine(Options{}), gone)
	w.wants(w.vault(Options{}), gone)
	if err := w.Refuse(t.Context(), i); err != nil {
		t.Errorf("it can't be refused: %v", err)
	}

	// An item of an invitation that has ended, one of none, and one of what can't be read.
	unread := w.hold("West AG")
	w.write("state/invitations/"+string(unread.Key)+".json", "{")
	for _, account := range []string{account, "held/nobody"} {
		if err := w.Vault.PutSecret(t.Context(), "file", account, "x"); err != nil {
			t.Fatal(err)
		}
	}
	repair := Options{Repair: func(context.Context, Question) error { return nil }}
	found := w.vault(repair)
	w.wants(found, want{Failure, "invitations", explain.Failed, "can't be used: it is damaged", "Then invite the customer again"})
	if !w.hasItem(account) || !w.hasItem(vault.HeldAccount(string(unread.Key))) {
		t.Error("an item is removed although not all invitations could be read")
	}
	w.remove("state/invitations/" + string(unread.Key) + ".*")
	for _, account := range []string{account, "held/nobody", vault.HeldAccount(string(unread.Key))} {
		w.wants(w.vault(Options{}), want{Warning, "leftovers", 0, "a customer's sign-in under " + account + " that belongs to no invitation", "Repair the vault."})
		if !w.hasItem(account) {
			t.Errorf("%s is removed, and nobody asked for it", account)
		}
	}
	w.wants(w.vault(repair), want{OK, "repaired", 0, "Removed the sign-in under held/nobody from the file vault", ""})
	for _, account := range []string{account, "held/nobody", vault.HeldAccount(string(unread.Key))} {
		if w.hasItem(account) {
			t.Errorf("%s is left", account)
		}
	}
	if found := w.vault(Options{}); worstOf(found) != OK {
		t.Errorf("after the repair:\n%s", listed(found))
	}

	// One that is just being put there, by a sign-in that is under way, is none.
	busy := w.hold("Süd AG")
	if _, err := w.Invitations.Change(t.Context(), busy.Key, func(i *invitation.Invitation) error { i.SignIn = nil; return nil }); err != nil {
		t.Fatal(err)
	}
	unlock, err := w.Vault.LockLogin(t.Context(), "Süd AG")
	if err != nil {
		t.Fatal(err)
	}
	w.vault(repair)
	if !w.hasItem(vault.HeldAccount(string(busy.Key))) {
		t.Error("it is removed while it is put there")
	}
	unlock()
	w.vault(repair)
	if w.hasItem(vault.HeldAccount(string(busy.Key))) {
		t.Error("it is left")
	}
}

// A process that ended before anybody confirmed the user has left what nobody may use: that
// it is removed is no failure.
func TestCutOffBeforeAnybodyConfirmed(t *testing.T) {
	w := newWorld(t)
	w.register()
	id := grant.ID{Company: "Nord AG", Application: "mine", Environment: "lab"}
	if _, err := w.Companies.Identify(t.Context(), id.Company, time.Now()); err != nil {
		t.Fatal(err)
	}
	client, err := w.ClientFor(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	signIn, err := w.Keeper.Begin(t.Context(), keeper.Request{ID: id, Home: "file", Client: client, Lasts: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := json.Marshal(ups.Answer{
		Endpoint: ups.TokenEndpoint, Requested: time.Now().UTC(), Status: http.StatusOK,
		Body: []byte(`{"token_type":"Bearer","access_token":"a","expires_in":"3599","refresh_token":"r","refresh_token_expires_in":"5183999","username":"jane"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signIn.TakeUp(t.Context(), string(answer)); err != nil {
		t.Fatal(err)
	}
	signIn.MarkUnconfirmed(t.Context())
	signIn.Close(t.Context())
	found := w.vault(Options{})
	w.wants(found, want{OK, "interrupted", 0, "Nord AG (mine, lab): what a sign-in had left that was cut off is removed", ""})
	if worstOf(found) != OK {
		t.Errorf("\n%s", listed(found))
	}
}
