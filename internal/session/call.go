package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/ups"
)

const (
	// callTimeout is how long one call of an API may take.
	callTimeout = 2 * time.Minute
	// newToken is how long after its issue a token is not to blame: UPS refuses it
	// in the same words where the application lacks a product, and each refresh
	// spends a refresh token.
	newToken = 5 * time.Minute
	// errorPeek is how much of an answer is looked at for UPS's error in it.
	errorPeek = 64 << 10
)

// Answer is what UPS answered to a call of an API. Whoever gets it closes it.
type Answer struct {
	*http.Response
	call  ups.Call
	grant grant.Grant // whose access token it was
	isNew bool        // UPS had just issued that
	end   func()
}

// Close ends the call.
func (a *Answer) Close() {
	_ = a.Body.Close()
	a.end()
}

// Call calls an API with a grant's access token. One that UPS refuses is refreshed once
// and the call repeated, unless UPS has just issued it.
func (s *Session) Call(ctx context.Context, record grant.Record, call ups.Call) (*Answer, error) {
	client, err := s.caller(record.Environment)
	if err != nil {
		return nil, err
	}
	g, err := s.Token(ctx, record, time.Minute)
	if err != nil {
		return nil, err
	}
	answer, refused, err := s.send(ctx, client, call, g)
	if err != nil || !refused || answer.isNew {
		return answer, err
	}
	s.step(ctx, "UPS refused the access token; refreshing it once")
	answer.Close()
	if err := s.Open(ctx, true, record); err != nil {
		return nil, err
	}
	result, err := s.Keeper.Refresh(ctx, record.ID, keeper.Need{Refused: g.AccessToken})
	if err != nil {
		return nil, err
	}
	answer, _, err = s.send(ctx, client, call, result.Grant)
	return answer, err
}

// send makes the call once. Refused reports that UPS did not take the access token.
func (s *Session) send(ctx context.Context, client *ups.Client, call ups.Call, g grant.Grant) (answer *Answer, refused bool, err error) {
	if err := SameOrigin(g.Record, client.Environment); err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	response, err := client.Do(ctx, call, g.AccessToken) //nolint:bodyclose // the answer closes it
	if err != nil {
		cancel()
		return nil, false, err
	}
	age := s.options.Now().Sub(g.Requested)
	answer = &Answer{Response: response, call: call, grant: g, isNew: age >= 0 && age < newToken, end: cancel}
	if response.StatusCode < 400 {
		return answer, false, nil
	}
	start, _ := io.ReadAll(io.LimitReader(response.Body, errorPeek))
	rest := response.Body
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(start), rest), rest}
	failure := ups.APIError(response.StatusCode, response.Header, start, g.AccessToken)
	return answer, failure != nil && failure.Kind == ups.AccessTokenRefused, nil
}

// CopyTo writes the answer's body as it came. If the answer is a failure, CopyTo
// returns that failure. If writing fails, it returns the writer's error.
func (a *Answer) CopyTo(w io.Writer) error {
	var start bytes.Buffer
	body := &watchedReader{r: a.Body}
	peek := io.TeeReader(io.LimitReader(body, errorPeek), &start)
	if _, err := io.Copy(w, io.MultiReader(peek, body)); err != nil {
		if body.err == nil {
			return err
		}
		return &ups.Error{Endpoint: ups.APIEndpoint, Kind: ups.Lost, Status: a.StatusCode, Message: "the connection ended in the middle of the answer", Err: err}
	}
	failure := ups.APIError(a.StatusCode, a.Header, start.Bytes(), a.grant.AccessToken)
	if failure == nil {
		return nil
	}
	if failure.Kind == ups.AccessTokenRefused && a.isNew {
		failure.Kind = ups.ProductMissing
	}
	failure.User, failure.Account = ups.Presentable(a.grant.User), a.call.Account()
	return failure
}

// watchedReader remembers that reading failed, which a copy can't tell from a failed
// writing.
type watchedReader struct {
	r   io.Reader
	err error
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// SameOrigin refuses to take an access token to another place than the one that issued
// it.
func SameOrigin(r grant.Record, environment ups.Environment) error {
	if r.BaseURL == environment.Origin {
		return nil
	}
	return &keeper.ClientChangedError{ID: r.ID, What: "base URL", Made: r.BaseURL, Have: environment.Origin}
}
