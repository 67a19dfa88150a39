package loopback

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
)

type connectionKey struct{}

// ConnContext is the [http.Server.ConnContext] of whatever serves a Handler. It lets
// the handler ask whose a connection is: from one that it does not know, nothing that
// is kept to one browser is taken.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, c)
}

// connectionOf is the connection that a request came on, nil where it is not TCP's.
func connectionOf(r *http.Request) *net.TCPConn {
	c, _ := r.Context().Value(connectionKey{}).(net.Conn)
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	tcp, _ := c.(*net.TCPConn)
	return tcp
}
