package render

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

var update = flag.Bool("update", false, "write the golden files")

// nasty are names that take another number of cells than they have characters,
// with the number that terminals give them.
var nasty = []struct {
	name  string
	cells int
}{
	{"Acme Corp", 9},
	{"東京サンプル商事", 16},
	{"한국 상사", 9},
	{"Ｆｕｌｌ", 8},
	{"ﾊﾝｶｸ", 4},
	{"Mu\u0308ller & So\u0308hne", 14},
	{"Z\u0351\u036b\u0343a\u0363\u0368l\u0348go", 5},
	{"👨\u200d👩\u200d👧\u200d👦 Familie", 10},
	{"🇩🇪 Export", 9},
	{"🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f Goods", 8},
	{"👍🏽 Best", 7},
	{"❤\ufe0f Care", 7},
	{"1\ufe0f\u20e3 First", 8},
	{"חברת הדוגמה בע״מ", 16},
	{"שָׁלוֹם", 4},
	{"شركة المثال", 11},
	{"บริษัท ตัวอย่าง จำกัด", 16},
	{"Zero\u200bWidth\u2060\ufeff", 9},
	{"soft\u00adhyphen", 10},
	{"\u202egnal\u202c \u2067x\u2069", 6},
	{"a\x1b[31mb\x07\tc", 8},
	{"\ufdd0\ufdd0 not a character", 18},
	{"broken \xff", 8},
}

func TestCellsAreWhatATerminalGives(t *testing.T) {
	for _, test := range nasty {
		if got := cells(plain(test.name)); got != test.cells {
			t.Errorf("%+q has %d cells, want %d", test.name, got, test.cells)
		}
	}
}

func nastyRecords() []grant.Record {
	states := grant.States()
	records := make([]grant.Record, len(nasty))
	for i, test := range nasty {
		records[i] = of(test.name, states[i%len(states)])
		records[i].User = nasty[len(nasty)-1-i].name
	}
	return records
}

// The number of spaces behind a name is known without measuring it; the rest of
// the line is ASCII, so that it can be compared with the header as it is.
func TestTableAlignsByWhatATerminalShows(t *testing.T) {
	records := nastyRecords()
	for _, view := range []View{{}, {Width: 250}, {Colour: true}} {
		view.Now, view.Zone = issued, time.UTC
		got := output(t, func(w io.Writer) error { return StatusTable(w, records, view) })
		lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")[2:]
		if len(lines) != len(records)+1 {
			t.Fatalf("the table is\n%s", got)
		}
		header := lines[0]
		for i, line := range lines[1:] {
			line = colours.ReplaceAllString(line, "")
			line, found := strings.CutPrefix(line, plain(nasty[i].name))
			if !found {
				t.Errorf("the line of %+q is %q", nasty[i].name, line)
			}
			line = strings.Repeat("x", nasty[i].cells) + line
			for _, column := range []string{"APPLICATION", "ENVIRONMENT", "STATE", "ISSUED", "EXPIRES", "REFRESH ISSUED", "REFRESH EXPIRES"} {
				at := strings.Index(header, "  "+column) + 2
				if !isASCII(line) || line[at-2:at] != "  " || line[at] == ' ' {
					t.Fatalf("%s does not begin at cell %d of\n%q\n%s", column, at, line, got)
				}
			}
		}
	}
}

// A cell in the middle of the line moves the columns behind it as little as the
// first does.
func TestTableAlignsBehindEveryColumn(t *testing.T) {
	var lines [][]string
	for i, test := range nasty {
		lines = append(lines, []string{test.name, nasty[len(nasty)-1-i].name, "end"})
	}
	got := output(t, func(w io.Writer) error { return Table(w, []string{"日本", "TWO", "THREE"}, lines, 0) })
	// The widest name stands in both columns; the gaps have two cells each.
	const first, second = 18 + 2, 18 + 2
	want := "日本" + strings.Repeat(" ", first-4) + "TWO" + strings.Repeat(" ", second-3) + "THREE\n"
	for i, test := range nasty {
		other := nasty[len(nasty)-1-i]
		want += plain(test.name) + strings.Repeat(" ", first-test.cells) + plain(other.name) + strings.Repeat(" ", second-other.cells) + "end\n"
	}
	same(t, got, want)
}

// A cell in which nothing can be seen has no place in the layout to be found by.
func TestCellsWithoutWidth(t *testing.T) {
	got := output(t, func(w io.Writer) error {
		return Table(w, []string{"A", "B"}, [][]string{{"\u200d", "é"}, {"\u0301", "\u200d"}, {"é", "end"}}, 0)
	})
	same(t, got, "A  B\n   é\n\né  end\n")
	got = output(t, func(w io.Writer) error {
		return StatusTable(w, []grant.Record{of("\u200b", grant.Void)}, View{Now: issued, Zone: time.UTC})
	})
	if !strings.Contains(got, "\n-        intelligent-rating") {
		t.Errorf("the table is\n%s", got)
	}
}

// What a pipe gets depends on nothing but the grants.
func TestTableIsTheSameInEveryLocale(t *testing.T) {
	write := func() string {
		return output(t, func(w io.Writer) error {
			return StatusTable(w, nastyRecords(), View{Now: issued, Zone: time.UTC, Wide: true})
		})
	}
	want := write()
	for _, locale := range []string{"ja_JP.UTF-8", "C"} {
		t.Setenv("LC_ALL", locale)
		t.Setenv("TERM", "linux")
		t.Setenv("RUNEWIDTH_EASTASIAN", "1")
		same(t, write(), want)
	}
}

func TestPipedTableChangesOnlyWithTheGrants(t *testing.T) {
	at := func(now time.Time) string {
		return output(t, func(w io.Writer) error { return StatusTable(w, []grant.Record{acme()}, View{Now: now, Zone: time.UTC}) })
	}
	same(t, at(issued.Add(20*time.Minute)), at(issued))
}

func TestCut(t *testing.T) {
	for _, test := range []struct {
		text string
		most int
		want string
	}{
		{"Acme Corp", 9, "Acme Corp"},
		{"Acme Corp", 8, "Acme Co…"},
		{"Acme Corp", 6, "Acme…"},
		{"Acme Corp", 1, "…"},
		{"", 1, ""},
		{"東京サンプル", 12, "東京サンプル"},
		{"東京サンプル", 11, "東京サンプ…"},
		{"東京サンプル", 10, "東京サン…"},
		{"Mu\u0308ller", 3, "Mu\u0308…"},
		{"Mu\u0308ller", 2, "M…"},
		{"🇩🇪🇫🇷🇮🇹", 5, "🇩🇪🇫🇷…"},
		{"🇩🇪🇫🇷🇮🇹", 4, "🇩🇪…"},
		{"👨\u200d👩\u200d👧\u200d👦👍🏽x", 4, "👨\u200d👩\u200d👧\u200d👦…"},
		{"จำกัด", 3, "จำ…"},
		{"จำกัด", 2, "…"},
	} {
		if got := cut(test.text, test.most); got != test.want || cells(got) > test.most {
			t.Errorf("%q cut to %d is %q, want %q", test.text, test.most, got, test.want)
		}
	}
}

// twelve are companies in all states, some with several grants.
func twelve() []grant.Record {
	var records []grant.Record
	for i, company := range []struct {
		name  string
		state grant.State
	}{
		{"Acme Corp", grant.Authorized},
		{"東京サンプル商事", grant.Authorized},
		{"Mu\u0308ller & So\u0308hne", grant.Refreshable},
		{"👨\u200d👩\u200d👧\u200d👦 Familie GmbH", grant.Void},
		{"🇩🇪 Export", grant.Expiring},
		{"חברת הדוגמה בע״מ", grant.Authorized},
		{"شركة المثال", grant.Expired},
		{"บริษัท ตัวอย่าง จำกัด", grant.Interrupted},
		{"Zero\u200bWidth", grant.Unauthorized},
		{"Donaudampfschifffahrtsgesellschaft Beispiel & Partner", grant.Refreshable},
		{"한국 상사", grant.Authorized},
		{"Nordwind", grant.Expiring},
	} {
		r := of(company.name, company.state)
		if company.state != grant.Unauthorized {
			ago := time.Duration(i) * 5 * time.Minute
			if company.state != grant.Authorized {
				ago += 2 * hour
			}
			r.Issued, r.Expires = issued.Add(-ago), issued.Add(hour-ago)
			r.RefreshTokenIssued, r.RefreshTokenExpires = issued.Add(-ago*12), issued.Add(60*day-ago*12)
			r.User = fmt.Sprintf("user%d@example.com", i+1)
		}
		switch company.state {
		case grant.Expiring:
			r.RefreshTokenIssued, r.RefreshTokenExpires = issued.Add(-58*day), issued.Add(2*day)
		case grant.Expired:
			r.Issued, r.Expires = issued.Add(-5*day), issued.Add(hour-5*day)
			r.RefreshTokenIssued, r.RefreshTokenExpires = issued.Add(-63*day), issued.Add(-3*day)
		case grant.Void:
			r.LastError = &grant.LastError{Code: "10400", Message: "Invalid Refresh Token", Time: issued}
		}
		records = append(records, r)
	}
	return records
}

// several are the same where one company has three grants.
func several() []grant.Record {
	records := twelve()
	for i, id := range []grant.ID{{Application: "batch-suite", Environment: "production"}, {Application: "intelligent-rating", Environment: "cie"}} {
		r := records[i]
		r.Company, r.Application, r.Environment = "ACME Corp", id.Application, id.Environment
		records = append(records, r)
	}
	return records
}

// contacts are the same with whom to ring, one of them probably void.
func contacts() []grant.Record {
	records := several()
	for i := range records {
		records[i].Contact = fmt.Sprintf("Person %d, +49 431 %d", i+1, 1000+i)
	}
	records[0].VoidWith = &records[3].ID
	return records
}

func TestGoldenScreens(t *testing.T) {
	for name, test := range map[string]struct {
		records []grant.Record
		view    View
	}{
		"60":              {twelve(), View{Width: 60}},
		"80":              {twelve(), View{Width: 80}},
		"120":             {twelve(), View{Width: 120}},
		"200":             {twelve(), View{Width: 200}},
		"40":              {twelve(), View{Width: 40}},
		"piped":           {twelve(), View{}},
		"wide":            {twelve(), View{Width: 120, Wide: true}},
		"colour":          {twelve(), View{Width: 80, Colour: true}},
		"several60":       {several(), View{Width: 60}},
		"several40":       {several(), View{Width: 40}},
		"several50":       {several(), View{Width: 50}},
		"companies":       {contacts(), View{Width: 120, Companies: true}},
		"companies60":     {contacts(), View{Width: 60, Companies: true}},
		"companies-piped": {contacts(), View{Companies: true}},
		"several80":       {several(), View{Width: 80}},
		"several":         {several(), View{Width: 120}},
		"utc":             {twelve(), View{Width: 120, TimeFormat: TimeUTC}},
		"ups":             {twelve(), View{Width: 120, TimeFormat: TimeUPS}},
		"batch":           {twelve(), View{Width: 120, TimeFormat: TimeBatch}},
		"relative":        {twelve(), View{Width: 120, TimeFormat: TimeRelative}},
		"iso":             {twelve(), View{Width: 120, TimeFormat: TimeISO}},
	} {
		t.Run(name, func(t *testing.T) {
			test.view.Now, test.view.Zone = issued, time.FixedZone("CET", 3600)
			SortRecords(test.records, ByUrgency, issued)
			got := output(t, func(w io.Writer) error { return StatusTable(w, test.records, test.view) })
			file := filepath.Join("testdata", "status-"+name+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			same(t, got, string(want))
		})
	}
}

// widestLine is how wide the widest line is.
func widestLine(text string) int {
	width := 0
	for line := range strings.Lines(text) {
		width = max(width, cells(colours.ReplaceAllString(strings.TrimSuffix(line, "\n"), "")))
	}
	return width
}

// looksOf are the lines of a table that tell the grants apart, each once: with
// what stands below it and without what differs by itself, state and times.
func looksOf(table string) map[string]bool {
	looks := map[string]bool{}
	var look string
	for i, line := range strings.Split(strings.TrimSuffix(table, "\n"), "\n") {
		switch {
		case i == 0:
		case strings.HasPrefix(line, "  "):
			delete(looks, look)
			look += line
			looks[look] = true
		default:
			// State and times, and what stands behind them, begin with the state.
			look = strings.ToLower(regexp.MustCompile(`  +\x1b\[\d+m(probably void|[a-z]+)\x1b.*`).ReplaceAllString(line, ""))
			for looks[look] {
				look += " once more"
			}
			looks[look] = true
		}
	}
	for look := range looks {
		if strings.Contains(look, " once more") {
			delete(looks, look)
		}
	}
	return looks
}

// Names that begin alike, or only look alike, one grant beside another of the
// same company, and companies that stand far from each other in the table.
func alike() []grant.Record {
	var records []grant.Record
	for _, name := range []string{"Donaudampfschifffahrt Nord", "Zeta", "Donaudampfschifffahrt Süd", "Acme", "Ac\u200bme",
		"Donaudampfschifffahrtsgesellschaft Mitte Nord GmbH", "Donaudampfschifffahrtsgesellschaft Ost Nord GmbH"} {
		for _, app := range []string{"intelligent-rating", "batch-suite"} {
			for _, env := range []string{"production", "cie"} {
				r := of(name, grant.Authorized)
				r.Application, r.Environment = app, env
				r.TokenVaultKey = fmt.Sprintf("KEY-%d", len(records))
				records = append(records, r)
			}
		}
	}
	return records
}

func TestNarrowTableTellsGrantsApart(t *testing.T) {
	records := alike()
	records[3].VoidWith = &grant.ID{Company: "Other"}
	for width := 40; width < 200; width++ {
		for _, companies := range []bool{false, true} {
			got := output(t, func(w io.Writer) error {
				return StatusTable(w, records, View{Now: issued, Zone: time.UTC, Width: width, Colour: true, Companies: companies})
			})
			if n := widestLine(got); n > width {
				t.Errorf("at %d columns it is %d wide:\n%s", width, n, got)
			}
			_, table, _ := strings.Cut(got, "\n\n")
			if looks := looksOf(table); len(looks) != len(records) {
				t.Fatalf("at %d columns %d of %d can be told apart:\n%s", width, len(looks), len(records), got)
			}
		}
	}
}

func TestNoLineIsWiderThanTheTerminal(t *testing.T) {
	long := twelve()
	for i := range long {
		long[i].Company = strings.Repeat("é長", 90) + fmt.Sprint(i)
		long[i].Application, long[i].Environment = strings.Repeat("a", 64), strings.Repeat("e", 64)
	}
	for name, records := range map[string][]grant.Record{
		"twelve": twelve(), "several": several(), "long": long, "one": {acme()}, "nasty": nastyRecords(),
		"short": {of("x", grant.Void)},
	} {
		for _, format := range TimeFormats() {
			for width := 40; width <= 260; width += 13 {
				view := View{Now: issued, Zone: time.UTC, Width: width, TimeFormat: format, Colour: true}
				got := output(t, func(w io.Writer) error { return StatusTable(w, records, view) })
				if n := widestLine(got); n > width {
					t.Fatalf("%s as %s at %d columns is %d wide:\n%s", name, format, width, n, got)
				}
				_, table, _ := strings.Cut(got, "\n\n")
				if looks := looksOf(table); len(looks) != len(records) {
					t.Fatalf("%s at %d columns has %d lines for %d grants, or some that look the same:\n%s", name, width, len(looks), len(records), got)
				}
				for _, r := range records {
					if !strings.Contains(table, string(r.StateAt(issued))) {
						t.Fatalf("at %d columns there is no state %s:\n%s", width, r.StateAt(issued), got)
					}
				}
				header, _, _ := strings.Cut(table, "\n")
				if !strings.HasPrefix(header, "COMPANY ") || format == TimeLocal && !strings.HasSuffix(header, "REFRESH EXPIRES") {
					t.Fatalf("at %d columns the header is %q", width, header)
				}
			}
		}
	}
}

// Less than this is no terminal that anybody reads a table on, but nothing may
// go wrong.
func TestTinyTerminals(t *testing.T) {
	for width := 1; width < 40; width++ {
		got := output(t, func(w io.Writer) error {
			return StatusTable(w, several(), View{Now: issued, Zone: time.UTC, Width: width})
		})
		if n := widestLine(got); n > max(width, len("COMPANY  unauthorized")) {
			t.Errorf("at %d columns it is %d wide:\n%s", width, n, got)
		}
	}
}

// A wider terminal never shows less.
func TestColumnsGoInOneOrder(t *testing.T) {
	for name, records := range map[string][]grant.Record{"twelve": twelve(), "several": several()} {
		var before []string
		for width := 40; width <= 260; width++ {
			got := output(t, func(w io.Writer) error {
				return StatusTable(w, records, View{Now: issued, Zone: time.UTC, Width: width})
			})
			if n := widestLine(got); n > width {
				t.Errorf("%s at %d columns is %d wide:\n%s", name, width, n, got)
			}
			var header []string
			for line := range strings.Lines(got) {
				if strings.HasPrefix(line, "COMPANY") {
					for field := range strings.SplitSeq(line, "  ") {
						if field = strings.TrimSpace(field); field != "" {
							header = append(header, field)
						}
					}
				}
			}
			for _, column := range before {
				if !slices.Contains(header, column) {
					t.Errorf("%s: %s is gone at %d columns", name, column, width)
				}
			}
			before = header
		}
		if len(before) != 8 {
			t.Errorf("%s: at 260 columns there are %v", name, before)
		}
	}
}

func TestWideLeavesNothingOut(t *testing.T) {
	records := several()
	for _, width := range []int{0, 40, 120, 500} {
		got := output(t, func(w io.Writer) error {
			return StatusTable(w, records, View{Now: issued, Zone: time.UTC, Wide: true, Width: width})
		})
		if strings.Contains(got, "…") || !strings.Contains(got, "LAST ERROR\n") || !strings.Contains(got, "10400: Invalid Refresh Token\n") {
			t.Errorf("at %d columns it is\n%s", width, got)
		}
		if spans := strings.Contains(got, "(in 60 days)"); spans != (width == 500) {
			t.Errorf("at %d columns how long is beside the times: %v", width, spans)
		}
	}
}

func TestSummary(t *testing.T) {
	companies := func(names string, states ...grant.State) []grant.Record {
		records := inStates(states)
		for i := range records {
			records[i].Company = strings.Fields(names)[i]
		}
		return records
	}
	for _, test := range []struct {
		records []grant.Record
		want    string
	}{
		{nil, "0 companies"},
		{companies("a", grant.Void), "1 company: 1 void"},
		{companies("a b c d", grant.Void, grant.Authorized, grant.Expiring, grant.Authorized), "4 companies: 2 authorized, 1 expiring, 1 void"},
		{companies("a ÄB A A\u0308b", grant.Void, grant.Authorized, grant.Expiring, grant.Authorized), "2 companies, 4 grants: 2 authorized, 1 expiring, 1 void"},
		{inStates(grant.States()), "1 company, 6 grants: 1 authorized, 1 refreshable, 1 not authorized, 1 expiring, 1 interrupted, 1 expired, 1 void"},
	} {
		if got := Summary(test.records, issued); got != test.want {
			t.Errorf("the summary is %q, want %q", got, test.want)
		}
	}
}

func TestTimeFormats(t *testing.T) {
	at := time.Date(2026, 11, 22, 4, 16, 3, 5e8, time.UTC)
	cet := time.FixedZone("CET", 3600)
	for format, want := range map[TimeFormat]string{
		"": "2026-11-22 05:16", TimeLocal: "2026-11-22 05:16", TimeUTC: "2026-11-22 04:16Z",
		TimeUPS: "11/22/2026 4:16:03 AM +00:00", TimeBatch: "2026-11-22 04:16:03",
		TimeRelative: "in 59 min", TimeISO: "2026-11-22T04:16:03Z",
	} {
		if got := format.text(at, at.Add(-59*time.Minute), cet); got != want {
			t.Errorf("as %q it is %q, want %q", format, got, want)
		}
		if got := format.text(time.Time{}, at, cet); got != "-" {
			t.Errorf("the unknown as %q is %q", format, got)
		}
	}
	for _, format := range TimeFormats() {
		if got, err := ParseTimeFormat(string(format)); got != format || err != nil {
			t.Errorf("%q is read as %q, %v", format, got, err)
		}
	}
	for _, text := range []string{"", "UTC", "rfc"} {
		_, err := ParseTimeFormat(text)
		want := fmt.Sprintf("%q is no time format: it is local, utc, ups, batch, relative or iso", text)
		if err == nil || err.Error() != want {
			t.Errorf("the error is %v, want %s", err, want)
		}
	}
}

func TestRelative(t *testing.T) {
	for length, want := range map[time.Duration]string{
		0:                           "now",
		999 * time.Millisecond:      "now",
		-999 * time.Millisecond:     "now",
		time.Second:                 "in 1 s",
		-time.Second:                "1 s ago",
		59*time.Minute + 59e9:       "in 59 min",
		-2 * hour:                   "2 h ago",
		60 * day:                    "in 60 days",
		-3*day - 23*hour:            "3 days ago",
		-(47*hour + 59*time.Minute): "47 h ago",
	} {
		if got := Relative(issued.Add(length), issued); got != want {
			t.Errorf("%v is %q, want %q", length, got, want)
		}
	}
}

// many are companies in all states, with names in several scripts.
func many(n int) []grant.Record {
	states := grant.States()
	records := make([]grant.Record, n)
	for i := range records {
		records[i] = of(fmt.Sprintf("%s %d", nasty[i%10].name, i), states[i%len(states)])
		records[i].RefreshTokenExpires = issued.Add(time.Duration(i*7919%n) * hour)
		records[i].RefreshUntil = records[i].RefreshTokenExpires
	}
	return records
}

func TestFiveThousandCompanies(t *testing.T) {
	records := many(5000)
	SortRecords(records, ByUrgency, issued)
	for _, view := range []View{{}, {Width: 80, Colour: true}, {Wide: true}} {
		view.Now, view.Zone = issued, time.UTC
		got := output(t, func(w io.Writer) error { return StatusTable(w, records, view) })
		if _, table, _ := strings.Cut(got, "\n\n"); strings.Count(table, "\n") != len(records)+1 {
			t.Errorf("the table has %d lines", strings.Count(table, "\n"))
		}
	}
	if got := output(t, func(w io.Writer) error { return Prometheus(w, records, issued) }); strings.Count(got, "upsauth_grant_state{") != 7*len(records) {
		t.Error("states are missing")
	}
}

func BenchmarkStatusTable(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		records := many(n)
		for name, width := range map[string]int{"terminal": 120, "pipe": 0} {
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					var out bytes.Buffer
					if err := StatusTable(&out, records, View{Now: issued, Zone: time.UTC, Width: width}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// A table says who is invited, in the colour of the state.
func TestInvitedBesideTheState(t *testing.T) {
	records := []grant.Record{of("Acme", grant.Void), of("Nord AG", grant.Unauthorized), of("Süd AG", grant.Authorized), of("Ost AG", grant.Void), of("West AG", grant.Unauthorized)}
	records[0].InvitedUntil, records[1].InvitedUntil, records[3].InvitedUntil = issued, issued, issued
	records[3].WrongUser, records[4].Waits = true, "abcdefghij"
	got := output(t, func(w io.Writer) error {
		return StatusTable(w, records, View{Now: issued, Zone: time.UTC, Colour: true, Width: 120})
	})
	for _, want := range []string{"\x1b[31mvoid, invited\x1b[0m", "\x1b[33munauthorized, invited\x1b[0m", "\x1b[32mauthorized\x1b[0m", "\x1b[31mvoid, invited, wrong user\x1b[0m", "\x1b[33munauthorized, user to confirm\x1b[0m"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if now := colours.ReplaceAllString(output(t, func(w io.Writer) error { return StatusTable(w, records, View{Now: issued, Zone: time.UTC, Width: 40}) }), ""); !strings.Contains(now, "void, invited") {
		t.Errorf("on a narrow terminal:\n%s", now)
	}
}
