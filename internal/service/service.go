// Package service keeps grants alive in rounds, for as long as a process lives, and
// tells what becomes of them.
package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/service/events"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

const (
	// Shortest is the least time between two rounds. UPS's access tokens last an
	// hour, and one of unknown fate is left alone for a minute.
	Shortest = time.Minute
	// Longest leaves UPS's refresh tokens, which last for two months, a reserve of
	// several rounds.
	Longest = 7 * 24 * time.Hour
	// longestStep is the longest time without a look at the wall clock.
	longestStep = 30 * time.Second
	// LockPatience is how long a grant's lock is waited for. Whoever has it for
	// longer hangs, and a service has nobody who presses Ctrl-C.
	LockPatience = time.Minute
)

// Words are an error in the words of a face.
type Words struct {
	Code   int    // the exit code that a command would have
	Text   string // what happened
	Advice string // what to do, empty where the text says so
	// Later says that UPS could not be reached, or refused for now: an attempt soon
	// may do.
	Later bool
}

// Options are what a service works with.
type Options struct {
	Work
	// Every is how long it is from one round to the next.
	Every time.Duration
	Log   *Log
	Clock Clock
	// Watchdog is within which time somebody wants to be told that all is well, zero
	// where nobody does. Notify tells systemd of the service's state.
	Watchdog time.Duration
	Notify   func(state string)
	// Hangups ask for a round at once.
	Hangups <-chan os.Signal
	// Open opens the session of a round, with what the service changes in its options.
	Open func(change func(*session.Options)) (*session.Session, error)
	// Words puts an error into words, and Code is the exit code that a round with its
	// failures would have as a command.
	Words func(error) Words
	Code  func(r Round, failures []error) int
	// TooWide is told that access tokens last no longer than Within, so that all are
	// due in every round.
	TooWide func(lifetime time.Duration)
	// Finish, where set, is called after the last round of a service that is told to
	// end, and returns when nothing else is under way.
	Finish func()
	// Metrics, where set, takes what there is after each round; last is nil before
	// the first.
	Metrics func(known []grant.Record, last *Last) error
	// Events, where set, are told of to a command, beside the rounds. They are those of
	// all grants, whichever are kept alive.
	Events *events.Queue
}

// Last is a round that has ended.
type Last struct {
	End               time.Time
	Refreshed, Failed int
	ExitCode          int
}

// Service makes rounds of refreshes until it is told to end. Each round is a session of
// its own, so that it finds everything as it is now, and leaves nothing behind.
type Service struct {
	Options
	alive func() // tells the watchdog

	begun bool // the first round could begin
	later bool // UPS or the database could not be reached, or UPS refused for now
	stuck bool // a write to the keychain is owed its answer
	worst int  // the exit code of this round
	// failures are why grants of this round have no new tokens.
	failures []error
	known    []grant.Record // what the last round found
	swept    time.Time      // when invitations were swept

	looking sync.Mutex // held from reading what there is until it is compared

	mu sync.Mutex
	// closed is why a home could not be opened in this round, unready why rounds can't
	// do their work, and last the round before: what others ask for.
	closed, unready error
	last            *Last
}

// ErrNotBegun says that the first round has not begun yet.
var ErrNotBegun = errors.New("the first round has not begun yet")

// New makes a service of its options.
func New(o Options) *Service {
	v := &Service{Options: o, alive: func() {}, unready: ErrNotBegun}
	v.Clock.Step = longestStep
	if o.Watchdog > 0 {
		v.Clock.Step = min(longestStep, o.Watchdog/2)
		v.alive = func() { o.Notify(daemon.SdNotifyWatchdog) }
	}
	return v
}

// Ready is why rounds can't do their work: they can't begin, or a home can't be opened.
// It may be asked by other goroutines.
func (v *Service) Ready() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.unready
}

// Last is the last round, nil before the first has ended. It may be asked by other
// goroutines.
func (v *Service) Last() *Last {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.last
}

// ended keeps what others ask for about a round.
func (v *Service) ended(last *Last, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.last, v.unready = last, cmp.Or(err, v.closed)
}

// Run makes one round after another until the context ends. Being told to end is how a
// service ends, and no error. The caller holds the service's lock.
func (v *Service) Run(ctx context.Context) error {
	stopping := sync.OnceFunc(func() { v.stopping(ctx) })
	defer context.AfterFunc(ctx, stopping)()
	if v.Events != nil {
		telling, end := context.WithCancel(ctx)
		var worker sync.WaitGroup
		worker.Go(func() { v.Events.Work(telling) })
		defer func() { end(); worker.Wait() }()
	}
	soon := Shortest
	for ctx.Err() == nil {
		start := v.Clock.Now()
		r, err := v.round(ctx)
		if ctx.Err() != nil {
			if v.begun {
				v.Log.Event("%s", r)
			}
			break
		}
		if err != nil && (!v.begun || v.stuck) {
			return err
		}
		// Right after sleep the network is often not there yet, and a day may be
		// too late for the next attempt.
		wait := v.Every
		if v.later || shared.IsAway(err) {
			wait = min(wait, soon)
			soon = 2 * wait
		} else {
			soon = Shortest
		}
		due := v.Clock.Next(start, wait)
		v.tell(r, err, due)
		// A passphrase takes 128 MB to open a vault, which nobody needs until the
		// next round.
		debug.FreeOSMemory()
		if why := v.Clock.Wait(ctx, due, wait, v.Hangups, v.alive); why != "" {
			v.Log.Event("next round at once: %s", why)
		}
	}
	stopping()
	if v.Finish != nil {
		v.Finish()
	}
	v.Log.Event("ended")
	return nil
}

// stopping says that the service ends, and why.
func (v *Service) stopping(ctx context.Context) {
	v.Notify(daemon.SdNotifyStopping)
	why := "told to end"
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		why = "ends: " + cause.Error()
	}
	v.Log.Event("%s; what is under way with UPS is saved first", why)
}

// tell says what became of a round to all who want to know.
func (v *Service) tell(r Round, err error, due time.Time) {
	if now := v.Clock.Now(); due.Before(now) {
		due = now // the round took longer than they are apart
	}
	next := "next round at " + due.UTC().Format(time.RFC3339)
	if err == nil {
		v.Log.Event("%s; %s", r, next)
		v.Log.over("round") // rounds that could not begin end nothing else
		v.Log.roundEnds()
		v.Notify("STATUS=" + r.String() + "; " + next)
	} else {
		words := v.Words(err)
		v.worst = words.Code
		v.Log.Trouble("round", kindOf(err), fmt.Sprintf("no round, code %d: %s", words.Code, words.advised(words.Text)))
		v.Notify("STATUS=" + OneLine(words.Text) + "; " + next)
	}
	last := &Last{End: v.Clock.Now(), Refreshed: r.Done, Failed: r.Failed + r.Void, ExitCode: v.worst}
	v.ended(last, err)
	v.export(last)
}

// export hands over the metrics, where somebody wants them. Of a round that could not
// begin they have what the one before found.
func (v *Service) export(last *Last) {
	if v.Metrics == nil {
		return
	}
	if err := v.Metrics(v.known, last); err != nil {
		v.Log.Trouble("metrics", kindOf(err), err.Error())
	}
}

// look finds what there is, for the metrics.
func (v *Service) look(ctx context.Context, s *session.Session) error {
	if v.Metrics == nil {
		return nil
	}
	known, err := s.Known(ctx, "")
	if err == nil {
		s.MarkVoid(ctx, known.Records, true)
		v.known = session.Filter(known.Records, v.Application, v.Environment)
	}
	return err
}

// round refreshes what is due. An error says that it could not begin, or, where v is
// stuck, that it was the last.
func (v *Service) round(ctx context.Context) (Round, error) {
	v.alive()
	v.later, v.worst, v.failures, v.closed = false, 0, nil, nil
	s, err := v.Open(func(o *session.Options) {
		o.LockPatience = LockPatience
		o.Wait = func(ctx context.Context, d time.Duration) error {
			v.alive()
			return session.Wait(ctx, min(d, v.Clock.Step))
		}
	})
	if err != nil {
		return Round{}, err
	}
	defer s.Close()
	if !v.begun {
		if err := v.prove(ctx, s); err != nil {
			return Round{}, err
		}
	}
	s.FinishRemovals(ctx)
	v.lookForEvents(ctx, s) // of before, as a round may take a while
	r, err := RefreshDue(ctx, s, v.Work, v)
	v.lookForEvents(ctx, s)
	v.sweep(ctx, s)
	if v.stuck = s.Vault.Stuck(); v.stuck {
		return r, StuckError()
	}
	if err != nil {
		return r, err
	}
	v.worst = v.Code(r, v.failures)
	return r, v.look(ctx, s)
}

// sweepEvery is how often a service looks for invitations that ended long ago.
const sweepEvery = time.Hour

// sweep forgets those, and what waits for the sender of invitations that have ended.
func (v *Service) sweep(ctx context.Context, s *session.Session) {
	if now := v.Clock.Now(); v.swept.IsZero() || now.Sub(v.swept) >= sweepEvery {
		v.swept = now
		if err := s.SweepInvitations(ctx); err != nil {
			v.Log.Trouble("invitations sweep", kindOf(err), "invitations that have ended can't be cleared away: "+err.Error())
		}
	}
}

// LookForEvents finds at once what has happened, between rounds. It may be called by other
// goroutines.
func (v *Service) LookForEvents(ctx context.Context, s *session.Session) { v.lookForEvents(ctx, s) }

// lookForEvents keeps what has happened for the command that is told of it. What is wrong
// with events keeps no grant from being refreshed. A service that is told to end looks as
// well: what a round did may be undone before the next service looks.
func (v *Service) lookForEvents(ctx context.Context, s *session.Session) {
	if v.Events == nil {
		return
	}
	v.looking.Lock()
	defer v.looking.Unlock()
	ctx = context.WithoutCancel(ctx)
	var err error
	for tries := 0; ; tries++ {
		err = v.compareEvents(ctx, s)
		if !errors.As(err, new(*events.ConflictError)) || tries == mostConflicts {
			break
		}
	}
	if err != nil && !shared.IsAway(err) {
		v.Log.Trouble("events look", kindOf(err), "events can't be kept: "+err.Error())
	}
}

// mostConflicts is how often it is looked again because another host has found events at the
// same time. The next look finds what is left.
const mostConflicts = 5

func (v *Service) compareEvents(ctx context.Context, s *session.Session) error {
	var now events.Known
	if len(s.Config.Events.Command) > 0 {
		// Before what there is, so that nothing older is compared with it.
		if err := v.Events.Begin(ctx); err != nil {
			return err
		}
		known, err := s.Known(ctx, "")
		if err != nil {
			return nil //nolint:nilerr // the round says so
		}
		now.Records, now.Complete = session.Authorized(known.Records), len(known.Problems) == 0
		s.MarkVoid(ctx, now.Records, true)
		if now.Invitations, now.AllInvitations, err = s.InvitationsNow(ctx, now.Records); err != nil {
			// What has happened to grants is told all the same.
			now.Invitations, now.AllInvitations = nil, false
			v.Log.Trouble("events of invitations", kindOf(err), "events of invitations can't be found: "+err.Error())
		}
	}
	return v.Events.Look(ctx, now, s.Config.Events.Command)
}

// StuckError says that a write to the keychain is owed its answer, which ends a service.
func StuckError() error {
	return &vault.HomeError{Home: "keychain", TimedOut: true,
		What:   "The keychain did not answer a write. The write may still happen while this process runs, so the process ends.",
		Advice: "Make sure that the keychain answers. A service manager, such as systemd, starts this service again."}
}

// prove reads a grant out of each home and writes the metrics, before the first
// round: what is wrong with them when a service starts stays so until somebody
// does something about it, and only then somebody is looking.
func (v *Service) prove(ctx context.Context, s *session.Session) error {
	all, err := s.Records(ctx, "")
	if err != nil {
		return err
	}
	tried := map[string]bool{}
	for _, r := range session.Filter(all.Records, v.Application, v.Environment) {
		if tried[r.Home] {
			continue
		}
		tried[r.Home] = true
		var home *vault.HomeError
		if _, err := s.Vault.Get(ctx, r.ID); errors.As(err, &home) && !home.OfItem && !home.Damaged {
			return err
		}
	}
	if err := v.look(ctx, s); err != nil {
		return err
	}
	if v.Metrics == nil {
		return nil
	}
	return v.Metrics(v.known, nil)
}

// Begin tells systemd that the service runs: what could be wrong with it is
// right, and the first round may take a while.
func (v *Service) Begin(total int) {
	if !v.begun {
		v.Notify(fmt.Sprintf("%s\nSTATUS=first round, %d due", daemon.SdNotifyReady, total))
	}
	v.begun = true
	v.mu.Lock()
	defer v.mu.Unlock()
	if errors.Is(v.unready, ErrNotBegun) {
		v.unready = nil
	}
}

// Gone tells of a grant that only a person brings back.
func (v *Service) Gone(r grant.Record, state grant.State) {
	refused := ""
	if r.LastError != nil {
		refused = r.LastError.Message
	}
	v.trouble(r.ID, session.WithContact(keeper.Gone(r, state, refused), r.Contact))
}

// Saved tells of a grant with new tokens.
func (v *Service) Saved(_ grant.ID, result keeper.Result) {
	v.alive()
	what := "refreshed"
	if !result.Refreshed {
		what = "refreshed by another process meanwhile"
	}
	text := fmt.Sprintf("%s: %s, access token until %s", what, result.ID, result.Expires.UTC().Format(time.RFC3339))
	if !result.RefreshTokenExpires.IsZero() {
		text += ", refresh token until " + result.RefreshTokenExpires.UTC().Format(time.RFC3339)
	}
	v.Log.Event("%s", text)
	if lifetime := result.Lifetime(); lifetime > 0 && lifetime <= v.Within {
		v.TooWide(lifetime)
	}
}

// Failed tells of a grant without new tokens.
func (v *Service) Failed(id grant.ID, err error) {
	v.failures = append(v.failures, err)
	v.trouble(id, err)
}

func (v *Service) trouble(id grant.ID, err error) {
	v.alive()
	if errors.Is(err, context.Canceled) {
		return // it was not begun when the service was told to end
	}
	words := v.Words(err)
	v.later = v.later || words.Later || shared.IsAway(err)
	subject, what, all := troubleOf(id, err)
	if home := new(vault.HomeError); all && errors.As(err, &home) {
		v.closed = err
	}
	text := words.Text
	if !all {
		text = about(id.String(), text)
	}
	v.Log.Trouble(subject, what, fmt.Sprintf("failed, code %d: %s", words.Code, words.advised(text)))
}

// about puts what a text is about before it, unless it says so itself.
func about(what, text string) string {
	if strings.HasPrefix(text, what) {
		return text
	}
	return what + ": " + text
}

// advised is a sentence with what to do about it.
func (w Words) advised(text string) string {
	if w.Advice != "" {
		return strings.TrimSuffix(text, ".") + ". " + w.Advice
	}
	return text
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
		return "home " + home.Home, kindOf(err), true
	case shared.IsAway(err):
		return "database", "", true
	case errors.As(err, &fromUPS) && fromUPS.Kind == ups.Unreachable:
		return "way to " + id.Environment, "unreachable", true
	default:
		what = kindOf(err)
	}
	return "grant " + id.Slot(), what, false
}
