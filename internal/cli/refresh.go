package cli

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
)

type refreshOptions struct {
	target
	env    *Env
	All    bool
	Force  bool
	Within time.Duration
	Jobs   int
	// Stay is whether there are rounds to come, Every how long it is from one to
	// the next.
	Stay           bool
	Every          time.Duration
	PrometheusFile string
}

func newRefreshCmd(env *Env) *cobra.Command {
	opts := refreshOptions{env: env}
	cmd := &cobra.Command{
		Use:   "refresh",
		Short: "Refresh tokens: one company's, or all that are due",
		Long: `Exchanges refresh tokens for new ones. With --company that company's are
refreshed in any case; without, those of all companies whose access token ends
within --within, or whose refresh token ends soon; with --force all.

UPS's refresh tokens work once. What UPS answers is on disk, sealed, before
anything else happens to it, so that nothing that is cut off loses one.

With --every it stays, as a service: it refreshes what is due at once and then
again and again, and takes up changes of companies, applications and config.toml
by itself. --within longer than --every keeps a good access token at hand at any
time. There is one such service for a vault; all other commands work beside it.
It writes one line for each event on standard error; trouble that lasts is told
once a day. SIGHUP asks for a round at once. SIGTERM and Ctrl-C end it with exit
code 0, when what is under way with UPS is saved. Only what is wrong at its start
ends it otherwise, or a keychain that leaves a write unanswered.`,
		Example: `  upsauth refresh --company "Acme Corp"
  upsauth refresh
  upsauth refresh --all --force --jobs 16
  upsauth refresh --every 10m
  upsauth refresh --every 10m --prometheus-file /var/lib/node_exporter/upsauth.prom`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			opts.Stay = cmd.Flags().Changed("every")
			if err := noEmpty(cmd, "prometheus-file"); err != nil {
				return err
			}
			return runRefresh(cmd.Context(), opts)
		},
	}
	opts.addFlags(cmd)
	cmd.Flags().BoolVar(&opts.All, "all", false, "all companies (the same as no --company)")
	cmd.Flags().BoolVar(&opts.Force, "force", false, "also what is not due")
	cmd.Flags().Var(newSpan(&opts.Within, 15*time.Minute), "within", "due is what ends within this time")
	cmd.Flags().IntVar(&opts.Jobs, "jobs", 8, "how many companies at the same time")
	cmd.Flags().Var(newSpan(&opts.Every, 0), "every", "stay, and refresh what is due this often, such as 10m or 1d, and up to a tenth later")
	cmd.Flags().StringVar(&opts.PrometheusFile, "prometheus-file", "", "with --every: what upsauth status -o prometheus shows goes into this file after each round")
	return cmd
}

func runRefresh(ctx context.Context, opts refreshOptions) error {
	switch {
	case opts.All && opts.Company != "":
		return usagef("--all and --company exclude each other")
	case opts.Jobs < 1 || opts.Jobs > 256:
		return usagef("--jobs is a number from 1 to 256")
	case opts.Within < 0:
		return usagef("--within is a length of time from now on, it can't be negative")
	case opts.PrometheusFile != "" && !opts.Stay:
		return usagef("--prometheus-file goes with --every; otherwise: upsauth status -o prometheus >FILE")
	case opts.Stay:
		return runRefreshEvery(ctx, opts)
	}
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	s.FinishRemovals(ctx)
	if opts.Company != "" {
		return refreshOne(ctx, s, opts)
	}
	return refreshMany(ctx, s, opts)
}

func refreshOne(ctx context.Context, s *job, opts refreshOptions) error {
	record, err := s.pick(ctx, opts.target)
	if err != nil {
		return err
	}
	if err := s.Open(ctx, true, record); err != nil {
		return err
	}
	result, err := s.Keeper.Refresh(ctx, record.ID, keeper.Need{Always: true, Seen: keeper.SeenIn(record)})
	var saved *keeper.SavedError
	if err == nil || errors.As(err, &saved) {
		opts.env.tell("%s\n", refreshedLine(result))
	}
	return s.WithContact(err)
}

func refreshedLine(r keeper.Result) string {
	verb := "refreshed"
	if !r.Refreshed {
		verb = "refreshed by another process meanwhile"
	}
	line := fmt.Sprintf("%s: %s; the access token expires %s", r.ID, verb, render.UPSTime(r.Expires))
	if !r.RefreshTokenExpires.IsZero() {
		line += ", the refresh token " + render.UPSTime(r.RefreshTokenExpires)
	}
	return line
}

// due reports whether a grant should be refreshed now. A refresh token that the
// clock calls expired is tried all the same: UPS decides.
func due(r grant.Record, within time.Duration, now time.Time) bool {
	switch r.StateAt(now) {
	case grant.Void, grant.Unauthorized:
		return false
	case grant.Interrupted:
		return true
	case grant.Expiring, grant.Expired:
		return !r.NoRefreshToken
	}
	return !r.NoRefreshToken && !r.AccessGood(now, within)
}

// refreshMany refreshes what is due, once.
func refreshMany(ctx context.Context, s *job, opts refreshOptions) error {
	t := &tally{env: opts.env}
	r, err := refreshDue(ctx, s, opts, t)
	t.end()
	if err != nil {
		return err
	}
	if r.unused != "" {
		return &notFoundError{what: r.String(), advice: unusedAdvice}
	}
	fmt.Fprintf(opts.env.Err, "%s.\n", r)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case r.worst != exitDone:
		return &statusError{code: r.worst}
	}
	return nil
}

// round is what became of the grants when those due were refreshed.
type round struct {
	done, failed, notDue, void, left int
	worst                            int // exit code
	// unused says why there is nothing to refresh, where nothing was ever kept
	// here.
	unused string
}

func (r round) String() string {
	if r.unused != "" {
		return "nothing to refresh: " + r.unused
	}
	text := fmt.Sprintf("%d refreshed, %d failed, %d not due", r.done, r.failed, r.notDue)
	if r.void > 0 {
		text += fmt.Sprintf(", %d void and to be authorized again", r.void)
	}
	if r.left > 0 {
		text += fmt.Sprintf(", %d not begun", r.left)
	}
	return text
}

// teller is told what becomes of each grant, of one at a time.
type teller interface {
	// gone is a grant that only a person brings back.
	gone(r grant.Record, state grant.State)
	// begin comes before UPS is asked for so many grants.
	begin(total int)
	// saved is a grant with new tokens, failed one without.
	saved(id grant.ID, result keeper.Result)
	failed(id grant.ID, err error)
}

// refreshDue refreshes several grants at the same time, each by itself: what
// fails for one company stops no other. An error says that it could not begin.
func refreshDue(ctx context.Context, s *job, opts refreshOptions, tell teller) (r round, err error) {
	list, err := s.Records(ctx, "")
	if err != nil {
		return r, err
	}
	all := list.Records
	if err := s.CheckNames(list, opts.Application, opts.Environment); err != nil {
		return r, err
	}
	now := opts.env.Now()
	var work []grant.Record
	for _, g := range session.Filter(all, opts.Application, opts.Environment) {
		switch state := g.StateAt(now); {
		case state == grant.Void, state == grant.Expired && g.NoRefreshToken:
			r.void++
			g.Contact = s.Contact(g.Company)
			tell.gone(g, state)
		case opts.Force || due(g, opts.Within, now):
			work = append(work, g)
		default:
			r.notDue++
		}
	}
	if err := s.Open(ctx, true, work...); err != nil {
		return r, err
	}
	tell.begin(len(work))
	var mu sync.Mutex
	add := func(id grant.ID, result keeper.Result, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err == nil || errors.As(err, new(*keeper.SavedError)) {
			r.done++
			tell.saved(id, result)
			return
		}
		r.failed++
		r.worst = worse(r.worst, exitCode(err))
		tell.failed(id, err)
	}
	var group errgroup.Group
	group.SetLimit(opts.Jobs)
	for _, g := range work {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			if ctx.Err() == nil {
				result, err := s.Keeper.Refresh(ctx, g.ID, keeper.Need{Always: true, Seen: keeper.SeenIn(g)})
				add(g.ID, result, s.WithContact(err))
			}
			return nil
		})
	}
	_ = group.Wait()
	r.left = len(work) - r.done - r.failed
	if len(all) == 0 && len(list.Problems) == 0 {
		if r.unused = s.NeverUsed(); r.unused != "" {
			r.worst = exitNotFound
		}
	}
	if r.void > 0 {
		r.worst = worse(r.worst, exitAuthorize)
	}
	if len(list.Problems) > 0 {
		r.worst = worse(r.worst, exitFailed)
	}
	return r, nil
}

// tally tells what became of each company: a line for each, or on a terminal a
// bar and a line for each failure.
type tally struct {
	env *Env
	bar *progress
}

func (t *tally) gone(r grant.Record, state grant.State) {
	fmt.Fprintf(t.env.Err, "%s: %s, to be authorized again\n", r.ID, state)
	if r.Contact != "" {
		fmt.Fprintf(t.env.Err, "  Contact: %s\n", render.Text(r.Contact))
	}
	fmt.Fprintf(t.env.Err, "  Run: %s\n", companyCommand("authorize", r.ID))
}

func (t *tally) begin(total int) {
	if t.env.ErrTerminal && t.env.OutTerminal && !t.env.NoEscapes && total > 1 {
		t.bar = newProgress(t.env.Err, t.env.Now, total)
	}
}

func (t *tally) saved(_ grant.ID, result keeper.Result) {
	if t.bar != nil {
		t.bar.step(false, "")
		return
	}
	t.env.tell("%s\n", refreshedLine(result))
}

func (t *tally) failed(id grant.ID, err error) {
	lines := about(id.String(), err) + "\n"
	if text := advice(err); text != "" {
		lines += fmt.Sprintf("  %s\n", text)
	}
	if t.bar != nil {
		t.bar.step(true, lines)
		return
	}
	fmt.Fprint(t.env.Err, lines)
}

func (t *tally) end() {
	if t.bar != nil {
		t.bar.end()
	}
}
