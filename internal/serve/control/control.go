// Package control is how the commands of the user who runs a service speak to it: over
// a socket that nobody else may connect to, in JSON that is read strictly.
package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Service is a service that runs.
type Service struct {
	Version string `json:"version"`
	PID     int    `json:"pid"`
	// Manager is the address of the company manager.
	Manager string `json:"manager"`
}

// Link is an address that opens the company manager, once.
type Link struct {
	Address string    `json:"address"`
	Expires time.Time `json:"expires"`
}

// Scope is what a program's key covers.
type Scope struct {
	// Companies are the names of those that it covers, none for all.
	Companies []string `json:"companies,omitempty"`
	// Application and Environment are those that it covers, each empty for all.
	Application string `json:"application,omitempty"`
	Environment string `json:"environment,omitempty"`
	// Rights are what may be done with it: token, refresh, invite.
	Rights []string `json:"rights"`
}

// Key is a program's key, without what opens anything.
type Key struct {
	Name string `json:"name"`
	Scope
	// Removed is how many of its companies are there no more.
	Removed int       `json:"removed_companies,omitempty"`
	Created time.Time `json:"created"`
	// LastUsed is when a program last used it, nil for never.
	LastUsed *time.Time `json:"last_used"`
}

// Keys are the keys of programs.
type Keys interface {
	// Add makes a key and returns its secret, which nobody can read again.
	Add(ctx context.Context, name string, scope Scope) (secret string, err error)
	List(ctx context.Context) ([]Key, error)
	Remove(ctx context.Context, name string) error
}

// Error is why a service did not do what it was asked for, in the words of a command.
type Error struct {
	ExitCode int    `json:"exit_code"`
	Message  string `json:"message"`
	Advice   string `json:"advice,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// Options are what a service offers to its user.
type Options struct {
	Service Service
	// Link makes an address of the company manager.
	Link func(ctx context.Context) (Link, error)
	Keys Keys
	// Words puts an error into the words of a command.
	Words func(error) Error
}

// longest is how many bytes a request and an answer may have.
const longest = 1 << 20

type addKey struct {
	Name  string `json:"name"`
	Scope Scope  `json:"scope"`
}

type removeKey struct {
	Name string `json:"name"`
}

type added struct {
	Secret string `json:"secret"`
}

type listed struct {
	Keys []Key `json:"keys"`
}

type failure struct {
	Error *Error `json:"error"`
}

// New returns the handler of a control socket.
func New(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/service", answer(o, func(context.Context, struct{}) (Service, error) { return o.Service, nil }))
	mux.HandleFunc("POST /v1/link", answer(o, func(ctx context.Context, _ struct{}) (Link, error) { return o.Link(ctx) }))
	mux.HandleFunc("GET /v1/keys", answer(o, func(ctx context.Context, _ struct{}) (listed, error) {
		keys, err := o.Keys.List(ctx)
		return listed{keys}, err
	}))
	mux.HandleFunc("POST /v1/keys/add", answer(o, func(ctx context.Context, in addKey) (added, error) {
		secret, err := o.Keys.Add(ctx, in.Name, in.Scope)
		return added{secret}, err
	}))
	mux.HandleFunc("POST /v1/keys/remove", answer(o, func(ctx context.Context, in removeKey) (struct{}, error) {
		return struct{}{}, o.Keys.Remove(ctx, in.Name)
	}))
	return mux
}

// answer makes a handler of what takes and returns JSON.
func answer[In, Out any](o Options, do func(context.Context, In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		if r.Method == http.MethodPost {
			if err := decode(http.MaxBytesReader(w, r.Body, longest), &in); err != nil {
				reply(w, http.StatusBadRequest, failure{&Error{ExitCode: 2, Message: fmt.Sprintf("the request is not understood: %v", err)}})
				return
			}
		}
		out, err := do(r.Context(), in)
		if err != nil {
			words := o.Words(err)
			reply(w, http.StatusInternalServerError, failure{&words})
			return
		}
		reply(w, http.StatusOK, out)
	}
}

func reply(w http.ResponseWriter, status int, out any) {
	text, err := json.Marshal(out)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"error":{"exit_code":1,"message":"the answer can't be written"}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
}

// decode reads one value and nothing else. What is not known in it is an error: a
// misspelt limit of a key must not be without effect.
func decode(r io.Reader, into any) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}
