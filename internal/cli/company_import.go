package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
)

func newCompanyImportCmd(env *Env) *cobra.Command {
	cmd, _ := companyCmd(env, "import FILE.csv", "Add the companies in a CSV file",
		"  upsauth company import companies.csv\n  upsauth company import - < companies.csv", oneArg("the FILE"), runCompanyImport)
	cmd.Long = `Adds the companies that a CSV file names. The first line names the columns. The
companies are in the column company, name or customer, or in the only column. upsauth
saves the columns contact and note for each company, even if the company is already
known; an empty field changes nothing. Commas, semicolons or tabs separate
the fields. If any line can't be used, no company is added.`
	return cmd
}

func runCompanyImport(ctx context.Context, opts companyOptions) error {
	const most = 16 << 20 // bytes
	data, err := readNamed(ctx, opts.env, opts.Names[0], most)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("the companies can't be read: %w", err)
	}
	text := string(data)
	if hidden := legible.Hidden(strings.TrimPrefix(text, "\ufeff")); len(hidden) > 0 {
		fmt.Fprintf(opts.env.Err, "Note: the file has invisible characters (%s). upsauth leaves them out of the names.\n", legible.CodePoints(hidden))
	}
	companies, err := company.ReadCSV(text, render.FromCell)
	if err != nil {
		return err
	}
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.warnOfNear(ctx, namesOf(companies)); err != nil {
		return err
	}
	s.FinishAndTell(ctx) // a removal that was cut off is of the company as it was
	added, changed := 0, 0
	err = s.AddCompanies(ctx, companies, func(_ string, o session.Outcome) {
		switch o {
		case session.Added:
			added++
		case session.Changed:
			changed++
		}
	})
	if err != nil {
		return err
	}
	opts.env.tell("Added %d of %d companies; %d known already. The first in the file: %s\n", added, len(companies), len(companies)-added, legible.Line(companies[0].Name))
	if changed > 0 {
		opts.env.tell("Changed the contact or the note of %d known companies.\n", changed)
	}
	return nil
}
