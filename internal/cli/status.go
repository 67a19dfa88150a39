package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/render"
)

type statusOptions struct {
	target
	env      *Env
	Output   string
	Check    bool
	Expiring string
}

func newStatusCmd(env *Env, run func(context.Context, statusOptions) error) *cobra.Command {
	opts := statusOptions{env: env}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the issue and expiry times of every company's tokens",
		Long: `Shows a table of all grants: when their access and refresh tokens were issued
and when they expire. Status reads records only: it never opens the keychain,
never asks UPS and never opens a browser.`,
		Example: `  upsauth status
  upsauth status --company "Acme Corp"
  upsauth status -o json
  upsauth status --check --expiring 30d`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return run(cmd.Context(), opts)
		},
	}
	opts.addFlags(cmd)
	outputFlag(cmd, &opts.Output, "table, wide, json or csv")
	cmd.Flags().BoolVar(&opts.Check, "check", false, "print one line and exit 0, or 4 if a company has to be authorized again (now, or within --expiring)")
	cmd.Flags().StringVar(&opts.Expiring, "expiring", "", "only grants whose refresh token ends within this time, such as 7d or 36h")
	return cmd
}

func runStatus(ctx context.Context, opts statusOptions) error {
	var within time.Duration
	if opts.Expiring != "" {
		var err error
		if within, err = parseDays(opts.Expiring); err != nil {
			return err
		}
	}
	switch opts.Output {
	case "", "table", "wide", "json", "csv":
		if opts.Check && opts.Output != "" {
			return usagef("--check prints one line of text, -o has no meaning with it")
		}
	default:
		return usagef("%q is no output format of status: it is table, wide, json or csv", opts.Output)
	}
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	all, err := s.known(opts.Company)
	if err != nil {
		return err
	}
	if err := s.checkFilter(all, opts.Application, opts.Environment); err != nil {
		return err
	}
	records := filter(all, opts.Application, opts.Environment)
	if opts.Company != "" && len(records) == 0 {
		// Says which is missing, the company or the grant.
		_, err := s.pick(ctx, opts.target)
		return err
	}
	now := opts.env.Now()
	if opts.Check {
		return check(s, records, within, now)
	}
	if opts.Expiring != "" {
		records = endingWithin(records, within, now)
	}
	switch opts.Output {
	case "json":
		return render.JSON(opts.env.Out, render.NewStatus(records, now))
	case "csv":
		return render.StatusCSV(opts.env.Out, records, now)
	}
	if len(records) == 0 {
		if len(all) > 0 {
			fmt.Fprintln(opts.env.Err, "No grant fits.")
			return nil
		}
		if s.problems > 0 {
			fmt.Fprintln(opts.env.Err, "No other company is authorized here.")
			return nil
		}
		fmt.Fprintln(opts.env.Err, "No company is authorized. Begin with: upsauth authorize --company NAME")
		return nil
	}
	if opts.Company != "" && len(records) == 1 && opts.Output == "" {
		return showOne(opts.env, records[0], now)
	}
	return render.StatusTable(opts.env.Out, records, render.View{
		Now: now, Zone: opts.env.Zone, Wide: opts.Output == "wide", Colour: wantsColour(opts.env),
	})
}

// wantsColour is the one place that decides about colour.
func wantsColour(env *Env) bool {
	return env.OutTerminal && env.Getenv("NO_COLOR") == "" && env.Getenv("TERM") != "dumb"
}

// parseDays reads a length of time, in days ("7d") or in Go's units ("36h").
func parseDays(text string) (time.Duration, error) {
	days, ok := strings.CutSuffix(text, "d")
	unit := time.Duration(1)
	if ok {
		text, unit = days+"h", 24
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > 100*365*24*time.Hour/unit {
		return 0, usagef("%q is no length of time such as 7d, 36h or 15m", text)
	}
	return d * unit, nil
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
	case grant.Void, grant.Expired, grant.Unauthorized:
		return true
	}
	return !r.RefreshUntil.IsZero() && r.RefreshUntil.Sub(now) <= within
}

// check prints one line for a monitor.
func check(s *session, records []grant.Record, within time.Duration, now time.Time) error {
	bad := endingWithin(records, within, now)
	if len(bad) == 0 {
		if s.problems > 0 {
			fmt.Fprintf(s.env.Out, "WARNING - %d records are damaged, see upsauth status; %s\n", s.problems, render.Summary(records, now))
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
		what := fmt.Sprintf("%s is %s", r.Company, r.StateAt(now))
		if left := r.RefreshUntil.Sub(now); left > 0 && r.StateAt(now) != grant.Void {
			what = fmt.Sprintf("%s ends in %s", r.Company, render.Span(left))
		}
		names = append(names, what)
	}
	fmt.Fprintf(s.env.Out, "CRITICAL - %d of %d grants need a person: %s\n", len(bad), len(records), joined(names))
	return &statusError{code: exitAuthorize}
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
	rows := []render.Row{
		{Name: "Company", Value: r.Company},
		{Name: "Application", Value: r.Application},
		{Name: "Environment", Value: r.Environment},
		{Name: "State", Value: fmt.Sprintf("%s. %s", state, state.Meaning())},
	}
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
	return fmt.Sprintf("upsauth %s --company %s --app %s --env %s", command, shellQuote(id.Company), id.Application, id.Environment)
}

// showPanel shows what the grant's application shows when a company has one.
func showPanel(env *Env, r grant.Record) error {
	if r.Application == config.BatchSuite {
		return render.BatchSuitePanel(env.Out, r, companyCommand("revoke", r.ID))
	}
	return render.Panel(env.Out, r)
}
