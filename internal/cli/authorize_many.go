package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/render"
)

// readCompanies reads a list of companies: one on each line, blank lines and
// those that begin with # left out, each company once.
func readCompanies(env *Env, path string) ([]string, error) {
	in := env.In
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, usagef("--companies-file: %v", err)
		}
		defer file.Close()
		in = file
	}
	var companies []string
	seen := map[string]bool{}
	lines := bufio.NewScanner(io.LimitReader(in, 16<<20))
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimPrefix(lines.Text(), "\ufeff")
		if text = strings.TrimSpace(text); text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		company, err := grant.CleanCompany(text)
		if err != nil {
			return nil, usagef("line %d of the companies' file: %v", n, err)
		}
		if !seen[grant.Fold(company)] {
			seen[grant.Fold(company)] = true
			companies = append(companies, company)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, usagef("the companies' file can't be read: %v", err)
	}
	if len(companies) == 0 {
		return nil, usagef("the companies' file names no company")
	}
	return companies, nil
}

// many authorizes one company after another. Those in good state are passed
// over, so that the same command goes on where it was ended.
func (a *signIn) many(ctx context.Context, companies []string) error {
	env := a.opts.env
	failed := &failures{env: env}
	var done, skipped, bad int
	tell := func(left int) {
		fmt.Fprintf(env.Err, "\n%d authorized, %d failed, %d passed over, %d not begun.\n", done, bad, skipped, left)
		if left > 0 || bad > 0 {
			fmt.Fprintln(env.Err, "The same command goes on with those that are not authorized.")
		}
	}
	for i, company := range companies {
		id, err := a.id(company)
		if err != nil {
			return err
		}
		if before, err := a.s.vault.Record(id); err == nil && good(before, env.Now()) {
			skipped++
			fmt.Fprintf(env.Err, "%s is %s until %s; passed over.\n", id, before.StateAt(env.Now()), render.UPSTime(before.RefreshTokenExpires))
			continue
		}
		switch next, err := a.next(ctx, company, i+1, len(companies)); {
		case err != nil:
			tell(len(companies) - i)
			return err
		case next == skip:
			skipped++
			continue
		case next == quit:
			tell(len(companies) - i)
			return failed.end(ctx)
		}
		err = a.one(ctx, company)
		if err == nil || errors.As(err, new(*keeper.SavedError)) {
			done++
		} else if ctx.Err() == nil {
			bad++
			failed.add(id.String(), err)
		}
		// What is wrong with the application, the vault or the way to UPS is
		// wrong for the next company too.
		code := exitCode(err)
		if left := len(companies) - i - 1; ctx.Err() != nil || code == exitVault || code == exitUPS || code == exitRefused {
			tell(left)
			return failed.end(ctx)
		}
	}
	tell(0)
	return failed.end(ctx)
}

// decision is what a person wants of the next company.
type decision int

const (
	goOn decision = iota
	skip
	quit
)

// next lets the person at the terminal prepare for the next company.
func (a *signIn) next(ctx context.Context, company string, number, of int) (decision, error) {
	env := a.opts.env
	fmt.Fprintf(env.Err, "\n%s (%d of %d)\n", company, number, of)
	if a.opts.CompaniesFile == "-" || !env.InTerminal || !env.ErrTerminal {
		return goOn, nil
	}
	fmt.Fprint(env.Err, "Enter to sign in, s to pass it over, q to stop: ")
	answer, err := readLine(ctx, env.In)
	if errors.Is(err, io.EOF) {
		return quit, nil
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "s":
		return skip, err
	case "q":
		return quit, err
	}
	return goOn, err
}
