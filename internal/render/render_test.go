package render

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

// The times are those of the design's examples, with a fraction of a second
// that nothing may show, and from a zone that nothing may show either.
var issued = time.Date(2026, 11, 21, 17, 5, 3, 999e6, time.FixedZone("CET", 3600))

const (
	hour = time.Hour
	day  = 24 * time.Hour
	key  = "FD4C8DB3-3C21-4F7E-B122-8BF55EA80CDA"
)

func acme() grant.Record {
	return grant.Record{
		Facts: grant.Facts{
			ID:                  grant.ID{Company: "Acme Corp", Application: "intelligent-rating", Environment: "production"},
			TokenVaultKey:       key,
			User:                "jane@acme.example",
			Home:                "keychain",
			Generation:          3,
			ClientID:            "Kx2vG8dQm5",
			BaseURL:             "https://onlinetools.ups.com",
			JournalRecipient:    "age1recipient",
			Issued:              issued,
			Expires:             issued.Add(hour),
			RefreshTokenIssued:  issued,
			RefreshTokenExpires: issued.Add(60 * day),
			Requested:           issued,
			AccessUntil:         issued.Add(hour),
			RefreshUntil:        issued.Add(60 * day),
		},
	}
}

// of is a company's grant in a state, as seen at the moment issued.
func of(company string, state grant.State) grant.Record {
	r := acme()
	r.Company = company
	switch state {
	case grant.Refreshable:
		r.AccessUntil = issued
	case grant.Expiring:
		r.RefreshUntil = issued.Add(2 * day)
	case grant.Expired:
		r.RefreshUntil = issued
	case grant.Void:
		r.Void = true
	case grant.Interrupted:
		r.Interrupted = true
	case grant.Unauthorized:
		r = grant.Record{Facts: grant.Facts{ID: r.ID}}
	}
	return r
}

// inStates are grants, one in each of the states.
func inStates(states []grant.State) []grant.Record {
	records := make([]grant.Record, len(states))
	for i, state := range states {
		records[i] = of("x", state)
	}
	return records
}

// output is what a function writes.
func output(t *testing.T, write func(io.Writer) error) string {
	t.Helper()
	var out bytes.Buffer
	if err := write(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func same(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("the output is\n%s\nwant\n%s", got, want)
	}
}

// The panels are what the users of UPS's two applications know.
func TestPanelOfIntelligentRating(t *testing.T) {
	got := output(t, func(w io.Writer) error { return Panel(w, acme(), 0) })
	same(t, got, `UPS API ACCESS
AUTHORIZED
An OAuth token exists for this company!

Token Vault Key        FD4C8DB3-3C21-4F7E-B122-8BF55EA80CDA
Issued                 11/21/2026 4:05:03 PM +00:00
Expires                11/21/2026 5:05:03 PM +00:00
Refresh Token Issued   11/21/2026 4:05:03 PM +00:00
Refresh Token Expires  1/20/2027 4:05:03 PM +00:00
`)
}

func TestPanelOfBatchSuite(t *testing.T) {
	got := output(t, func(w io.Writer) error {
		return BatchSuitePanel(w, acme(), "upsauth revoke --company 'Acme Corp'", 0)
	})
	same(t, got, `Access Key Configuration  CONFIGURED
OAuth Configuration       Refresh expires: 2027-01-20 16:05:03
REMOVE AUTH               upsauth revoke --company 'Acme Corp'
`)
}

func TestPanelOfAGrantWhoseTimesUPSLeftOut(t *testing.T) {
	r := grant.Record{Facts: grant.Facts{TokenVaultKey: key}}
	if got := output(t, func(w io.Writer) error { return Panel(w, r, 0) }); strings.Count(got, "  unknown\n") != 4 {
		t.Errorf("the panel is\n%s", got)
	}
	if got := output(t, func(w io.Writer) error { return BatchSuitePanel(w, r, "x", 0) }); !strings.Contains(got, "Refresh expires: unknown\n") {
		t.Errorf("the panel is\n%s", got)
	}
}

func TestRowsStandInTwoColumnsWithoutTrailingSpaces(t *testing.T) {
	got := output(t, func(w io.Writer) error {
		return Rows(w, []Row{{"Company", "Acme Corp"}, {"Scope", ""}, {"Redirect URI", "http://localhost:8765"}}, 0)
	})
	same(t, got, "Company       Acme Corp\nScope\nRedirect URI  http://localhost:8765\n")
}

func TestTimesAsUPSShowsThem(t *testing.T) {
	newYork := time.FixedZone("EST", -5*3600)
	for _, test := range []struct {
		at            time.Time
		rating, suite string
	}{
		{time.Date(2027, 1, 20, 16, 5, 3, 0, time.UTC), "1/20/2027 4:05:03 PM +00:00", "2027-01-20 16:05:03"},
		{time.Date(2027, 1, 2, 0, 0, 0, 0, time.UTC), "1/2/2027 12:00:00 AM +00:00", "2027-01-02 00:00:00"},
		{time.Date(2027, 1, 2, 0, 59, 59, 0, time.UTC), "1/2/2027 12:59:59 AM +00:00", "2027-01-02 00:59:59"},
		{time.Date(2027, 1, 2, 11, 59, 59, 999, time.UTC), "1/2/2027 11:59:59 AM +00:00", "2027-01-02 11:59:59"},
		{time.Date(2027, 10, 12, 12, 0, 0, 0, time.UTC), "10/12/2027 12:00:00 PM +00:00", "2027-10-12 12:00:00"},
		{time.Date(2028, 2, 29, 13, 1, 2, 0, time.UTC), "2/29/2028 1:01:02 PM +00:00", "2028-02-29 13:01:02"},
		{time.Date(2026, 12, 31, 23, 0, 0, 0, newYork), "1/1/2027 4:00:00 AM +00:00", "2027-01-01 04:00:00"},
		{time.Time{}, "unknown", "unknown"},
	} {
		if got := UPSTime(test.at); got != test.rating {
			t.Errorf("%v is %q, want %q", test.at, got, test.rating)
		}
		if got := BatchTime(test.at); got != test.suite {
			t.Errorf("%v is %q, want %q", test.at, got, test.suite)
		}
	}
}

// Scripts rely on this text: names, order, nulls and times.
func TestStatusJSONIsTheContract(t *testing.T) {
	failed := of("Böse <&> 日本", grant.Unauthorized)
	failed.LastError = &grant.LastError{Code: "10400", Message: `"Invalid Refresh Token" <b>&`, Time: issued}
	for _, test := range []struct {
		name    string
		records []grant.Record
		want    string
	}{
		{"no grant", nil, `{"version":1,"grants":[]}`},
		{"the design's", []grant.Record{acme()}, `{"version":1,"grants":[{"company":"Acme Corp","application":"intelligent-rating","environment":"production","state":"authorized",` +
			`"token_vault_key":"FD4C8DB3-3C21-4F7E-B122-8BF55EA80CDA","user":"jane@acme.example","issued":"2026-11-21T16:05:03Z","expires":"2026-11-21T17:05:03Z",` +
			`"refresh_token_issued":"2026-11-21T16:05:03Z","refresh_token_expires":"2027-01-20T16:05:03Z","vault":"keychain","last_error":null}]}`},
		{"everything absent", []grant.Record{failed}, `{"version":1,"grants":[{"company":"Böse <&> 日本","application":"intelligent-rating","environment":"production","state":"unauthorized",` +
			`"token_vault_key":null,"user":null,"issued":null,"expires":null,"refresh_token_issued":null,"refresh_token_expires":null,"vault":null,` +
			`"last_error":{"code":"10400","message":"\"Invalid Refresh Token\" <b>&","time":"2026-11-21T16:05:03Z"}}]}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := output(t, func(w io.Writer) error { return JSON(w, NewStatus(test.records, issued)) })
			var compact bytes.Buffer
			if err := json.Compact(&compact, []byte(got)); err != nil {
				t.Fatal(err)
			}
			same(t, compact.String(), test.want)
			if !strings.HasSuffix(got, "}\n") || strings.HasSuffix(got, "\n\n") {
				t.Errorf("it is not one document with a line end: %q", got)
			}
		})
	}
}

func TestStatusJSONHasEveryState(t *testing.T) {
	for _, state := range grant.States() {
		if got := NewStatus([]grant.Record{of("x", state)}, issued).Grants[0].State; got != state {
			t.Errorf("the state is %s, want %s", got, state)
		}
	}
}

func TestTokenJSONIsTheContract(t *testing.T) {
	g := grant.Grant{Record: acme(), Secrets: grant.Secrets{AccessToken: "a<b>&c", TokenType: "bearer", RefreshToken: "the-refresh-token"}}
	for _, test := range []struct {
		name    string
		expires time.Time
		want    string
	}{
		{"known end", issued.Add(hour), `"2026-11-21T17:05:03Z"`},
		{"unknown end", time.Time{}, `null`},
	} {
		t.Run(test.name, func(t *testing.T) {
			g.Expires = test.expires
			got := output(t, func(w io.Writer) error { return JSON(w, NewToken(g)) })
			same(t, got, `{
  "version": 1,
  "company": "Acme Corp",
  "application": "intelligent-rating",
  "environment": "production",
  "access_token": "a<b>&c",
  "token_type": "Bearer",
  "expires": `+test.want+`
}
`)
		})
	}
}

func TestStatusCSV(t *testing.T) {
	odd := of(`Müller, "Söhne" & Co`, grant.Unauthorized)
	odd.LastError = &grant.LastError{Code: "lost", Message: "one\ntwo", Time: issued}
	records := []grant.Record{acme(), odd}
	records[0].Found = grant.Found{VoidWith: &grant.ID{Company: "Other"}, CutOff: &grant.Journal{Attempt: 2, Fate: grant.Fate{Time: issued, Outcome: "UPS answered 503."}},
		Contact: "Jane, +49 431 1", Note: "since 2019", InvitedUntil: issued,
		Asked: &grant.Asked{Host: "web-1", Time: issued}, Loss: "A disk was lost."}
	records[0].CutOff.Shared = &grant.Shared{Host: "3f8a", Name: "web-2"}
	got := output(t, func(w io.Writer) error { return StatusCSV(w, records, issued, false, true) })
	same(t, got, `company,application,environment,state,token_vault_key,user,issued,expires,refresh_token_issued,refresh_token_expires,vault,last_error_code,last_error_message,last_error_time,probably_void,interrupted_time,interrupted_attempt,interrupted_outcome,contact,note,invited_until,asked_host,asked_time,awaited_from,loss
Acme Corp,intelligent-rating,production,authorized,FD4C8DB3-3C21-4F7E-B122-8BF55EA80CDA,jane@acme.example,2026-11-21T16:05:03Z,2026-11-21T17:05:03Z,2026-11-21T16:05:03Z,2027-01-20T16:05:03Z,keychain,,,,true,2026-11-21T16:05:03Z,2,UPS answered 503.,"Jane, +49 431 1",since 2019,2026-11-21T16:05:03Z,web-1,2026-11-21T16:05:03Z,web-2,A disk was lost.
"Müller, ""Söhne"" & Co",intelligent-rating,production,unauthorized,,,,,,,,lost,"one
two",2026-11-21T16:05:03Z,false,,,,,,,,,,
`)
	lines, err := csv.NewReader(strings.NewReader(got)).ReadAll()
	if err != nil || len(lines) != 3 || lines[2][0] != odd.Company {
		t.Errorf("read again it is %q, %v", lines, err)
	}
	if got := output(t, func(w io.Writer) error { return StatusCSV(w, nil, issued, false, false) }); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "company,") {
		t.Errorf("without grants there is no header: %q", got)
	}
	if got := output(t, func(w io.Writer) error { return StatusCSV(w, records, issued, false, false) }); !strings.Contains(got, ",note,invited_until\n") || strings.Contains(got, "web-1") {
		t.Errorf("of a vault that no hosts share it is %q", got)
	}
}

// A spreadsheet runs what begins like a formula, and companies' names and UPS's
// messages come from outside. What is read back is what was written.
func TestCell(t *testing.T) {
	for text, want := range map[string]string{
		"Acme": "Acme", "": "", "=1+1": "'=1+1", "@SUM(A1)": "'@SUM(A1)", "\tx": "'\tx", "\rx": "'\rx",
		"+cmd": "'+cmd", "-cmd": "'-cmd", "+": "'+", "-": "'-", "-1": "-1", "+49 30 1234": "+49 30 1234", "+(49)": "'+(49)",
		"'Acme": "'Acme", "'=x": "''=x", "''=x": "'''=x", "'": "'", "x=1": "x=1", " =1": " =1",
	} {
		got := Cell(text)
		if got != want {
			t.Errorf("Cell(%q) = %q, want %q", text, got, want)
		}
		if back := FromCell(got); back != text {
			t.Errorf("%q is written as %q and read as %q", text, got, back)
		}
	}
	if got := FromCell("'=typed by hand"); got != "=typed by hand" {
		t.Errorf("got %q", got)
	}
	r := acme()
	r.Company, r.LastError = "=Acme", &grant.LastError{Code: "x", Message: "-cmd|' /C calc'!A0"}
	if got := output(t, func(w io.Writer) error { return StatusCSV(w, []grant.Record{r}, issued, false, false) }); !strings.Contains(got, "\n'=Acme,") || !strings.Contains(got, ",'-cmd") {
		t.Errorf("it is %s", got)
	}
	if got := output(t, func(w io.Writer) error { return StatusCSV(w, []grant.Record{r}, issued, true, false) }); !strings.Contains(got, "\n=Acme,") || !strings.Contains(got, ",-cmd") {
		t.Errorf("raw it is %s", got)
	}
}

func TestStatusTable(t *testing.T) {
	failed := of("Beta GmbH", grant.Void)
	failed.Application, failed.Environment, failed.User = "batch-suite", "cie", ""
	failed.LastError = &grant.LastError{Code: "10400", Message: "Invalid Refresh Token", Time: issued}
	records := []grant.Record{acme(), failed, of("Gamma", grant.Unauthorized)}
	berlin := time.FixedZone("CET", 3600)

	got := output(t, func(w io.Writer) error { return StatusTable(w, records, View{Now: issued, Zone: berlin}) })
	same(t, got, `3 companies: 1 authorized, 1 not authorized, 1 void

COMPANY    APPLICATION         ENVIRONMENT  STATE         ISSUED            EXPIRES           REFRESH ISSUED    REFRESH EXPIRES
Acme Corp  intelligent-rating  production   authorized    2026-11-21 17:05  2026-11-21 18:05  2026-11-21 17:05  2027-01-20 17:05
Beta GmbH  batch-suite         cie          void          2026-11-21 17:05  2026-11-21 18:05  2026-11-21 17:05  2027-01-20 17:05
Gamma      intelligent-rating  production   unauthorized  -                 -                 -                 -
`)

	got = output(t, func(w io.Writer) error {
		return StatusTable(w, records[1:], View{Now: issued, Zone: time.UTC, Wide: true})
	})
	same(t, got, `2 companies: 1 not authorized, 1 void

COMPANY    APPLICATION         ENVIRONMENT  STATE         ISSUED            EXPIRES           REFRESH ISSUED    REFRESH EXPIRES   USER  TOKEN VAULT KEY                       VAULT     LAST ERROR
Beta GmbH  batch-suite         cie          void          2026-11-21 16:05  2026-11-21 17:05  2026-11-21 16:05  2027-01-20 16:05  -     FD4C8DB3-3C21-4F7E-B122-8BF55EA80CDA  keychain  10400: Invalid Refresh Token
Gamma      intelligent-rating  production   unauthorized  -                 -                 -                 -                 -     -                                     -         -
`)
}

// colours are the escapes that colour text, and nothing else.
var colours = regexp.MustCompile(`\x1b\[[0-9]+m`)

// Colour repeats what the words say; whoever sees none misses nothing.
func TestColourIsAddedToTheStatesAlone(t *testing.T) {
	records := inStates(grant.States())
	table := func(colour bool) string {
		return output(t, func(w io.Writer) error {
			return StatusTable(w, records, View{Now: issued, Zone: time.UTC, Colour: colour})
		})
	}
	words, coloured := table(false), table(true)
	if strings.Contains(words, "\x1b") {
		t.Errorf("there is colour in\n%q", words)
	}
	same(t, colours.ReplaceAllString(coloured, ""), words)
	for state, colour := range map[grant.State]string{
		grant.Authorized: "32", grant.Refreshable: "32", grant.Expiring: "33", grant.Interrupted: "33", grant.Unauthorized: "33",
		grant.Expired: "31", grant.Void: "31",
	} {
		if want := "\x1b[" + colour + "m" + string(state) + "\x1b[0m"; !strings.Contains(coloured, want) {
			t.Errorf("there is no %q in\n%q", want, coloured)
		}
	}
}

// What came from outside may neither move the cursor nor begin a line.
func TestNothingFromOutsideControlsTheTerminal(t *testing.T) {
	const evil = "a\x1b[2J\x07b\nc\td\u009be\u2028f\r\u202e\u2067\u2069\u200b\u00ad\ufeff"
	const tame = "a[2Jb c de f"
	r := acme()
	r.Company, r.User = evil, evil
	r.LastError = &grant.LastError{Code: "x", Message: evil}
	for name, write := range map[string]func(io.Writer) error{
		"status": func(w io.Writer) error {
			return StatusTable(w, []grant.Record{r}, View{Now: issued, Zone: time.UTC, Wide: true})
		},
		"table": func(w io.Writer) error { return Table(w, []string{"ONE", "TWO"}, [][]string{{evil, "x"}}, 0) },
		"rows":  func(w io.Writer) error { return Rows(w, []Row{{"Signed in", evil}}, 0) },
		"panel": func(w io.Writer) error { return BatchSuitePanel(w, r, evil, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			got := output(t, write)
			if !strings.Contains(got, tame) || regexp.MustCompile(`[\x00-\x09\x0b-\x1f\x7f-\x{9f}\x{ad}\x{200b}\x{2028}-\x{202e}\x{2066}-\x{2069}\x{feff}]`).MatchString(got) {
				t.Fatalf("the output is\n%q", got)
			}
			if i := strings.Index(got, "c d"); strings.LastIndexByte(got[:i], '\n') > strings.LastIndex(got[:i], "a[2J") {
				t.Errorf("a line begins in the middle of a value:\n%q", got)
			}
		})
	}
}

func TestTableWithoutLinesHasItsHeader(t *testing.T) {
	got := output(t, func(w io.Writer) error { return Table(w, []string{"Company", "STATE"}, nil, 0) })
	same(t, got, "Company  STATE\n")
}

func TestTableKeepsLongAndEmptyCells(t *testing.T) {
	long := strings.Repeat("http://localhost:8765/callback?", 20)
	lines := [][]string{{"a", "", "z"}, {"", long, "  y"}, {"x", "y", ""}}
	got := output(t, func(w io.Writer) error { return Table(w, []string{"A", "B", "C"}, lines, 0) })
	pad := strings.Repeat(" ", len(long))
	same(t, got, "A  B"+pad[1:]+"  C\na  "+pad+"  z\n   "+long+"    y\nx  y\n")
}

func TestSpan(t *testing.T) {
	for length, want := range map[time.Duration]string{
		0:                          "0 s",
		999 * time.Millisecond:     "0 s",
		time.Second:                "1 s",
		59*time.Second + 999e6:     "59 s",
		time.Minute:                "1 min",
		59*time.Minute + 59e9:      "59 min",
		hour:                       "1 h",
		48*hour - 1:                "47 h",
		48 * hour:                  "2 days",
		60*day - time.Second:       "59 days",
		60 * day:                   "60 days",
		-90 * time.Second:          "1 min",
		100 * 365 * 24 * time.Hour: "36500 days",
	} {
		if got := Span(length); got != want {
			t.Errorf("%v is %q, want %q", length, got, want)
		}
	}
}

// A full disk or a closed pipe must not look like success.
func TestErrorsOfWritingAreReported(t *testing.T) {
	records := []grant.Record{acme()}
	for name, write := range map[string]func(io.Writer) error{
		"panel":       func(w io.Writer) error { return Panel(w, acme(), 0) },
		"batch panel": func(w io.Writer) error { return BatchSuitePanel(w, acme(), "x", 0) },
		"rows":        func(w io.Writer) error { return Rows(w, []Row{{"a", "b"}}, 0) },
		"table":       func(w io.Writer) error { return Table(w, []string{"A"}, nil, 0) },
		"status":      func(w io.Writer) error { return StatusTable(w, records, View{Now: issued, Zone: time.UTC}) },
		"Prometheus":  func(w io.Writer) error { return Prometheus(w, records, issued) },
		"CSV":         func(w io.Writer) error { return StatusCSV(w, records, issued, false, true) },
		"JSON":        func(w io.Writer) error { return JSON(w, NewStatus(records, issued)) },
	} {
		if err := write(fullDisk{}); !errors.Is(err, errFull) {
			t.Errorf("%s: the error is %v, want %v", name, err, errFull)
		}
	}
}

var errFull = errors.New("no space left on device")

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }
