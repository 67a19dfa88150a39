package loopback

import "time"

// limits holds what bounds a login and its listener. Tests shorten it.
type limits struct {
	header  time.Duration // until a connection has sent a whole header, TLS handshake included
	body    time.Duration // until the body of a refused request has ended
	write   time.Duration // for writing one answer
	finish  time.Duration // until the browser has fetched the result page
	grace   time.Duration // for answers under way when Close is called
	headers int           // bytes of one request's header: the cookies of everything else on localhost come along
	url     int           // bytes of one request's URL, and of a pasted address
	conns   int           // connections open at once
	waiting int           // requests that wait for Finish at once
	rounds  int           // answers whose pages are kept
}

const maxURL = 16 << 10

func defaultLimits() limits {
	return limits{
		header:  5 * time.Second,
		body:    time.Second,
		write:   5 * time.Second,
		finish:  5 * time.Second,
		grace:   time.Second,
		headers: 64 << 10,
		url:     maxURL,
		conns:   128,
		waiting: 16,
		rounds:  16,
	}
}
