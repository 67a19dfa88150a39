// Package peer tells whose the other end of a connection is: which user of this machine
// has the socket, where the system tells.
package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
)

type connKey struct{}

// ConnContext is the [net/http.Server.ConnContext] of a server whose handlers ask whose
// a connection is.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	tcp, _ := c.(*net.TCPConn)
	return context.WithValue(ctx, connKey{}, &Conn{tcp: tcp})
}

// Of is the connection that a request came on, by its context. It is never nil: of a
// connection that no ConnContext told, nothing is known.
func Of(ctx context.Context) *Conn {
	if c, ok := ctx.Value(connKey{}).(*Conn); ok {
		return c
	}
	return &Conn{}
}

// Conn is one connection. It may be used by several goroutines at once.
type Conn struct {
	tcp *net.TCPConn // nil where it is not TCP's

	mu    sync.Mutex
	known bool // the user was found, and stays the same
	user  int
}

// Untold stands for the user of a connection whose other end the system does not tell:
// it is in another network namespace, as a container's published port is, or the system
// tells nobody's.
const Untold = -1

// User is the number of the user who has the other end, or Untold. It is found once: a
// socket keeps its user. An error says that nobody can tell any more.
func (c *Conn) User() (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known {
		return c.user, nil
	}
	uid, err := userOf(c.tcp)
	if err != nil {
		return Untold, err
	}
	c.user, c.known = uid, true
	return uid, nil
}

// Check returns an error where the other end of a connection is not known to be this
// user's, root's, of a user who has no number here, or outside of this network
// namespace. It is an *OtherUserError where the other end is another ordinary user's.
func (c *Conn) Check() error {
	uid, err := c.User()
	if err != nil || passes(uid) {
		return err
	}
	return &OtherUserError{User: nameOf(uid), UID: uid}
}

// OtherUserError says that the other end of a connection is another ordinary user's.
type OtherUserError struct {
	User string // the name, or the number where there is none
	UID  int
}

func (e *OtherUserError) Error() string {
	return fmt.Sprintf("the connection is that of user %s", e.User)
}

// ErrGone says that the other end of a connection may be nobody's any more.
var ErrGone = errors.New("the other end has closed the connection")
