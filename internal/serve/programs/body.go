package programs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// mostBody is how many bytes a body may have.
const mostBody = 16 << 10

// readBody reads a body in which nothing may be misunderstood: a JSON object whose fields
// are texts, each of them once and not empty.
func readBody(r *http.Request, known []string) (query, error) {
	const write = `Send a JSON object, such as {"company":"Acme Corp"}.`
	if err := checkType(r.Header.Values("Content-Type")); err != nil {
		return nil, err
	}
	var body io.Reader = bytes.NewReader(nil)
	if r.Body != nil {
		body = r.Body
	}
	text, err := io.ReadAll(io.LimitReader(body, mostBody+1))
	switch {
	case err != nil:
		return nil, usage("the body did not come whole", "Send the request again.")
	case len(text) > mostBody:
		return nil, tooLarge()
	case len(bytes.TrimSpace(text)) == 0:
		return nil, usage("the request has no body", write)
	case !utf8.Valid(text):
		return nil, usage("the body is not UTF-8 text", "Encode the body as UTF-8.")
	}
	fields := make(query, len(known))
	d := jsontext.NewDecoder(bytes.NewReader(text), jsontext.AllowDuplicateNames(true))
	damaged := func(err error) error {
		at := d.InputOffset()
		if syntax := new(jsontext.SyntacticError); errors.As(err, &syntax) {
			at = syntax.ByteOffset
		}
		return usage(fmt.Sprintf("the body is not JSON: there is a fault at byte %d", at+1), write)
	}
	begin, err := d.ReadToken()
	switch {
	case err != nil:
		return nil, damaged(err)
	case begin.Kind() != '{':
		return nil, usage("the body is not a JSON object", write)
	}
	for d.PeekKind() != '}' {
		token, err := d.ReadToken()
		if err != nil {
			return nil, damaged(err)
		}
		name := token.String()
		if !slices.Contains(known, name) {
			return nil, usage(fmt.Sprintf("the field %s is unknown here", quoted(name)), "The fields are: "+strings.Join(known, ", ")+".")
		}
		if _, twice := fields[name]; twice {
			return nil, usage(fmt.Sprintf("the field %s appears twice", name), "Send each field once.")
		}
		if kind, other := kinds[d.PeekKind()]; other {
			return nil, usage(fmt.Sprintf("the field %s is %s, not a text", name, kind), "Write the value in quotation marks, or leave the field out.")
		}
		value, err := d.ReadToken()
		if err != nil {
			return nil, damaged(err)
		}
		if fields[name] = value.String(); strings.TrimSpace(fields[name]) == "" {
			return nil, usage(fmt.Sprintf("the field %s is empty", name), "Give the field a value, or leave the field out.")
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, damaged(err)
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, usage("something stands behind the JSON object", "Send one JSON object and nothing else.")
	}
	return fields, nil
}

// kinds are what values of JSON are called.
var kinds = map[jsontext.Kind]string{
	'n': "null", 't': "true", 'f': "false", '0': "a number", '{': "an object", '[': "an array",
}

// checkType refuses a body that says to be something else than JSON.
func checkType(given []string) error {
	wrong := func(what string) error {
		return &requestError{
			status: http.StatusUnsupportedMediaType, code: 2, class: "usage", what: what, advice: "Send the body with the header Content-Type: application/json.",
		}
	}
	switch {
	case len(given) == 0:
		return wrong("the header Content-Type is missing")
	case len(given) > 1:
		return wrong("the header Content-Type appears twice")
	}
	kind, parameters, err := mime.ParseMediaType(given[0])
	if charset, has := parameters["charset"]; err != nil || kind != kindJSON || has && !strings.EqualFold(charset, "utf-8") {
		return wrong("the Content-Type " + quoted(given[0]) + " is not that of JSON")
	}
	return nil
}

func tooLarge() error {
	return &requestError{
		status: http.StatusRequestEntityTooLarge, code: 2, class: "usage", what: "the request's body is too long",
		advice: fmt.Sprintf("Send %d bytes at most.", mostBody),
	}
}

// Refuse answers a request that comes to no handler, in the words of all other errors here.
func Refuse(w http.ResponseWriter, r *http.Request, status int, what string) {
	var err error
	switch status {
	case http.StatusRequestEntityTooLarge:
		err = tooLarge()
	case http.StatusServiceUnavailable:
		err = &requestError{status: status, code: codeUPS, class: "ups", what: what, advice: "Try again."}
	default:
		err = &requestError{status: status, code: 2, class: "usage", what: what, advice: "Send the request again."}
	}
	failure(err).write(w, r)
}
