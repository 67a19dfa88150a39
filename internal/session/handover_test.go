package session

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/postgrestest"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
	"github.com/upsauth/upsauth/internal/vault/vaulttest"
)

// handOver opens a move of the world's vault, with a database beside it.
func (w *world) handOver(server *postgrestest.Server, to string) *HandOver {
	w.t.Helper()
	o := w.options
	getenv := o.Getenv
	o.Getenv = func(name string) string {
		if name == config.EnvDatabaseURL {
			return server.SocketURL(postgres.Role, "postgres")
		}
		return getenv(name)
	}
	h, err := OpenHandOver(o, to)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(h.Close)
	return h
}

func database(t *testing.T) *postgrestest.Server {
	t.Helper()
	server := postgrestest.Start(t, postgrestest.Options{Hasty: true})
	if err := server.Restore("postgres", []byte(postgres.Schema(postgres.Role))); err != nil {
		t.Fatal(err)
	}
	return server
}

// Everything that belongs to a vault comes along, there and back, each thing once, and nothing
// secret is left behind.
func TestHandOverTakesEverythingAlong(t *testing.T) {
	w := newWorld(t)
	server := database(t)
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	acme := grant.ID{Company: "Acme Corp", Application: "mine", Environment: "lab"}
	_, err := w.RegisterApplication(ctx, config.Registration{Name: "mine", Environment: "lab", ClientID: "cid", RedirectURI: "http://localhost:0/cb"}, "s3cret")
	check(err)
	check(w.UpdateApplications(ctx, func(a *config.Applications) { a.Default = &config.Default{Application: "mine", Environment: "lab"} }))
	g := vaulttest.GrantOf(acme, "AAAAAAAA-3C21-4F7E-B122-8BF55EA80CDA", 3)
	g.Home, g.Void = "file", true
	vaulttest.Authorize(t, w.Vault, g)
	check(w.Vault.Note(ctx, acme, func(l *grant.Local) { l.Void = true }))
	_, err = w.Companies.Describe(ctx, acme.Company, time.Now(), func(d *company.Details) { d.Contact = "ring Jane" })
	check(err)
	check(w.ReadyForCustomers(ctx))
	sealing, err := w.sealingKey(ctx, false)
	check(err)
	_, secret, err := w.Invitations.Make(ctx, invitation.Draft{CompanyID: "6f1c", Company: "Nord AG", Application: "mine", Environment: "lab", ClientID: "cid", Lasts: time.Hour}, time.Now())
	check(err)
	key, _ := invitation.KeyOf(secret)
	account := vault.HeldAccount(string(key))
	check(w.Vault.PutSecret(ctx, "file", account, "what UPS granted"))
	_, err = w.Invitations.Change(ctx, key, func(i *invitation.Invitation) error {
		i.SignIn = &invitation.SignIn{Visit: invitation.Visit{User: "jane", At: time.Now().UTC()}, TokenVaultKey: "BBBBBBBB-3C21-4F7E-B122-8BF55EA80CDA", Home: "file", Held: true}
		return nil
	})
	check(err)

	for _, to := range []string{"shared", "file", "shared"} {
		h := w.handOver(server, to)
		ground, err := h.Prepare(ctx)
		if err != nil || ground.Version != postgres.SchemaVersion || ground.Host.ID == "" {
			t.Fatalf("to %s: %+v, %v", to, ground, err)
		}
		var told []Copied
		h.Told = func(c Copied) { told = append(told, c) }
		more := 0
		left, err := h.Run(ctx, func(context.Context) error { more++; return nil })
		if err != nil || left != 0 || more != 1 || len(told) != 2 {
			t.Fatalf("to %s: %d left, %d more, %+v, %v", to, left, more, told, err)
		}
		here, gone := h.To, h.From
		got, err := here.Vault.Get(ctx, acme)
		check(err)
		vaulttest.WantWhole(t, got)
		if !got.Void {
			t.Errorf("to %s: it is not void any more", to)
		}
		a, err := here.Applications(ctx)
		if err != nil || len(a.Applications) != 1 || a.Default == nil {
			t.Fatalf("to %s: the applications are %+v, %v", to, a, err)
		}
		if secret, err := here.StoredSecret(ctx, a.Applications[0]); err != nil || secret != "s3cret" {
			t.Errorf("to %s: the client secret is %q, %v", to, secret, err)
		}
		if list, _, err := here.Companies.List(ctx, acme.Company); err != nil || len(list) != 1 || list[0].Contact != "ring Jane" {
			t.Errorf("to %s: the company is %+v, %v", to, list, err)
		}
		if events, err := here.Companies.History(ctx, acme.Company); err != nil || !slices.ContainsFunc(events, func(e grant.Event) bool { return e.What == grant.EventMoved }) {
			t.Errorf("to %s: the history is %+v, %v", to, events, err)
		}
		if again, err := here.sealingKey(ctx, false); err != nil || !slices.Equal(again, sealing) {
			t.Errorf("to %s: the key of the browsers: %v", to, err)
		}
		i, err := here.InvitationOf(ctx, key)
		if err != nil || i.SignIn == nil || i.SignIn.Home != to {
			t.Fatalf("to %s: the invitation is %+v, %v", to, i, err)
		}
		if text, err := here.Vault.Secret(ctx, to, account); err != nil || text != "what UPS granted" {
			t.Errorf("to %s: what waits is %q, %v", to, text, err)
		}

		if _, err := gone.Vault.Get(ctx, acme); !errors.As(err, new(*vault.MovedError)) {
			t.Errorf("from where it left to %s: %v", to, err)
		}
		if a, err := gone.Applications(ctx); err != nil || len(a.Applications) > 0 || a.Default != nil {
			t.Errorf("after the move to %s applications are left: %+v, %v", to, a, err)
		}
		if list, problems, err := gone.Companies.List(ctx, ""); err != nil || len(list)+len(problems) > 0 {
			t.Errorf("after the move to %s companies are left: %v, %v, %v", to, list, problems, err)
		}
		l := gone.Vault.ListHomes(ctx, "file", "shared")
		if len(l.Problems) > 0 || !l.Accounted(nil) || len(l.Secrets())+len(l.Held()) > 0 {
			t.Errorf("after the move to %s secrets are left: %+v", to, l)
		}
		check(here.Vault.Check(ctx, acme))
		h.Close()
	}
}

// Two applications of a name that are not the same are no reason to lose one: nothing moves.
func TestHandOverOfAnotherApplication(t *testing.T) {
	w := newWorld(t)
	server := database(t)
	ctx := t.Context()
	r := config.Registration{Name: "mine", Environment: "lab", ClientID: "cid", RedirectURI: "http://localhost:0/cb"}
	if _, err := w.RegisterApplication(ctx, r, "s3cret"); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"client ID", "client secret"} {
		h := w.handOver(server, "shared")
		if _, err := h.Prepare(ctx); err != nil {
			t.Fatal(err)
		}
		other, secret := r, "another"
		if what == "client ID" {
			other.ClientID = "other"
		}
		if _, err := h.To.RegisterApplication(ctx, other, secret); err != nil {
			t.Fatal(err)
		}
		_, err := h.Run(ctx, nil)
		if differs := new(OtherApplicationError); !errors.As(err, &differs) || differs.What != what {
			t.Errorf("another %s: %v", what, err)
		}
		if a, err := w.Applications(ctx); err != nil || len(a.Applications) != 1 {
			t.Errorf("another %s: there is %+v, %v", what, a, err)
		}
	}
}

// One move at a time, and none while the database changed hands or this host may not spend.
func TestHandOverWaitsForOthers(t *testing.T) {
	w := newWorld(t)
	server := database(t)
	ctx := t.Context()
	h := w.handOver(server, "shared")
	if _, err := h.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	release, _, _, err := w.Disk.Lock(ctx, "move", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Run(ctx, nil); !errors.As(err, new(*MoveBusyError)) {
		t.Errorf("beside another move: %v", err)
	}
	release()
	for _, statement := range []string{
		"INSERT INTO upsauth.hosts (id, name, machine, epoch) VALUES ('other', 'web-2', 'm', 0)",
		"UPDATE upsauth.hosts SET removed = now()",
	} {
		if _, err := server.SQL("postgres", statement); err != nil {
			t.Fatal(err)
		}
		_, err := w.handOver(server, "shared").Prepare(ctx)
		if !errors.As(err, new(*ledger.FrozenError)) && !errors.As(err, new(*ledger.HostError)) {
			t.Errorf("%s: %v", statement, err)
		}
	}
}
