package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"
)

// patience is how long a service may take to answer.
const patience = 30 * time.Second

// ErrNoService says that no service listens at a control socket.
var ErrNoService = errors.New("no service runs")

// Client speaks to a service.
type Client struct {
	path string
	http *http.Client
}

// NewClient returns a client of the service whose control socket is at path.
func NewClient(path string) *Client {
	return &Client{path: path, http: &http.Client{
		Timeout: patience,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", path)
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Service is the service that runs.
func (c *Client) Service(ctx context.Context) (s Service, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/service", nil, &s)
	return s, err
}

// Link asks for an address of the company manager.
func (c *Client) Link(ctx context.Context) (l Link, err error) {
	err = c.call(ctx, http.MethodPost, "/v1/link", struct{}{}, &l)
	return l, err
}

// Add makes a key.
func (c *Client) Add(ctx context.Context, name string, scope Scope) (string, error) {
	var a added
	err := c.call(ctx, http.MethodPost, "/v1/keys/add", addKey{name, scope}, &a)
	return a.Secret, err
}

// List lists the keys.
func (c *Client) List(ctx context.Context) ([]Key, error) {
	var l listed
	err := c.call(ctx, http.MethodGet, "/v1/keys", nil, &l)
	return l.Keys, err
}

// Remove removes a key.
func (c *Client) Remove(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodPost, "/v1/keys/remove", removeKey{name}, &struct{}{})
}

// call makes one request. What a service refuses is an *Error; where none listens, the
// error is ErrNoService.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	// The host is nobody's: the socket says who is meant.
	request, err := http.NewRequestWithContext(ctx, method, "http://upsauth"+path, body)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR), errors.Is(err, wsaeconnrefused):
		return ErrNoService
	default:
		return fmt.Errorf("the service at %s can't be asked: %w", c.path, errors.Unwrap(err))
	}
	defer response.Body.Close()
	limited := io.LimitReader(response.Body, longest+1)
	if response.StatusCode == http.StatusOK {
		if err := decodeAnswer(limited, out); err != nil {
			return c.notUnderstood(err)
		}
		return nil
	}
	var f failure
	if err := decodeAnswer(limited, &f); err != nil || f.Error == nil || f.Error.Message == "" {
		return c.notUnderstood(fmt.Errorf("status %d", response.StatusCode))
	}
	return f.Error
}

func (c *Client) notUnderstood(err error) error {
	return fmt.Errorf("the answer of the service at %s is not understood: %w. Is it another version of upsauth? Then start it again", c.path, err)
}

// decodeAnswer takes what a newer service says besides, too.
func decodeAnswer(r io.Reader, out any) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if len(text) > longest {
		return errors.New("it is too long")
	}
	return json.Unmarshal(text, out)
}

// wsaeconnrefused is Winsock's number; elsewhere no error has it.
const wsaeconnrefused = syscall.Errno(10061)
