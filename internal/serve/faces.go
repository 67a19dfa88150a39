package serve

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/upsauth/upsauth/internal/serve/control"
)

// faces are what is served.
type faces struct {
	// manager is the company manager behind its door, link makes the path of a one-time
	// address of it, and connContext is for its server.
	manager     http.Handler
	link        func() (path string, expires time.Time)
	connContext func(context.Context, net.Conn) context.Context
	// programs is for those who may open the socket's file, keyed for those who have a
	// key.
	programs, keyed http.Handler
	keys            control.Keys
}

// errNoKeys says that this service has no keys of programs.
var errNoKeys = errors.New("this service has no keys of programs")

type noKeys struct{}

func (noKeys) Add(context.Context, string, control.Scope) (string, error) { return "", errNoKeys }
func (noKeys) List(context.Context) ([]control.Key, error)                { return nil, errNoKeys }
func (noKeys) Remove(context.Context, string) error                       { return errNoKeys }

// makeFaces puts the faces together.
func (s *service) makeFaces() (faces, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { refuse(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := s.ready(r.Context()); err != nil {
			refuse(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		refuse(w, http.StatusOK, "ready")
	})
	return faces{
		manager: http.NotFoundHandler(), programs: mux, keyed: mux, keys: noKeys{},
		link: func() (string, time.Time) { return "/login/" + rand.Text(), s.Rounds.Clock.Now().Add(10 * time.Minute) },
	}, nil
}
