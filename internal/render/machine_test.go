package render

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/realpart"
)

// The JSON of status is written piece by piece, and is one document all the same.
func TestStatusJSONIsOneDocument(t *testing.T) {
	failed := acme()
	failed.VoidWith, failed.Contact, failed.Note = &grant.ID{Company: "Other"}, "Jane", "since 2019"
	failed.CutOff = &grant.Journal{Attempt: 2, Fate: grant.Fate{Time: issued, Outcome: "UPS answered 503."}}
	failed.Company, failed.LastError = "<\"&\u2028> \xff\n", &grant.LastError{Code: "lost", Time: issued}
	lists := [][]grant.Record{nil, {acme()}, {failed, {Facts: grant.Facts{ID: grant.ID{Company: "New"}}}, acme()}}
	// Some are encoded at a time, by each core, again and again.
	for _, n := range []int{128, 129, 128*runtime.GOMAXPROCS(0)*2 + 1} {
		long := make([]grant.Record, n)
		for i := range long {
			long[i] = acme()
			long[i].Company = fmt.Sprint("Company ", i)
		}
		lists = append(lists, long)
	}
	for _, records := range lists {
		for _, problems := range [][]Problem{nil, {{"a", "b"}}, {{"<a>", "\u2028 \"b\""}, {"c", ""}}} {
			status := NewStatus(records, issued)
			status.Problems = problems
			want := output(t, func(w io.Writer) error { return JSON(w, status) })
			// What is no UTF-8 may be the sign for that or its escape.
			want = strings.ReplaceAll(want, `\ufffd`, "\ufffd")
			same(t, output(t, func(w io.Writer) error { return StatusJSON(w, records, issued, problems...) }), want)
		}
	}
}

func TestPrometheus(t *testing.T) {
	r := acme()
	r.Company, r.RefreshCount = "Back\\slash \"quoted\"\nline 日本 \xff", 7
	r.LastError = &grant.LastError{Code: "lost"}
	r.VoidWith = &grant.ID{Company: "Other"}
	removing := of("Gone", grant.Authorized)
	removing.Removing = true
	got := output(t, func(w io.Writer) error { return Prometheus(w, []grant.Record{r, removing}, issued) })
	const odd = `company="Back\\slash \"quoted\"\nline 日本 ` + "\uFFFD" + `",application="intelligent-rating",environment="production"`
	const gone = `company="Gone",application="intelligent-rating",environment="production"`
	same(t, got, `# HELP upsauth_access_token_issued_timestamp_seconds When the access token was issued, by UPS's clock.
# TYPE upsauth_access_token_issued_timestamp_seconds gauge
upsauth_access_token_issued_timestamp_seconds{`+odd+`} 1795277103
# HELP upsauth_access_token_expires_timestamp_seconds When the access token expires, by UPS's clock.
# TYPE upsauth_access_token_expires_timestamp_seconds gauge
upsauth_access_token_expires_timestamp_seconds{`+odd+`} 1795280703
# HELP upsauth_refresh_token_issued_timestamp_seconds When the refresh token was issued, by UPS's clock.
# TYPE upsauth_refresh_token_issued_timestamp_seconds gauge
upsauth_refresh_token_issued_timestamp_seconds{`+odd+`} 1795277103
# HELP upsauth_refresh_token_expires_timestamp_seconds When the refresh token expires, by UPS's clock.
# TYPE upsauth_refresh_token_expires_timestamp_seconds gauge
upsauth_refresh_token_expires_timestamp_seconds{`+odd+`} 1800461103
# HELP upsauth_grant_state Whether a grant is in a state (1) or not (0).
# TYPE upsauth_grant_state gauge
upsauth_grant_state{`+odd+`,state="void"} 0
upsauth_grant_state{`+odd+`,state="expired"} 0
upsauth_grant_state{`+odd+`,state="interrupted"} 0
upsauth_grant_state{`+odd+`,state="expiring"} 0
upsauth_grant_state{`+odd+`,state="unauthorized"} 0
upsauth_grant_state{`+odd+`,state="refreshable"} 0
upsauth_grant_state{`+odd+`,state="authorized"} 1
upsauth_grant_state{`+gone+`,state="void"} 0
upsauth_grant_state{`+gone+`,state="expired"} 0
upsauth_grant_state{`+gone+`,state="interrupted"} 0
upsauth_grant_state{`+gone+`,state="expiring"} 0
upsauth_grant_state{`+gone+`,state="unauthorized"} 1
upsauth_grant_state{`+gone+`,state="refreshable"} 0
upsauth_grant_state{`+gone+`,state="authorized"} 0
# HELP upsauth_grant_probably_void Whether another grant of the same ups.com user was refused, so that this one is probably void (1), or not (0).
# TYPE upsauth_grant_probably_void gauge
upsauth_grant_probably_void{`+odd+`} 1
upsauth_grant_probably_void{`+gone+`} 0
# HELP upsauth_grant_last_error Whether what was done last with a grant failed (1) or not (0).
# TYPE upsauth_grant_last_error gauge
upsauth_grant_last_error{`+odd+`} 1
upsauth_grant_last_error{`+gone+`} 0
# HELP upsauth_grant_refreshes_total How often a grant was refreshed since it was authorized.
# TYPE upsauth_grant_refreshes_total counter
upsauth_grant_refreshes_total{`+odd+`} 7
upsauth_grant_refreshes_total{`+gone+`} 0
# HELP upsauth_grants How many grants are in a state.
# TYPE upsauth_grants gauge
upsauth_grants{state="void"} 0
upsauth_grants{state="expired"} 0
upsauth_grants{state="interrupted"} 0
upsauth_grants{state="expiring"} 0
upsauth_grants{state="unauthorized"} 1
upsauth_grants{state="refreshable"} 0
upsauth_grants{state="authorized"} 1
`)
}

func TestPromtoolFindsNothing(t *testing.T) {
	promtool := realpart.Program(t, "promtool", "prometheus")
	for name, records := range map[string][]grant.Record{"none": nil, "nasty": nastyRecords(), "several": several()} {
		check := exec.Command(promtool, "check", "metrics")
		check.Stdin = strings.NewReader(output(t, func(w io.Writer) error { return Prometheus(w, records, issued) }))
		if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}

// The alert rules that are shipped are ones that Prometheus takes, do what they
// say, and speak of metrics that are there.
func TestAlertRules(t *testing.T) {
	promtool := realpart.Program(t, "promtool", "prometheus")
	dir := filepath.Join("..", "..", "docs", "examples", "prometheus")
	for _, args := range [][]string{{"check", "rules", "upsauth.rules.yml"}, {"test", "rules", "upsauth.rules.test.yml"}} {
		tool := exec.Command(promtool, args...)
		tool.Dir = dir
		if out, err := tool.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	rules, err := os.ReadFile(filepath.Join(dir, "upsauth.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	metrics := output(t, func(w io.Writer) error { return Prometheus(w, inStates(grant.States()), issued) }) +
		output(t, func(w io.Writer) error { return PrometheusRound(w, LastRound{End: issued}) })
	used := regexp.MustCompile(`\bupsauth_[a-z_]+`).FindAllString(string(rules), -1)
	if len(used) < 8 {
		t.Errorf("the rules speak of %q only", used)
	}
	for _, name := range used {
		if !strings.Contains(metrics, "# TYPE "+name+" ") {
			t.Errorf("there is no metric %s", name)
		}
	}
	for _, state := range regexp.MustCompile(`state=~?"([^"]+)"`).FindAllStringSubmatch(string(rules), -1) {
		for _, name := range strings.Split(state[1], "|") {
			if !slices.Contains(grant.States(), grant.State(name)) {
				t.Errorf("there is no state %s", name)
			}
		}
	}
}
