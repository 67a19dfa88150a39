package loopback

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/peer"
)

// Place is where the answers of a redirect URI arrive at this machine.
type Place struct {
	// RedirectURI is the redirect URI byte for byte as it is registered. Port 0
	// on a loopback host asks for any free port; Listener.RedirectURI names it.
	RedirectURI string

	// Listen is the host:port to listen on, loopback only, for a redirect URI
	// that reaches this machine through a tunnel. Empty: the redirect URI's own
	// host and port.
	Listen string

	// TLS serves an https redirect URI. Behind Listen it may be nil: the tunnel
	// then brings plain http. It is ignored for an http redirect URI.
	TLS *tls.Config

	// Holder knows what the program that has a port said of itself, and is asked where
	// a port is taken. Nil: nobody is.
	Holder func(port int) Holder

	// Log receives one line for each failed TLS handshake. It is called by one
	// goroutine at a time. Nil: silent.
	Log func(line string)
}

// Holder is a program that has a port.
type Holder struct {
	// Name is what to call the program, empty where none is known.
	Name string
	// PID is its process. Where the system names another one, the system is right.
	PID int
	// SignIn says that it awaits the answer of another sign-in there, and so gives the
	// port back soon.
	SignIn bool
}

// Listener has the sockets of this machine at which answers arrive.
type Listener struct {
	limits      limits
	redirectURI string
	at          endpoint // with the port that was chosen
	tunnelled   bool     // the redirect URI leads here by way of something else
	tls         *tls.Config
	listeners   []net.Listener

	http    *http.Server
	conns   *connections
	serving sync.WaitGroup
	logMu   sync.Mutex
	log     func(string)
}

// Listen opens the sockets. A browser may be sent off then: it waits until Serve. ctx
// bounds only the opening. A port that is taken is a *PortError. The caller must Close
// the listener.
func Listen(ctx context.Context, p Place) (*Listener, error) {
	return listen(ctx, p, defaultLimits())
}

func listen(ctx context.Context, p Place, lim limits) (*Listener, error) {
	redirect, err := parseRedirect(p.RedirectURI)
	if err != nil {
		return nil, err
	}
	at, err := endpointFor(p, redirect)
	if err != nil {
		return nil, err
	}
	return listenAt(ctx, p, redirect, at, lim)
}

// listenAt opens the sockets of an endpoint, or of a part of it.
func listenAt(ctx context.Context, p Place, redirect redirect, at endpoint, lim limits) (*Listener, error) {
	listeners, err := bind(ctx, at.addrs, at.port)
	if err != nil {
		return nil, named(err, p.Holder)
	}
	at.port = listeners[0].Addr().(*net.TCPAddr).Port
	l := &Listener{
		limits:      lim,
		redirectURI: p.RedirectURI,
		at:          at,
		tunnelled:   p.Listen != "",
		tls:         p.TLS,
		listeners:   listeners,
		conns:       newConnections(lim.conns),
		log:         p.Log,
	}
	if redirect.port == 0 {
		l.redirectURI = redirect.withPort(at.port)
	}
	return l, nil
}

// RedirectURI is Place.RedirectURI, with the port that was chosen in place of
// port 0. This is what to send to the authorization server.
func (l *Listener) RedirectURI() string { return l.redirectURI }

// Front is Config.Front of the handlers that are served here.
func (l *Listener) Front() string {
	if !l.tunnelled {
		return ""
	}
	return l.at.scheme + "://" + net.JoinHostPort(l.at.host, strconv.Itoa(l.at.port))
}

// Addrs lists the addresses that are listened on, as host:port: two for localhost
// on a machine with IPv4 and IPv6, else one.
func (l *Listener) Addrs() []string {
	addrs := make([]string, len(l.listeners))
	for i, one := range l.listeners {
		addrs[i] = one.Addr().String()
	}
	return addrs
}

// Addr is the first of Addrs.
func (l *Listener) Addr() string { return l.Addrs()[0] }

// TellsUsers reports whether the system tells whose a connection is. Where it does
// not, a start address must not be read by other users either.
func (l *Listener) TellsUsers() bool { return peer.Tells(l.listeners) }

// ServeLogin lets the handler of one login answer until Close.
func (l *Listener) ServeLogin(h *Handler) { l.Serve(h, h.Fail) }

// Serve lets a handler answer until Close. It returns at once, and is called once.
// Stopped is told, for each of the addresses, why nothing is answered there any more.
func (l *Listener) Serve(h http.Handler, stopped func(error)) {
	// HTTP/1 without keep-alive: a login needs three requests, and a connection
	// that ends with its answer can neither idle nor multiply.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	l.http = &http.Server{
		Handler:                      h,
		Protocols:                    &protocols,
		DisableGeneralOptionsHandler: true,
		MaxHeaderBytes:               l.limits.headers,
		ReadHeaderTimeout:            l.limits.header,
		ConnState:                    l.conns.changed,
		ConnContext:                  ConnContext,
		ErrorLog:                     log.New(tlsErrors{l.logf}, "", 0),
		// No ReadTimeout and no WriteTimeout: they would also end the request
		// that waits for Finish. A Handler sets both deadlines with its answer.
	}
	l.http.SetKeepAlivesEnabled(false)
	for _, one := range l.listeners {
		if l.at.scheme == "https" {
			conf := l.tls.Clone()
			conf.NextProtos = []string{"http/1.1"}
			one = tls.NewListener(one, conf)
		}
		l.serving.Go(func() { stopped(l.http.Serve(one)) })
	}
}

// Close ends the listening. Answers that are under way get a moment, so whatever
// makes browsers wait is ended before. When Close returns, nothing listens and no
// goroutine of the listener runs.
func (l *Listener) Close() error {
	err := l.closeSockets()
	l.finish()
	return err
}

// closeSockets gives the port back.
func (l *Listener) closeSockets() error {
	var errs []error
	for _, one := range l.listeners {
		if err := one.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, fmt.Errorf("closing the callback server: %w", err))
		}
	}
	return errors.Join(errs...)
}

// finish lets the answers that are under way end, once the sockets are closed.
func (l *Listener) finish() {
	l.serving.Wait()
	if l.http == nil {
		return
	}
	l.conns.closeFresh()
	cut := time.AfterFunc(l.limits.grace, func() { _ = l.http.Close() })
	l.conns.wait()
	cut.Stop()
	_ = l.http.Close()
}

func (l *Listener) logf(line string) {
	if l.log == nil {
		return
	}
	l.logMu.Lock()
	defer l.logMu.Unlock()
	l.log(line)
}

// tlsErrors is net/http's error log. It passes on that a TLS handshake failed,
// which is how a browser that distrusts the certificate shows, and drops the rest.
type tlsErrors struct{ logf func(string) }

func (t tlsErrors) Write(line []byte) (int, error) {
	if _, rest, ok := bytes.Cut(line, []byte("TLS handshake error from ")); ok {
		if _, why, ok := bytes.Cut(rest, []byte(": ")); ok {
			t.logf("refused a connection: TLS handshake: " + string(bytes.TrimSpace(why)))
		}
	}
	return len(line), nil
}
