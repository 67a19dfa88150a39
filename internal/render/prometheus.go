package render

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

// Prometheus writes what monitors watch in the Prometheus text format 0.0.4. A
// time that is unknown has no line.
//
// Prometheus' own library would bring protobuf along for what are a few lines
// of text; promtool judges them in the tests.
func Prometheus(w io.Writer, records []grant.Record, now time.Time) error {
	out := bufio.NewWriter(w)
	states := make([]grant.State, len(records))
	labels := make([]string, len(records))
	counts := map[grant.State]int{}
	// These three have to be escaped, and nothing else; the format is UTF-8.
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	value := func(s string) string { return escape.Replace(strings.ToValidUTF8(s, "\uFFFD")) }
	for i, r := range records {
		states[i] = r.StateAt(now)
		labels[i] = fmt.Sprintf(`company="%s",application="%s",environment="%s"`,
			value(r.Company), value(r.Application), value(r.Environment))
		counts[states[i]]++
	}
	head := func(name, kind, help string) {
		fmt.Fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	}

	for _, metric := range []struct {
		name, help string
		at         func(grant.Record) time.Time
	}{
		{"upsauth_access_token_issued_timestamp_seconds", "When the access token was issued, by UPS's clock.",
			func(r grant.Record) time.Time { return r.Issued }},
		{"upsauth_access_token_expires_timestamp_seconds", "When the access token expires, by UPS's clock.",
			func(r grant.Record) time.Time { return r.Expires }},
		{"upsauth_refresh_token_issued_timestamp_seconds", "When the refresh token was issued, by UPS's clock.",
			func(r grant.Record) time.Time { return r.RefreshTokenIssued }},
		{"upsauth_refresh_token_expires_timestamp_seconds", "When the refresh token expires, by UPS's clock.",
			func(r grant.Record) time.Time { return r.RefreshTokenExpires }},
	} {
		head(metric.name, "gauge", metric.help)
		for i, r := range records {
			// The times of a grant that is being removed would raise an alarm.
			if at := metric.at(r); !at.IsZero() && states[i] != grant.Unauthorized {
				fmt.Fprintf(out, "%s{%s} %d\n", metric.name, labels[i], at.Unix())
			}
		}
	}

	head("upsauth_grant_state", "gauge", "Whether a grant is in a state (1) or not (0).")
	for i := range records {
		for _, state := range grant.States() {
			fmt.Fprintf(out, "upsauth_grant_state{%s,state=\"%s\"} %d\n", labels[i], state, oneIf(states[i] == state))
		}
	}
	head("upsauth_grant_probably_void", "gauge", "Whether another grant of the same ups.com user was refused, so that this one is probably void (1), or not (0).")
	for i, r := range records {
		fmt.Fprintf(out, "upsauth_grant_probably_void{%s} %d\n", labels[i], oneIf(r.ProbablyVoid()))
	}
	head("upsauth_grant_last_error", "gauge", "Whether what was done last with a grant failed (1) or not (0).")
	for i, r := range records {
		fmt.Fprintf(out, "upsauth_grant_last_error{%s} %d\n", labels[i], oneIf(r.LastError != nil))
	}
	head("upsauth_grant_refreshes_total", "counter", "How often a grant was refreshed since it was authorized.")
	for i, r := range records {
		fmt.Fprintf(out, "upsauth_grant_refreshes_total{%s} %d\n", labels[i], r.RefreshCount)
	}
	head("upsauth_grants", "gauge", "How many grants are in a state.")
	for _, state := range grant.States() {
		fmt.Fprintf(out, "upsauth_grants{state=\"%s\"} %d\n", state, counts[state])
	}
	return out.Flush()
}

func oneIf(b bool) int {
	if b {
		return 1
	}
	return 0
}
