package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/render"
)

func newCompanyShowCmd(env *Env) *cobra.Command {
	cmd, opts := companyCmd(env, "show NAME", "Show a company: its authorizations and what happened to them",
		"  upsauth company show \"Acme Corp\"\n  upsauth company show \"Acme Corp\" -o json", oneArg("the company's NAME"), runCompanyShow)
	outputFlag(cmd, &opts.Output, "a line for each fact", "json")
	return cmd
}

func runCompanyShow(ctx context.Context, opts companyOptions) error {
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	list, events, err := s.Remembered(ctx, opts.Names[0])
	if err != nil {
		return err
	}
	records := list.Records
	s.MarkVoid(ctx, records, false)
	if err := s.MarkInvited(ctx, records); err != nil {
		return err
	}
	now := opts.env.Now()
	if opts.Output == "json" {
		return errors.Join(render.JSON(opts.env.Out, render.NewCompany(records, events, now)), s.whole())
	}
	for i, r := range records {
		if i > 0 {
			fmt.Fprintln(opts.env.Out)
		}
		if err := s.showOne(r, now); err != nil {
			return err
		}
	}
	if len(events) == 0 {
		return s.whole()
	}
	fmt.Fprint(opts.env.Out, "\nHISTORY\n")
	var lines [][]string
	at := func(t time.Time) string { return t.In(opts.env.Zone).Format("2006-01-02 15:04") }
	for _, e := range events {
		lines = append(lines, []string{at(e.Time), cmp.Or(e.Application, "-"), cmp.Or(e.Environment, "-"), render.EventWords(e, at)})
	}
	return errors.Join(render.Table(opts.env.Out, []string{"TIME", "APPLICATION", "ENVIRONMENT", "WHAT HAPPENED"}, lines, opts.env.width()), s.whole())
}
