package session

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// HandOver is a move of all that this machine has to the vault that hosts share, or back.
type HandOver struct {
	From, To *Session
	// Home is where the secrets go.
	Home string
	// Told, where set, is called with each grant and each application that was moved, or with
	// why it was not.
	Told func(Copied)

	local, shared *Session
	there         vault.Journey // from this machine to the shared vault
	back          vault.Journey
}

// Ground is what is to be known of a database that a vault is moved to or from.
type Ground struct {
	postgres.State
	Host ledger.Self // this host, as the database knows it
}

// MoveBusyError says that another process moves the vault.
type MoveBusyError struct{ PID int }

func (e *MoveBusyError) Error() string {
	if e.PID == 0 {
		return "another process is moving the vault right now"
	}
	return fmt.Sprintf("another process is moving the vault right now (process %d)", e.PID)
}

// OtherApplicationError says that both vaults have an application of a name, and that the two
// are not the same.
type OtherApplicationError struct{ Application, Environment, What string }

func (e *OtherApplicationError) Error() string {
	return fmt.Sprintf("the application %s is in both vaults, with another %s in each", named(e.Application, e.Environment), e.What)
}

// OpenHandOver opens both vaults, whichever is configured. The caller closes the move.
func OpenHandOver(o Options, to string) (*HandOver, error) {
	getenv := o.Getenv
	with := func(home string) Options {
		o := o
		o.Getenv = func(name string) string {
			if name == config.EnvVault {
				return home
			}
			return getenv(name)
		}
		return o
	}
	o.Passphrase = once(o.Passphrase)
	local := to
	if to == config.HomeShared {
		loaded, err := config.Load(getenv)
		if err != nil {
			return nil, err
		}
		if local = loaded.Vault; local == config.HomeShared {
			local = "keychain" // nothing new is put there
		}
	}
	h := &HandOver{Home: to}
	var err error
	if h.local, err = Open(with(local)); err != nil {
		return nil, err
	}
	if h.shared, err = Open(with(config.HomeShared)); err != nil {
		h.local.Close()
		return nil, err
	}
	h.From, h.To = h.shared, h.local
	if to == config.HomeShared {
		h.From, h.To = h.local, h.shared
	}
	return h, nil
}

// once asks a person once for the passphrase that opens both vaults.
func once(ask func(context.Context, string, bool) (string, error)) func(context.Context, string, bool) (string, error) {
	known := map[string]string{}
	return func(ctx context.Context, identity string, fresh bool) (string, error) {
		if said, ok := known[identity]; ok {
			delete(known, identity) // where it is wrong, it is asked for again
			return said, nil
		}
		said, err := ask(ctx, identity, fresh)
		if err == nil {
			known[identity] = said
		}
		return said, err
	}
}

// Close ends both sessions.
func (h *HandOver) Close() {
	h.local.Close()
	h.shared.Close()
}

// Prepare makes the tables what they have to be, where the role may, and shows that the
// database can say who it is and takes a claim: before anything is moved. What it returns of
// the ground is known, beside an error too.
func (h *HandOver) Prepare(ctx context.Context) (g Ground, err error) {
	db, err := h.shared.Database()
	if err != nil {
		return g, err
	}
	if err := db.Migrate(ctx, ""); err != nil {
		return g, err
	}
	if g.State, err = db.Look(ctx); err != nil {
		return g, err
	}
	if err := g.State.Check(); err != nil {
		return g, err
	}
	if err := h.shared.Shared.Rehearse(ctx); err != nil {
		return g, err
	}
	// The identity, before any lock is taken.
	id, err := h.shared.Shared.Vault(ctx)
	if err != nil {
		return g, err
	}
	if g.Host, err = h.shared.Shared.Self(ctx); err != nil {
		return g, err
	}
	now := h.local.Now().UTC() // of both ends of a move, so that it tells them from all others
	shared := grant.Moved{Home: config.HomeShared, Vault: id, At: now}
	here := grant.Moved{Home: h.Home, Vault: g.Host.ID, Host: h.shared.Config.Shared.Host, At: now}
	h.there = vault.Journey{From: here, To: shared, Home: config.HomeShared}
	h.back = vault.Journey{From: shared, To: here, Home: h.Home}
	if h.To == h.shared {
		h.there.From.Home, h.back.To.Home = h.local.Config.Vault, h.local.Config.Vault
	}
	return g, h.admitted(ctx)
}

// admitted refuses to move anything while the database changed hands, or where this host may
// not spend what it would move.
func (h *HandOver) admitted(ctx context.Context) error {
	hosts, err := h.shared.Hosts(ctx)
	if err != nil {
		return err
	}
	var waiting []string
	for _, host := range hosts.Awaited() {
		waiting = append(waiting, host.Name)
	}
	if len(waiting) > 0 {
		return &ledger.FrozenError{Epoch: hosts.Epoch, Waiting: waiting}
	}
	for _, host := range hosts.Hosts {
		switch {
		case !host.Here:
		case host.State == HostToAccept:
			return &ledger.HostError{Host: host.ID, Name: host.Name, Reason: ledger.Alone}
		case host.State == HostRemoved:
			return &ledger.HostError{Host: host.ID, Name: host.Name, Reason: ledger.RemovedHost}
		}
	}
	return nil
}

// Run moves all there is, and finishes what an earlier move left. More, where set, is called
// once all grants are moved, before the applications go. Left is how many grants stayed. Nothing
// but grants is removed from the old vault while there is one of those.
func (h *HandOver) Run(ctx context.Context, more func(context.Context) error) (left int, err error) {
	release, held, holder, err := h.local.Disk.Lock(ctx, "move", false)
	if err != nil {
		return 0, &vault.LockError{Of: "the move of the vault", Err: err}
	}
	if held {
		return 0, &MoveBusyError{PID: holder}
	}
	defer release()
	forth, reverse := h.there, h.back
	if h.To == h.local {
		forth, reverse = h.back, h.there
	}
	h.From.FinishRemovals(ctx)
	h.To.FinishRemovals(ctx)
	// Of a move the other way nothing is left lying, whether it had begun or had all but ended.
	if _, err := h.To.Vault.FinishHandOver(ctx, h.From.Vault, reverse, true); err != nil {
		return 0, err
	}
	finished, problems := h.From.Vault.FinishHandOver(ctx, h.To.Vault, forth, false)
	for _, id := range finished {
		h.told(Copied{ID: id, Home: h.Home})
	}
	if problems != nil {
		return 0, problems
	}
	records, problems2, err := h.From.Vault.List(ctx, "")
	if err != nil {
		return 0, err
	}
	for _, problem := range problems2 {
		if !errors.As(problem, new(*vault.MovedError)) {
			left++ // it may be a grant
			h.told(Copied{Err: problem})
		}
	}
	if err := h.open(ctx, records); err != nil {
		return len(records), err
	}
	if err := h.copyApplications(ctx); err != nil {
		return len(records), err
	}
	if err := h.From.Companies.CopyTo(ctx, h.To.Companies); err != nil {
		return len(records), err
	}
	for _, r := range records {
		if ctx.Err() != nil {
			return len(records), ctx.Err()
		}
		err := h.one(ctx, r.ID, forth)
		if err != nil {
			left++
		}
		h.told(Copied{ID: r.ID, Home: h.Home, Err: err})
	}
	if left > 0 {
		return left, nil
	}
	return 0, h.rest(ctx, more)
}

func (h *HandOver) told(c Copied) {
	if h.Told != nil {
		h.Told(c)
	}
}

// open makes all homes ready that have a part in it, before any lock.
func (h *HandOver) open(ctx context.Context, records []grant.Record) error {
	applications, err := h.From.Applications(ctx)
	if err != nil {
		return err
	}
	for _, home := range HomesOf(records, applications.Applications) {
		if err := h.From.Vault.Open(ctx, home); err != nil {
			return err
		}
	}
	if h.To == h.local && len(records)+len(applications.Applications) > 0 {
		return h.To.Prove(ctx, h.Home)
	}
	return h.To.Vault.Make(ctx, h.Home)
}

// one moves a grant, and again where somebody else changed it meanwhile.
func (h *HandOver) one(ctx context.Context, id grant.ID, j vault.Journey) (err error) {
	for range maxTries {
		err = h.From.Keeper.Settled(ctx, id, func(g grant.Grant) error {
			unlock, err := h.To.Vault.Lock(ctx, id)
			if err != nil {
				return err
			}
			defer unlock()
			// From here on it is a matter of moments, and nothing is to be left half done.
			return h.From.Vault.HandOver(context.WithoutCancel(ctx), g, h.To.Vault, j)
		})
		if !errors.Is(err, grant.ErrConflict) {
			break
		}
	}
	if err == nil {
		h.To.Note(ctx, grant.EventMoved, id, "to the "+j.To.String())
	}
	return err
}

// copyApplications registers the applications in the new vault, each with its client secret,
// so that every grant that arrives can be refreshed at once.
func (h *HandOver) copyApplications(ctx context.Context) error {
	here, err := h.From.Applications(ctx)
	if err != nil {
		return err
	}
	there, err := h.To.Applications(ctx)
	if err != nil {
		return err
	}
	secrets := make([]string, len(here.Applications))
	for i, r := range here.Applications {
		if secrets[i], err = h.From.StoredSecret(ctx, r); err != nil {
			return err
		}
		found := there.Find(r.Name, r.Environment)
		if len(found) == 0 {
			continue
		}
		if found[0].ClientID != r.ClientID {
			return &OtherApplicationError{Application: r.Name, Environment: r.Environment, What: "client ID"}
		}
		secret, err := h.To.StoredSecret(ctx, found[0])
		if err == nil && subtle.ConstantTimeCompare([]byte(secret), []byte(secrets[i])) != 1 {
			return &OtherApplicationError{Application: r.Name, Environment: r.Environment, What: "client secret"}
		}
		if err != nil && !errors.As(err, new(*SecretGoneError)) {
			return err
		}
	}
	for i, r := range here.Applications {
		found := there.Find(r.Name, r.Environment)
		if len(found) == 1 {
			if _, err := h.To.StoredSecret(ctx, found[0]); err == nil {
				continue
			}
		}
		r.Home, r.LeftIn, r.Fresh = h.Home, "", false
		end, err := h.To.AnnounceNewSecret(ctx, r)
		if err != nil {
			return err
		}
		err = end(h.To.EditApplications(ctx, func(a *config.Applications, save func() error) error {
			return h.To.AddSecret(ctx, a, save, r, secrets[i])
		}))
		if err != nil {
			return err
		}
		h.told(Copied{ID: grant.ID{Application: r.Name, Environment: r.Environment}, Home: h.Home})
	}
	if here.Default == nil || there.Default != nil {
		return nil
	}
	return h.To.UpdateApplications(ctx, func(a *config.Applications) {
		if a.Default == nil {
			d := *here.Default
			a.Default = &d
		}
	})
}

// rest moves what is no grant. Each is in the new vault before it goes from the old one.
func (h *HandOver) rest(ctx context.Context, more func(context.Context) error) error {
	if err := h.From.Companies.MoveTo(ctx, h.To.Companies); err != nil {
		return err
	}
	if err := h.moveSealingKey(ctx); err != nil {
		return err
	}
	held := map[string]string{} // where the secrets of sign-ins were, by their accounts
	err := h.From.Invitations.MoveTo(ctx, h.To.Invitations, func(key invitation.Key, i *invitation.Invitation) error {
		if i.SignIn == nil || !i.SignIn.Held || i.End != nil {
			return nil
		}
		account := vault.HeldAccount(string(key))
		held[account] = i.SignIn.Home
		return h.copyHeld(ctx, account, i)
	})
	if err != nil {
		return err
	}
	for account, home := range held {
		if err := h.From.Vault.DeleteSecret(ctx, home, account); err != nil && !errors.Is(err, vault.ErrNoItem) {
			return err
		}
	}
	if more != nil {
		if err := more(ctx); err != nil {
			return err
		}
	}
	return h.dropApplications(ctx)
}

// copyHeld copies a sign-in that waits to be confirmed, and says so in its invitation. One that
// is lost is told to whoever confirms it.
func (h *HandOver) copyHeld(ctx context.Context, account string, i *invitation.Invitation) error {
	text, err := h.From.Vault.Secret(ctx, i.SignIn.Home, account)
	switch {
	case err == nil:
		err = h.To.Vault.PutSecret(ctx, h.Home, account, text)
	case errors.Is(err, vault.ErrNoItem):
		err = nil
	}
	if err != nil {
		return err
	}
	moved := *i.SignIn
	moved.Home = h.Home
	i.SignIn = &moved
	return nil
}

// moveSealingKey copies the key that seals what the browsers of customers keep, so that those
// who are at ups.com now find their way back.
func (h *HandOver) moveSealingKey(ctx context.Context) error {
	from := h.From.Config.Vault
	text, err := h.From.Vault.Secret(ctx, from, vault.InvitationKeyAccount)
	if err != nil {
		return nil //nolint:nilerr // there is none most often; without it they press once more
	}
	if _, err := h.To.Vault.Secret(ctx, h.Home, vault.InvitationKeyAccount); errors.Is(err, vault.ErrNoItem) {
		if err := h.To.Vault.PutSecret(ctx, h.Home, vault.InvitationKeyAccount, text); err != nil {
			return err
		}
	}
	if err := h.From.Vault.DeleteSecret(ctx, from, vault.InvitationKeyAccount); err != nil && !errors.Is(err, vault.ErrNoItem) {
		return err
	}
	return nil
}

// dropApplications removes what copyApplications has copied, the registration last: it tells
// where the secret is.
func (h *HandOver) dropApplications(ctx context.Context) error {
	here, err := h.From.Applications(ctx)
	if err != nil {
		return err
	}
	there, err := h.To.Applications(ctx)
	if err != nil {
		return err
	}
	for _, r := range here.Applications {
		if found := there.Find(r.Name, r.Environment); len(found) != 1 || found[0].ClientID != r.ClientID {
			return &OtherApplicationError{Application: r.Name, Environment: r.Environment, What: "client ID"}
		}
	}
	for _, r := range here.Applications {
		if err := h.dropApplication(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

func (h *HandOver) dropApplication(ctx context.Context, r config.Registration) error {
	end, err := h.From.AnnounceSecret(ctx, r, r.SecretAccount())
	if err != nil {
		return err
	}
	return end(h.From.EditApplications(ctx, func(a *config.Applications, save func() error) error {
		a.Remove(r.Name, r.Environment)
		if err := save(); err != nil {
			return err
		}
		if err := h.From.Vault.DeleteSecret(ctx, r.Home, r.SecretAccount()); err != nil && !errors.Is(err, vault.ErrNoItem) {
			return err
		}
		return nil
	}))
}
