package loopback

import (
	"context"
	"net"

	"github.com/upsauth/upsauth/internal/peer"
)

// ConnContext is the [net/http.Server.ConnContext] of whatever serves a Handler. It lets
// the handler ask whose a connection is: from one that it does not know, nothing that
// is kept to one browser is taken.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	return peer.ConnContext(ctx, c)
}
