package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
)

type apiOptions struct {
	target
	env     *Env
	Method  string
	Path    string
	Headers []string
	Data    string
	Include bool
}

func newAPICmd(env *Env) *cobra.Command {
	opts := apiOptions{env: env}
	cmd := &cobra.Command{
		Use:   "api --company NAME [METHOD] /PATH",
		Short: "Call a UPS API with the company's token",
		Long: `Sends a request with the company's access token to the environment's host, and
prints the body of the answer. If UPS refuses the access token, upsauth refreshes it
and repeats the call once, unless UPS issued the token within the last 5 minutes. On
a terminal, control characters and invisible characters are left out. upsauth adds
the headers transId and transactionSrc, unless -H sets them.`,
		Example: `  upsauth api --company "Acme Corp" /api/track/v1/details/1Z999AA10123456784
  upsauth api --company "Acme Corp" POST /api/rating/v2409/Rate -d @rate.json -i`,
		Args: func(cmd *cobra.Command, args []string) error {
			if n := slices.IndexFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "/") }); n > 0 {
				// Before the path stands a method, and no company's name.
				named := cmd.Flags().Changed("company")
				if n > 1 || !isMethod(args[0], named) {
					return unknownArgument(cmd, args[:n])
				}
			}
			if len(args) < 1 || len(args) > 2 {
				return usagef("the path is missing: upsauth api --company NAME [METHOD] /PATH")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Verbose = verbose(cmd)
			opts.Path = args[len(args)-1]
			if len(args) == 2 {
				if opts.Method != "" {
					return usagef("the method is given twice, as -X %s and as %s", opts.Method, args[0])
				}
				opts.Method = args[0]
			}
			return runAPI(cmd.Context(), opts)
		},
	}
	opts.addFlags(cmd)
	cmd.Flags().StringVarP(&opts.Method, "request", "X", "", "the method (default: GET, or POST with -d)")
	cmd.Flags().StringArrayVarP(&opts.Headers, "header", "H", nil, `a header, "Name: value"; once for each`)
	cmd.Flags().StringVarP(&opts.Data, "data", "d", "", "the body; @FILE reads a file, @- standard input")
	cmd.Flags().BoolVarP(&opts.Include, "include", "i", false, "print the answer's status and headers too")
	return cmd
}

// isMethod reports whether a word can be an HTTP method. Where no company is named
// it is one of the usual ones, else any in letters that are all large or all small.
func isMethod(word string, any bool) bool {
	upper, lower := strings.ToUpper(word), strings.ToLower(word)
	if any {
		return word == upper || word == lower
	}
	return slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}, upper)
}

func runAPI(ctx context.Context, opts apiOptions) error {
	call, err := opts.call(ctx)
	if err != nil {
		return err
	}
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	record, err := s.pickForToken(ctx, opts.target)
	if err != nil {
		return err
	}
	answer, err := s.Call(ctx, record, call)
	if err != nil {
		return err
	}
	defer answer.Close()
	return opts.print(answer)
}

// call reads the command line's part of the request.
func (opts apiOptions) call(ctx context.Context) (ups.Call, error) {
	call := ups.Call{Method: strings.ToUpper(opts.Method), Path: opts.Path, Header: http.Header{}}
	if err := ups.CheckPath(opts.Path); err != nil {
		return call, usagef("%w", err)
	}
	for _, line := range opts.Headers {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return call, usagef("%q is not a header such as \"Name: value\"", line)
		}
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if err := ups.CheckHeader(name, value); err != nil {
			return call, usagef("%v", err)
		}
		call.Header.Add(name, value)
	}
	if opts.Data != "" {
		body, err := opts.body(ctx)
		if err != nil {
			return call, err
		}
		call.Body = body
		if call.Header.Get("Content-Type") == "" {
			call.Header.Set("Content-Type", "application/json")
		}
	}
	if call.Method == "" {
		call.Method = http.MethodGet
		if opts.Data != "" {
			call.Method = http.MethodPost
		}
	}
	if strings.ContainsFunc(call.Method, func(r rune) bool { return r < 'A' || r > 'Z' }) {
		return call, usagef("%q is no method", opts.Method)
	}
	return call, nil
}

// maxBody is the most bytes of a request's body. UPS's own limits are far below.
const maxBody = 32 << 20

func (opts apiOptions) body(ctx context.Context) ([]byte, error) {
	name, isFile := strings.CutPrefix(opts.Data, "@")
	if !isFile {
		return []byte(opts.Data), nil
	}
	body, err := readNamed(ctx, opts.env, name, maxBody)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, usagef("the body can't be read: %v", err)
	}
	return body, nil
}

// print writes the answer to standard output and, where it is a failure, says
// what it means. A program gets every byte as it came, a terminal what can be shown.
func (opts apiOptions) print(answer *session.Answer) error {
	out := &watchedWriter{w: opts.env.Out}
	written := func() error { return nil }
	if opts.env.OutTerminal {
		terminal := render.NewTerminal(opts.env.Out)
		out.w, written = terminal, terminal.Close
	}
	if opts.Include {
		fmt.Fprintf(out, "%s %s\n", answer.Proto, answer.Status)
		for _, name := range slices.Sorted(maps.Keys(answer.Header)) {
			for _, value := range answer.Header[name] {
				fmt.Fprintf(out, "%s: %s\n", name, value)
			}
		}
		fmt.Fprintln(out)
	}
	err := answer.CopyTo(out)
	if end := written(); out.err == nil {
		out.err = end
	}
	if out.err != nil {
		return fmt.Errorf("the answer can't be written: %w", out.err)
	}
	return err
}

// watchedWriter remembers that writing failed, which a copy can't tell from a
// failed reading.
type watchedWriter struct {
	w   io.Writer
	err error
}

func (w *watchedWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}
