package programs

import (
	"bytes"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/ups"
)

// answer is what a request gets.
type answer struct {
	status int // 200 where it is zero
	kind   string
	body   []byte
	header map[string]string
}

const (
	kindJSON    = "application/json"
	kindText    = "text/plain; charset=utf-8"
	kindMetrics = "text/plain; version=0.0.4; charset=utf-8"
)

func (a answer) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h["Content-Type"] = []string{a.kind}
	h["Content-Length"] = []string{strconv.Itoa(len(a.body))}
	h["Cache-Control"] = []string{"no-store"}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	for name, value := range a.header {
		h.Set(name, value)
	}
	if a.status != 0 {
		w.WriteHeader(a.status)
	}
	if r.Method != http.MethodHead {
		_, _ = w.Write(a.body) // whoever asked is gone
	}
}

// requestError is a request that is refused for what it is, whatever is kept here.
type requestError struct {
	status       int
	code         int // as a command's exit code
	class        string
	what, advice string
	allow        string // the methods that would do
}

func (e *requestError) Error() string { return e.what }

func usage(what, advice string) error {
	return &requestError{status: http.StatusBadRequest, code: 2, class: explain.Usage.String(), what: what, advice: advice}
}

func unauthorized(what string) error {
	return &requestError{
		status: http.StatusUnauthorized, code: 1, class: "unauthorized", what: what,
		advice: "Send the key in the header Authorization, behind the word Bearer.",
	}
}

func forbidden(what string) error {
	return &requestError{
		status: http.StatusForbidden, code: 1, class: "forbidden", what: what,
		advice: "Use a key that covers the request, or ask whoever made this key.",
	}
}

func notCovered() error {
	return forbidden("this key does not cover the company, application or environment of the request")
}

// problem is the JSON of an error.
type problem struct {
	Error struct {
		ExitCode int    `json:"exit_code"`
		Class    string `json:"class"`
		Message  string `json:"message"`
		Advice   string `json:"advice"`
	} `json:"error"`
}

// failure is the answer that tells of an error.
func failure(err error) answer {
	var (
		a      = answer{kind: kindJSON, header: map[string]string{}}
		told   problem
		refuse *requestError
	)
	e := &told.Error
	switch {
	case errors.As(err, &refuse):
		a.status, e.ExitCode, e.Class = refuse.status, refuse.code, refuse.class
		e.Message, e.Advice = legible.Sentence(refuse.what), refuse.advice
		if refuse.allow != "" {
			a.header["Allow"] = refuse.allow
		}
		if refuse.status == http.StatusUnauthorized {
			a.header["WWW-Authenticate"] = "Bearer"
		}
	case errors.Is(err, errEnding), errors.Is(err, errSlow):
		a.status, e.ExitCode, e.Class = http.StatusServiceUnavailable, codeUPS, explain.UPS.String()
		e.Message, e.Advice = legible.Sentence(err.Error()), "Try again."
		a.header["Retry-After"] = strconv.Itoa(int(usualPause.Seconds()))
	default:
		meaning := explain.Error(err)
		a.status, e.ExitCode = statusOf(meaning.Class)
		e.Class = meaning.Class.String()
		e.Message, e.Advice = meaning.Plain()
		if meaning.Contact != "" {
			e.Advice = strings.TrimSpace(e.Advice + " " + legible.Sentence("Contact: "+legible.Line(meaning.Contact)))
		}
		if e.ExitCode == codeUPS {
			a.header["Retry-After"] = strconv.Itoa(int(math.Ceil(pauseAfter(err).Seconds())))
		}
	}
	var body bytes.Buffer
	_ = render.JSON(&body, told) // of texts and a number
	a.body = body.Bytes()
	return a
}

// codeUPS is the exit code of what UPS, or time, will mend.
const codeUPS = 6

// statusOf is the HTTP status of a class, and the exit code that a command has.
func statusOf(class explain.Class) (status, code int) {
	switch class {
	case explain.Usage:
		return http.StatusBadRequest, 2
	case explain.NotFound:
		return http.StatusNotFound, 3
	case explain.Authorize:
		return http.StatusConflict, 4
	case explain.Vault:
		return http.StatusServiceUnavailable, 5
	case explain.UPS:
		return http.StatusServiceUnavailable, codeUPS
	case explain.Refused:
		return http.StatusBadGateway, 7
	case explain.Interrupted:
		return http.StatusServiceUnavailable, 130
	}
	return http.StatusInternalServerError, 1
}

// usualPause is how long whoever asked should wait where nobody knows better.
const usualPause = 10 * time.Second

// pauseAfter is how long whoever asked should wait before the next try.
func pauseAfter(err error) time.Duration {
	var (
		pending *keeper.PendingError
		fromUPS *ups.Error
	)
	switch {
	case errors.As(err, &pending) && pending.Again > 0:
		return pending.Again
	case errors.As(err, &fromUPS) && fromUPS.RetryAfter > 0:
		return fromUPS.RetryAfter
	}
	return usualPause
}
