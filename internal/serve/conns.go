package serve

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// connections bounds the open connections of a server. When there are too many, the one
// goes that has been without a whole request for longest, so that however many idle or
// slow ones there are, they keep nobody out.
type connections struct {
	limit int

	mu      sync.Mutex
	waiting *list.List // of net.Conn, without a whole request, the oldest first
	open    map[net.Conn]*connection
	leaving int // how many of them were hung up
}

type connection struct {
	at      *list.Element // nil where it does not wait
	leaving bool
}

func newConnections(limit int) *connections {
	return &connections{limit: limit, waiting: list.New(), open: map[net.Conn]*connection{}}
}

// changed is the server's ConnState hook.
func (c *connections) changed(nc net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.open[nc]
	if one == nil {
		one = &connection{}
		c.open[nc] = one
	}
	switch state {
	case http.StateNew, http.StateIdle:
		if one.leaving {
			return
		}
		c.unlist(one)
		one.at = c.waiting.PushBack(nc)
		if len(c.open)-c.leaving > c.limit {
			c.dropOldest()
		}
	case http.StateActive:
		// Its header is there. It waits until its body is, too: see wholeIn.
	case http.StateClosed, http.StateHijacked:
		c.unlist(one)
		if one.leaving {
			c.leaving--
		}
		delete(c.open, nc)
	}
}

type wholeKey struct{}

// context is the server's ConnContext hook.
func (c *connections) context(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(ctx, wholeKey{}, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if one := c.open[nc]; one != nil {
			c.unlist(one)
		}
	})
}

// wholeIn says that the request of a context has come whole, so that its connection is
// one that is worked for.
func wholeIn(ctx context.Context) {
	if whole, ok := ctx.Value(wholeKey{}).(func()); ok {
		whole()
	}
}

func (c *connections) unlist(one *connection) {
	if one.at != nil {
		c.waiting.Remove(one.at)
		one.at = nil
	}
}

func (c *connections) dropOldest() {
	nc := c.waiting.Front().Value.(net.Conn)
	one := c.open[nc]
	c.unlist(one)
	one.leaving = true
	c.leaving++
	hangUp(nc)
}

// hangUp closes the connection below TLS: tls.Conn.Close would wait to say goodbye.
func hangUp(nc net.Conn) {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	_ = nc.Close()
}
