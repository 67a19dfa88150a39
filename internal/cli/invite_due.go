package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
)

// checkDue refuses flags that don't go with --all-due, or not without it.
func (opts inviteOptions) checkDue() error {
	switch {
	case !opts.AllDue && (opts.CSV || opts.Anew):
		return usagef("--csv and --anew go with --all-due")
	case !opts.AllDue:
		return nil
	case !opts.CSV:
		return usagef("--all-due prints a list: add --csv")
	case opts.Company != "":
		return usagef("--all-due and --company can't be combined")
	case opts.Output != "":
		return usagef("--csv and -o can't be combined")
	case opts.ExpectUser != "" && !opts.anyUser():
		return usagef("--expect-user names the user of one company; with --all-due it can be any")
	}
	return nil
}

// runInviteDue invites every customer whose authorization has ended or is about to, and
// prints their addresses as CSV. Each line is written as soon as its invitation is made,
// because nobody can print the address again.
func runInviteDue(ctx context.Context, opts inviteOptions) error {
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	if s.Config.Serve.PublicURL == "" {
		return &session.NoPublicURLError{}
	}
	due, err := s.DueForInvitation(ctx, opts.Target)
	if err != nil {
		return err
	}
	waits, err := s.waiting(ctx)
	if err != nil {
		return err
	}
	out := render.NewCSV(opts.env.Out, false)
	write := func(cells ...string) error {
		if err := out.Write(cells...); err != nil {
			return &outputError{err}
		}
		if err := out.Flush(); err != nil {
			return &outputError{err}
		}
		return nil
	}
	if err := write("company", "contact", "application", "environment", "address"); err != nil {
		return err
	}
	failed := &failures{env: opts.env}
	made, skipped, bad := 0, 0, 0
	for _, r := range due {
		if ctx.Err() != nil {
			break
		}
		switch i, ok := waits[r.Slot()]; {
		case ok && i.State(opts.env.Now()) == invitation.StateHeld:
			skipped++
			fmt.Fprintf(opts.env.Err, "%s: a sign-in waits to be confirmed (upsauth invite confirm %s); skipped.\n", r.ID, i.ID)
			continue
		case ok && !opts.Anew:
			skipped++
			fmt.Fprintf(opts.env.Err, "%s is invited until %s; skipped.\n", r.ID, i.Expires.In(opts.env.Zone).Format("2006-01-02 15:04 MST"))
			continue
		}
		request := opts.request()
		request.Target = session.Target{Company: r.Company, Application: r.Application, Environment: r.Environment}
		// What is begun with one company is done, and its address is printed.
		invited, address, err := s.Invite(context.WithoutCancel(ctx), request)
		if err != nil {
			bad++
			failed.add(r.ID.String(), err)
			if wrongForAll(err) {
				break
			}
			continue
		}
		if err := write(r.Company, r.Contact, r.Application, r.Environment, address); err != nil {
			return s.takeBack(ctx, invited, err)
		}
		made++
	}
	told := fmt.Sprintf("%d invited, %d skipped, %d failed.", made, skipped, bad)
	if left := len(due) - made - skipped - bad; left > 0 {
		told = fmt.Sprintf("%d invited, %d skipped, %d failed, %d left.", made, skipped, bad, left)
	}
	fmt.Fprintln(opts.env.Err, told)
	if made > 0 {
		s.warnOfPublicURL(ctx)
	}
	if err := failed.end(ctx); err != nil {
		return err
	}
	return s.whole()
}

// waiting are the invitations that customers can use, and those with a sign-in that waits,
// by their grants.
func (s *job) waiting(ctx context.Context) (map[string]session.Invited, error) {
	list, problems, err := s.ListInvitations(ctx, session.Target{})
	if err != nil {
		return nil, err
	}
	for _, problem := range problems {
		s.notice(ctx, session.Notice{Kind: session.Problem, Err: problem})
	}
	waits := map[string]session.Invited{}
	now := s.Now()
	for _, i := range slices.Backward(list) { // the latest last
		if i.Lives(now) {
			waits[i.GrantID().Slot()] = i
		}
	}
	return waits, nil
}
