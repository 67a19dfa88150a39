package cli

import (
	"context"
	"os/exec"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/browser"
	"github.com/upsauth/upsauth/internal/checkup"
	"github.com/upsauth/upsauth/internal/explain"
)

type doctorOptions struct {
	env     *Env
	Output  string
	Verbose bool
}

func newDoctorCmd(env *Env) *cobra.Command {
	opts := doctorOptions{env: env}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find problems on this machine, and say how to solve them",
		Long: `Checks the configuration, the applications, the vault, the browser, the callback
ports, the connection to UPS and the grants. To test what a refresh needs, doctor
makes a lock, a journal, a record and a secret here, and removes them again. Each
line says ok, warning or failure, with the remedy. Failures with the same cause share
one line. doctor also finishes interrupted exchanges with UPS and interrupted
removals, and removes the leftovers of commands that were killed. Where several hosts
share the vault, doctor also looks at their database: how durable its commits are, the
rights of this host's role, the clocks, the hosts, and a claim, which it takes back.`,
		Example: "  upsauth doctor\n  upsauth doctor -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return runDoctor(cmd.Context(), opts)
		},
	}
	outputFlag(cmd, &opts.Output, "a line for each check", "json")
	return cmd
}

func runDoctor(ctx context.Context, opts doctorOptions) error {
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return report(opts.env, opts.Output, checkup.Unopened(err))
	}
	defer s.Close()
	o := s.checkup()
	o.Face = func() []checkup.Finding { return []checkup.Finding{browserFinding(opts.env)} }
	found, err := checkup.Machine(ctx, s.Session, o)
	if err != nil {
		return err
	}
	return report(opts.env, opts.Output, found)
}

// browserFinding tells what a sign-in would open a browser with.
func browserFinding(env *Env) checkup.Finding {
	ok := func(what string) checkup.Finding {
		return checkup.Finding{Level: checkup.OK, Check: "browser", Found: what}
	}
	warning := func(found, remedy string) checkup.Finding {
		return checkup.Finding{Level: checkup.Warning, Check: "browser", Found: found, Do: []explain.Remedy{{Text: remedy}}}
	}
	if list := env.Getenv("BROWSER"); list != "" {
		for _, program := range browser.Programs(list) {
			words, err := browser.Words(program)
			if err != nil {
				continue
			}
			if path, err := exec.LookPath(words[0]); err == nil {
				return ok("$BROWSER: " + path)
			}
		}
		return warning("no program of $BROWSER is there", "authorize also prints the address; with --no-browser it does not start a browser.")
	}
	if runtime.GOOS != "linux" && runtime.GOOS != "freebsd" {
		return ok("the system's own opener")
	}
	for _, program := range []string{"xdg-open", "x-www-browser", "www-browser", "wslview"} {
		if path, err := exec.LookPath(program); err == nil {
			return ok(path)
		}
	}
	return warning("there is no program that opens a browser", "authorize also prints the address; set BROWSER, or use --no-browser.")
}
