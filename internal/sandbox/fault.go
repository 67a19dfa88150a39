package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Fault is something that goes wrong at one endpoint. What its fields ask for
// happens together: a fault can be late, say 503 and drop the connection half way
// through saying so. Fields that could have no effect together are refused.
//
// In JSON the names are as tagged, durations are strings like "300ms", and
// retry_after may be a number too.
type Fault struct {
	// Endpoint is "authorize", "token", "refresh" or "api". A fault with
	// Refuse has none.
	Endpoint string `json:"endpoint,omitempty"`
	// Times is how many requests it befalls; zero means all until
	// [Server.ClearFaults].
	Times int `json:"times,omitempty"`
	// Probability is that with which it befalls a request, up to 1; zero
	// means 1.
	Probability float64 `json:"probability,omitempty"`

	// Latency passes before the request is carried out, which it is even if
	// the client has gone by then.
	Latency time.Duration `json:"-"`
	// LatencyAfter passes between that and the answer.
	LatencyAfter time.Duration `json:"-"`

	// Status from 400 to 599 is answered with UPS's error body, and the
	// request is not carried out. Code and Message stand in that body; where
	// they are empty, they follow from the status.
	Status  int    `json:"status,omitempty"`
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	// RetryAfter is that header (RFC 9110 section 10.2.3): seconds, or a
	// date.
	RetryAfter string `json:"-"`
	// ErrorPage redirects to an error page, as UPS does when it is down, and
	// the request is not carried out.
	ErrorPage bool `json:"error_page,omitempty"`
	// Commit carries the request out before Status or ErrorPage hides how it
	// went: a code or refresh token is spent then.
	Commit bool `json:"commit,omitempty"`

	// Drop closes the connection: "before" the request is carried out,
	// "after" it and without an answer, or "during" the answer, half of whose
	// body is sent.
	Drop string `json:"drop,omitempty"`
	// Reset lets Drop end the connection with a TCP reset.
	Reset bool `json:"reset,omitempty"`
	// Refuse is how long, from now on, nobody listens: connections are
	// refused, and those that there are end at their next request. It stands
	// alone, and needs [Server.Listen].
	Refuse time.Duration `json:"-"`

	// Body replaces the answer's: "empty", "html", or "truncated", which
	// keeps half of it under the right Content-Length.
	Body string `json:"body,omitempty"`
	// Numbers puts JSON numbers where UPS's successful answers have digits in
	// strings.
	Numbers bool `json:"numbers,omitempty"`
	// Omit are fields that a successful answer lacks.
	Omit []string `json:"omit,omitempty"`
	// Huge makes both tokens 8 KB long. They work.
	Huge bool `json:"huge,omitempty"`

	// ClockOffset is how far the times in the answer, and in the access
	// token, are ahead of the server's clock.
	ClockOffset time.Duration `json:"-"`
	// AccessLifetime and RefreshLifetime are those of the tokens issued.
	AccessLifetime  time.Duration `json:"-"`
	RefreshLifetime time.Duration `json:"-"`

	// Strict and Grace make a refresh as strict, or as lenient, as the
	// [Options] of the same name make them all.
	Strict bool          `json:"strict,omitempty"`
	Grace  time.Duration `json:"-"`
	// PKCEBasic wants the Authorization header in a PKCE exchange too. UPS
	// documents that there is none, and it is not known to insist.
	PKCEBasic bool `json:"pkce_basic,omitempty"`
}

// plainFault has Fault's fields and none of its methods.
type plainFault Fault

// wireFault is a Fault in JSON.
type wireFault struct {
	plainFault
	// Pointers, as a zero that is written down means something else than none.
	Times           *int       `json:"times,omitempty"`
	Probability     *float64   `json:"probability,omitempty"`
	Latency         span       `json:"latency,omitempty"`
	LatencyAfter    span       `json:"latency_after,omitempty"`
	RetryAfter      retryAfter `json:"retry_after,omitempty"`
	ClockOffset     span       `json:"clock_offset,omitempty"`
	AccessLifetime  *span      `json:"access_lifetime,omitempty"`
	RefreshLifetime *span      `json:"refresh_lifetime,omitempty"`
	Refuse          *span      `json:"refuse,omitempty"`
	Grace           span       `json:"grace,omitempty"`
}

type span time.Duration

func (s span) MarshalText() ([]byte, error) { return []byte(time.Duration(s).String()), nil }

func (s *span) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf(`%q is no length of time such as "300ms" or "2m"`, text)
	}
	*s = span(d)
	return nil
}

type retryAfter string

func (r *retryAfter) UnmarshalJSON(raw []byte) error {
	var n uint32
	if err := json.Unmarshal(raw, &n); err == nil {
		*r = retryAfter(strconv.FormatUint(uint64(n), 10))
		return nil
	}
	if err := json.Unmarshal(raw, (*string)(r)); err != nil {
		return errors.New("a fault's retry_after is a number of seconds, or a string")
	}
	return nil
}

// MarshalJSON implements [json.Marshaler].
func (f Fault) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireFault{
		plainFault:      plainFault(f),
		Times:           written(f.Times),
		Probability:     written(f.Probability),
		Latency:         span(f.Latency),
		LatencyAfter:    span(f.LatencyAfter),
		RetryAfter:      retryAfter(f.RetryAfter),
		ClockOffset:     span(f.ClockOffset),
		AccessLifetime:  written(span(f.AccessLifetime)),
		RefreshLifetime: written(span(f.RefreshLifetime)),
		Refuse:          written(span(f.Refuse)),
		Grace:           span(f.Grace),
	})
}

// written is nil for what is left out.
func written[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// read is written's inverse; name is refused where it is there and zero.
func read[T comparable](name string, v *T, err *error) (value T) {
	var zero T
	if v == nil {
		return zero
	}
	if *v == zero {
		*err = fmt.Errorf("a fault's %s can't be zero; leave it out", name)
	}
	return *v
}

// UnmarshalJSON implements [json.Unmarshaler]. It refuses names it does not
// know: a misspelt fault would be one that never happens.
func (f *Fault) UnmarshalJSON(raw []byte) error {
	var w wireFault
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		return inWords("a fault", err)
	}
	*f = Fault(w.plainFault)
	var err error
	f.Times, f.Probability = read("times", w.Times, &err), read("probability", w.Probability, &err)
	f.AccessLifetime = time.Duration(read("access_lifetime", w.AccessLifetime, &err))
	f.RefreshLifetime = time.Duration(read("refresh_lifetime", w.RefreshLifetime, &err))
	f.Refuse = time.Duration(read("refuse", w.Refuse, &err))
	f.Latency, f.LatencyAfter = time.Duration(w.Latency), time.Duration(w.LatencyAfter)
	f.RetryAfter = string(w.RetryAfter)
	f.ClockOffset = time.Duration(w.ClockOffset)
	f.Grace = time.Duration(w.Grace)
	return err
}

// ParseFault reads a fault from JSON. What it makes sense for is for
// [Server.AddFault] to say.
func ParseFault(text string) (f Fault, err error) {
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return Fault{}, inWords("a fault", err)
	}
	return f, nil
}

// inWords says what is wrong with the JSON of what, such as "a fault", without
// the names of Go.
func inWords(what string, err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if wrong.Field == "" {
			return fmt.Errorf("%s is a JSON object, not a JSON %s", what, wrong.Value)
		}
		field := wrong.Field[strings.LastIndexByte(wrong.Field, '.')+1:]
		wants := map[reflect.Kind]string{
			reflect.String: "a string", reflect.Bool: "true or false", reflect.Int: "a whole number",
			reflect.Float64: "a number", reflect.Slice: "a list of strings", reflect.Int64: `a string such as "300ms"`,
		}[wrong.Type.Kind()]
		return fmt.Errorf("%s's %s is %s, not a JSON %s", what, field, wants, wrong.Value)
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
}

func (f Fault) check() error {
	if f.Refuse != 0 {
		switch {
		case f.Refuse < 0:
			return errors.New("a fault's refuse can't be negative")
		case !reflect.DeepEqual(f, Fault{Refuse: f.Refuse}):
			return errors.New("a fault's refuse stands alone: connections are refused whatever they are for")
		}
		return nil
	}
	switch {
	case !slices.Contains([]string{"authorize", "token", "refresh", "api"}, f.Endpoint):
		return fmt.Errorf(`a fault's endpoint is "authorize", "token", "refresh" or "api", not %q`, f.Endpoint)
	case f.Times < 0:
		return errors.New("a fault's times can't be negative")
	case !(0 <= f.Probability && f.Probability <= 1):
		return errors.New("a fault's probability is between 0 and 1")
	case f.Status != 0 && (f.Status < 400 || f.Status > 599):
		return errors.New("a fault's status is between 400 and 599")
	case !slices.Contains([]string{"", "before", "after", "during"}, f.Drop):
		return fmt.Errorf(`a fault's drop is "before", "after" or "during", not %q`, f.Drop)
	case !slices.Contains([]string{"", "empty", "html", "truncated"}, f.Body):
		return fmt.Errorf(`a fault's body is "empty", "html" or "truncated", not %q`, f.Body)
	case f.Latency < 0 || f.LatencyAfter < 0 || f.AccessLifetime < 0 || f.RefreshLifetime < 0 || f.Grace < 0:
		return errors.New("a fault's latencies, lifetimes and grace can't be negative")
	case reflect.DeepEqual(f, Fault{Endpoint: f.Endpoint, Times: f.Times, Probability: f.Probability}):
		return errors.New("a fault says what goes wrong, and this one says nothing")
	}
	for _, name := range f.Omit {
		if !slices.Contains(answerFields(), name) {
			return fmt.Errorf("a fault's omit names fields of UPS's answer, and %q is none", name)
		}
	}
	return f.checkTogether()
}

// checkTogether refuses what would have no effect beside the rest: a fault that
// never happens lets a test pass that tests nothing.
func (f Fault) checkTogether() error {
	tokens := f.Endpoint == "token" || f.Endpoint == "refresh"
	replaced := f.Status != 0 || f.ErrorPage
	carriedOut := f.Drop != "before" && (!replaced || f.Commit)
	answered := f.Drop == "" || f.Drop == "during"
	issues := tokens && !replaced && answered
	switch {
	case f.Status == 0 && (f.Code != "" || f.Message != "" || f.RetryAfter != ""):
		return errors.New("a fault's code, message and retry_after need a status")
	case f.Status != 0 && f.ErrorPage:
		return errors.New("a fault answers a status or the error page, not both")
	case replaced && !answered:
		return errors.New("a fault's status and error_page need an answer, and with this drop there is none")
	case f.Commit && (!replaced || !tokens):
		return errors.New(`a fault's commit needs a status or the error page, at "token" or "refresh"`)
	case f.Reset && f.Drop == "":
		return errors.New("a fault's reset needs a drop")
	case f.LatencyAfter != 0 && f.Drop == "before":
		return errors.New("a fault's latency_after passes before the answer, and with this drop there is none")
	case f.Body != "" && (!answered || f.ErrorPage || f.Endpoint == "authorize" && f.Status == 0):
		return errors.New("a fault's body needs an answer that has one: a redirect has none, nor has a dropped connection")
	case f.Drop == "during" && (f.Body == "empty" || f.ErrorPage || f.Endpoint == "authorize" && f.Status == 0):
		return errors.New(`a fault's drop "during" needs a body to end in, and this answer has none`)
	case !issues && (f.Huge || f.Numbers || len(f.Omit) > 0 || f.ClockOffset != 0 || f.AccessLifetime != 0 || f.RefreshLifetime != 0):
		return errors.New(`a fault's huge, numbers, omit, clock_offset and lifetimes need an answer with tokens, from "token" or "refresh"`)
	case (f.Strict || f.Grace > 0) && (f.Endpoint != "refresh" || !carriedOut):
		return errors.New(`a fault's strict and grace need a request to "refresh" that is carried out`)
	case f.PKCEBasic && (f.Endpoint != "token" || !carriedOut):
		return errors.New(`a fault's pkce_basic needs a request to "token" that is carried out`)
	}
	return nil
}
