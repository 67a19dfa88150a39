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
)

type refreshOptions struct {
	target
	env    *Env
	All    bool
	Force  bool
	Within time.Duration
	Jobs   int
}

func newRefreshCmd(env *Env, run func(context.Context, refreshOptions) error) *cobra.Command {
	opts := refreshOptions{env: env}
	cmd := &cobra.Command{
		Use:   "refresh",
		Short: "Refresh tokens: one company's, or all that are due",
		Long: `Exchanges refresh tokens for new ones. With --company that company's are
refreshed in any case; without, those of all companies whose access token ends
within --within, or whose refresh token ends soon; with --force all.

UPS's refresh tokens work once. What UPS answers is on disk, sealed, before
anything else happens to it, so that nothing that is cut off loses one.`,
		Example: `  upsauth refresh --company "Acme Corp"
  upsauth refresh
  upsauth refresh --all --force --jobs 16`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return run(cmd.Context(), opts)
		},
	}
	opts.addFlags(cmd)
	cmd.Flags().BoolVar(&opts.All, "all", false, "all companies (the same as no --company)")
	cmd.Flags().BoolVar(&opts.Force, "force", false, "also what is not due")
	cmd.Flags().Var(newSpan(&opts.Within, 15*time.Minute), "within", "due is what ends within this time")
	cmd.Flags().IntVar(&opts.Jobs, "jobs", 8, "how many companies at the same time")
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
	}
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	s.finishRemovals(ctx)
	if opts.Company != "" {
		return refreshOne(ctx, s, opts)
	}
	return refreshMany(ctx, s, opts)
}

func refreshOne(ctx context.Context, s *session, opts refreshOptions) error {
	record, err := s.pick(ctx, opts.target)
	if err != nil {
		return err
	}
	if err := s.open(ctx, true, record); err != nil {
		return err
	}
	result, err := s.keeper.Refresh(ctx, record.ID, keeper.Need{Always: true})
	var saved *keeper.SavedError
	if err == nil || errors.As(err, &saved) {
		fmt.Fprintln(opts.env.Out, refreshedLine(result))
	}
	return err
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

// refreshMany refreshes several grants at the same time, each by itself: what
// fails for one company stops no other.
func refreshMany(ctx context.Context, s *session, opts refreshOptions) error {
	all, err := s.records("")
	if err != nil {
		return err
	}
	if err := s.checkFilter(all, opts.Application, opts.Environment); err != nil {
		return err
	}
	now := opts.env.Now()
	var work []grant.Record
	void := 0
	for _, r := range filter(all, opts.Application, opts.Environment) {
		switch {
		case r.StateAt(now) == grant.Void, r.StateAt(now) == grant.Expired && r.NoRefreshToken:
			void++
			fmt.Fprintf(opts.env.Err, "%s: %s, to be authorized again\n  Run: %s\n", r.ID, r.StateAt(now), companyCommand("authorize", r.ID))
		case opts.Force || due(r, opts.Within, now):
			work = append(work, r)
		}
	}
	if err := s.open(ctx, true, work...); err != nil {
		return err
	}
	tally := newTally(opts.env, len(work))
	var group errgroup.Group
	group.SetLimit(opts.Jobs)
	for _, r := range work {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			if ctx.Err() == nil {
				result, err := s.keeper.Refresh(ctx, r.ID, keeper.Need{Always: true})
				tally.add(r.ID, result, err)
			}
			return nil
		})
	}
	_ = group.Wait()
	done, failed, worst := tally.end()
	rest := ""
	if void > 0 {
		rest = fmt.Sprintf(", %d void and to be authorized again", void)
		worst = worse(worst, exitAuthorize)
	}
	if s.problems > 0 {
		worst = worse(worst, exitFailed)
	}
	if left := len(work) - done - failed; left > 0 {
		rest += fmt.Sprintf(", %d not begun", left)
	}
	fmt.Fprintf(opts.env.Err, "%d refreshed, %d failed, %d not due%s.\n", done, failed, len(filter(all, opts.Application, opts.Environment))-len(work)-void, rest)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case worst != exitDone:
		return &statusError{code: worst}
	}
	return nil
}

// tally counts and tells what became of each company: a line for each, or on a
// terminal a bar and a line for each failure.
type tally struct {
	env *Env
	bar *progress

	mu                  sync.Mutex
	done, failed, worst int
}

func newTally(env *Env, total int) *tally {
	t := &tally{env: env}
	if env.ErrTerminal && env.OutTerminal && total > 1 {
		t.bar = newProgress(env.Err, env.Now, total)
	}
	return t
}

func (t *tally) add(id grant.ID, result keeper.Result, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var saved *keeper.SavedError
	if err == nil || errors.As(err, &saved) {
		t.done++
		if t.bar != nil {
			t.bar.step(false, "")
			return
		}
		fmt.Fprintln(t.env.Out, refreshedLine(result))
		return
	}
	t.failed++
	t.worst = worse(t.worst, exitCode(err))
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

func (t *tally) end() (done, failed, worst int) {
	if t.bar != nil {
		t.bar.end()
	}
	return t.done, t.failed, t.worst
}
