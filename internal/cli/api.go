package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/ups"
)

// apiTimeout is how long one call of an API may take.
const apiTimeout = 2 * time.Minute

type apiOptions struct {
	target
	env     *Env
	Method  string
	Path    string
	Headers []string
	Data    string
	Include bool
}

func newAPICmd(env *Env, run func(context.Context, apiOptions) error) *cobra.Command {
	opts := apiOptions{env: env}
	cmd := &cobra.Command{
		Use:   "api --company NAME [METHOD] /PATH",
		Short: "Call a UPS API with the company's token",
		Long: `Sends a request with the company's access token to the environment's host, and
prints the answer's body. An access token that UPS refuses is refreshed once and
the call repeated. The headers transId and transactionSrc are added unless -H
sets them.`,
		Example: `  upsauth api --company "Acme Corp" /api/track/v1/details/1Z999AA10123456784
  upsauth api --company "Acme Corp" POST /api/rating/v2409/Rate -d @rate.json -i`,
		Args: func(cmd *cobra.Command, args []string) error {
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
			return run(cmd.Context(), opts)
		},
	}
	opts.addFlags(cmd)
	cmd.Flags().StringVarP(&opts.Method, "request", "X", "", "the method (default: GET, or POST with -d)")
	cmd.Flags().StringArrayVarP(&opts.Headers, "header", "H", nil, `a header, "Name: value"; once for each`)
	cmd.Flags().StringVarP(&opts.Data, "data", "d", "", "the body; @FILE reads a file, @- standard input")
	cmd.Flags().BoolVarP(&opts.Include, "include", "i", false, "print the answer's status and headers too")
	return cmd
}

func runAPI(ctx context.Context, opts apiOptions) error {
	call, err := opts.call(ctx)
	if err != nil {
		return err
	}
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	record, err := s.pick(ctx, opts.target)
	if err != nil {
		return err
	}
	if err := s.open(ctx, true, record); err != nil {
		return err
	}
	id := record.ID
	client, err := s.client(ctx, id)
	if err != nil {
		return err
	}
	g, err := s.keeper.Token(ctx, id, time.Minute)
	if err != nil {
		return err
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
	if refused {
		s.log("UPS refused the access token; refreshing it once")
		response.Body.Close()
		result, err := s.keeper.Refresh(ctx, id, keeper.Need{Refused: g.AccessToken})
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
	return opts.print(response, g.AccessToken)
}

// call reads the command line's part of the request.
func (opts apiOptions) call(ctx context.Context) (ups.Call, error) {
	call := ups.Call{Method: strings.ToUpper(opts.Method), Path: opts.Path, Header: http.Header{}}
	if !strings.HasPrefix(opts.Path, "/") || strings.HasPrefix(opts.Path, "//") {
		return call, usagef("%q is no path of an API: it begins with exactly one slash", opts.Path)
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
// what it means.
func (opts apiOptions) print(response *http.Response, accessToken string) error {
	var start bytes.Buffer
	if opts.Include {
		fmt.Fprintf(opts.env.Out, "%s %s\n", response.Proto, response.Status)
		names := make([]string, 0, len(response.Header))
		for name := range response.Header {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			for _, value := range response.Header[name] {
				fmt.Fprintf(opts.env.Out, "%s: %s\n", name, value)
			}
		}
		fmt.Fprintln(opts.env.Out)
	}
	peek := io.TeeReader(io.LimitReader(response.Body, errorPeek), &start)
	out := &watchedWriter{w: opts.env.Out}
	if _, err := io.Copy(out, io.MultiReader(peek, response.Body)); err != nil {
		if out.err != nil {
			return fmt.Errorf("the answer can't be written: %w", out.err)
		}
		return &ups.Error{Endpoint: ups.APIEndpoint, Kind: ups.Lost, Status: response.StatusCode, Message: "the connection ended in the middle of the answer", Err: err}
	}
	if failure := ups.APIError(response.StatusCode, response.Header, start.Bytes(), accessToken); failure != nil {
		return failure
	}
	return nil
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
