// Package serve is the service with its faces: the rounds that keep grants alive, and
// beside them the company manager's pages, tokens for programs, and the socket at which
// whoever runs the service asks it for links and keys. Each face listens in a place of
// its own and knows no path of another.
package serve

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"math"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/upsauth/upsauth/internal/browser"
	"github.com/upsauth/upsauth/internal/checkup"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/peer"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/serve/control"
	"github.com/upsauth/upsauth/internal/serve/programs"
	rounds "github.com/upsauth/upsauth/internal/service"
	"github.com/upsauth/upsauth/internal/session"
)

// Options are what a service with faces works with.
type Options struct {
	// Rounds keep the grants alive. Began is called once everything is bound, before the
	// first round.
	Rounds rounds.Options
	Began  func()
	// Settings are what config.toml said of the service when it began. ListenGiven says
	// that Listen comes from elsewhere, such as a flag.
	Settings    config.Serve
	ListenGiven bool
	// Open opens a session for the faces.
	Open func() (*session.Session, error)
	// Getenv is the environment variables, and Guard the rule for places of files.
	Getenv func(string) string
	Guard  *safefile.Places
	// State is the state directory, whose service's lock the caller holds.
	State string
	// Places are where the sockets lie.
	Places Places
	// Listen is the loopback address of the company manager.
	Listen string
	// PublicListen is where customers who were invited come, in plain HTTP, empty for
	// nowhere.
	PublicListen string
	// ProgramsListen is an address at which programs on other machines may ask, by TLS
	// with the certificate and the key; empty for none.
	ProgramsListen, Certificate, Key string
	// Holder knows which program said that it has a port.
	Holder func(port int) loopback.Holder
	// OpenBrowser opens an address in a browser, nil where no browser is wanted.
	OpenBrowser func(ctx context.Context, address string) error
	// Doctor looks whether all is well.
	Doctor func(context.Context, *session.Session) ([]checkup.Finding, error)
	// Words puts an error into the words of a command.
	Words func(error) control.Error
	// Hangups ask for a round at once, with everything read again.
	Hangups <-chan os.Signal
	Version string
	// Opening says how a person gets an address that opens the company manager.
	Opening string
	// NewAddress is a sentence that says the same on a page.
	NewAddress string
}

// CustomersServer is what the public face is called in messages.
const CustomersServer = "the server of invited customers"

// AddressError says that a face can't listen where it should.
type AddressError struct {
	Face string // such as "the company manager"
	Err  error
}

func (e *AddressError) Error() string { return fmt.Sprintf("%s can't listen: %v", e.Face, e.Err) }

// service is a service with its faces at work.
type service struct {
	Options
	sessions *sessions
	requests *requests
	rounds   *rounds.Service

	faces   faces
	sockets []*socket
	places  []place
	said    []string
	// manager is the address of the company manager for browsers.
	manager string
	private bool // the system does not tell whose connections there are

	// different is what config.toml says otherwise than when the service began, as it was
	// told last.
	different atomic.Value

	end      context.CancelCauseFunc
	serving  sync.WaitGroup
	shutdown func()
	dropPage func() // the file that has led a browser here
}

// place is where a server listens.
type place struct {
	server   *http.Server
	listener net.Listener
}

// errStuck ends a service whose keychain owes the answer to a write.
var errStuck = errors.New("a write to the keychain has no answer")

// Run serves and makes rounds until the context ends, or until something that a service
// can't go on with. The caller holds the service's lock.
func Run(ctx context.Context, o Options) error {
	s := &service{Options: o, dropPage: func() {}}
	s.sessions = &sessions{open: o.Open, getenv: o.Getenv, now: o.Rounds.Clock.Now, shut: (*session.Session).Close, opens: s.compare}
	defer s.sessions.close()
	running, end := context.WithCancelCause(ctx)
	s.end = end
	defer end(nil)
	work, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	s.requests = newRequests(work, s.lookForStuck)
	s.shutdown = sync.OnceFunc(func() { s.finish(abandon) })

	hangups, stop := s.hangups(work)
	defer stop()
	o.Rounds.Hangups = hangups
	signOff := sync.OnceFunc(s.signOff)
	o.Rounds.Finish = func() {
		s.shutdown()
		signOff()
	}
	s.rounds = rounds.New(o.Rounds)

	defer s.removeSockets()
	defer s.shutdown()
	if err := s.start(ctx); err != nil {
		return err
	}
	// New connections are refused at once; the rounds may take a while to their end.
	defer context.AfterFunc(running, s.shutdown)()
	defer s.watch(running)()
	if o.OpenBrowser != nil {
		s.openBrowser(running)
		defer func() { s.dropPage() }()
	}
	err := s.rounds.Run(running)
	s.shutdown()
	signOff() // also after a first round that failed
	switch cause := context.Cause(running); {
	case errors.Is(cause, errStuck):
		return rounds.StuckError()
	case err == nil && ctx.Err() == nil && cause != nil:
		return cause
	}
	return err
}

// start binds all places, and only then serves at any of them.
func (s *service) start(ctx context.Context) error {
	listeners, err := loopback.BindAll(ctx, s.Listen, s.Holder)
	if err != nil {
		return &AddressError{config.ManagerServer, err}
	}
	s.private = !peer.Tells(listeners)
	s.manager = managerAddress(s.Listen, listeners)
	s.say("company manager at %s; %s", s.front(), s.Opening)
	if s.faces, err = s.makeFaces(); err != nil {
		closeAll(listeners)
		return err
	}
	s.add(s.requests.outlasting(longestBody, s.faces.manager), s.faces.connContext, newConnections(roomFor(managerLimit, openFiles())), nil, listeners...)
	for _, bind := range []func(context.Context) error{s.bindPrograms, s.bindPort, s.bindPublic, s.bindControl} {
		if err := bind(ctx); err != nil {
			return err
		}
	}
	if s.Began != nil {
		s.Began()
	}
	for _, line := range s.said {
		s.Rounds.Log.Event("%s", line)
	}
	for _, p := range s.places {
		s.serving.Go(func() {
			if err := p.server.Serve(p.listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
				s.end(fmt.Errorf("the server at %s ended: %w", p.listener.Addr(), err))
			}
		})
	}
	if s.PublicListen != "" {
		s.serving.Go(func() { s.readyForCustomers(ctx) })
	}
	if err := s.faces.recover(ctx); err != nil {
		s.Rounds.Log.Trouble("sign-ins", "", fmt.Sprintf("whoever comes back from ups.com can't be told that the service began anew: %v", err))
	}
	return nil
}

// say keeps a line for the log until all places are bound.
func (s *service) say(format string, args ...any) {
	s.said = append(s.said, fmt.Sprintf(format, args...))
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		_ = l.Close()
	}
}

// managerAddress is the address for browsers: by the name localhost where that leads to
// the listeners and nowhere else.
func managerAddress(listen string, listeners []net.Listener) string {
	port := strconv.Itoa(listeners[0].Addr().(*net.TCPAddr).Port)
	host, _, _ := net.SplitHostPort(listen)
	switch host {
	case "127.0.0.1", "::1":
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(strings.ToLower(host), port)
}

// front is where whoever reads the log finds the company manager.
func (s *service) front() string {
	if s.Settings.ManagerURL != "" {
		return strings.TrimSuffix(s.Settings.ManagerURL, "/")
	}
	return s.manager
}

// How many connections are open at once.
const (
	managerLimit  = 256  // of a few people's browsers
	programsLimit = 1024 // of programs, at the socket and at the port each
	controlLimit  = 32   // of one person's commands
	publicLimit   = 256  // of customers and whoever else finds the server
)

// roomFor is how many of a face's connections there may be where the system lets this
// process have a number of files open: half of them stay for the vault and for UPS,
// whoever connects. New tokens that can't be saved may be lost.
func roomFor(most, files int) int {
	const all = managerLimit + 2*programsLimit + controlLimit + publicLimit
	if files/2 >= all {
		return most
	}
	const few = 4 // as many as a browser's page needs
	return max(most*(files/2)/all, few)
}

func (s *service) bindPrograms(ctx context.Context) error {
	if runtime.GOOS == "windows" {
		listeners, err := loopback.BindAll(ctx, s.Places.Programs, s.Holder)
		if err != nil {
			return &AddressError{"the server of programs' requests", err}
		}
		s.add(s.requests.whole(programsBody, programs.Refuse, s.faces.keyed), nil, newConnections(roomFor(programsLimit, openFiles())), nil, listeners...)
		s.say("tokens for programs at http://%s, with a key", s.Places.Programs)
		return nil
	}
	at, err := listenSocket(ctx, socketOptions{path: s.Places.Programs, own: s.Places.ProgramsOwn, group: s.Settings.SocketGroup, places: s.Guard})
	if err != nil {
		return err
	}
	s.sockets = append(s.sockets, at)
	s.add(s.requests.whole(programsBody, programs.Refuse, s.faces.programs), nil, newConnections(roomFor(programsLimit, openFiles())), nil, at)
	s.say("tokens for programs at the socket %s", at.path)
	if s.Settings.SocketGroup != "" {
		if dir := barrier(at.path, s.Settings.SocketGroup); dir != "" {
			s.Rounds.Log.Trouble("socket", dir, fmt.Sprintf("members of the group %s can't reach the socket, as they may not enter %s. Mount %s for them, or set UPSAUTH_SOCKET to a path that they can reach",
				s.Settings.SocketGroup, dir, at.path))
		}
	}
	return nil
}

func (s *service) bindPort(ctx context.Context) error {
	if s.ProgramsListen == "" {
		return nil
	}
	c := &certificate{cert: s.Certificate, key: s.Key, places: s.Guard, trouble: func(err error) {
		s.Rounds.Log.Trouble("certificate", "", err.Error())
	}}
	if err := c.load(); err != nil {
		return err
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", s.ProgramsListen)
	if err != nil {
		return &AddressError{"the server of programs' requests", err}
	}
	s.add(s.requests.whole(programsBody, programs.Refuse, s.faces.keyed), nil, newConnections(roomFor(programsLimit, openFiles())), c.config(), listener)
	s.say("tokens for programs at https://%s, with a key", listener.Addr())
	return nil
}

// bindPublic lets customers in who were invited. A proxy ends their TLS.
func (s *service) bindPublic(ctx context.Context) error {
	if s.PublicListen == "" {
		if s.Settings.PublicURL != "" {
			s.say("invited customers reach no page of this service until public_listen is set under [serve] in config.toml")
		}
		return nil
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", s.PublicListen)
	if err != nil {
		return &AddressError{CustomersServer, err}
	}
	s.add(s.requests.outlasting(publicBody, s.faces.public), nil, newConnections(roomFor(publicLimit, openFiles())), nil, listener)
	at, _ := listener.Addr().(*net.TCPAddr)
	host, _, _ := net.SplitHostPort(s.PublicListen) // as it is configured: the system says [::] of 0.0.0.0
	s.say("invited customers at http://%s, for a proxy", net.JoinHostPort(cmp.Or(host, at.IP.String()), strconv.Itoa(at.Port)))
	if !at.IP.IsLoopback() {
		s.say("other machines reach that address in plain HTTP: let none but the proxy reach it")
	}
	if s.Settings.PublicURL == "" {
		s.say("customers find no page there until public_url is set under [serve] in config.toml")
	}
	return nil
}

// readyForCustomers makes what the first of them would need made.
func (s *service) readyForCustomers(ctx context.Context) {
	current, err := s.sessions.get(ctx)
	if err == nil {
		err = current.ReadyForCustomers(ctx)
	}
	if err != nil && ctx.Err() == nil {
		s.invitationsLog("", err.Error())
	}
}

func (s *service) bindControl(ctx context.Context) error {
	at, err := listenSocket(ctx, socketOptions{path: s.Places.Control, own: true, places: s.Guard})
	if err != nil {
		return err
	}
	s.sockets = append(s.sockets, at)
	s.add(s.requests.outlasting(longestBody, control.New(control.Options{
		Service: control.Service{Version: s.Version, PID: os.Getpid(), Manager: s.front()},
		Link:    func(context.Context) (control.Link, error) { return s.link(), nil },
		Keys:    s.faces.keys,
		Words:   s.Words,
	})), nil, newConnections(roomFor(controlLimit, openFiles())), nil, at)
	return nil
}

// link is an address that opens the company manager, once.
func (s *service) link() control.Link {
	path, until := s.faces.link()
	return control.Link{Address: s.front() + path, Expires: until}
}

// add lets a handler be served at listeners until the service ends.
func (s *service) add(h http.Handler, connContext func(context.Context, net.Conn) context.Context, open *connections, secure *tls.Config, listeners ...net.Listener) {
	var protocols http.Protocols
	protocols.SetHTTP1(true) // one set of limits
	server := &http.Server{
		Handler: h, Protocols: &protocols,
		ReadHeaderTimeout: headerPatience, WriteTimeout: answerPatience, IdleTimeout: idlePatience, MaxHeaderBytes: longestHeader,
		ConnState: open.changed, ConnContext: open.context(connContext),
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     log.New(serverLog{s.Rounds.Log}, "", 0),
	}
	for _, l := range listeners {
		if secure != nil {
			l = tls.NewListener(l, secure)
		}
		s.places = append(s.places, place{server, l})
	}
}

// serverLog takes what net/http says: faults of our own are told, those of others only
// where every step is.
type serverLog struct{ log *rounds.Log }

func (l serverLog) Write(p []byte) (int, error) {
	text := string(p)
	if strings.Contains(text, "panic") {
		l.log.Trouble("server", "", text)
	} else {
		l.log.Notice(context.Background(), session.Notice{Kind: session.Step}, text)
	}
	return len(p), nil
}

const (
	// finishing is how long requests that are under way may take to their end before
	// they are told to: many wait for something, such as a lock. saving is how long they
	// may take then, because UPS's answer takes 30 s at most, and the keychain 10.
	finishing = 3 * time.Second
	saving    = 45 * time.Second
	// lastWords is how long answers may take to leave once they are made. Connections
	// that have asked nothing are not waited for longer either.
	lastWords = time.Second
)

// finish ends all servers, once what is under way is done. What takes too long is told
// to end by abandon.
func (s *service) finish(abandon func()) {
	closing, cancel := context.WithCancel(context.Background())
	defer cancel()
	var all sync.WaitGroup
	for _, p := range s.places {
		all.Go(func() { _ = p.server.Shutdown(closing) })
	}
	if !s.requests.endWithin(finishing) {
		abandon()
		s.faces.interrupt(saving)
		s.requests.endWithin(saving)
	}
	shut := make(chan struct{})
	go func() { all.Wait(); close(shut) }()
	within(lastWords, shut)
	cancel()
	<-shut
	for _, p := range s.places {
		_ = p.server.Close()
		_ = p.listener.Close() // which may never have been served
	}
	s.serving.Wait()
	if s.faces.close != nil { // else they were never made
		s.faces.interrupt(saving)
		s.faces.close()
	}
}

// signOff has no roll call of a shared vault wait for a host whose service ended.
func (s *service) signOff() {
	current := s.sessions.last()
	if current == nil || current.Shared == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), finishing)
	defer cancel()
	switch off, err := current.Shared.SignOff(ctx); {
	case err != nil:
		s.Rounds.Log.Event("this host could not sign off, and the others wait for it after a failover: %v", err)
	case off:
		s.Rounds.Log.Event("this host has signed off: nobody waits for it until it refreshes again")
	}
}

// within reports whether something is done within a time.
func within(d time.Duration, done <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

func (s *service) removeSockets() {
	for _, one := range s.sockets {
		one.remove()
	}
}

// lookForStuck ends the service once a write to the keychain is owed its answer: no
// process may write that grant while the write may land, and others wait for its lock.
func (s *service) lookForStuck() {
	if s.sessions.stuck() {
		s.end(errStuck)
	}
}

// watch looks for a stuck write in what no request waits for, such as a sign-in. Once
// nobody has asked for anything for a while, it gives back the memory that requests took:
// a list of many companies takes much, and nobody may ask for the next one for hours.
func (s *service) watch(ctx context.Context) (stop func()) {
	const every = 5 * time.Second
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		var given, before uint64 // requests, when memory was given back and when it was looked last
		var invitations uint64   // their reading
		away := false
		for {
			select {
			case <-ticker.C:
				s.lookForStuck()
				away = s.lookForDatabase(ctx, away)
				invitations = s.lookForInvitations(ctx, invitations)
				ended := s.requests.ended.Load()
				if ended != given && ended == before {
					debug.FreeOSMemory()
					given = ended
				}
				before = ended
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { s.end(nil); <-ended }
}

// lookForDatabase tells once that the database which hosts share is away, and once that it is
// back. Rounds may be far between.
func (s *service) lookForDatabase(ctx context.Context, was bool) (away bool) {
	opened, err := s.sessions.get(ctx)
	if err != nil {
		return was // the round says so
	}
	switch err = opened.LookForDatabase(ctx); {
	case ctx.Err() != nil:
		return was
	case err != nil && !was:
		s.Rounds.Log.Event("%s. Access tokens that are still valid are served meanwhile", strings.TrimSuffix(explain.Error(err).What, "."))
	case err == nil && was:
		s.Rounds.Log.Event("the database of the shared vault is reached again")
	}
	return err != nil
}

// lookForInvitations looks for events where invitations have changed since a reading, and
// returns theirs: a customer who signs in does not wait for the next round, nor does the
// sender.
func (s *service) lookForInvitations(ctx context.Context, before uint64) (reading uint64) {
	if s.Rounds.Events == nil {
		return before
	}
	opened, err := s.sessions.get(ctx)
	if err != nil {
		return before // the round says so
	}
	if len(opened.Config.Events.Command) == 0 {
		return 0
	}
	const none = math.MaxUint64 // a directory that is not there has no reading that stays
	if some, err := opened.Invitations.Any(ctx); err != nil {
		return before
	} else if !some {
		return none
	}
	if reading, err = opened.Invitations.Reading(ctx); err != nil {
		return before
	}
	if reading != before {
		s.rounds.LookForEvents(ctx, opened)
	}
	return reading
}

// ready is why the service can't do its work, nil where it can.
func (s *service) ready(context.Context) error {
	if s.sessions.stuck() {
		return rounds.StuckError()
	}
	return s.rounds.Ready()
}

// hangups passes on what asks for a round, after which the faces open everything anew
// as well.
func (s *service) hangups(ctx context.Context) (passed <-chan os.Signal, stop func()) {
	if s.Hangups == nil {
		return nil, func() {}
	}
	out, end, ended := make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case signal := <-s.Hangups:
				s.different.Store("")
				s.sessions.renew()
				_, _ = s.sessions.get(ctx) // the round says what is wrong with it
				select {
				case out <- signal:
				default: // a round is asked for already
				}
			case <-end:
				return
			}
		}
	}()
	return out, func() { close(end); <-ended }
}

// compare tells, once and at each hangup, which settings of config.toml have changed
// without effect: places are bound once.
func (s *service) compare(opened *session.Session) {
	was, now := s.Settings, opened.Config.Serve
	if s.ListenGiven {
		now.Listen = was.Listen
	}
	var names []string
	for _, one := range []struct{ name, was, now string }{
		{"listen", was.Listen, now.Listen}, {"manager_url", was.ManagerURL, now.ManagerURL}, {"socket_group", was.SocketGroup, now.SocketGroup}, {"public_listen", was.PublicListen, now.PublicListen},
	} {
		if one.was != one.now {
			names = append(names, one.name)
		}
	}
	all := strings.Join(names, ", ")
	if last, _ := s.different.Swap(all).(string); all != "" && all != last {
		s.Rounds.Log.Event("%s under [serve] in config.toml changed: restart the service for the change to take effect", all)
	}
}

// openBrowser opens the company manager. Where the system does not tell whose a
// connection is, command lines must not show the address, as others read them: a file
// that nobody else can read leads there.
func (s *service) openBrowser(ctx context.Context) {
	path, until := s.faces.linkForOpener()
	address := s.manager + path
	if s.private {
		page, remove, err := browser.PrivatePage(address)
		if err != nil {
			s.Rounds.Log.Event("no browser was opened: %v; %s", err, s.Opening)
			return
		}
		address, s.dropPage = page, sync.OnceFunc(remove)
		context.AfterFunc(ctx, s.dropPage)
	}
	opening, cancel := context.WithTimeout(ctx, until.Sub(s.Rounds.Clock.Now()))
	context.AfterFunc(opening, cancel)
	if err := s.OpenBrowser(opening, address); err != nil {
		s.Rounds.Log.Event("no browser was opened: %v; %s", err, s.Opening)
	}
}
