package cli

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/vault"
)

type statusOptions struct {
	target
	env        *Env
	Output     string
	States     []string
	Sort       string
	TimeFormat string
	UTC        bool
	Check      bool
	Expiring   string
}

func newStatusCmd(env *Env, run func(context.Context, statusOptions) error) *cobra.Command {
	opts := statusOptions{env: env}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the issue and expiry times of every company's tokens",
		Long: `Shows a table of all grants: when their access and refresh tokens were issued
and when they expire. Status reads records only: it never opens the keychain,
never asks UPS and never opens a browser.

--company takes patterns as a shell does, such as "Acme*". With one company it
shows the panel of its application, the state, and what to do next.`,
		Example: `  upsauth status
  upsauth status --company "Acme Corp"
  upsauth status --state void,expired --sort company
  upsauth status --time-format ups -o wide
  upsauth status -o json
  upsauth status -o prometheus > /var/lib/node_exporter/upsauth.prom
  upsauth status --check --expiring 30d`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return run(cmd.Context(), opts)
		},
	}
	opts.addFlags(cmd)
	outputFlag(cmd, &opts.Output, "table, wide, json, csv or prometheus")
	cmd.Flags().StringSliceVar(&opts.States, "state", nil, "only grants in these states: "+joinedStates())
	cmd.Flags().StringVar(&opts.Sort, "sort", "", "the order: urgency (of the table), company (of everything else), expires, state or issued")
	cmd.Flags().StringVar(&opts.TimeFormat, "time-format", "", "how the table shows times: local, utc, ups, batch, relative or iso")
	cmd.Flags().BoolVar(&opts.UTC, "utc", false, "the same as --time-format utc")
	cmd.Flags().BoolVar(&opts.Check, "check", false, "print one line and exit 0, or 4 if a company has to be authorized again or its refresh token ends within --expiring, 1 if something is damaged")
	cmd.Flags().StringVar(&opts.Expiring, "expiring", "", "only grants whose refresh token ends within this time, such as 7d or 36h")
	return cmd
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
	within time.Duration
	states []grant.State
	order  render.Order
	times  render.TimeFormat
}

func (opts statusOptions) view() (v statusView, err error) {
	if opts.Expiring != "" {
		if v.within, err = parseSpan(opts.Expiring); err != nil {
			return v, err
		}
		if v.within < 0 {
			return v, usagef("--expiring is a length of time from now on, it can't be negative")
		}
	}
	switch opts.Output {
	case "", "table", "wide", "json", "csv", "prometheus":
		if opts.Check && opts.Output != "" {
			return v, usagef("--check prints one line of text, -o has no meaning with it")
		}
	default:
		return v, usagef("%q is no output format of status: it is table, wide, json, csv or prometheus", opts.Output)
	}
	for _, text := range opts.States {
		state := grant.State(strings.TrimSpace(text))
		if !slices.Contains(grant.States(), state) {
			return v, usagef("%q is no state: it is one of %s", text, joinedStates())
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
		return v, usagef("--utc and --time-format can't go together")
	case opts.UTC:
		v.times = render.TimeUTC
	case opts.TimeFormat != "":
		if v.times, err = render.ParseTimeFormat(opts.TimeFormat); err != nil {
			return v, usagef("--time-format: %v", err)
		}
	}
	return v, nil
}

func runStatus(ctx context.Context, opts statusOptions) error {
	view, err := opts.view()
	if err != nil {
		return err
	}
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	all, err := s.matching(opts.Company)
	if err != nil {
		return err
	}
	if err := s.checkFilter(all, opts.Application, opts.Environment); err != nil {
		return err
	}
	records := filter(all, opts.Application, opts.Environment)
	if opts.Company != "" && len(records) == 0 {
		if isPattern(opts.Company) {
			if err := s.whole(); err != nil {
				return err
			}
			return &notFoundError{what: fmt.Sprintf("no company fits %q%s", opts.Company, describe(opts.Application, opts.Environment)), advice: "upsauth company list shows all companies."}
		}
		// Says which is missing, the company or the grant.
		_, err := s.pick(ctx, opts.target)
		return err
	}
	now := opts.env.Now()
	if len(view.states) > 0 {
		records = slices.DeleteFunc(records, func(r grant.Record) bool { return !slices.Contains(view.states, r.StateAt(now)) })
	}
	if opts.Check {
		if opts.Company != "" && !slices.ContainsFunc(records, func(r grant.Record) bool { return r.TokenVaultKey != "" }) {
			return s.noCompany(opts.Company)
		}
		return check(s, records, view.within, now)
	}
	if err := opts.show(s, view, all, records, now); err != nil {
		return err
	}
	return s.whole()
}

// show writes the grants in the form that is asked for.
func (opts statusOptions) show(s *session, view statusView, all, records []grant.Record, now time.Time) error {
	if opts.Expiring != "" {
		records = endingWithin(records, view.within, now)
	}
	render.SortRecords(records, view.order, now)
	switch opts.Output {
	case "json":
		return render.StatusJSON(opts.env.Out, records, now, problemsOf(s.problems)...)
	case "csv":
		return render.StatusCSV(opts.env.Out, records, now)
	case "prometheus":
		return render.Prometheus(opts.env.Out, records, now)
	}
	if len(records) == 0 {
		if len(all) > 0 {
			fmt.Fprintln(opts.env.Err, "No grant fits.")
			return nil
		}
		if len(s.problems) > 0 {
			fmt.Fprintln(opts.env.Err, "No other company is known here.")
			return nil
		}
		fmt.Fprintln(opts.env.Err, "No company is authorized. Begin with: upsauth authorize --company NAME")
		return nil
	}
	if opts.Company != "" && !isPattern(opts.Company) && len(records) == 1 && opts.Output == "" {
		return showOne(opts.env, records[0], now)
	}
	return render.StatusTable(opts.env.Out, records, render.View{
		Now: now, Zone: opts.env.Zone, Wide: opts.Output == "wide", Colour: wantsColour(opts.env),
		Width: opts.env.width(), TimeFormat: view.times,
	})
}

// isPattern reports whether a company is named by a pattern.
func isPattern(name string) bool { return strings.ContainsAny(name, "*?[") }

// matching is known for a company's name or a pattern of names.
func (s *session) matching(name string) ([]grant.Record, error) {
	if !isPattern(name) {
		return s.known(name)
	}
	if exact, err := s.known(name); err != nil || len(exact) > 0 {
		return exact, err // a name may have such a character
	}
	all, err := s.known("")
	if err != nil {
		return nil, err
	}
	pattern := grant.Fold(name)
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, &notFoundError{what: fmt.Sprintf("no company %q is known here, and it is no pattern such as \"Acme*\" either", name), advice: "upsauth company list shows all companies."}
	}
	return slices.DeleteFunc(all, func(r grant.Record) bool {
		// A slash is a character like any other here.
		fits, _ := path.Match(strings.ReplaceAll(pattern, "/", "\x00"), strings.ReplaceAll(grant.Fold(r.Company), "/", "\x00"))
		return !fits
	}), nil
}

// wantsColour is the one place that decides about colour.
func wantsColour(env *Env) bool {
	return env.OutTerminal && !env.NoEscapes && env.Getenv("NO_COLOR") == "" && env.Getenv("TERM") != "dumb"
}

// endingWithin keeps the grants whose refresh token ends within a time, and
// those that need a person already.
func endingWithin(records []grant.Record, within time.Duration, now time.Time) []grant.Record {
	var found []grant.Record
	for _, r := range records {
		if needsPerson(r, within, now) {
			found = append(found, r)
		}
	}
	return found
}

func needsPerson(r grant.Record, within time.Duration, now time.Time) bool {
	switch r.StateAt(now) {
	case grant.Void, grant.Expired:
		return true
	case grant.Unauthorized:
		return false // nobody has begun with it yet
	}
	return !r.RefreshUntil.IsZero() && r.RefreshUntil.Sub(now) <= within
}

// check prints one line for a monitor.
func check(s *session, records []grant.Record, within time.Duration, now time.Time) error {
	bad := endingWithin(records, within, now)
	if len(bad) == 0 {
		if len(s.problems) > 0 {
			fmt.Fprintf(s.env.Out, "WARNING - %s, see upsauth status; %s\n", tooFew(s.problems), render.Summary(records, now))
			return &statusError{code: exitFailed}
		}
		fmt.Fprintf(s.env.Out, "OK - %s\n", render.Summary(records, now))
		return nil
	}
	var names []string
	for i, r := range bad {
		if i == 5 {
			names = append(names, fmt.Sprintf("and %d more", len(bad)-i))
			break
		}
		// Nagios takes what is behind a bar for numbers.
		name := strings.ReplaceAll(render.Text(r.Company), "|", "/")
		what := fmt.Sprintf("%s is %s", name, r.StateAt(now))
		if left := r.RefreshUntil.Sub(now); left > 0 && r.StateAt(now) != grant.Void {
			what = fmt.Sprintf("%s ends in %s", name, render.Span(left))
		}
		names = append(names, what)
	}
	what := "need a person"
	if within > 0 {
		what = fmt.Sprintf("need a person or end within %s", render.Span(within))
	}
	fmt.Fprintf(s.env.Out, "CRITICAL - %d of %d grants %s: %s\n", len(bad), len(records), what, joined(names))
	return &statusError{code: exitAuthorize}
}

// tooFew says for a monitor that there is more than could be read.
func tooFew(problems []error) string {
	for _, problem := range problems {
		if !errors.As(problem, new(*vault.DamagedError)) {
			return fmt.Sprintf("%d files can't be read", len(problems))
		}
	}
	return fmt.Sprintf("%d records are damaged", len(problems))
}

// problemsOf is what a program is told of files that can't be read.
func problemsOf(problems []error) []render.Problem {
	var list []render.Problem
	for _, problem := range problems {
		path := vault.PathOf(problem)
		if file := new(company.FileError); errors.As(problem, &file) {
			path = file.Path
		}
		list = append(list, render.Problem{Path: path, Message: problem.Error()})
	}
	return list
}

// showOne shows one grant as its application does, and what to do next.
func showOne(env *Env, r grant.Record, now time.Time) error {
	state := r.StateAt(now)
	if state == grant.Authorized || state == grant.Refreshable || state == grant.Expiring {
		if err := showPanel(env, r); err != nil {
			return err
		}
		fmt.Fprintln(env.Out)
	}
	rows := []render.Row{{Name: "Company", Value: r.Company}}
	if r.TokenVaultKey != "" {
		rows = append(rows, render.Row{Name: "Application", Value: r.Application}, render.Row{Name: "Environment", Value: r.Environment})
	}
	rows = append(rows, render.Row{Name: "State", Value: fmt.Sprintf("%s. %s", state, state.Meaning())})
	if r.User != "" {
		rows = append(rows, render.Row{Name: "Signed in", Value: r.User})
	}
	if r.LastError != nil {
		rows = append(rows, render.Row{Name: "Last error", Value: fmt.Sprintf("%s: %s", r.LastError.Code, r.LastError.Message)})
	}
	if next := nextCommand(r.ID, state); next != "" {
		rows = append(rows, render.Row{Name: "Next", Value: next})
	}
	return render.Rows(env.Out, rows)
}

// nextCommand is the one command to run for a grant in a state.
func nextCommand(id grant.ID, state grant.State) string {
	switch state {
	case grant.Authorized:
		return ""
	case grant.Refreshable, grant.Expiring, grant.Interrupted:
		return companyCommand("refresh", id)
	}
	return companyCommand("authorize", id)
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
		return render.BatchSuitePanel(env.Out, r, companyCommand("revoke", r.ID))
	}
	return render.Panel(env.Out, r)
}
