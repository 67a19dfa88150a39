package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
)

type inviteOptions struct {
	env *Env
	session.Target
	ExpectUser string
	Expires    time.Duration
	Note       string
	ReturnURL  string
	Output     string
	Yes        bool
	Verbose    bool
	ID         string
	// AllDue invites all that are due, CSV prints them, and Anew those too that have an
	// address already.
	AllDue, CSV, Anew bool
}

func (opts inviteOptions) anyUser() bool { return strings.EqualFold(opts.ExpectUser, "any") }

// request is what is asked for, without whether a new company is another one.
func (opts inviteOptions) request() session.InviteRequest {
	r := session.InviteRequest{Target: opts.Target, ExpectUser: opts.ExpectUser, Note: opts.Note, ReturnURL: opts.ReturnURL, Lasts: opts.Expires}
	if opts.anyUser() {
		r.ExpectUser, r.AnyUser = "", true
	}
	return r
}

func newInviteCmd(env *Env) *cobra.Command {
	opts := inviteOptions{env: env}
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "An address for a customer who signs in on a machine of their own",
		Long: `Makes an address that a customer opens in a browser of their own, to sign in at ups.com
for their company. upsauth serve has to run with --public-listen, and a proxy has to
bring public_url there. The application needs a public redirect URI: upsauth app add.

The address works until a sign-in through it is complete, or until it expires. Nothing
else uses it up, such as a mail program that looks at links. Each company, application
and environment has one open invitation: a new one takes the place of the earlier one.
The company's earlier authorization works until the new one is in place.

Only the ups.com user of the earlier authorization can sign in, or the one that
--expect-user names; --expect-user any lets anybody. A user who stands for another
company waits until you say whether that is right: upsauth invite confirm or refuse.

--all-due --csv invites the customers whose authorization is void, expired or expiring,
and prints a line for each. Customers who have an address already are skipped, unless you
add --anew: their earlier addresses end then.`,
		Example: `  upsauth invite --company "Nord AG"
  upsauth invite --company "Nord AG" --expires 14d --note "Please by Friday"
  upsauth invite --all-due --csv > mails.csv
  upsauth invite list
  upsauth invite withdraw abcdefghij`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			if err := noEmpty(cmd, "company", "app", "env", "expect-user", "return-url"); err != nil {
				return err
			}
			if err := opts.checkDue(); err != nil {
				return err
			}
			if opts.AllDue {
				return runInviteDue(cmd.Context(), opts)
			}
			return runInvite(cmd.Context(), opts)
		},
	}
	cmd.Flags().Var(&once{value: &opts.Company}, "company", "the company; one that is not known is added")
	cmd.Flags().Var(&once{value: &opts.Application}, "app", "the application (default: the default application)")
	cmd.Flags().Var(&once{value: &opts.Environment}, "env", "the environment (default: that of the application)")
	cmd.Flags().StringVar(&opts.ExpectUser, "expect-user", "", "the only ups.com user who may sign in, or any (default: the user of the earlier authorization, if there is one)")
	cmd.Flags().Var(newSpan(&opts.Expires, invitation.Usual), "expires", "how long the address works, 10m to 90d")
	cmd.Flags().StringVar(&opts.Note, "note", "", "a line for the customer, on the page that the address opens")
	cmd.Flags().StringVar(&opts.ReturnURL, "return-url", "", "where the last page leads, below one of return_urls under [serve] in config.toml")
	cmd.Flags().BoolVar(&opts.AllDue, "all-due", false, "invite for every authorization that is void, expired or expiring, with --csv")
	cmd.Flags().BoolVar(&opts.CSV, "csv", false, "with --all-due: print company, contact, application, environment and address, for a mail merge")
	cmd.Flags().BoolVar(&opts.Anew, "anew", false, "with --all-due: also send a new address to customers who have one already")
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask whether a new company is another one than a known one")
	outputFlag(cmd, &opts.Output, "", "text", "json")
	cmd.AddCommand(newInviteListCmd(env), newInviteShowCmd(env),
		newInviteEndCmd(env, "withdraw", "Withdraw an invitation: its address works no more", "", withdrawInvitation),
		newInviteEndCmd(env, "confirm", "Confirm the user who signed in with an invitation", "Puts the authorization in place that waits because its user stands for another company, or\nbecause UPS did not name the user.", confirmInvitation),
		newInviteEndCmd(env, "refuse", "Refuse the user who signed in with an invitation", "Forgets the authorization that waits. The company's earlier one stays.", refuseInvitation))
	return cmd
}

func runInvite(ctx context.Context, opts inviteOptions) error {
	if opts.Company == "" {
		return usagef("--company is missing: name the company to invite")
	}
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	r := opts.request()
	invited, address, err := s.Invite(ctx, r)
	if near := new(session.NearNameError); errors.As(err, &near) {
		if err := s.askNear(ctx, []session.NearName{near.Near}, opts.Yes); err != nil {
			return err
		}
		r.Another = true
		invited, address, err = s.Invite(ctx, r)
	}
	if err != nil {
		return err
	}
	defer s.warnOfPublicURL(ctx)
	if opts.Output == "json" {
		return s.takeBack(ctx, invited, render.JSON(opts.env.Out, render.NewInvite(invited.Invitation, address)))
	}
	if _, err := fmt.Fprintln(opts.env.Out, address); err != nil {
		return s.takeBack(ctx, invited, err)
	}
	fmt.Fprintf(opts.env.Err, "Send this address to the customer. It works until %s. Nobody can print it again.\n",
		invited.Expires.In(opts.env.Zone).Format("2006-01-02 15:04 MST"))
	if invited.Earlier {
		fmt.Fprintln(opts.env.Err, "The earlier address works no more.")
	}
	return nil
}

// takeBack withdraws an invitation whose address could not be written, as nobody can print
// the address again.
func (s *job) takeBack(ctx context.Context, i session.Invited, err error) error {
	if err == nil {
		return nil
	}
	return errors.Join(err, s.Withdraw(context.WithoutCancel(ctx), i))
}

// askPatience is how long public_url may take to answer, before a customer has its address.
const askPatience = 3 * time.Second

// warnOfPublicURL says where the address that was printed leads nowhere yet.
func (s *job) warnOfPublicURL(ctx context.Context) {
	err := s.AskPublic(ctx, askPatience)
	if err == nil || ctx.Err() != nil {
		return
	}
	fmt.Fprintf(s.env.Err, "Warning: %s\n", message(err))
	if text := advice(err); text != "" {
		fmt.Fprintf(s.env.Err, "  %s\n", text)
	}
}

type invitationsJSON struct {
	Version     int                 `json:"version"`
	Invitations []render.Invitation `json:"invitations"`
	Problems    []render.Problem    `json:"problems,omitempty"`
}

func newInviteListCmd(env *Env) *cobra.Command {
	opts := inviteOptions{env: env}
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the invitations",
		Example: "  upsauth invite list\n  upsauth invite list -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return runInviteList(cmd.Context(), opts)
		},
	}
	cmd.Flags().Var(&once{value: &opts.Company}, "company", "only this company's")
	cmd.Flags().Var(&once{value: &opts.Application}, "app", "only for this application")
	cmd.Flags().Var(&once{value: &opts.Environment}, "env", "only for this environment")
	outputFlag(cmd, &opts.Output, "", "table", "json")
	return cmd
}

func runInviteList(ctx context.Context, opts inviteOptions) error {
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	list, problems, err := s.ListInvitations(ctx, opts.Target)
	if err != nil {
		return err
	}
	now := opts.env.Now()
	if opts.Output == "json" {
		all := invitationsJSON{Version: render.InvitationVersion, Invitations: []render.Invitation{}}
		for _, i := range list {
			all.Invitations = append(all.Invitations, render.NewInvitation(i.Invitation, now))
		}
		all.Problems = problemsOf(problems)
		return errors.Join(append([]error{render.JSON(opts.env.Out, all)}, problems...)...)
	}
	if len(list) == 0 && len(problems) == 0 && opts.Target != (session.Target{}) {
		fmt.Fprintln(opts.env.Err, "No invitation matches these filters. To see all invitations, run: upsauth invite list")
		return nil
	}
	if len(list) == 0 && len(problems) == 0 {
		fmt.Fprintln(opts.env.Err, "There are no invitations. Make one with: upsauth invite --company COMPANY")
		return nil
	}
	var lines [][]string
	for _, i := range list {
		lines = append(lines, []string{
			i.ID, i.Company, i.Application, i.Environment, stateOfInvitation(i, now), render.SignedIn(i.Invitation), i.Expires.In(opts.env.Zone).Format(time.DateTime),
		})
	}
	err = render.Table(opts.env.Out, []string{"ID", "COMPANY", "APPLICATION", "ENVIRONMENT", "STATE", "SIGNED IN", "EXPIRES"}, lines, opts.env.width())
	return errors.Join(append([]error{err}, problems...)...)
}

// stateOfInvitation is the state in a table, with why one has ended.
func stateOfInvitation(i session.Invited, now time.Time) string {
	state := i.State(now)
	switch {
	case state == invitation.StateWrongUser:
		return "wrong user"
	case state == invitation.StateEnded && i.End != nil:
		return strings.ReplaceAll(string(i.End.Why), "-", " ")
	}
	return string(state)
}

func newInviteShowCmd(env *Env) *cobra.Command {
	opts := inviteOptions{env: env}
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "Show an invitation",
		Example: "  upsauth invite show abcdefghij\n  upsauth invite show abcdefghij -o json",
		Args:    oneArg("the ID of the invitation"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.ID, opts.Verbose = args[0], verbose(cmd)
			return runInviteShow(cmd.Context(), opts)
		},
	}
	outputFlag(cmd, &opts.Output, "", "text", "json")
	return cmd
}

func runInviteShow(ctx context.Context, opts inviteOptions) error {
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	i, err := s.FindInvitation(ctx, opts.ID)
	if err != nil {
		return err
	}
	now := opts.env.Now()
	if opts.Output == "json" {
		return render.JSON(opts.env.Out, struct {
			Version int `json:"version"`
			render.Invitation
		}{render.InvitationVersion, render.NewInvitation(i.Invitation, now)})
	}
	at := func(t time.Time) string { return t.In(opts.env.Zone).Format("2006-01-02 15:04:05 MST") }
	rows := []render.Row{
		{Name: "Invitation", Value: i.ID}, {Name: "Company", Value: i.Company}, {Name: "Application", Value: i.Application},
		{Name: "Environment", Value: i.Environment}, {Name: "State", Value: stateOfInvitation(i, now)},
		{Name: "Made", Value: at(i.Made)}, {Name: "Expires", Value: at(i.Expires)},
	}
	if i.End != nil {
		rows = append(rows, render.Row{Name: "Ended", Value: at(i.End.At)})
	}
	for _, more := range []render.Row{{Name: "Expected user", Value: i.ExpectUser}, {Name: "Signed in", Value: render.SignedIn(i.Invitation)}, {Name: "Note", Value: i.Note}} {
		if more.Value != "" {
			rows = append(rows, more)
		}
	}
	if i.State(now) == invitation.StateHeld {
		for _, doubt := range i.SignIn.Doubts {
			rows = append(rows, render.Row{Name: "To confirm", Value: doubt})
		}
	}
	return render.Rows(opts.env.Out, rows, opts.env.width())
}

func newInviteEndCmd(env *Env, name, short, long string, do func(context.Context, *job, session.Invited) (string, error)) *cobra.Command {
	opts := inviteOptions{env: env}
	return &cobra.Command{
		Use: name + " ID", Short: short, Long: long,
		Example: fmt.Sprintf("  upsauth invite %s abcdefghij", name),
		Args:    oneArg("the ID of the invitation"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := openJob(opts.env, verbose(cmd))
			if err != nil {
				return err
			}
			defer s.Close()
			i, err := s.FindInvitation(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			said, err := do(cmd.Context(), s, i)
			if err == nil {
				fmt.Fprintln(opts.env.Err, said)
			}
			return err
		},
	}
}

func withdrawInvitation(ctx context.Context, s *job, i session.Invited) (string, error) {
	return fmt.Sprintf("The invitation %s for %s is withdrawn.", i.ID, i.GrantID()), s.Withdraw(ctx, i)
}

func refuseInvitation(ctx context.Context, s *job, i session.Invited) (string, error) {
	return fmt.Sprintf("The user who signed in for %s is refused. To invite again, run upsauth invite.", i.GrantID()), s.Refuse(ctx, i)
}

func confirmInvitation(ctx context.Context, s *job, i session.Invited) (string, error) {
	if err := s.Open(ctx, true, grant.Record{Facts: grant.Facts{ID: i.GrantID(), Home: s.Config.Vault}}); err != nil {
		return "", err
	}
	came, err := s.Confirm(ctx, i)
	if came.User == "" {
		return fmt.Sprintf("%s is authorized. UPS does not say by whom.", i.GrantID()), err
	}
	return fmt.Sprintf("%s is authorized by %s.", i.GrantID(), came.User), err
}
