package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// The public face says who it is, where nobody knows an address: whoever looks whether
// public_url leads there finds out.
const (
	FaceHeader = "X-Upsauth-Face"
	PublicFace = "public"
)

// PublicURLError says that public_url does not lead to the public face of a service.
type PublicURLError struct {
	URL string
	// Err is why nothing answers, nil where something else does: with Status.
	Err    error
	Status int
}

func (e *PublicURLError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("nothing answers at public_url %s: %v", e.URL, e.Err)
	}
	return fmt.Sprintf("what answers at public_url %s is not the service that customers need (HTTP %d)", e.URL, e.Status)
}

func (e *PublicURLError) Unwrap() error { return e.Err }

// AskPublic looks whether public_url leads to the public face of a service, within a time.
// It is a *PublicURLError where not.
func (s *Session) AskPublic(ctx context.Context, within time.Duration) error {
	front := s.Config.Serve.PublicURL
	if front == "" {
		return &NoPublicURLError{}
	}
	asking, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	request, err := http.NewRequestWithContext(asking, http.MethodGet, s.publicAddress("i/"), nil)
	if err != nil {
		return &PublicURLError{URL: front, Err: err}
	}
	request.Header.Set("User-Agent", s.options.UserAgent)
	client := &http.Client{
		Transport:     s.options.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if asking.Err() != nil {
		return &PublicURLError{URL: front, Err: fmt.Errorf("no answer within %s", within)}
	}
	if err != nil {
		if wrapped := new(url.Error); errors.As(err, &wrapped) {
			err = wrapped.Err // the address is said already
		}
		return &PublicURLError{URL: front, Err: err}
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, 1<<16) // so that the connection can serve again
	if response.Header.Get(FaceHeader) != PublicFace {
		return &PublicURLError{URL: front, Status: response.StatusCode}
	}
	return nil
}
