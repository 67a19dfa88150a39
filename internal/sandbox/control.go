package sandbox

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/upsauth/upsauth/internal/address"
)

// control guards what is not for the world: it answers to this machine alone,
// and to no page of another site that a browser here has open.
func (s *Server) control(handle func(*http.Request, []byte) *answer) http.HandlerFunc {
	serve := s.endpoint("", func(r *http.Request, body []byte, _ Fault) *answer { return handle(r, body) })
	return func(w http.ResponseWriter, r *http.Request) {
		site := r.Header.Get("Sec-Fetch-Site")
		if !fromThisMachine(r) ||
			site != "" && site != "same-origin" && site != "none" || s.cross.Check(r) != nil {
			refuse(http.StatusForbidden, "10403", "The sandbox accepts orders on a loopback address only (localhost, 127.0.0.1 or [::1]), and not through a proxy").write(w)
			return
		}
		serve(w, r)
	}
}

// fromThisMachine is false also for what a name of elsewhere brought here, as
// with DNS rebinding, and for what a proxy or a tunnel on this machine passed on.
func fromThisMachine(r *http.Request) bool {
	for name := range r.Header {
		if isProxyHeader(name) {
			return false
		}
	}
	peer, _, err := net.SplitHostPort(r.RemoteAddr)
	return err == nil && address.IsLoopback(peer) && address.IsLoopback((&url.URL{Host: r.Host}).Hostname())
}

// isProxyHeader tells of a header whether only a proxy sets it, whatever it says:
// a request that has passed one can come from anywhere. The name is canonical.
func isProxyHeader(name string) bool {
	switch name {
	case "Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip":
		return true
	}
	for _, prefix := range []string{"X-Forwarded", "Forwarded-", "X-Original-", "Cf-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func (s *Server) controlFaults(r *http.Request, body []byte) *answer {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodPost:
		f, err := ParseFault(string(body))
		if err != nil {
			return invalid("Invalid Fault: " + err.Error())
		}
		if err := s.AddFault(f); err != nil {
			return invalid("Invalid Fault: " + err.Error())
		}
	case http.MethodDelete:
		s.ClearFaults()
	default:
		return notAllowed("GET, HEAD, POST, DELETE")
	}
	return jsonAnswer(http.StatusOK, map[string][]Fault{"faults": s.faults.pending()})
}

func (s *Server) controlLog(r *http.Request, _ []byte) *answer {
	if !isGet(r) {
		return notAllowed("GET, HEAD")
	}
	return jsonAnswer(http.StatusOK, map[string][]Event{"events": s.Refreshes()})
}

func (s *Server) controlPassword(r *http.Request, _ []byte) *answer {
	if r.Method != http.MethodPost {
		return notAllowed(http.MethodPost)
	}
	err := s.ChangePassword(r.PathValue("name"))
	if _, ok := errors.AsType[*unknownUserError](err); ok {
		return refuse(http.StatusNotFound, "10404", err.Error())
	}
	if err != nil {
		return s.broken(err)
	}
	return &answer{status: http.StatusNoContent, header: http.Header{}}
}
