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
		Short: "Say what is wrong here, and what to do about it",
		Long: `Looks at the configuration, the applications, the vault, the browser, the
callback ports, the way to UPS and the grants, and tries what a refresh needs of
this machine: a lock, a journal, a record and a secret, which are removed again.
Each line is ok, warning or failure, with the remedy; what fails for one cause is
told once. Exchanges with UPS and removals that were cut off are finished, and what
else a killed command left is finished or cleared away.`,
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
		return warning("no program of $BROWSER is there", "authorize prints the address as well; --no-browser does not try.")
	}
	if runtime.GOOS != "linux" && runtime.GOOS != "freebsd" {
		return ok("the system's own opener")
	}
	for _, program := range []string{"xdg-open", "x-www-browser", "www-browser", "wslview"} {
		if path, err := exec.LookPath(program); err == nil {
			return ok(path)
		}
	}
	return warning("there is no program that opens a browser", "authorize prints the address as well; set BROWSER, or use --no-browser.")
}
