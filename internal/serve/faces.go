package serve

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/upsauth/upsauth/internal/serve/control"
	"github.com/upsauth/upsauth/internal/serve/door"
	"github.com/upsauth/upsauth/internal/serve/keys"
	"github.com/upsauth/upsauth/internal/serve/programs"
)

// faces are what is served.
type faces struct {
	// manager is the company manager behind its door, link makes the path of a one-time
	// address of it, linkForOpener one for a program's command line, and connContext is
	// for its server.
	manager             http.Handler
	link, linkForOpener func() (path string)
	connContext         func(context.Context, net.Conn) context.Context
	// programs is for those who may open the socket's file, keyed for those who have a
	// key.
	programs, keyed http.Handler
	keys            control.Keys
	// interrupt ends what faces wait for, and returns once what is under way with UPS is
	// saved. close comes after the last request.
	interrupt, close func()
}

// makeFaces puts the faces together.
func (s *service) makeFaces() (faces, error) {
	now := s.Rounds.Clock.Now
	store := keys.Open(KeysPath(s.State), keys.Options{Places: s.Guard, Now: now, Log: s.logOf("keys")})
	asked := programs.New(programs.Options{
		Session: s.sessions.get, Keys: store, Ready: s.ready, Last: s.rounds.Last, Now: now, Log: s.logOf("programs"),
	})
	o := door.Options{Now: now, NewAddress: s.NewAddress, Log: s.logOf("door")}
	if s.ManagerURL != "" {
		host, secure, err := door.HostOf(s.ManagerURL)
		if err != nil {
			return faces{}, err
		}
		o.Hosts, o.Secure = []string{host}, secure
	}
	entrance, err := door.New(o)
	if err != nil {
		return faces{}, err
	}
	return faces{
		manager: entrance.Wrap(http.NotFoundHandler()), connContext: door.ConnContext,
		link: entrance.Link, linkForOpener: entrance.LinkForOpener,
		programs: asked.Handler(false), keyed: asked.Handler(true),
		keys:      Keys{s.sessions.get, store},
		interrupt: asked.Close,
		close: func() {
			if err := store.Close(); err != nil {
				s.logOf("keys")("%v", err)
			}
		},
	}, nil
}

// logOf tells of what a face has to say, each kind of it once a day: others can cause
// any number of lines.
func (s *service) logOf(face string) func(format string, args ...any) {
	return func(format string, args ...any) {
		s.Rounds.Log.Trouble(face+" "+format, "", fmt.Sprintf(format, args...))
	}
}
