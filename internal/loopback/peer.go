package loopback

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync/atomic"
)

type connectionKey struct{}

// ConnContext is the [http.Server.ConnContext] of whatever serves a Handler. It lets
// the handler ask whose a connection is: from one that it does not know, nothing that
// is kept to one browser is taken.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	tcp, _ := c.(*net.TCPConn)
	return context.WithValue(ctx, connectionKey{}, &connection{conn: tcp})
}

// connection is what a request came on.
type connection struct {
	conn  *net.TCPConn // nil where it is not TCP's
	known atomic.Bool  // its other end was found to be this user's, and stays so
}

// connectionOf is the connection that a request came on.
func connectionOf(r *http.Request) *connection {
	if c, ok := r.Context().Value(connectionKey{}).(*connection); ok {
		return c
	}
	return &connection{}
}

// check is checkPeer, asked once where the answer is good.
func (c *connection) check() error {
	if c.known.Load() {
		return nil
	}
	err := checkPeer(c.conn)
	c.known.Store(err == nil)
	return err
}
