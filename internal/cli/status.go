package cli

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

type statusOptions struct {
	target
	env        *Env
	Output     string
	States     []string
	Sort       string
	TimeFormat string
	UTC        bool
	Raw        bool
	Check      bool
	Require    string
	Expiring   string
}

func newStatusCmd(env *Env) *cobra.Command {
	opts := statusOptions{env: env}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the issue and expiry times of every company's tokens",
		Long: `Shows a table of all grants: when their access and refresh tokens were issued
and when they expire. Status only reads records. It never opens the keychain,
never asks UPS and never opens a browser.

--company accepts patterns as in a shell, such as "Acme*". For a single company,
status shows the panel of its application, the state, and what to do next.`,
		Example: `  upsauth status
  upsauth status --company "Acme Corp"
  upsauth status --state void,expired --sort company
  upsauth status --time-format ups -o wide
  upsauth status -o json
  upsauth status -o prometheus > /var/lib/node_exporter/upsauth.prom
  upsauth status --check --expiring 30d
  upsauth status --check --require all`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			if err := noEmpty(cmd, "require"); err != nil {
				return err
			}
			return runStatus(cmd.Context(), opts)
		},
	}
	opts.addFlags(cmd)
	outputFlag(cmd, &opts.Output, "", "table", "wide", "json", "csv", "prometheus")
	opts.addViewFlags(cmd)
	cmd.Flags().BoolVar(&opts.Check, "check", false, "print one line and exit 0; exit 4 if a company must be authorized again or its refresh token expires within --expiring, 1 if something is damaged, 3 if the state directory was never used")
	cmd.Flags().StringVar(&opts.Require, "require", "", "with --check: exit 4 also if fewer than this many grants are authorized, refreshable or expiring; all means every known company")
	return cmd
}

// addViewFlags adds what says which grants are shown and how.
func (opts *statusOptions) addViewFlags(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&opts.States, "state", nil, "only grants in these states: "+joinedStates())
	cmd.Flags().StringVar(&opts.Sort, "sort", "", "the order: urgency (default of the table), company (default of other formats), expires, state or issued")
	cmd.Flags().StringVar(&opts.TimeFormat, "time-format", "", "how the table shows times: local, utc, ups, batch, relative or iso")
	cmd.Flags().BoolVar(&opts.UTC, "utc", false, "the same as --time-format utc")
	cmd.Flags().BoolVar(&opts.Raw, "raw", false, "with -o csv: write every field unchanged, even if a spreadsheet reads the field as a formula")
	cmd.Flags().StringVar(&opts.Expiring, "expiring", "", "only grants whose refresh token expires within this time, such as 7d or 36h")
}

func joinedStates() string {
	var names []string
	for _, state := range grant.States() {
		names = append(names, string(state))
	}
	return joined(names)
}

// statusView is what the flags of status say, checked.
type statusView struct {
	require *session.Required
	within  time.Duration
	states  []grant.State
	order   render.Order
	times   render.TimeFormat
}

func (opts statusOptions) view() (v statusView, err error) {
	if opts.Expiring != "" {
		if v.within, err = legible.Span(opts.Expiring); err != nil {
			return v, usagef("%v", err)
		}
		if v.within < 0 {
			return v, usagef("--expiring can't be negative: it is a length of time from now on")
		}
	}
	if opts.Require != "" {
		if !opts.Check {
			return v, usagef("--require goes with --check")
		}
		if v.require, err = parseRequired(opts.Require); err != nil {
			return v, err
		}
	}
	if opts.Check && opts.Output != "" {
		return v, usagef("--check prints one line of text, so it can't be combined with -o")
	}
	if opts.Raw && opts.Output != "csv" {
		return v, usagef("--raw is for -o csv")
	}
	for _, text := range opts.States {
		state := grant.State(strings.TrimSpace(text))
		if !slices.Contains(grant.States(), state) {
			return v, usagef("%q is not a state: use one of %s", text, joinedStates())
		}
		v.states = append(v.states, state)
	}
	table := opts.Output == "" || opts.Output == "table" || opts.Output == "wide"
	v.order = render.ByCompany
	if table {
		v.order = render.ByUrgency
	}
	if opts.Sort != "" {
		if v.order, err = render.ParseOrder(opts.Sort); err != nil {
			return v, usagef("--sort: %v", err)
		}
	}
	v.times = render.TimeLocal
	switch {
	case opts.UTC && opts.TimeFormat != "":
		return v, usagef("--utc and --time-format can't be combined")
	case opts.UTC:
		v.times = render.TimeUTC
	case opts.TimeFormat != "":
		if v.times, err = render.ParseTimeFormat(opts.TimeFormat); err != nil {
			return v, usagef("--time-format: %v", err)
		}
	}
	return v, nil
}

// keep leaves the grants in the states that are asked for.
func (v statusView) keep(records []grant.Record, now time.Time) []grant.Record {
	if len(v.states) == 0 {
		return records
	}
	return slices.DeleteFunc(records, func(r grant.Record) bool { return !slices.Contains(v.states, r.StateAt(now)) })
}

func runStatus(ctx context.Context, opts statusOptions) error {
	view, err := opts.view()
	if err != nil {
		return err
	}
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	// What is read stays, so there is nothing to collect: to look through it again and again
	// while it comes takes a tenth of the time of a long list.
	collect := func() {}
	if opts.env.Getenv("GOGC") == "" {
		usual := debug.SetGCPercent(400)
		collect = func() { debug.SetGCPercent(usual) }
	}
	list, err := session.Matching(ctx, opts.Company, s.Known)
	collect()
	if err != nil {
		return err
	}
	all := list.Records
	if err := s.CheckNames(ctx, list, opts.Application, opts.Environment); err != nil {
		return err
	}
	s.MarkVoid(ctx, all, opts.Company == "")
	if !opts.Check {
		if err := s.MarkInvited(ctx, all); err != nil {
			return err
		}
	}
	records := session.Filter(all, opts.Application, opts.Environment)
	if opts.Company != "" && len(records) == 0 {
		if session.IsPattern(opts.Company) {
			if err := s.whole(); err != nil {
				return err
			}
			return s.NothingFits(ctx, opts.Target)
		}
		// Says which is missing, the company or the grant.
		_, err := s.pick(ctx, opts.target)
		return err
	}
	now := opts.env.Now()
	records = view.keep(records, now)
	if opts.Check {
		if opts.Company != "" && !slices.ContainsFunc(records, func(r grant.Record) bool { return r.TokenVaultKey != "" }) {
			return s.NoCompany(ctx, opts.Company)
		}
		return check(ctx, s, monitorLine{records: records, expected: session.Expected{Within: view.within, Required: view.require}, now: now})
	}
	s.tellUnused(all)
	if err := opts.show(s, view, all, records, now); err != nil {
		return err
	}
	return s.whole()
}

// show writes the grants in the form that is asked for.
func (opts statusOptions) show(s *job, view statusView, all, records []grant.Record, now time.Time) error {
	if opts.Expiring != "" {
		records = session.EndingWithin(records, view.within, now)
	}
	render.SortRecords(records, view.order, now)
	switch opts.Output {
	case "json":
		return render.StatusJSON(opts.env.Out, records, now, problemsOf(s.problems)...)
	case "csv":
		return render.StatusCSV(opts.env.Out, records, now, opts.Raw, s.Shared != nil)
	case "prometheus":
		return render.Prometheus(opts.env.Out, records, now)
	}
	if len(records) == 0 {
		if len(all) > 0 {
			fmt.Fprintln(opts.env.Err, "No authorization matches these filters.")
			return nil
		}
		if len(s.problems) > 0 {
			fmt.Fprintln(opts.env.Err, "No other company is known here.")
			return nil
		}
		fmt.Fprintln(opts.env.Err, "No company is authorized. Begin with: upsauth authorize --company NAME")
		return nil
	}
	if opts.Company != "" && !session.IsPattern(opts.Company) && len(records) == 1 && opts.Output == "" {
		return s.showOne(records[0], now)
	}
	return render.StatusTable(opts.env.Out, records, render.View{
		Now: now, Zone: opts.env.Zone, Wide: opts.Output == "wide", Colour: wantsColour(opts.env),
		Width: opts.env.width(), TimeFormat: view.times,
	})
}

// wantsColour is the one place that decides about colour.
func wantsColour(env *Env) bool {
	return env.OutTerminal && !env.NoEscapes && env.Getenv("NO_COLOR") == "" && env.Getenv("TERM") != "dumb"
}

// tooFew says for a monitor that there is more than could be read.
func tooFew(problems []error) string {
	if slices.ContainsFunc(problems, shared.IsAway) {
		return "the database that hosts share can't be reached"
	}
	for _, problem := range problems {
		if !errors.As(problem, new(*vault.DamagedError)) {
			return fmt.Sprintf("%d files can't be read", len(problems))
		}
	}
	return fmt.Sprintf("%d records are damaged", len(problems))
}

// problemsOf are the files that can't be read, for a program.
func problemsOf(problems []error) []render.Problem {
	var list []render.Problem
	for _, problem := range problems {
		path := vault.PathOf(problem)
		if file := new(company.FileError); errors.As(problem, &file) {
			path = file.Path
		}
		if file := new(invitation.FileError); errors.As(problem, &file) {
			path = file.Path
		}
		list = append(list, render.Problem{Path: path, Message: message(problem)})
	}
	return list
}

// showOne shows one grant as its application does, and what to do next.
func (s *job) showOne(r grant.Record, now time.Time) error {
	details := render.Details{Times: r.TokenVaultKey != "", RetryAfter: s.Config.RetryUnknownAfter}
	if r.StateAt(now).Usable() {
		if err := showPanel(s.env, r); err != nil {
			return err
		}
		fmt.Fprintln(s.env.Out)
		details.Times = r.Application == config.BatchSuite // its panel has one of the four
	}
	rows := details.Rows(r, now)
	if next := nextCommand(r, now); next != "" {
		rows = append(rows, render.Row{Name: "Next", Value: next})
	}
	return render.Rows(s.env.Out, rows, s.env.width())
}

// nextCommand is the one command to run for a grant in a state.
func nextCommand(r grant.Record, now time.Time) string {
	switch state := r.StateAt(now); {
	case r.Waits != "":
		return inWords(explain.Act{Do: explain.ConfirmHeld, Invitation: r.Waits})
	case state == grant.Authorized && !r.ProbablyVoid():
		return ""
	case state.Usable(), state == grant.Interrupted:
		return companyCommand("refresh", r.ID)
	}
	return companyCommand("authorize", r.ID)
}

func companyCommand(command string, id grant.ID) string {
	if id.Application == "" {
		return fmt.Sprintf("upsauth %s --company %s", command, shellQuote(id.Company))
	}
	return fmt.Sprintf("upsauth %s --company %s --app %s --env %s", command, shellQuote(id.Company), id.Application, id.Environment)
}

// showPanel shows what the grant's application shows when a company has one.
func showPanel(env *Env, r grant.Record) error {
	if r.Application == config.BatchSuite {
		return render.BatchSuitePanel(env.Out, r, companyCommand("revoke", r.ID), env.width())
	}
	return render.Panel(env.Out, r, env.width())
}
