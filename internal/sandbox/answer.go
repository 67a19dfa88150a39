package sandbox

import (
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
)

// answer is what an endpoint answers, whole, so that a fault can still turn it
// into something else.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// refuse is an error as UPS puts it (tokenErrorResponse in UPS's
// OAuthAuthCode.yaml), repeated in the two headers that UPS's sample client
// reads.
func refuse(status int, code, message string) *answer {
	type upsError struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	var body struct {
		Response struct {
			Errors []upsError `json:"errors"`
		} `json:"response"`
	}
	body.Response.Errors = []upsError{{code, message}}
	a := jsonAnswer(status, body)
	a.header.Set("errorcode", code)
	a.header.Set("errordescription", message)
	return a
}

// broken is the answer to a request that failed through no fault of the
// client.
func (s *Server) broken(err error) *answer {
	s.log("sandbox: " + err.Error())
	return refuse(http.StatusInternalServerError, "10500", "Internal Server Error")
}

func notAllowed(allow string) *answer {
	a := refuse(http.StatusMethodNotAllowed, "10405", "Method Not Allowed")
	a.header.Set("Allow", allow)
	return a
}

func jsonAnswer(status int, v any) *answer {
	body, err := json.Marshal(v)
	if err != nil {
		return &answer{status: http.StatusInternalServerError, header: http.Header{}}
	}
	return &answer{status: status, body: body, header: http.Header{
		"Content-Type":  {"application/json"},
		"Cache-Control": {"no-store"},
	}}
}

func redirect(location string) *answer {
	return &answer{status: http.StatusFound, header: http.Header{
		"Location":      {location},
		"Cache-Control": {"no-store"},
	}}
}

func (a *answer) write(w http.ResponseWriter) {
	a.writeHeader(w)
	w.Write(a.body)
}

func (a *answer) writeHeader(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	if a.status != http.StatusNoContent {
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	if description := a.header.Get("errordescription"); description != "" {
		note(w, "%s %s", a.header.Get("errorcode"), description)
	}
	w.WriteHeader(a.status)
}
