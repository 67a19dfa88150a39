package loopback

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// connections bounds the open connections of a server and lets Close wait for
// their goroutines. One that has not yet sent a whole header is fresh: when
// there are too many connections the oldest fresh one goes, so that slow
// clients, however many, can't keep the browser out.
type connections struct {
	limit int
	all   sync.WaitGroup

	mu    sync.Mutex
	count uint64
	fresh map[net.Conn]uint64 // by order of arrival
	busy  map[net.Conn]bool
}

func newConnections(limit int) *connections {
	return &connections{limit: limit, fresh: make(map[net.Conn]uint64), busy: make(map[net.Conn]bool)}
}

// changed is the server's ConnState hook.
func (c *connections) changed(nc net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.all.Add(1)
		c.count++
		c.fresh[nc] = c.count
		if len(c.fresh)+len(c.busy) > c.limit {
			c.dropOldest()
		}
	case http.StateActive:
		if _, ok := c.fresh[nc]; ok {
			delete(c.fresh, nc)
			c.busy[nc] = true
		}
	case http.StateClosed:
		delete(c.fresh, nc)
		delete(c.busy, nc)
		c.all.Done()
	}
}

func (c *connections) dropOldest() {
	var oldest net.Conn
	for nc, n := range c.fresh {
		if oldest == nil || n < c.fresh[oldest] {
			oldest = nc
		}
	}
	delete(c.fresh, oldest)
	hangUp(oldest)
}

func (c *connections) closeFresh() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for nc := range c.fresh {
		hangUp(nc)
	}
}

// wait returns when every connection's goroutine has ended. No listener may be
// accepting any more.
func (c *connections) wait() { c.all.Wait() }

// hangUp closes the connection below TLS: tls.Conn.Close would wait to say goodbye.
func hangUp(nc net.Conn) {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	_ = nc.Close()
}
