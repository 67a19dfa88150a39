package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/rounds"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
)

const (
	// shortest is the least time between two rounds. UPS's access tokens last an
	// hour, and one of unknown fate is left alone for a minute.
	shortest = time.Minute
	// seldomest leaves UPS's refresh tokens, which last for two months, a reserve of
	// several rounds.
	seldomest = 7 * 24 * time.Hour
	// longestStep is the longest time without a look at the wall clock.
	longestStep = 30 * time.Second
	// lockPatience is how long a grant's lock is waited for. Whoever has it for
	// longer hangs, and a service has nobody who presses Ctrl-C.
	lockPatience = time.Minute
)

func (opts refreshOptions) checkEvery() error {
	switch {
	case opts.Every < shortest:
		return usagef("--every is at least %s: UPS's access tokens last about an hour", render.Span(shortest))
	case opts.Every > seldomest:
		return usagef("--every is at most %s: an authorization that nobody refreshes ends", render.Span(seldomest))
	case opts.Company != "":
		return usagef("--every looks after all companies, and --company refreshes one in any case; --app and --env say which grants it looks after")
	case opts.Force:
		return usagef("--force would ask UPS for new tokens of all companies in every round; with --every, --within says what is due")
	}
	return nil
}

// service is upsauth refresh --every: rounds of refreshes until it is told to
// end. Each round is a session of its own, so that it finds everything as it is
// now, and leaves nothing behind.
type service struct {
	opts refreshOptions
	// env is the process's with the log in the place of standard error.
	env    *Env
	log    *eventLog
	clock  rounds.Clock
	notify func(state string)
	alive  func() // tells the watchdog
	// stopping says, once, that the service was told to end.
	stopping func()

	begun bool   // the first round could begin
	later bool   // UPS could not be reached, or refused for now
	stuck bool   // a write to the keychain is owed its answer
	typed string // the passphrase that a person typed, for as long as it runs
	retry func(string) bool
	known []grant.Record // what the last round found
}

func runRefreshEvery(ctx context.Context, opts refreshOptions) error {
	if err := opts.checkEvery(); err != nil {
		return err
	}
	v := newService(opts)
	unlock, err := v.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	defer context.AfterFunc(ctx, v.stopping)()
	v.log.event("upsauth %s, process %d: refreshes what ends within %s%s, every %s", buildVersion().Version, os.Getpid(),
		opts.Within, session.Describe(opts.Application, opts.Environment), opts.Every)
	return v.run(ctx)
}

func newService(opts refreshOptions) *service {
	env := *opts.env
	v := &service{opts: opts, env: &env, log: newEventLog(opts.env, opts.Verbose)}
	env.Err = v.log
	v.opts.env = v.env
	notify, watchdog := env.Systemd()
	v.notify = notify
	v.stopping = sync.OnceFunc(func() {
		notify(daemon.SdNotifyStopping)
		v.log.event("told to end; what is under way with UPS is saved first")
	})
	v.clock = rounds.Clock{Now: env.Now, After: env.After, Rand: rand.Float64, Step: longestStep}
	v.alive = func() {}
	if watchdog > 0 {
		v.clock.Step = min(longestStep, watchdog/2)
		v.alive = func() { notify(daemon.SdNotifyWatchdog) }
	}
	return v
}

func (v *service) lock(ctx context.Context) (unlock func(), err error) {
	s, err := openJob(v.env, false)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if path := v.opts.PrometheusFile; path != "" {
		if err := s.mayWrite(ctx, output{flag: "--prometheus-file", path: path, own: prometheusStart}); err != nil {
			return nil, err
		}
	}
	return s.Vault.LockService()
}

// run makes one round after another. Being told to end is how a service ends, and
// no error.
func (v *service) run(ctx context.Context) error {
	// Where there is a terminal, its end is the service's.
	var hangups <-chan os.Signal
	if !v.env.InTerminal && !v.env.ErrTerminal {
		hangups = v.env.Hangups()
	}
	soon := shortest
	for ctx.Err() == nil {
		start := v.env.Now()
		r, err := v.round(ctx)
		if ctx.Err() != nil {
			if v.begun {
				v.log.event("%s", r)
			}
			break
		}
		if err != nil && (!v.begun || v.stuck) {
			return err
		}
		// Right after sleep the network is often not there yet, and a day may be
		// too late for the next attempt.
		wait := v.opts.Every
		if v.later {
			wait = min(wait, soon)
			soon = 2 * wait
		} else {
			soon = shortest
		}
		due := v.clock.Next(start, wait)
		v.tell(r, err, due)
		// A passphrase takes 128 MB to open a vault, which nobody needs until the
		// next round.
		debug.FreeOSMemory()
		if why := v.clock.Wait(ctx, due, wait, hangups, v.alive); why != "" {
			v.log.event("next round at once: %s", why)
		}
	}
	v.stopping()
	v.log.event("ended")
	return nil
}

// tell says what became of a round to all who want to know.
func (v *service) tell(r round, err error, due time.Time) {
	if now := v.env.Now(); due.Before(now) {
		due = now // the round took longer than they are apart
	}
	next := "next round at " + due.UTC().Format(time.RFC3339)
	if err == nil {
		v.log.event("%s; %s", r, next)
		v.log.over("round") // rounds that could not begin end nothing else
		v.log.roundEnds()
		v.notify("STATUS=" + r.String() + "; " + next)
	} else {
		r.worst = exitCode(err)
		v.log.trouble("round", withoutNumbers(err.Error()), fmt.Sprintf("no round, code %d: %s", r.worst, withAdvice(message(err), err)))
		v.notify("STATUS=" + oneLine(message(err)) + "; " + next)
	}
	last := &render.LastRound{End: v.env.Now(), Refreshed: r.done, Failed: r.failed + r.void, ExitCode: r.worst}
	if err := v.export(last); err != nil {
		v.log.trouble("metrics", withoutNumbers(err.Error()), err.Error())
	}
}

// export writes the metrics, where somebody wants them. Of a round that could not
// begin they have what the one before found; before the first there is no last.
func (v *service) export(last *render.LastRound) error {
	if v.opts.PrometheusFile == "" {
		return nil
	}
	var text bytes.Buffer
	err := render.Prometheus(&text, v.known, v.env.Now())
	if err == nil && last != nil {
		err = render.PrometheusRound(&text, *last)
	}
	if err != nil {
		return err
	}
	return safefile.WritePublic(v.opts.PrometheusFile, text.Bytes())
}

// look finds what there is, for the metrics.
func (v *service) look(ctx context.Context, s *job) error {
	if v.opts.PrometheusFile == "" {
		return nil
	}
	known, err := s.Known(ctx, "")
	if err == nil {
		s.MarkVoid(ctx, known.Records, true)
		v.known = session.Filter(known.Records, v.opts.Application, v.opts.Environment)
	}
	return err
}

// round refreshes what is due, as upsauth refresh does. An error says that it
// could not begin, or, where v is stuck, that it was the last.
func (v *service) round(ctx context.Context) (round, error) {
	v.alive()
	v.later = false
	s, err := openJobWith(v.env, v.opts.Verbose, func(o *session.Options) {
		o.Passphrase, o.LockPatience = v.passphrase, lockPatience
		o.Retry = func(path string) bool {
			v.typed = "" // it is no use in the next round either
			if v.retry == nil {
				v.retry = v.onTerminal().retry()
			}
			return v.retry(path)
		}
		o.Wait = func(ctx context.Context, d time.Duration) error {
			v.alive()
			return session.Wait(ctx, min(d, v.clock.Step))
		}
	})
	if err != nil {
		return round{}, err
	}
	defer s.Close()
	if !v.begun {
		if err := v.prove(ctx, s); err != nil {
			return round{}, err
		}
	}
	s.FinishRemovals(ctx)
	r, err := refreshDue(ctx, s, v.opts, v)
	if v.stuck = s.Vault.Stuck(); v.stuck {
		return r, &vault.HomeError{Home: "keychain", TimedOut: true,
			What:   "The keychain gave no answer to a write, which may still happen while this process runs; so it ends.",
			Advice: "See that the keychain answers. What keeps services running starts this one again."}
	}
	if err != nil {
		return r, err
	}
	return r, v.look(ctx, s)
}

// prove reads a grant out of each home and writes the metrics, before the first
// round: what is wrong with them when a service starts stays so until somebody
// does something about it, and only then somebody is looking.
func (v *service) prove(ctx context.Context, s *job) error {
	records, err := s.records(ctx, "")
	if err != nil {
		return err
	}
	tried := map[string]bool{}
	for _, r := range session.Filter(records, v.opts.Application, v.opts.Environment) {
		if tried[r.Vault] {
			continue
		}
		tried[r.Vault] = true
		var home *vault.HomeError
		if _, err := s.Vault.Get(ctx, r.ID); errors.As(err, &home) && !home.OfItem && !home.Damaged {
			return err
		}
	}
	if err := v.look(ctx, s); err != nil {
		return err
	}
	return v.export(nil)
}

// passphrase asks a person once, and looks every time at what may be changed
// without them.
func (v *service) passphrase(ctx context.Context, identity string, fresh bool) (string, error) {
	passphrase, err := passphraseFromEnvironment(ctx, v.env)
	if !errors.Is(err, agefile.ErrNoPassphrase) {
		return passphrase, err
	}
	if v.typed == "" {
		v.typed, err = vaultPassphrase(ctx, v.onTerminal(), identity, fresh)
		return v.typed, err
	}
	return v.typed, nil
}

// onTerminal is the environment with what is asked written where the log goes.
func (v *service) onTerminal() *Env {
	env := *v.env
	env.Err = v.log.w
	return &env
}

// begin tells systemd that the service runs: what could be wrong with it is
// right, and the first round may take a while.
func (v *service) begin(total int) {
	if !v.begun {
		v.notify(fmt.Sprintf("%s\nSTATUS=first round, %d due", daemon.SdNotifyReady, total))
	}
	v.begun = true
}

func (v *service) gone(r grant.Record, state grant.State) {
	why := state.Meaning()
	if r.LastError != nil {
		why = r.LastError.Message
	}
	v.failed(r.ID, session.WithContact(&keeper.GoneError{ID: r.ID, Why: why, Void: state == grant.Void}, r.Contact))
}

func (v *service) saved(_ grant.ID, result keeper.Result) {
	v.alive()
	what := "refreshed"
	if !result.Refreshed {
		what = "refreshed by another process meanwhile"
	}
	text := fmt.Sprintf("%s: %s, access token until %s", what, result.ID, result.Expires.UTC().Format(time.RFC3339))
	if !result.RefreshTokenExpires.IsZero() {
		text += ", refresh token until " + result.RefreshTokenExpires.UTC().Format(time.RFC3339)
	}
	v.log.event("%s", text)
	if lifetime := result.Lifetime(); lifetime > 0 && lifetime <= v.opts.Within {
		v.log.trouble("within", "", fmt.Sprintf("access tokens last %s, so that --within %s makes them due in every round: UPS is asked more often than it need be",
			render.Span(lifetime), render.Span(v.opts.Within)))
	}
}

func (v *service) failed(id grant.ID, err error) {
	v.alive()
	if errors.Is(err, context.Canceled) {
		return // it was not begun when the service was told to end
	}
	v.later = v.later || exitCode(err) == exitUPS
	subject, what, all := troubleOf(id, err)
	text := about(id.String(), err)
	if all {
		text = message(err)
	}
	v.log.trouble(subject, what, fmt.Sprintf("failed, code %d: %s", exitCode(err), withAdvice(text, err)))
}

// troubleOf says what a failure is about and what tells it from others. All is
// whether it is about more than this grant: a home that can't be opened, UPS that
// can't be reached. The others need not be told.
func troubleOf(id grant.ID, err error) (subject, what string, all bool) {
	var (
		home    *vault.HomeError
		fromUPS *ups.Error
	)
	switch {
	case errors.As(err, new(*keeper.GoneError)):
		what = "gone"
	case errors.As(err, new(*keeper.PendingError)):
		// What it waits for was told.
	case errors.As(err, &home) && !home.OfItem && !home.Damaged:
		// What has the name of a file in it, another for each grant.
		return "home " + home.Home, home.Advice, true
	case errors.As(err, &fromUPS) && fromUPS.Kind == ups.Unreachable:
		return "way to " + id.Environment, "unreachable", true
	default:
		what = fmt.Sprintf("code %d: %s", exitCode(err), withoutNumbers(err.Error()))
	}
	return "grant " + id.Slot(), what, false
}
