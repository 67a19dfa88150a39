package sandbox

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// recorder notes for the log what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	note   string
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets an [http.ResponseController] through.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func note(w http.ResponseWriter, format string, args ...any) {
	if rec, ok := w.(*recorder); ok {
		rec.note = fmt.Sprintf(format, args...)
	}
}

func requestLine(r *http.Request, rec *recorder) string {
	var b strings.Builder
	b.WriteString(r.Method + " " + maskPath(r.URL.EscapedPath()))
	if r.URL.RawQuery != "" {
		b.WriteString("?" + maskQuery(r.URL.RawQuery))
	}
	if rec.status != 0 {
		b.WriteString(" " + strconv.Itoa(rec.status))
	} else {
		b.WriteString(" -")
	}
	if rec.note != "" {
		b.WriteString(" (" + strings.Join(strings.Fields(rec.note), " ") + ")")
	}
	return b.String()
}

// maskPath leaves out what is long enough for a token that a client put into
// the path by mistake. No path here has such a part but a user's name.
func maskPath(path string) string {
	if strings.HasPrefix(path, "/sandbox/users/") {
		return path
	}
	parts := strings.Split(path, "/")
	for i, part := range parts {
		if len(part) > 30 {
			parts[i] = "***"
		}
	}
	return strings.Join(parts, "/")
}

// maskQuery keeps what is known to be no secret.
func maskQuery(raw string) string {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return "***"
	}
	var shown []string
	for _, name := range slices.Sorted(maps.Keys(q)) {
		switch value := q.Get(name); {
		case value == "":
			shown = append(shown, "***") // a client's mistake may be all value
		case slices.Contains([]string{"client_id", "response_type", "scope", "code_challenge_method", "type"}, name):
			shown = append(shown, name+"="+url.QueryEscape(value))
		case name == "redirect_uri":
			uri, _, has := strings.Cut(value, "?")
			shown = append(shown, name+"="+url.QueryEscape(uri))
			if has {
				shown[len(shown)-1] += "?***"
			}
		default:
			shown = append(shown, url.QueryEscape(name)+"=***")
		}
	}
	return strings.Join(shown, "&")
}
