package checkup

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// Machine looks at everything: the settings, the applications, the vault, the callback
// ports, the grants and the way to UPS. It makes nothing anew that is lost, and asks
// nobody. Its error is that of the context alone.
//
// Only one look at a vault should be made at a time: another would find what this one
// writes to try the vault, and tell of it as leftovers.
func Machine(ctx context.Context, s *session.Session, o Options) ([]Finding, error) {
	o.Repair = nil
	m := &machine{look: look{s: s, o: o}}
	m.ok("configuration", "%s, %s", s.Config.Paths.Config, s.Config.Paths.State)
	m.permissions()
	m.database(ctx)
	var err error
	if m.applications, err = s.Applications(ctx); err != nil {
		m.unread = true
		m.fail("applications", err)
	}
	if m.state() {
		m.ok("state", "locks, journals and records can be written in %s", s.Config.Paths.State)
		m.leftovers(ctx)
	}
	if m.survey, err = s.Vault.Survey(ctx, ""); err != nil {
		m.fail("records", err)
	}
	m.vault(ctx)
	m.registrations(ctx)
	m.invitations(ctx)
	if o.Face != nil {
		m.found = append(m.found, o.Face()...)
	}
	m.grants(ctx)
	m.environments(ctx)
	return m.found, ctx.Err()
}

// machine looks at one thing after another.
type machine struct {
	look
	survey       vault.Survey
	applications config.Applications
	unread       bool // which applications there are is not known
	// unsealed says that hosts share a database in which no secret is yet.
	unsealed bool
}

// permissions looks who else can read what opens secrets. Who else can change
// what upsauth goes by is looked at before every command.
func (m *machine) permissions() {
	bad := false
	dir := filepath.Join(m.s.Config.Paths.State, "vault")
	places := m.s.Places
	refusals := []error{places.CheckSecret(dir), places.CheckSecret(filepath.Join(dir, "identity.age"))}
	if m.s.Config.Identity != "" {
		refusals = append(refusals, places.CheckSecret(m.s.Config.Identity))
	}
	if path := m.s.Getenv(config.EnvPassphraseFile); path != "" {
		refusals = append(refusals, places.CheckSecret(path))
	}
	for _, err := range refusals {
		if err != nil {
			bad = true
			m.failAs(explain.Vault, "permissions", "", err, nil)
		}
	}
	if !bad {
		m.ok("permissions", "nobody else can change the configuration or read what opens secrets")
	}
}

func (m *machine) registrations(ctx context.Context) {
	if len(m.applications.Applications) == 0 && !m.unread {
		m.warn("applications", "no application is registered", act("[Run: {}]", explain.RegisterFirst, grant.ID{}))
	}
	for _, r := range m.applications.Applications {
		name := r.Name + " (" + r.Environment + ")"
		if m.stateErr == nil {
			m.finishMove(ctx, r)
		}
		if _, err := m.s.StoredSecret(ctx, r); err != nil {
			m.fail("applications", err)
		} else {
			m.ok("applications", "%s has its client secret in the %s", name, vault.Describe(r.Home))
		}
		m.port(ctx, r)
	}
}

// port looks whether the callback server could listen.
func (m *machine) port(ctx context.Context, r config.Registration) {
	u, err := url.Parse(r.RedirectURI)
	if err != nil || u.Port() == "0" {
		return
	}
	if !loopback.CanListen(r.RedirectURI, false) {
		return
	}
	listener, err := loopback.Listen(ctx, loopback.Place{RedirectURI: r.RedirectURI, Holder: m.o.PortHolder})
	if err != nil {
		m.fail("callback port", err)
		return
	}
	addrs := listener.Addrs()
	_ = listener.Close()
	m.ok("callback port", "free for %s: %s", r.RedirectURI, strings.Join(addrs, ", "))
}

// vault tries the homes that have secrets, and the one that gets them.
func (m *machine) vault(ctx context.Context) {
	for _, home := range m.s.HomesInUse(m.survey.Present(), m.applications.Applications) {
		if m.inDatabase(home) {
			continue
		}
		if err := m.s.Vault.Open(ctx, home); err != nil {
			m.fail("vault", err)
			continue
		}
		if home == "file" {
			made, err := m.s.Files.Made()
			if err != nil {
				m.fail("vault", err)
				continue
			}
			if !made {
				m.unmade(ctx)
				continue
			}
			// Where it has nothing yet, a probe would leave its directory behind.
			if _, err := os.Lstat(filepath.Join(m.s.Config.Paths.State, "vault")); m.stateErr != nil || os.IsNotExist(err) {
				m.ok("vault", "the file vault can be used%s", m.s.OpenedBy(home))
				continue
			}
		}
		start := m.s.Now()
		if err := m.s.Probe(ctx, home); err != nil {
			m.fail("vault", err)
			continue
		}
		m.ok("vault", "the %s saves, returns and removes a secret, in %d ms%s", vault.Describe(home), m.s.Now().Sub(start).Milliseconds(), m.s.OpenedBy(home))
		if home == "keychain" {
			m.keyrings(ctx, true)
		}
	}
}

// unmade tells of a file vault that there is not yet. It is not made here: a
// passphrase that was mistyped would be the vault's from now on.
func (m *machine) unmade(ctx context.Context) {
	var err error
	if m.o.CanMake != nil {
		err = m.o.CanMake(ctx)
	}
	switch {
	case errors.Is(err, agefile.ErrNoPassphrase):
		m.fail("vault", m.s.Files.NothingToMake(err))
	case err != nil:
		m.failAs(explain.Vault, "vault", "", err, nil)
	default:
		m.ok("vault", "there is no file vault yet; the first secret creates it, with the passphrase given then")
	}
}

// grants tells the grants by state, and finishes what was cut off.
func (m *machine) grants(ctx context.Context) {
	m.journals(ctx, m.survey.Records)
	stale := false
	for _, problem := range m.survey.Problems {
		if old := new(shared.StaleError); errors.As(problem, &old) {
			stale = true
			when := "last"
			if !old.Read.IsZero() {
				when = "at " + m.o.Words.Time(old.Read) + " or later"
			}
			m.warn("records", "what is told of grants is what this host knew "+when, nil)
			continue
		}
		m.fail("records", problem)
	}
	if m.stateErr == nil {
		m.finishRemovals(ctx, m.survey.Records)
	}
	records := m.survey.Present()
	if m.stateErr == nil {
		m.settle(ctx, records)
		m.finishLogins(ctx)
	}
	m.keptAnswers(ctx, records)
	now := m.s.Now()
	// As lists count them: with the companies that are known and have no grant.
	all, err := m.s.ListedBeside(ctx, records)
	if stale {
		all.Records, err = records, nil
	}
	if err == nil && len(all.Records) > 0 {
		m.s.MarkVoid(ctx, all.Records, true)
		m.ok("grants", "%s", m.o.Words.Grants(all.Records, now))
	}
	for _, r := range records {
		switch state := r.StateAt(now); state {
		case grant.Void, grant.Expired:
			m.fail("grants", keeper.Gone(r, state, ""))
		case grant.Expiring:
			m.warn("grants", fmt.Sprintf("%s: the refresh token expires %s", r.ID, m.o.Words.Time(r.RefreshTokenExpires)), act("[Run: {}|Refresh the tokens]", explain.Refresh, r.ID))
		default:
			if r.LastError != nil {
				m.warn("grants", fmt.Sprintf("%s: the last refresh had a problem: %s", r.ID, r.LastError.Message), act("[Run: {}|Refresh the tokens]", explain.Refresh, r.ID))
			}
		}
	}
	m.secrets(ctx, records)
	homes := append(m.s.HomesInUse(records, m.applications.Applications), "file")
	listing := m.list(ctx, m.survey.Records, homes).Among(homes...)
	for _, problem := range listing.Problems {
		m.fail("orphans", problem)
	}
	orphans, err := m.s.Vault.Orphans(ctx, listing, m.survey.Records)
	if err != nil {
		m.fail("orphans", err)
	}
	if len(orphans) > 0 {
		m.warn("orphans", fmt.Sprintf("there are secrets under %s that no record names", counted(len(orphans), "Token Vault Key")),
			act("[Run: {}|Check the vault]", explain.CheckVault, grant.ID{}))
	}
}

// settle finishes the exchanges that were cut off.
func (m *machine) settle(ctx context.Context, records []grant.Record) {
	var kept []grant.Journal
	looked := false
	for i, r := range records {
		if !m.survey.Unsettled(r) || ctx.Err() != nil {
			continue
		}
		journals := m.survey.Journals[r.Slot()]
		if len(journals) == 0 {
			continue
		}
		if unanswered(r, journals) {
			// After an hour without UPS these may be all: what is kept is read once.
			if !looked {
				looked, kept = true, m.allKept(ctx)
			}
			pending := m.s.Keeper.Pending(r, journals[0], kept)
			m.warnOf("interrupted", "", pending)
			continue
		}
		for _, j := range journals {
			// What is wrong with a home is told by whoever needs it.
			_ = m.s.Vault.Open(ctx, j.Home)
		}
		switch settled, err := m.s.Keeper.Settle(ctx, r.ID); {
		case errors.As(err, new(*keeper.PendingError)):
			m.warnOf("interrupted", "", err)
		case err != nil:
			m.fail("interrupted", err)
		case m.stillInterrupted(ctx, r):
			m.warn("interrupted", fmt.Sprintf("%s: an authorization that was cut off can't be finished here", r.ID),
				act("Its key may be in another keychain. Authorize the company again to clear it away[: {}]", explain.AuthorizeCompany, r.ID))
		default:
			records[i] = settled.Record
			m.ok("interrupted", "%s: an exchange that was cut off is finished", r.ID)
		}
	}
}

// stillInterrupted reports whether something cut off lies beside a grant yet.
func (m *machine) stillInterrupted(ctx context.Context, r grant.Record) bool {
	again, _, err := m.s.Vault.List(ctx, r.Company)
	left := session.Filter(again, r.Application, r.Environment)
	return err == nil && len(left) == 1 && left[0].Interrupted
}

// environments looks at the way to UPS for every environment that is in use.
func (m *machine) environments(ctx context.Context) {
	used := map[string]bool{}
	for _, r := range m.survey.Present() {
		used[r.Environment] = true
	}
	for _, r := range m.applications.Applications {
		used[r.Environment] = true
	}
	if err := ups.CheckSettings(m.s.Getenv); err != nil {
		m.fail("network", err)
		return
	}
	if name := ups.IgnoredProxy(m.s.Getenv); name != "" {
		m.warn("network", name+" is set, but upsauth does not read it: the way to UPS is direct", sentence("Set HTTPS_PROXY to the same address, or unset "+name+"."))
	}
	for _, environment := range m.s.Config.Environments {
		if !used[environment.Name] {
			continue
		}
		if least := ups.CallTimeout; m.s.Config.RetryUnknownAfter < least && !ups.OnLoopback(environment.BaseURL) {
			m.fail("retries", &keeper.RetryTooSoonError{Set: m.s.Config.RetryUnknownAfter, Least: least})
		}
		m.reach(ctx, environment)
	}
}

// skewAllowed is how far two clocks may differ before it is worth a word.
const skewAllowed = time.Minute

func (m *machine) reach(ctx context.Context, environment ups.Environment) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	start := m.s.Now()
	date, err := m.s.Ping(ctx, environment)
	took := m.s.Now().Sub(start)
	if err != nil {
		m.fail("UPS", err)
		return
	}
	m.ok("UPS", "%s answers in %d ms", environment.BaseURL, took.Milliseconds())
	server, err := http.ParseTime(date)
	if err != nil {
		return
	}
	// The Date header has whole seconds and was written on the way.
	if skew := server.Sub(start.Add(took / 2)); skew > skewAllowed || skew < -skewAllowed {
		direction := "behind"
		if skew < 0 {
			direction, skew = "ahead of", -skew
		}
		m.warn("clock", fmt.Sprintf("this machine's clock is %s %s that of %s", m.o.Words.Span(skew), direction, environment.BaseURL),
			sentence("Set the clock, for instance with "+setClock()+". Nothing is lost: upsauth computes by this machine's clock alone whether tokens are valid."))
	} else {
		m.ok("clock", "agrees with that of %s", environment.BaseURL)
	}
}

// setClock is the command that sets the clock by a time server.
func setClock() string {
	switch runtime.GOOS {
	case "windows":
		return "w32tm /resync"
	case "darwin":
		return "sudo sntp -sS time.apple.com"
	}
	return "timedatectl set-ntp true"
}
