package sandbox

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Listen announces on the TCP address, for serving this server. Only there can a
// [Fault] refuse connections.
func (s *Server) Listen(address string) (net.Listener, error) {
	inner, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	l := &listener{addr: inner.Addr(), log: s.log, inner: inner, changed: make(chan struct{})}
	s.faults.mu.Lock()
	s.faults.listener = l
	s.faults.mu.Unlock()
	return l, nil
}

// listener is one that can be away for a while.
type listener struct {
	addr net.Addr
	log  func(string)

	mu      sync.Mutex
	inner   net.Listener // nil while it is away
	back    *time.Timer  // nil until it was away
	absence int          // how often it went away
	closed  bool
	changed chan struct{} // closed, and made anew, when one of these changes
}

// refuse lets nobody connect for d, from now on.
func (l *listener) refuse(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.inner != nil {
		l.inner.Close()
		l.inner = nil
	}
	if l.back != nil {
		l.back.Stop()
	}
	l.absence++
	absence := l.absence
	l.back = time.AfterFunc(d, func() { l.comeBack(absence) })
	l.tell()
}

// comeBack ends the absence of that number, unless a later one has begun.
func (l *listener) comeBack(absence int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.absence != absence {
		return
	}
	inner, err := net.Listen("tcp", l.addr.String())
	if err != nil {
		l.log(fmt.Sprintf("sandbox: it can't listen on %s again yet: %v", l.addr, err))
		l.back = time.AfterFunc(time.Second, func() { l.comeBack(absence) })
		return
	}
	l.inner = inner
	l.tell()
}

func (l *listener) tell() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *listener) away() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inner == nil
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	for {
		l.mu.Lock()
		inner, closed, changed := l.inner, l.closed, l.changed
		l.mu.Unlock()
		if closed {
			return nil, net.ErrClosed
		}
		if inner == nil {
			<-changed
			continue
		}
		conn, err := inner.Accept()
		if errors.Is(err, net.ErrClosed) {
			continue
		}
		return conn, err
	}
}

// Close implements [net.Listener].
func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if l.back != nil {
		l.back.Stop()
	}
	l.tell()
	if l.inner == nil {
		return nil
	}
	return l.inner.Close()
}

// Addr implements [net.Listener].
func (l *listener) Addr() net.Addr { return l.addr }

// NewServer is the HTTP server around a sandbox.
func NewServer(addr string, handler http.Handler) *http.Server {
	return &http.Server{
		Addr: addr, Handler: handler,
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 64 << 10,
	}
}
