package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
)

// doctor looks at one thing after another.
type doctor struct {
	findings
	s            *job
	survey       vault.Survey
	applications config.Applications
}

// permissions looks who else can read what opens secrets. Who else can change
// what upsauth goes by is looked at before every command.
func (d *doctor) permissions() {
	bad := false
	dir := filepath.Join(d.s.Config.Paths.State, "vault")
	places := d.s.Places
	refusals := []error{places.CheckSecret(dir), places.CheckSecret(filepath.Join(dir, "identity.age"))}
	if d.s.Config.Identity != "" {
		refusals = append(refusals, places.CheckSecret(d.s.Config.Identity))
	}
	if d.s.env.Getenv(config.EnvPassphraseFile) != "" {
		refusals = append(refusals, checkPassphraseFile(d.s.env))
	}
	for _, err := range refusals {
		if err != nil {
			bad = true
			d.failWith(exitVault, "permissions", message(err), "")
		}
	}
	if !bad {
		d.ok("permissions", "nobody else can change the configuration or read what opens secrets")
	}
}

func (d *doctor) registrations(ctx context.Context) {
	if len(d.applications.Applications) == 0 {
		d.warn("applications", "no application is registered", "Run: upsauth app add NAME --client-id ID --redirect-uri URI")
	}
	for _, r := range d.applications.Applications {
		name := r.Name + " (" + r.Environment + ")"
		if d.stateErr == nil {
			d.finishMove(ctx, d.s, r)
		}
		if _, err := d.s.StoredSecret(ctx, r); err != nil {
			d.fail("applications", err)
		} else {
			d.ok("applications", "%s has its client secret in the %s", name, vault.Describe(r.Vault))
		}
		d.port(ctx, r)
	}
}

// port looks whether the callback server could listen.
func (d *doctor) port(ctx context.Context, r config.Registration) {
	u, err := url.Parse(r.RedirectURI)
	if err != nil || u.Port() == "0" {
		return
	}
	if !loopback.CanListen(r.RedirectURI, false) {
		return
	}
	listener, err := loopback.Listen(ctx, loopback.Place{RedirectURI: r.RedirectURI, Holder: d.s.portHolder})
	if err != nil {
		d.fail("callback port", err)
		return
	}
	addrs := listener.Addrs()
	_ = listener.Close()
	d.ok("callback port", "free for %s: %s", r.RedirectURI, joined(addrs))
}

// vault tries the homes that have secrets, and the one that gets them.
func (d *doctor) vault(ctx context.Context) {
	for _, home := range d.s.HomesInUse(d.survey.Present(), d.applications.Applications) {
		if err := d.s.Vault.Open(ctx, home); err != nil {
			d.fail("vault", err)
			continue
		}
		if home == "file" {
			made, err := d.s.Files.Made()
			if err != nil {
				d.fail("vault", err)
				continue
			}
			if !made {
				d.unmade(ctx)
				continue
			}
			// Where it has nothing yet, a probe would leave its directory behind.
			if _, err := os.Lstat(filepath.Join(d.s.Config.Paths.State, "vault")); d.stateErr != nil || os.IsNotExist(err) {
				d.ok("vault", "the file vault can be used%s", d.s.openedBy(home))
				continue
			}
		}
		start := d.s.env.Now()
		if err := d.s.Probe(ctx, home); err != nil {
			d.fail("vault", err)
			continue
		}
		d.ok("vault", "the %s takes a secret, gives it back and forgets it, in %d ms%s", vault.Describe(home), d.s.env.Now().Sub(start).Milliseconds(), d.s.openedBy(home))
		if home == "keychain" {
			d.keyrings(ctx, d.s, true)
		}
	}
}

// unmade tells of a file vault that there is not yet. It is not made here: a
// passphrase that was mistyped would be the vault's from now on.
func (d *doctor) unmade(ctx context.Context) {
	switch _, err := passphraseFromEnvironment(ctx, d.s.env); {
	case errors.Is(err, agefile.ErrNoPassphrase) && (!d.s.env.InTerminal || !d.s.env.ErrTerminal):
		d.fail("vault", d.s.Files.NothingToMake(err))
	case err != nil && !errors.Is(err, agefile.ErrNoPassphrase):
		d.failWith(exitVault, "vault", message(err), "")
	default:
		d.ok("vault", "there is no file vault yet; what is saved first makes it, with the passphrase of then")
	}
}

func (d *doctor) browser() {
	if list := d.s.env.Getenv("BROWSER"); list != "" {
		for _, program := range browserPrograms(list) {
			words, err := browserWords(program)
			if err != nil {
				continue
			}
			if path, err := exec.LookPath(words[0]); err == nil {
				d.ok("browser", "$BROWSER: %s", path)
				return
			}
		}
		d.warn("browser", "no program of $BROWSER is there", "authorize prints the address as well; --no-browser does not try.")
		return
	}
	if runtime.GOOS != "linux" && runtime.GOOS != "freebsd" {
		d.ok("browser", "the system's own opener")
		return
	}
	for _, program := range []string{"xdg-open", "x-www-browser", "www-browser", "wslview"} {
		if path, err := exec.LookPath(program); err == nil {
			d.ok("browser", "%s", path)
			return
		}
	}
	d.warn("browser", "there is no program that opens a browser", "authorize prints the address as well; set BROWSER, or use --no-browser.")
}

// grants tells the grants by state, and finishes what was cut off.
func (d *doctor) grants(ctx context.Context) {
	for _, problem := range d.survey.Problems {
		d.fail("records", problem)
	}
	if d.stateErr == nil {
		d.finishRemovals(ctx, d.s.Vault, d.survey.Records)
	}
	records := d.survey.Present()
	if d.stateErr == nil {
		d.settle(ctx, records)
		d.finishLogins(ctx, d.s)
	}
	d.keptAnswers(d.s)
	now := d.s.env.Now()
	if len(records) > 0 {
		d.ok("grants", "%s", render.Summary(records, now))
	}
	for _, r := range records {
		switch state := r.StateAt(now); state {
		case grant.Void, grant.Expired:
			d.fail("grants", &keeper.GoneError{ID: r.ID, Why: strings.TrimSuffix(state.Meaning(), "."), Void: state == grant.Void})
		case grant.Expiring:
			d.warn("grants", fmt.Sprintf("%s: the refresh token ends %s", r.ID, render.UPSTime(r.RefreshTokenExpires)), "Run: "+companyCommand("refresh", r.ID))
		default:
			if r.LastError != nil {
				d.warn("grants", fmt.Sprintf("%s: the last refresh was not as it should be: %s", r.ID, r.LastError.Message), "Run: "+companyCommand("refresh", r.ID))
			}
		}
	}
	d.secrets(ctx, d.s, records, false)
	homes := append(d.s.HomesInUse(records, d.applications.Applications), "file")
	listing := d.list(ctx, d.s, d.survey.Records, homes).Among(homes...)
	for _, problem := range listing.Problems {
		d.fail("orphans", problem)
	}
	orphans, err := d.s.Vault.Orphans(listing, d.survey.Records)
	if err != nil {
		d.fail("orphans", err)
	}
	if len(orphans) > 0 {
		d.warn("orphans", fmt.Sprintf("there are secrets under %s that no record speaks of", counted(len(orphans), "Token Vault Key")),
			"Run: upsauth vault check")
	}
}

// settle finishes the exchanges that were cut off.
func (d *doctor) settle(ctx context.Context, records []grant.Record) {
	var kept []grant.Journal
	looked := false
	for i, r := range records {
		if !r.Interrupted || ctx.Err() != nil {
			continue
		}
		journals := d.survey.Journals[r.Slot()]
		if len(journals) == 0 {
			continue
		}
		if unanswered(r, journals) {
			// After an hour without UPS these may be all: what is kept is read once.
			if !looked {
				looked, kept = true, d.s.allKept()
			}
			pending := d.s.Keeper.Pending(r, journals[0], kept)
			d.warn("interrupted", message(pending), advice(pending))
			continue
		}
		for _, j := range journals {
			// What is wrong with a home is told by whoever needs it.
			_ = d.s.Vault.Open(ctx, j.Vault)
		}
		switch settled, err := d.s.Keeper.Settle(ctx, r.ID); {
		case errors.As(err, new(*keeper.PendingError)):
			d.warn("interrupted", message(err), advice(err))
		case err != nil:
			d.fail("interrupted", err)
		case d.stillInterrupted(r):
			d.warn("interrupted", fmt.Sprintf("%s: an authorization that was cut off can't be finished here", r.ID),
				"Its key may be in another keychain. Authorizing the company again clears it away: "+companyCommand("authorize", r.ID))
		default:
			records[i] = settled.Record
			d.ok("interrupted", "%s: an exchange that was cut off is finished", r.ID)
		}
	}
}

// stillInterrupted reports whether something cut off lies beside a grant yet.
func (d *doctor) stillInterrupted(r grant.Record) bool {
	again, _, err := d.s.Vault.List(r.Company)
	left := session.Filter(again, r.Application, r.Environment)
	return err == nil && len(left) == 1 && left[0].Interrupted
}

// environments looks at the way to UPS for every environment that is in use.
func (d *doctor) environments(ctx context.Context) {
	used := map[string]bool{}
	for _, r := range d.survey.Present() {
		used[r.Environment] = true
	}
	for _, r := range d.applications.Applications {
		used[r.Environment] = true
	}
	if err := ups.CheckSettings(d.s.env.Getenv); err != nil {
		d.fail("network", err)
		return
	}
	if name := ups.IgnoredProxy(d.s.env.Getenv); name != "" {
		d.warn("network", name+" is set and is not read: the way to UPS is direct", "Set HTTPS_PROXY to the same address, or unset "+name+".")
	}
	for _, environment := range d.s.Config.Environments {
		if !used[environment.Name] {
			continue
		}
		if least := ups.CallTimeout; d.s.Config.RetryUnknownAfter < least && !ups.OnLoopback(environment.BaseURL) {
			d.fail("retries", &keeper.RetryTooSoonError{Set: d.s.Config.RetryUnknownAfter, Least: least})
		}
		d.reach(ctx, environment)
	}
}

// skewAllowed is how far two clocks may differ before it is worth a word.
const skewAllowed = time.Minute

func (d *doctor) reach(ctx context.Context, environment ups.Environment) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	client := &ups.Client{Environment: environment, Transport: d.s.env.Transport, Now: d.s.env.Now}
	start := d.s.env.Now()
	date, err := client.Ping(ctx)
	took := d.s.env.Now().Sub(start)
	if err != nil {
		d.fail("UPS", err)
		return
	}
	d.ok("UPS", "%s answers in %d ms", environment.BaseURL, took.Milliseconds())
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
		d.warn("clock", fmt.Sprintf("this machine's clock is %s %s that of %s", render.Span(skew), direction, environment.BaseURL),
			"Set the clock, for instance with "+setClock()+". Tokens are reckoned by this machine's clock alone, so nothing is lost.")
	} else {
		d.ok("clock", "agrees with that of %s", environment.BaseURL)
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
