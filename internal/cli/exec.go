package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/process"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/terminal"
)

type execOptions struct {
	target
	env      *Env
	MinValid time.Duration
	Command  []string
}

func newExecCmd(env *Env) *cobra.Command {
	opts := execOptions{env: env}
	cmd := &cobra.Command{
		Use:   "exec --company NAME -- COMMAND [ARGS...]",
		Short: "Run a command with a valid access token in its environment",
		Long: `Runs a command with these variables in its environment:

  UPS_ACCESS_TOKEN          an access token, valid for at least --min-valid
  UPS_ACCESS_TOKEN_EXPIRES  when the access token expires, RFC 3339 in UTC
  UPS_BASE_URL              the base URL of the environment's APIs
  UPSAUTH_COMPANY           the company's name

The command replaces upsauth, so your shell sees the exit code of the command. The
exit code is 127 if there is no such program, and 126 if the program can't be run.`,
		Example: `  upsauth exec --company "Acme Corp" -- python3 rates.py
  upsauth exec --company "Acme Corp" -- sh -c 'echo "$UPS_BASE_URL"'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); n > 0 {
				return unknownArgument(cmd, args[:n])
			}
			if len(args) == 0 || cmd.ArgsLenAtDash() != 0 {
				return usagef("the command is missing: write it after --, as in upsauth exec --company NAME -- COMMAND")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Verbose, opts.Command = verbose(cmd), args
			return runExec(cmd.Context(), opts)
		},
	}
	opts.addFlags(cmd)
	cmd.Flags().Var(newSpan(&opts.MinValid, 5*time.Minute), "min-valid", "how long the token must stay valid")
	return cmd
}

func runExec(ctx context.Context, opts execOptions) error {
	program, err := exec.LookPath(opts.Command[0])
	if err != nil {
		return cannotRun(opts.Command[0], err)
	}
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	g, err := s.token(ctx, opts.target, opts.MinValid)
	if err != nil {
		return err
	}
	environment, err := s.Environment(g.Environment)
	if err != nil {
		return err
	}
	if err := session.SameOrigin(g.Record, environment); err != nil {
		return err
	}
	variables := tokenVariables(g, environment.BaseURL)
	environ := childEnviron(opts.env.Environ())
	for _, variable := range variables {
		name, _, _ := strings.Cut(variable, "=")
		environ = process.Without(environ, name)
	}
	environ = append(environ, variables...)
	if opts.env.allowCoreDumps != nil {
		opts.env.allowCoreDumps()
	}
	if g.Environment != config.Sandbox {
		// Where the system can, the command takes the place of this process.
		if err := process.Replace(program, opts.Command, environ); !errors.Is(err, errors.ErrUnsupported) {
			return cannotRun(opts.Command[0], err)
		}
	}
	// The embedded sandbox lives in this process, so it stays.
	command := exec.Command(program, opts.Command[1:]...)
	command.Args[0] = process.ChildName(program, opts.Command[0])
	command.Stdin, command.Stdout, command.Stderr = opts.env.In, terminal.AsIs(opts.env.Out), terminal.AsIs(opts.env.stderr())
	command.Env = environ
	var exit *exec.ExitError
	switch err := command.Run(); {
	case errors.As(err, &exit):
		return &childError{code: exit.ExitCode()}
	case err != nil:
		return cannotRun(opts.Command[0], err)
	}
	return nil
}

// cannotRun has the exit codes of shells: 127 where there is no such program, 126
// where the one that is there can't be run.
func cannotRun(program string, err error) error {
	places := []string{program}
	if filepath.Base(program) == program {
		places = nil
		for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
			places = append(places, filepath.Join(dir, program))
		}
	}
	there := func(path string) bool { _, err := os.Lstat(path); return err == nil }
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		if !slices.ContainsFunc(places, there) {
			return &statusError{code: exitNoProgram, what: fmt.Sprintf("%s can't be run: there is no such program", program)}
		}
	}
	return &statusError{code: exitNotRun, what: fmt.Sprintf("%s can't be run: %v", program, err)}
}

// childError is the exit code of a command that was run. There is nothing to
// say: the command has said it.
type childError struct{ code int }

func (e *childError) Error() string { return "" }

// tokenVariables are what a command finds in its environment.
func tokenVariables(g grant.Grant, baseURL string) []string {
	return []string{
		"UPS_ACCESS_TOKEN=" + g.AccessToken,
		"UPS_ACCESS_TOKEN_EXPIRES=" + g.Expires.UTC().Format(time.RFC3339),
		"UPS_BASE_URL=" + baseURL,
		"UPSAUTH_COMPANY=" + g.Company,
	}
}
