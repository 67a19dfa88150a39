package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/lately"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/service"
	"github.com/upsauth/upsauth/internal/service/events"
	eventspostgres "github.com/upsauth/upsauth/internal/service/events/postgres"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
)

func (opts refreshOptions) checkEvery() error {
	switch {
	case opts.Every < service.Shortest:
		return usagef("--every must be at least %s: UPS's access tokens last about an hour", render.Span(service.Shortest))
	case opts.Every > service.Longest:
		return usagef("--every must be at most %s: an authorization that nobody refreshes expires", render.Span(service.Longest))
	case opts.Company != "":
		return usagef("--every can't be combined with --company: it refreshes all companies; --app and --env limit it")
	case opts.Force:
		return usagef("--force and --every can't be combined: every round would refresh all tokens; use --within to say which tokens are due")
	}
	return nil
}

// every is upsauth refresh --every: a service at a command line.
type every struct {
	opts refreshOptions
	// env is the process's with the log in the place of standard error.
	env      *Env
	log      *service.Log
	terminal io.Writer // where a person is asked

	// lately is what sessions have read of the database that hosts share.
	lately atomic.Pointer[lately.Memory]

	mu    sync.Mutex // held while a person is asked
	typed string     // the passphrase that a person typed, for as long as it runs
	retry func(string) bool
}

func runRefreshEvery(ctx context.Context, opts refreshOptions) error {
	if err := opts.checkEvery(); err != nil {
		return err
	}
	v, o := newEvery(opts)
	s, err := openJob(v.env, false)
	if err != nil {
		return err
	}
	defer s.Close()
	unlock, err := v.lock(ctx, s)
	if err != nil {
		return busyAdvice(ctx, v.env, err)
	}
	defer unlock()
	v.began()
	if o.Events, err = v.events(s.Session); err != nil {
		return err
	}
	return service.New(o).Run(ctx)
}

func newEvery(opts refreshOptions) (*every, service.Options) {
	env := *opts.env
	v := &every{opts: opts, env: &env, terminal: opts.env.stderr(), log: service.NewLog(opts.env.stderr(), opts.env.Now, opts.env.ErrJournal, opts.Verbose)}
	env.Err = v.log
	v.opts.env = v.env
	o := service.Options{
		Work: opts.work(), Every: opts.Every, Log: v.log,
		Clock: service.Clock{Now: env.Now, After: env.After, Rand: rand.Float64},
		Open:  v.open, Words: errorWords, Code: roundCode, TooWide: v.tooWide,
	}
	o.Notify, o.Watchdog = env.Systemd()
	// Where there is a terminal, its end is the service's.
	if !env.InTerminal && !env.ErrTerminal {
		o.Hangups = env.Hangups()
	}
	if opts.PrometheusFile != "" {
		o.Metrics = v.export
	}
	return v, o
}

// errorWords are an error in the words of a terminal.
func errorWords(err error) service.Words {
	return service.Words{Code: exitCode(err), Text: message(err), Advice: advice(err), Later: exitCode(err) == exitUPS}
}

// lock takes the lock of the one service of a vault.
func (v *every) lock(ctx context.Context, s *job) (unlock func(), err error) {
	if path := v.opts.PrometheusFile; path != "" {
		if err := s.mayWrite(ctx, output{flag: "--prometheus-file", path: path, own: prometheusStart}); err != nil {
			return nil, err
		}
	}
	if unlock, err = s.Disk.LockService(); err != nil {
		return nil, err
	}
	return unlock, nil
}

// began is the first line of the log.
func (v *every) began() {
	v.log.Event("upsauth %s, process %d: refreshes tokens that expire within %s%s, every %s", buildVersion().Version, os.Getpid(),
		legible.Duration(v.opts.Within), session.Describe(v.opts.Application, v.opts.Environment), legible.Duration(v.opts.Every))
}

// busyAdvice adds what to do where the vault has a service already: whoever starts a
// second one most often wants the first one's company manager.
func busyAdvice(ctx context.Context, env *Env, err error) error {
	if !errors.As(err, new(*vault.ServiceBusyError)) {
		return err
	}
	another := "To start another service, end that process first."
	if service, askErr := newAsker(env); askErr == nil {
		if _, askErr := service.Service(ctx); askErr == nil {
			return &advisedError{err, "To open its company manager, run: upsauth serve link\n" + another}
		}
	}
	return &advisedError{err, another}
}

// open opens a session, which speaks through the log.
func (v *every) open(change func(*session.Options)) (*session.Session, error) {
	s, err := openJobWith(v.env, v.opts.Verbose, func(o *session.Options) {
		change(o)
		o.Passphrase = v.passphrase
		o.Retry = func(path string) bool {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.typed = "" // it is no use in the next round either
			if v.retry == nil {
				v.retry = v.onTerminal().retry()
			}
			return v.retry(path)
		}
		o.Notice = func(ctx context.Context, n session.Notice) { v.log.Notice(ctx, n, noticeWords(n)) }
		o.Lately = v.lately.Load()
	})
	if err != nil {
		return nil, err
	}
	v.lately.CompareAndSwap(nil, s.Lately())
	return s.Session, nil
}

// tooWide says that all tokens are due in every round.
func (v *every) tooWide(lifetime time.Duration) {
	v.log.Trouble("within", "", fmt.Sprintf("access tokens last %s, so --within %s makes them due in every round: upsauth asks UPS more often than needed",
		render.Span(lifetime), render.Span(v.opts.Within)))
}

// events are what the command of config.toml is told of.
func (v *every) events(s *session.Session) (*events.Queue, error) {
	var store events.Store = events.NewFiles(filepath.Join(s.Config.Paths.State, "events"), v.env.Now)
	if s.Shared != nil {
		db, err := s.Database()
		if err != nil {
			return nil, err
		}
		store = eventspostgres.New(db)
	}
	runner := events.Runner{Environ: v.env.Environ()}
	return events.New(events.Options{
		Store: store, Now: v.env.Now, After: v.env.After, Run: runner.Run,
		Facts: func(r grant.Record, now time.Time) ([]byte, error) {
			var text bytes.Buffer
			err := render.JSON(&text, render.NewStatus([]grant.Record{r}, now).Grants[0])
			return text.Bytes(), err
		},
		Invited: func(i invitation.Invitation, now time.Time) ([]byte, error) {
			var text bytes.Buffer
			err := render.JSON(&text, render.NewInvitationFacts(i, now))
			return text.Bytes(), err
		},
		Event: v.log.Event, Trouble: v.log.Trouble,
	}), nil
}

// export writes the metrics.
func (v *every) export(known []grant.Record, last *service.Last) error {
	var text bytes.Buffer
	err := render.Prometheus(&text, known, v.env.Now())
	if memory := v.lately.Load(); err == nil && memory != nil {
		err = render.PrometheusDatabase(&text, memory.AwayError() == nil)
	}
	if err == nil && last != nil {
		err = render.PrometheusRound(&text, render.LastRound{End: last.End, Refreshed: last.Refreshed, Failed: last.Failed, ExitCode: last.ExitCode})
	}
	if err != nil {
		return err
	}
	return safefile.WritePublic(v.opts.PrometheusFile, text.Bytes())
}

// passphrase asks a person once. It reads the environment and files again in every
// round, because they can change.
func (v *every) passphrase(ctx context.Context, identity string, fresh bool) (string, error) {
	passphrase, err := passphraseFromEnvironment(ctx, v.env)
	if !errors.Is(err, agefile.ErrNoPassphrase) {
		return passphrase, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.typed == "" {
		v.typed, err = vaultPassphrase(ctx, v.onTerminal(), identity, fresh)
		return v.typed, err
	}
	return v.typed, nil
}

// onTerminal is the environment with what is asked written where the log goes.
func (v *every) onTerminal() *Env {
	env := *v.env
	env.Err = v.terminal
	return &env
}
