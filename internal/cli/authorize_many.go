package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/vault"
)

// readCompanies reads the list of companies that a flag names.
func readCompanies(ctx context.Context, env *Env, path string) ([]string, error) {
	const most = 16 << 20 // bytes
	if path != "-" {
		if err := checkPlace(env, path); err != nil {
			return nil, err
		}
	}
	text, err := readNamed(ctx, env, path, most)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(err, new(*config.Error)):
		return nil, err
	case err != nil:
		return nil, usagef("--companies-file: %v", err)
	}
	companies, err := company.ReadList(text, func(line string) (string, error) { return typedCompany(env, line) })
	if err != nil {
		return nil, usagef("%v", err)
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
		fmt.Fprintf(env.Err, "\n%d authorized, %d failed, %d skipped, %d not done.\n", done, bad, skipped, left)
		if a.doubtful > 0 {
			fmt.Fprintf(env.Err, "%d of these perhaps by the wrong ups.com user: see the warnings above.\n", a.doubtful)
		}
		if left > 0 || bad > 0 {
			fmt.Fprintln(env.Err, "Run the same command again to continue with the companies that are not authorized.")
		}
	}
	for i, company := range companies {
		id, err := a.ID(ctx, company)
		if err != nil {
			tell(len(companies) - i)
			return err
		}
		if err := a.Settle(ctx, id); err != nil {
			a.s.log(message(err))
		}
		if before, err := a.s.Vault.Record(ctx, id); err == nil && a.s.Good(ctx, before) {
			skipped++
			fmt.Fprintf(env.Err, "%s is %s until %s; skipped.\n", id, before.StateAt(env.Now()), render.UPSTime(before.RefreshTokenExpires))
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
		switch {
		case errors.Is(err, errPassedOver):
			skipped++
			continue
		case errors.Is(err, errStopped):
			tell(len(companies) - i)
			return failed.end(ctx)
		}
		if err == nil || errors.As(err, new(*keeper.SavedError)) {
			done++
		} else if ctx.Err() == nil {
			bad++
			failed.add(id.String(), err)
		}
		// What is wrong with the application, the vault or the way to UPS is
		// wrong for the next company too.
		left := len(companies) - i - 1
		switch {
		case ctx.Err() != nil && err != nil && !errors.As(err, new(*keeper.SavedError)):
			tell(left + 1)
			return ctx.Err()
		case ctx.Err() != nil, wrongForAll(err):
			tell(left)
			return failed.end(ctx)
		}
	}
	tell(0)
	return failed.end(ctx)
}

// wrongForAll reports whether an error would meet the next company as well.
func wrongForAll(err error) bool {
	var home *vault.HomeError
	switch code := exitCode(err); {
	case errors.As(err, &home) && (home.Damaged || home.OfItem):
		return false
	case errors.As(err, new(*loopback.PortError)), errors.As(err, new(*loopback.BindError)):
		return true
	default:
		return code == exitVault || code == exitUPS || code == exitRefused || code == exitUsage
	}
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
	if a.opts.CompaniesFile == "-" || !env.attended() {
		return goOn, nil
	}
	for {
		fmt.Fprint(env.Err, "Press Enter to sign in, type s to skip the company, or q to stop: ")
		answer, err := env.person().Lines.Read(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return quit, nil
		case err != nil:
			return quit, err
		}
		switch strings.ToLower(strings.TrimSpace(answer)) {
		case "":
			return goOn, nil
		case "s":
			return skip, nil
		case "q":
			return quit, nil
		}
	}
}
