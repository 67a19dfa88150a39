package cli

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
)

func newCompanyImportCmd(env *Env) *cobra.Command {
	cmd, _ := companyCmd(env, "import FILE.csv", "Make the companies known that a CSV file names",
		"  upsauth company import companies.csv\n  upsauth company import - < companies.csv", oneArg("the FILE"), runCompanyImport)
	cmd.Long = `Adds the companies that a CSV file names. The first line names the columns. The
companies are in the column company, name or customer, or in the only column. The
columns contact and note are kept with each company, also where the company is
known already; an empty field changes nothing. Commas, semicolons or tabs separate
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
		fmt.Fprintf(opts.env.Err, "Note: the file has characters in it that nobody sees (%s). They are left out of the names.\n", codePoints(hidden))
	}
	companies, err := companiesInCSV(text)
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
		opts.env.tell("Changed the contact or the note of %d that were known.\n", changed)
	}
	return nil
}

// nameColumns are what the column with the companies may be called.
var nameColumns = []string{"company", "company name", "company_name", "name", "customer", "customer name"}

// contactColumns and noteColumns are what the columns with them may be called.
var (
	contactColumns = []string{"contact", "contact person", "contact_person", "phone", "telephone"}
	noteColumns    = []string{"note", "notes", "comment", "remark"}
)

// columnOf is where a column stands that has one of the names, -1 for nowhere. The
// first name that is there counts.
func columnOf(header []string, names []string) int {
	for _, name := range names {
		if i := slices.IndexFunc(header, func(f string) bool { return strings.EqualFold(strings.TrimSpace(f), name) }); i >= 0 {
			return i
		}
	}
	return -1
}

// companiesInCSV reads companies, each once, with what the file says about them.
func companiesInCSV(text string) ([]session.NewCompany, error) {
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
	// The commas of fields in quotes part nothing.
	first = regexp.MustCompile(`"[^"]*"`).ReplaceAllString(first, "")
	for _, comma := range ";\t" {
		if strings.Count(first, string(comma)) > strings.Count(first, string(reader.Comma)) {
			reader.Comma = comma
		}
	}
	column, contact, note := -1, -1, -1
	var companies []session.NewCompany
	seen := map[string]int{}
	for {
		fields, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("the file is no CSV: %w", err)
		}
		if column < 0 {
			column, contact, note = columnOf(fields, nameColumns), columnOf(fields, contactColumns), columnOf(fields, noteColumns)
			if column >= 0 {
				continue
			}
			if len(fields) > 1 {
				return nil, errors.New("which column has the companies? Put a first line into the file that calls it company")
			}
			column, contact, note = 0, -1, -1
		}
		if column >= len(fields) || strings.TrimSpace(fields[column]) == "" {
			continue
		}
		name, err := grant.CleanCompany(render.FromCell(fields[column]))
		if err != nil {
			line, _ := reader.FieldPos(column)
			return nil, fmt.Errorf("line %d: %w; nothing was added", line, err)
		}
		i, again := seen[grant.Fold(name)]
		if !again {
			i = len(companies)
			seen[grant.Fold(name)] = i
			companies = append(companies, session.NewCompany{Name: name})
		}
		for _, detail := range []struct {
			what   string
			column int
			to     **string
		}{{"contact", contact, &companies[i].Contact}, {"note", note, &companies[i].Note}} {
			if detail.column < 0 || detail.column >= len(fields) {
				continue
			}
			text, err := company.CleanDetail(detail.what, render.FromCell(fields[detail.column]))
			if err != nil {
				line, _ := reader.FieldPos(detail.column)
				return nil, fmt.Errorf("line %d: %w; nothing was added", line, err)
			}
			if text != "" && *detail.to == nil {
				*detail.to = &text
			}
		}
	}
	if len(companies) == 0 {
		return nil, errors.New("the file names no company")
	}
	return companies, nil
}
