package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/service"
	"github.com/upsauth/upsauth/internal/terminal"
)

type refreshOptions struct {
	target
	env    *Env
	All    bool
	Force  bool
	Within time.Duration
	Jobs   int
	// TakeOver is whether another host's open claim is respected no longer.
	TakeOver bool
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
		Short: "Refresh the tokens of one company, or all tokens that are due",
		Long: `Exchanges refresh tokens for new tokens. With --company, upsauth always refreshes
the tokens of that company. Without --company, upsauth refreshes the tokens of every
company whose access token expires within --within, or whose refresh token expires
soon. --force refreshes the tokens of all companies.

UPS's refresh tokens work once. upsauth first saves UPS's answer to disk, encrypted,
and then uses the answer. So an interrupted command loses no token.

With --every, upsauth keeps running as a service. The service refreshes due tokens
now, and again after each interval. It notices changes to companies, applications and
config.toml without a restart. If --within is longer than --every, every company
always has a valid access token. Each vault can have one such service. All other
commands work at the same time. The service writes one line for each event to
standard error, and repeats a lasting problem once a day.

SIGHUP starts a round at once. After SIGTERM or Ctrl-C, the service finishes and
saves its requests to UPS, and then ends with exit code 0. Otherwise the service ends
only if it can't start, or if a keychain does not answer a write.`,
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
	cmd.Flags().BoolVar(&opts.Force, "force", false, "also refresh tokens that are not due")
	cmd.Flags().Var(newSpan(&opts.Within, 15*time.Minute), "within", "refresh tokens that expire within this time")
	cmd.Flags().IntVar(&opts.Jobs, "jobs", 8, "how many companies at the same time")
	cmd.Flags().BoolVar(&opts.TakeOver, "take-over", false, "with --company and a shared vault: do not wait for another host that has asked UPS and whose answer has not arrived; if that host has the answer after all, UPS may void the authorization")
	cmd.Flags().Var(newSpan(&opts.Every, 0), "every", "keep running, and refresh due tokens at this interval, such as 10m or 1d; a round may begin up to a tenth of the interval later")
	cmd.Flags().StringVar(&opts.PrometheusFile, "prometheus-file", "", "with --every: after each round, write the output of upsauth status -o prometheus to this file")
	return cmd
}

// check refuses what no refresh can mean, once or again and again.
func (opts refreshOptions) check() error {
	switch {
	case opts.Jobs < 1 || opts.Jobs > 256:
		return usagef("--jobs must be a number from 1 to 256")
	case opts.Within < 0:
		return usagef("--within can't be negative: it is a length of time from now on")
	}
	return nil
}

func runRefresh(ctx context.Context, opts refreshOptions) error {
	switch err := opts.check(); {
	case err != nil:
		return err
	case opts.TakeOver && (opts.Company == "" || opts.Stay):
		return usagef("--take-over needs --company, and no --every: look at each company whose answer is awaited")
	case opts.All && opts.Company != "":
		return usagef("--all and --company can't be combined")
	case opts.PrometheusFile != "" && !opts.Stay:
		return usagef("--prometheus-file needs --every; without it, run: upsauth status -o prometheus >FILE")
	case opts.Stay:
		return runRefreshEvery(ctx, opts)
	}
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	if opts.TakeOver {
		if s.Shared == nil {
			return usagef("--take-over is for a vault that several hosts share; this one is not")
		}
		s.Shared.TakeOver()
	}
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
	return s.WithContact(ctx, err)
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

// work is what the flags say of the grants to be refreshed.
func (opts refreshOptions) work() service.Work {
	return service.Work{Application: opts.Application, Environment: opts.Environment, Within: opts.Within, Force: opts.Force, Jobs: opts.Jobs}
}

// refreshMany refreshes what is due, once.
func refreshMany(ctx context.Context, s *job, opts refreshOptions) error {
	t := &tally{env: opts.env}
	r, err := service.RefreshDue(ctx, s.Session, opts.work(), t)
	t.end()
	if err != nil {
		return err
	}
	if r.Unused != "" {
		return &notFoundError{what: r.String(), advice: unusedAdvice}
	}
	fmt.Fprintf(opts.env.Err, "%s.\n", r)
	switch code := roundCode(r, t.failures); {
	case ctx.Err() != nil:
		return ctx.Err()
	case code != exitDone:
		return &statusError{code: code}
	}
	return nil
}

// roundCode is the exit code of a round: that of the worst that came up in it.
func roundCode(r service.Round, failures []error) int {
	code := exitDone
	for _, err := range failures {
		code = worse(code, exitCode(err))
	}
	if r.Unused != "" {
		code = worse(code, exitNotFound)
	}
	if r.Void > 0 {
		code = worse(code, exitAuthorize)
	}
	if r.Unread > 0 {
		code = worse(code, exitFailed)
	}
	return code
}

// tally tells what became of each company: a line for each, or on a terminal a
// bar and a line for each failure.
type tally struct {
	env      *Env
	bar      *terminal.Progress
	failures []error
}

func (t *tally) Gone(r grant.Record, state grant.State) {
	fmt.Fprintf(t.env.Err, "%s: %s, must be authorized again\n", r.ID, state)
	if r.Contact != "" {
		fmt.Fprintf(t.env.Err, "  Contact: %s\n", render.Text(r.Contact))
	}
	fmt.Fprintf(t.env.Err, "  Run: %s\n", companyCommand("authorize", r.ID))
}

func (t *tally) Begin(total int) {
	if t.env.ErrTerminal && t.env.OutTerminal && !t.env.NoEscapes && total > 1 {
		t.bar = terminal.NewProgress(t.env.Err, t.env.Now, total)
	}
}

func (t *tally) Saved(_ grant.ID, result keeper.Result) {
	if t.bar != nil {
		t.bar.Step(false, "")
		return
	}
	t.env.tell("%s\n", refreshedLine(result))
}

func (t *tally) Failed(id grant.ID, err error) {
	t.failures = append(t.failures, err)
	lines := about(id.String(), err) + "\n"
	if text := advice(err); text != "" {
		lines += fmt.Sprintf("  %s\n", text)
	}
	if t.bar != nil {
		t.bar.Step(true, lines)
		return
	}
	fmt.Fprint(t.env.Err, lines)
}

func (t *tally) end() {
	if t.bar != nil {
		t.bar.End()
	}
}
