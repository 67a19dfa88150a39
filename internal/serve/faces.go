package serve

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/upsauth/upsauth/internal/serve/control"
	"github.com/upsauth/upsauth/internal/serve/door"
	"github.com/upsauth/upsauth/internal/serve/keys"
	"github.com/upsauth/upsauth/internal/serve/manager"
	"github.com/upsauth/upsauth/internal/serve/programs"
	"github.com/upsauth/upsauth/internal/serve/public"
	"github.com/upsauth/upsauth/internal/serve/signins"
	"github.com/upsauth/upsauth/internal/session"
)

// faces are what is served.
type faces struct {
	// manager is the company manager behind its door, link makes the path of a one-time
	// address of it, linkForOpener one for a program's command line, and connContext is
	// for its server.
	manager             http.Handler
	link, linkForOpener func() (path string, until time.Time)
	connContext         func(context.Context, net.Conn) context.Context
	// public is for anybody: it knows those who hold an invitation.
	public http.Handler
	// programs is for those who may open the socket's file, keyed for those who have a
	// key.
	programs, keyed http.Handler
	keys            control.Keys
	// recover tells those whom an earlier service has left in the midst of a sign-in.
	recover func(context.Context) error
	// interrupt ends what faces wait for, and returns once what is under way with UPS is
	// saved, or after a time. close comes after the last request.
	interrupt func(patience time.Duration)
	close     func()
}

// makeFaces puts the faces together.
func (s *service) makeFaces() (faces, error) {
	now := s.Rounds.Clock.Now
	store := keys.Over(&currentKeys{session: s.sessions.get}, keys.Options{Now: now, Log: s.logOf("keys")})
	asked := programs.New(programs.Options{
		Session: s.sessions.get, Keys: store, Ready: s.ready, Last: s.rounds.Last, Now: now, Log: s.logOf("programs"),
	})
	o := door.Options{Now: now, NewAddress: s.NewAddress, Log: s.logOf("door")}
	if s.Settings.ManagerURL != "" {
		host, secure, err := door.HostOf(s.Settings.ManagerURL)
		if err != nil {
			return faces{}, err
		}
		o.Hosts, o.Secure = []string{host}, secure
	}
	entrance, err := door.New(o)
	if err != nil {
		return faces{}, err
	}
	people := signins.New(signins.Options{Session: s.sessions.get, Home: s.front() + "/", Now: now, Log: s.stepOf})
	host, _ := os.Hostname()
	pages, err := manager.New(manager.Options{
		Session: s.sessions.get, SignIns: peopleSigningIn{people}, Doctor: s.Doctor, Machine: "this machine, where upsauth serve runs", Host: host, Now: now, Log: s.logOf("company manager"),
	})
	if err != nil {
		return faces{}, err
	}
	customers, err := public.New(public.Options{Session: s.sessions.get, Now: now, Log: s.invitationsLog, Came: func(text string) { s.Rounds.Log.Event("%s", text) }})
	if err != nil {
		return faces{}, err
	}
	return faces{
		public:  customers,
		manager: entrance.Wrap(pages), connContext: door.ConnContext,
		link: entrance.Link, linkForOpener: entrance.LinkForOpener,
		programs: asked.Handler(false), keyed: asked.Handler(true),
		keys:    Keys{s.sessions.get, store},
		recover: people.Recover,
		interrupt: func(patience time.Duration) {
			ending, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := people.Close(ending); err != nil {
				s.logOf("sign-ins")("%v", err)
			}
			asked.Close()
		},
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

// invitationsLog tells what customers can't mend, for each company by itself.
func (s *service) invitationsLog(about, text string) {
	s.Rounds.Log.Trouble("invitations "+about, text, text)
}

// stepOf tells what only a search for a fault needs.
func (s *service) stepOf(format string, args ...any) {
	s.Rounds.Log.Notice(context.Background(), session.Notice{Kind: session.Step}, fmt.Sprintf(format, args...))
}
