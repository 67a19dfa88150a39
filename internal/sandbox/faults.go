package sandbox

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxFaults is how many can wait at a time.
const maxFaults = 100

// faults are those still to come, in the order in which they were added.
type faults struct {
	mu       sync.Mutex
	list     []Fault
	listener *listener // nil where somebody else listens
}

// AddFault lets f happen from now on. Of several faults for one request, the
// first added that befalls it does.
func (s *Server) AddFault(f Fault) error {
	if err := f.check(); err != nil {
		return err
	}
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	if f.Refuse > 0 {
		if s.faults.listener == nil {
			return errors.New("this sandbox did not open its port itself, so it can't refuse connections")
		}
		s.faults.listener.refuse(f.Refuse)
		return nil
	}
	if len(s.faults.list) == maxFaults {
		return fmt.Errorf("there are %d faults already", maxFaults)
	}
	f.Omit = slices.Clone(f.Omit)
	s.faults.list = append(s.faults.list, f)
	return nil
}

// refusing reports whether connections are being refused.
func (fs *faults) refusing() bool {
	fs.mu.Lock()
	l := fs.listener
	fs.mu.Unlock()
	return l != nil && l.away()
}

// ClearFaults ends all faults but a refusal of connections.
func (s *Server) ClearFaults() {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.list = nil
}

func (fs *faults) pending() []Fault {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return append([]Fault{}, fs.list...)
}

// take returns what befalls the next request to the endpoint.
func (fs *faults) take(endpoint string) (f Fault, befalls bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for i, f := range fs.list {
		if f.Endpoint != endpoint || f.Probability > 0 && rand.Float64() >= f.Probability {
			continue
		}
		if f.Times == 1 {
			fs.list = slices.Delete(fs.list, i, i+1)
		} else if f.Times > 1 {
			fs.list[i].Times--
		}
		return f, true
	}
	return Fault{}, false
}

// endpoint serves what handle answers, with the faults of the name. The body
// is read before anything else: a client that goes away later does not keep
// its request from being carried out.
func (s *Server) endpoint(name string, handle func(*http.Request, []byte, Fault) *answer) http.HandlerFunc {
	limit := int64(64 << 10)
	if name == "api" {
		limit = 1 << 20
	}
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
		if err != nil {
			a := invalid("Invalid Request: its body can't be read")
			if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
				a = refuse(http.StatusRequestEntityTooLarge, "10413", "Request Entity Too Large")
			}
			a.write(w)
			return
		}
		f, befalls := s.faults.take(name)
		if !befalls {
			handle(r, body, Fault{}).write(w)
			return
		}
		defer noteFault(w)
		time.Sleep(f.Latency)
		if f.Drop == "before" {
			drop(w, f.Reset)
			return
		}
		a := f.instead(r)
		if a == nil {
			a = handle(r, body, f)
		} else if f.Commit {
			handle(r, body, f)
		}
		time.Sleep(f.LatencyAfter)
		if f.Drop == "after" {
			drop(w, f.Reset)
			return
		}
		a = f.deform(a)
		if f.Drop != "during" {
			a.write(w)
			return
		}
		a.writeHeader(w)
		w.Write(a.body[:len(a.body)/2])
		http.NewResponseController(w).Flush()
		drop(w, f.Reset)
	}
}

func noteFault(w http.ResponseWriter) {
	if rec, ok := w.(*recorder); ok {
		rec.note = strings.TrimSpace("fault " + rec.note)
	}
}

// instead is what is answered in the place of the endpoint's own answer, or
// nil.
func (f Fault) instead(r *http.Request) *answer {
	if f.ErrorPage {
		return redirect(baseURL(r) + "/error.page")
	}
	if f.Status == 0 {
		return nil
	}
	code, message := f.Code, f.Message
	if code == "" {
		switch {
		case f.Status >= 500:
			code = "10500"
		case f.Status == http.StatusUnauthorized && f.Endpoint == "api":
			code = "250002"
		default:
			code = "10" + strconv.Itoa(f.Status)
		}
	}
	if message == "" {
		message = http.StatusText(f.Status)
	}
	a := refuse(f.Status, code, message)
	if f.RetryAfter != "" {
		a.header.Set("Retry-After", f.RetryAfter)
	}
	return a
}

// deform changes the form of an answer.
func (f Fault) deform(a *answer) *answer {
	if a.status == http.StatusOK && (f.Numbers || len(f.Omit) > 0) {
		a = f.deformFields(a)
	}
	switch f.Body {
	case "empty":
		a.body = nil
	case "html":
		a.header.Set("Content-Type", "text/html; charset=utf-8")
		a.body = []byte("<!DOCTYPE html>\n<html><head><title>Service unavailable</title></head><body><h1>We'll be right back</h1></body></html>\n")
	case "truncated":
		a.body = a.body[:len(a.body)/2]
	}
	return a
}

func (f Fault) deformFields(a *answer) *answer {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(a.body, &fields); err != nil {
		return a
	}
	for _, name := range f.Omit {
		delete(fields, name)
	}
	if f.Numbers {
		for _, name := range []string{"refresh_token_expires_in", "issued_at", "refresh_token_issued_at", "expires_in", "refresh_count"} {
			if v, ok := fields[name]; ok {
				fields[name] = bytes.Trim(v, `"`)
			}
		}
	}
	deformed := jsonAnswer(a.status, fields)
	deformed.header = a.header
	return deformed
}

// drop closes the connection as it is. Where it can't be had, as with HTTP/2,
// net/http is asked to abort.
func drop(w http.ResponseWriter, reset bool) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if reset {
		inner := conn
		if t, ok := conn.(*tls.Conn); ok {
			inner = t.NetConn()
		}
		if tcp, ok := inner.(*net.TCPConn); ok {
			tcp.SetLinger(0)
			conn = tcp
		}
	}
	conn.Close()
}
