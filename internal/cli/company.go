package cli

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/vault"
)

func newCompanyCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "company",
		Short: "The company manager",
		Long: `The company manager: the companies with their authorizations, and those that
have none yet. A company is known once it is added, imported or authorized.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newCompanyListCmd(env, runCompanyList), newCompanyAddCmd(env, runCompanyAdd),
		newCompanyShowCmd(env, runCompanyShow), newCompanyRenameCmd(env, runCompanyRename),
		newCompanyRemoveCmd(env, runCompanyRemove), newCompanyImportCmd(env, runCompanyImport),
	)
	return cmd
}

// known lists grants as records does, and a record without grant for each
// company that has none and was added.
func (s *session) known(company string) ([]grant.Record, error) {
	records, err := s.records(company)
	if err != nil {
		return nil, err
	}
	names, problems, err := s.companies.List(company)
	if err != nil {
		return nil, err
	}
	for _, problem := range problems {
		fmt.Fprintf(s.env.Err, "Warning: %v\n", problem)
	}
	s.problems += len(problems)
	if len(names) == 0 {
		return records, nil
	}
	granted := map[string]bool{}
	for _, r := range records {
		granted[grant.Fold(r.Company)] = true
	}
	for _, name := range names {
		if !granted[grant.Fold(name)] && (company == "" || grant.Fold(name) == grant.Fold(company)) {
			records = append(records, grant.Record{ID: grant.ID{Company: name}})
		}
	}
	sortByName(records)
	return records, nil
}

// remembered is what known returns about one company, or a record without grant
// where it has only a history, and that. One of which nothing is known is an
// error.
func (s *session) remembered(name string) ([]grant.Record, []grant.Event, error) {
	records, err := s.known(name)
	if err != nil {
		return nil, nil, err
	}
	events, err := s.companies.History(name)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case len(records) == 0 && len(events) == 0:
		return nil, nil, s.noCompany(name)
	case len(records) == 0:
		records = []grant.Record{{ID: grant.ID{Company: events[len(events)-1].Company}}}
	}
	return records, events, nil
}

// withRemembered adds the companies of which only a history is left, after a
// revoke: they are on the list until they are removed.
func (s *session) withRemembered(records []grant.Record) ([]grant.Record, error) {
	names, err := s.companies.Remembered()
	if err != nil {
		return nil, err
	}
	there := map[string]bool{}
	for _, r := range records {
		there[grant.Fold(r.Company)] = true
	}
	for _, name := range names {
		if !there[grant.Fold(name)] {
			there[grant.Fold(name)] = true
			records = append(records, grant.Record{ID: grant.ID{Company: name}})
		}
	}
	sortByName(records)
	return records, nil
}

func sortByName(records []grant.Record) {
	slices.SortFunc(records, func(a, b grant.Record) int { return strings.Compare(sortKey(a.ID), sortKey(b.ID)) })
}

type companyListOptions struct {
	env     *Env
	Output  string
	Verbose bool
}

func newCompanyListCmd(env *Env, run func(context.Context, companyListOptions) error) *cobra.Command {
	opts := companyListOptions{env: env}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the companies, also those without authorization",
		Example: `  upsauth company list
  upsauth company list -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return run(cmd.Context(), opts)
		},
	}
	outputFlag(cmd, &opts.Output, "table or json")
	return cmd
}

// companyList is the JSON of upsauth company list.
type companyList struct {
	Version   int             `json:"version"`
	Companies []listedCompany `json:"companies"`
}

type listedCompany struct {
	Company string        `json:"company"`
	Grants  []listedGrant `json:"grants"`
}

type listedGrant struct {
	Application string      `json:"application"`
	Environment string      `json:"environment"`
	State       grant.State `json:"state"`
}

func runCompanyList(_ context.Context, opts companyListOptions) error {
	if opts.Output != "" && opts.Output != "table" && opts.Output != "json" {
		return usagef("%q is no output format of company list: it is table or json", opts.Output)
	}
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	records, err := s.known("")
	if err != nil {
		return err
	}
	if records, err = s.withRemembered(records); err != nil {
		return err
	}
	list := companyList{Version: 1, Companies: []listedCompany{}}
	last := ""
	var lines [][]string
	for _, r := range records {
		if key := grant.Fold(r.Company); key != last || len(list.Companies) == 0 {
			list.Companies = append(list.Companies, listedCompany{Company: r.Company, Grants: []listedGrant{}})
			last = key
		}
		state := r.StateAt(opts.env.Now())
		if r.TokenVaultKey != "" {
			c := &list.Companies[len(list.Companies)-1]
			c.Grants = append(c.Grants, listedGrant{r.Application, r.Environment, state})
		}
		lines = append(lines, []string{r.Company, orElse(r.Application, "-"), orElse(r.Environment, "-"), string(state)})
	}
	if opts.Output == "json" {
		return render.JSON(opts.env.Out, list)
	}
	if len(list.Companies) == 0 {
		fmt.Fprintln(opts.env.Err, "There are no companies. Begin with: upsauth authorize --company NAME")
		return nil
	}
	return render.Table(opts.env.Out, []string{"COMPANY", "APPLICATION", "ENVIRONMENT", "STATE"}, lines)
}

// companyOptions are those of the commands about companies by their names.
type companyOptions struct {
	env     *Env
	Names   []string
	Output  string
	Revoke  bool
	Yes     bool
	Verbose bool
}

func companyCmd(env *Env, use, short, example string, args cobra.PositionalArgs, run func(context.Context, companyOptions) error) (*cobra.Command, *companyOptions) {
	opts := &companyOptions{env: env}
	return &cobra.Command{
		Use: use, Short: short, Example: example, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Names, opts.Verbose = args, verbose(cmd)
			return run(cmd.Context(), *opts)
		},
	}, opts
}

func newCompanyAddCmd(env *Env, run func(context.Context, companyOptions) error) *cobra.Command {
	cmd, _ := companyCmd(env, "add NAME...", "Make companies known that are to be authorized",
		`  upsauth company add "Acme Corp" "Nord AG"`, func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("the company's NAME is missing\n  See: %s --help", cmd.CommandPath())
			}
			return nil
		}, run)
	return cmd
}

func runCompanyAdd(_ context.Context, opts companyOptions) error {
	var names []string
	for _, text := range opts.Names {
		name, err := grant.CleanCompany(text)
		if err != nil {
			return usagef("%v", err)
		}
		names = append(names, name)
	}
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = s.addCompanies(names, true)
	return err
}

// addCompanies makes companies known, and returns how many were not before.
func (s *session) addCompanies(names []string, tell bool) (added int, err error) {
	there, err := s.known("")
	if err != nil {
		return 0, err
	}
	known := map[string]string{}
	for _, r := range there {
		known[grant.Fold(r.Company)] = r.Company
	}
	for _, name := range names {
		old, ok := known[grant.Fold(name)]
		text := fmt.Sprintf("%s is known already.", old)
		if !ok {
			fresh, err := s.companies.Add(name, s.env.Now())
			if err != nil {
				return added, err
			}
			text, known[grant.Fold(name)] = fmt.Sprintf("%s is known already.", name), name
			if fresh {
				s.keeper.Happened(grant.Event{Time: s.env.Now().UTC(), What: grant.EventAdded, ID: grant.ID{Company: name}})
				added++
				text = fmt.Sprintf("Added %s.", name)
			}
		}
		if tell {
			fmt.Fprintln(s.env.Out, text)
		}
	}
	return added, nil
}

func newCompanyShowCmd(env *Env, run func(context.Context, companyOptions) error) *cobra.Command {
	cmd, opts := companyCmd(env, "show NAME", "Show a company: its authorizations and what happened to them",
		"  upsauth company show \"Acme Corp\"\n  upsauth company show \"Acme Corp\" -o json", oneArg("the company's NAME"), run)
	outputFlag(cmd, &opts.Output, "json; without it for people")
	return cmd
}

// shownCompany is the JSON of upsauth company show.
type shownCompany struct {
	Version int                  `json:"version"`
	Company string               `json:"company"`
	Grants  []render.StatusGrant `json:"grants"`
	History []shownEvent         `json:"history"`
}

type shownEvent struct {
	Time        string  `json:"time"`
	Event       string  `json:"event"`
	Application *string `json:"application"`
	Environment *string `json:"environment"`
	User        *string `json:"user"`
	Detail      *string `json:"detail"`
	Count       int     `json:"count"`
}

func runCompanyShow(_ context.Context, opts companyOptions) error {
	if opts.Output != "" && opts.Output != "json" {
		return usagef("%q is no output format of company show: it is json, or none for people", opts.Output)
	}
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	records, events, err := s.remembered(opts.Names[0])
	if err != nil {
		return err
	}
	now := opts.env.Now()
	if opts.Output == "json" {
		shown := shownCompany{Version: 1, Company: records[0].Company, Grants: []render.StatusGrant{}, History: []shownEvent{}}
		for _, g := range render.NewStatus(records, now).Grants {
			if records[0].TokenVaultKey != "" {
				shown.Grants = append(shown.Grants, g)
			}
		}
		for _, e := range events {
			shown.History = append(shown.History, shownEvent{
				Time: e.Time.UTC().Format("2006-01-02T15:04:05Z"), Event: string(e.What), Count: max(e.Count, 1),
				Application: orNull(e.Application), Environment: orNull(e.Environment), User: orNull(e.User), Detail: orNull(e.Detail),
			})
		}
		return render.JSON(opts.env.Out, shown)
	}
	for i, r := range records {
		if i > 0 {
			fmt.Fprintln(opts.env.Out)
		}
		if err := showOne(opts.env, r, now); err != nil {
			return err
		}
	}
	if len(events) == 0 {
		return nil
	}
	fmt.Fprint(opts.env.Out, "\nHISTORY\n")
	var lines [][]string
	for _, e := range events {
		what := string(e.What)
		if e.Count > 1 {
			what = fmt.Sprintf("%s %d times since %s", what, e.Count, e.Since.In(opts.env.Zone).Format("2006-01-02 15:04"))
		}
		if e.User != "" {
			what += " by " + e.User
		}
		if e.Detail != "" {
			what += ": " + e.Detail
		}
		lines = append(lines, []string{e.Time.In(opts.env.Zone).Format("2006-01-02 15:04"), orElse(e.Application, "-"), orElse(e.Environment, "-"), what})
	}
	return render.Table(opts.env.Out, []string{"TIME", "APPLICATION", "ENVIRONMENT", "WHAT HAPPENED"}, lines)
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func newCompanyRemoveCmd(env *Env, run func(context.Context, companyOptions) error) *cobra.Command {
	cmd, opts := companyCmd(env, "remove NAME", "Forget a company and its history",
		"  upsauth company remove \"Acme Corp\"\n  upsauth company remove \"Acme Corp\" --revoke --yes", oneArg("the company's NAME"), run)
	cmd.Long = `Forgets a company and its history. While it has an authorization, that has to be
removed first, or with --revoke along with it.`
	cmd.Flags().BoolVar(&opts.Revoke, "revoke", false, "remove its authorizations too")
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask")
	return cmd
}

func runCompanyRemove(ctx context.Context, opts companyOptions) error {
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	s.finishRemovals(ctx)
	records, _, err := s.remembered(opts.Names[0])
	if err != nil {
		return err
	}
	if s.problems > 0 {
		return errors.New("something of this company is damaged, and its tokens may be there still; first run: upsauth vault check --repair")
	}
	name := records[0].Company
	grants := slices.DeleteFunc(slices.Clone(records), func(r grant.Record) bool { return r.TokenVaultKey == "" })
	question := fmt.Sprintf("Forget %s?", name)
	if len(grants) > 0 {
		if !opts.Revoke {
			return fmt.Errorf("%s is authorized: %s\n  Revoke that first, or add --revoke", name, listed(grants))
		}
		question = fmt.Sprintf("Forget %s and remove %s of it?", name, counted(len(grants), "authorization"))
	}
	if err := confirm(ctx, opts.env, question, opts.Yes); err != nil {
		return err
	}
	for _, r := range grants {
		if err := s.keeper.Revoke(ctx, r.ID); err != nil {
			return err
		}
	}
	if err := s.companies.Remove(name); err != nil {
		return err
	}
	fmt.Fprintf(opts.env.Out, "Forgot %s.\n", name)
	return nil
}

func newCompanyImportCmd(env *Env, run func(context.Context, companyOptions) error) *cobra.Command {
	cmd, _ := companyCmd(env, "import FILE.csv", "Make the companies known that a CSV file names",
		"  upsauth company import companies.csv\n  upsauth company import - < companies.csv", oneArg("the FILE"), run)
	cmd.Long = `Makes the companies known that a CSV file names: in the column that the first
line calls company, name or customer, or in the only one. Fields are parted by
commas, semicolons or tabs. Where a name can't be used, nothing is added.`
	return cmd
}

func runCompanyImport(ctx context.Context, opts companyOptions) error {
	const most = 16 << 20 // bytes
	text, err := awaitInput(ctx, func() (string, error) {
		in := opts.env.In
		if opts.Names[0] != "-" {
			file, err := os.Open(opts.Names[0])
			if err != nil {
				return "", err
			}
			defer file.Close()
			in = file
		}
		data, err := io.ReadAll(io.LimitReader(in, most+1))
		return string(data), err
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("the companies can't be read: %w", err)
	case len(text) > most:
		return errors.New("the file has more than 16 MB")
	}
	names, err := companiesInCSV(text)
	if err != nil {
		return err
	}
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	added, err := s.addCompanies(names, false)
	if err != nil {
		return err
	}
	fmt.Fprintf(opts.env.Out, "Added %d of %d companies, the others were known already. The first in the file: %s\n", added, len(names), names[0])
	return nil
}

// quoted are fields in quotes, whose commas part nothing.
var quoted = regexp.MustCompile(`"[^"]*"`)

// nameColumns are what the column with the companies may be called.
var nameColumns = []string{"company", "company name", "company_name", "name", "customer", "customer name"}

// companiesInCSV reads the names of companies, each once.
func companiesInCSV(text string) ([]string, error) {
	text = strings.TrimPrefix(text, "\ufeff")
	if !utf8.ValidString(text) {
		return nil, errors.New("the file is not UTF-8 text: save it as \"CSV UTF-8\"")
	}
	separator := ','
	// Excel's own first line.
	if rest, ok := strings.CutPrefix(text, "sep="); ok && rest != "" {
		separator, _ = utf8.DecodeRuneInString(rest)
		_, text, _ = strings.Cut(rest, "\n")
	}
	reader := csv.NewReader(strings.NewReader(text))
	reader.Comma = separator
	reader.FieldsPerRecord = -1
	first, _, _ := strings.Cut(text, "\n")
	first = quoted.ReplaceAllString(first, "")
	for _, comma := range ";\t" {
		if strings.Count(first, string(comma)) > strings.Count(first, string(reader.Comma)) {
			reader.Comma = comma
		}
	}
	column := -1
	var names []string
	seen := map[string]bool{}
	for {
		fields, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("the file is no CSV: %w", err)
		}
		if column < 0 {
			for _, name := range nameColumns {
				column = slices.IndexFunc(fields, func(f string) bool { return strings.EqualFold(strings.TrimSpace(f), name) })
				if column >= 0 {
					break
				}
			}
			if column >= 0 {
				continue
			}
			if len(fields) > 1 {
				return nil, errors.New("which column has the companies? Put a first line into the file that calls it company")
			}
			column = 0
		}
		if column >= len(fields) || strings.TrimSpace(fields[column]) == "" {
			continue
		}
		name, err := grant.CleanCompany(fields[column])
		if err != nil {
			line, _ := reader.FieldPos(column)
			return nil, fmt.Errorf("line %d: %w; nothing was added", line, err)
		}
		if !seen[grant.Fold(name)] {
			seen[grant.Fold(name)] = true
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, errors.New("the file names no company")
	}
	return names, nil
}

type companyRenameOptions struct {
	env      *Env
	Old, New string
	Verbose  bool
}

func newCompanyRenameCmd(env *Env, run func(context.Context, companyRenameOptions) error) *cobra.Command {
	opts := companyRenameOptions{env: env}
	return &cobra.Command{
		Use:   "rename OLD NEW",
		Short: "Give a company another name; its authorizations stay",
		Example: `  upsauth company rename "Acme Corp" "Acme Incorporated"
  upsauth company rename "acme corp" "ACME Corp"`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("the old and the new name are needed: %s\n  See: %s --help", cmd.UseLine(), cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Old, opts.New, opts.Verbose = args[0], args[1], verbose(cmd)
			return run(cmd.Context(), opts)
		},
	}
}

func runCompanyRename(ctx context.Context, opts companyRenameOptions) error {
	name, err := grant.CleanCompany(opts.New)
	if err != nil {
		return usagef("%v", err)
	}
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	s.finishRemovals(ctx)
	records, _, err := s.remembered(opts.Old)
	if err != nil {
		return err
	}
	if records[0].Company == name {
		fmt.Fprintf(opts.env.Out, "%s is called that already.\n", name)
		return nil
	}
	grants := slices.DeleteFunc(slices.Clone(records), func(r grant.Record) bool { return r.TokenVaultKey == "" })
	// Said before anything is renamed, so that no company ends up in halves.
	there, err := s.known(name)
	if err != nil {
		return err
	}
	for _, r := range there {
		if grant.Fold(name) != grant.Fold(opts.Old) && r.TokenVaultKey != "" && len(filter(grants, r.Application, r.Environment)) > 0 {
			return &vault.TakenError{ID: r.ID}
		}
	}
	interrupted := slices.DeleteFunc(slices.Clone(grants), func(r grant.Record) bool { return !r.Interrupted })
	if err := s.open(ctx, false, interrupted...); err != nil {
		return err
	}
	for _, r := range grants {
		if err := s.keeper.Rename(ctx, r.ID, name); err != nil {
			return err
		}
	}
	// Last, so that a rename that fails can be made again.
	if err := s.companies.Rename(opts.Old, name, s.env.Now()); err != nil {
		return err
	}
	fmt.Fprintf(opts.env.Out, "%s is called %s now.\n", records[0].Company, name)
	return nil
}
