package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/ups"
)

const (
	// apiTimeout is how long one call of an API may take.
	apiTimeout = 2 * time.Minute
	// newToken is how long after its issue a token is not to blame: UPS refuses it
	// in the same words where the application lacks a product, and each refresh
	// spends a refresh token.
	newToken = 5 * time.Minute
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
prints the answer's body. An access token that UPS refuses is refreshed once and
the call repeated, unless UPS issued the token within the last 5 minutes. On a
terminal, control and invisible characters are left out. The headers transId and transactionSrc are added unless -H
sets them.`,
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
					return usagef("the method stands there twice, as -X %s and as %s", opts.Method, args[0])
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
	record, err := s.pick(ctx, opts.target)
	if err != nil {
		return err
	}
	if err := s.Open(ctx, true, record); err != nil {
		return err
	}
	id := record.ID
	client, err := s.ClientFor(ctx, id)
	if err != nil {
		return err
	}
	g, err := s.Keeper.Token(ctx, id, time.Minute)
	if err != nil {
		return s.WithContact(err)
	}
	if err := sameOrigin(g.Record, client.Environment); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	response, refused, err := send(limited, client, call, g.AccessToken)
	if err != nil {
		return err
	}
	if refused && !opts.isNew(g) {
		s.log("UPS refused the access token; refreshing it once")
		response.Body.Close()
		result, err := s.Keeper.Refresh(ctx, id, keeper.Need{Refused: g.AccessToken})
		if err != nil {
			return err
		}
		if err := sameOrigin(result.Record, client.Environment); err != nil {
			return err
		}
		again, cancel := context.WithTimeout(ctx, apiTimeout)
		defer cancel()
		if response, _, err = send(again, client, call, result.AccessToken); err != nil {
			return err
		}
		g = result.Grant
	}
	defer response.Body.Close()
	return opts.print(response, call, g)
}

// isNew reports whether UPS has just issued the access token.
func (opts apiOptions) isNew(g grant.Grant) bool {
	age := opts.env.Now().Sub(g.Requested)
	return age >= 0 && age < newToken
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
			return call, usagef("%q is no header such as \"Name: value\"", line)
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

// errorPeek is how much of an answer is looked at for UPS's error in it.
const errorPeek = 64 << 10

// send makes the call. Refused reports that UPS did not take the access token.
func send(ctx context.Context, client *ups.Client, call ups.Call, accessToken string) (response *http.Response, refused bool, err error) {
	response, err = client.Do(ctx, call, accessToken)
	if err != nil || response.StatusCode < 400 {
		return response, false, err
	}
	start, _ := io.ReadAll(io.LimitReader(response.Body, errorPeek))
	rest := response.Body
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(start), rest), rest}
	failure := ups.APIError(response.StatusCode, response.Header, start, accessToken)
	return response, failure != nil && failure.Kind == ups.AccessTokenRefused, nil
}

// print writes the answer to standard output and, where it is a failure, says
// what it means. A program gets every byte as it came, a terminal what can be shown.
func (opts apiOptions) print(response *http.Response, call ups.Call, g grant.Grant) error {
	out := &watchedWriter{w: opts.env.Out}
	written := func() error { return nil }
	if opts.env.OutTerminal {
		terminal := render.NewTerminal(opts.env.Out)
		out.w, written = terminal, terminal.Close
	}
	if opts.Include {
		fmt.Fprintf(out, "%s %s\n", response.Proto, response.Status)
		for _, name := range slices.Sorted(maps.Keys(response.Header)) {
			for _, value := range response.Header[name] {
				fmt.Fprintf(out, "%s: %s\n", name, value)
			}
		}
		fmt.Fprintln(out)
	}
	var start bytes.Buffer
	peek := io.TeeReader(io.LimitReader(response.Body, errorPeek), &start)
	_, err := io.Copy(out, io.MultiReader(peek, response.Body))
	if end := written(); out.err == nil {
		out.err = end
	}
	if out.err != nil {
		return fmt.Errorf("the answer can't be written: %w", out.err)
	}
	if err != nil {
		return &ups.Error{Endpoint: ups.APIEndpoint, Kind: ups.Lost, Status: response.StatusCode, Message: "the connection ended in the middle of the answer", Err: err}
	}
	failure := ups.APIError(response.StatusCode, response.Header, start.Bytes(), g.AccessToken)
	if failure == nil {
		return nil
	}
	if failure.Kind == ups.AccessTokenRefused && opts.isNew(g) {
		failure.Kind = ups.ProductMissing
	}
	failure.User, failure.Account = ups.Presentable(g.User), call.Account()
	return failure
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
