package render

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/olekukonko/tablewriter/pkg/twwidth"
)

// pieces of cells: what terminals, tablewriter and Unicode count in different ways.
var pieces = []string{
	"", "", " ", "  ", "a", "Acme", "-", "=", "|", "\\", "%d", "{}", "NULL",
	"é", "e\u0301", "\u0301", "a\u0308\u0323", "½", "…", "—", "①", "±", "Ω", "─",
	"東京", "ﾃｽﾄ", "Ａ", "한국", "\u1100\u1161\u11a8", "จำกัด", "हिन्दी", "ক্ষ",
	"شركة", "חברה", "مؤسسة 12 ABC", "فا\u200cیل",
	"👨\u200d👩\u200d👧\u200d👦", "🇩🇪", "🇩", "👍🏽", "☁️", "☁", "1️⃣", "#\ufe0f", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "❤\ufe0e", "⌚\ufe0e",
	"\u200b", "\u200d", "\u00ad", "\ufeff", "\u3000", "\u00a0", "\u2003", "\t", "\n", "\r\n", "\u2028", "\x00", "\x7f",
	"\x1b[31mred\x1b[0m", "\x1b]8;;https://example.com/a\x1b\\a link\x1b]8;;\x1b\\", "\x1b]8;;", "\x1b[", "\u009b31m",
	"\xff", "\xe6\x9d", "\ufdd0", "\U0010ffff", "\ue000", "𝔘", "https://example.com/callback?a=b&c=d",
}

// escapes are those of colours and links.
var escapes = regexp.MustCompile("\x1b\\[[0-9]+m|\x1b\\]8;;[^\x1b]*\x1b\\\\")

func linked(cell string) string {
	return "\x1b]8;;https://example.com/" + fmt.Sprint(len(cell)) + "\x1b\\\x1b[32m" + cell + "\x1b[0m\x1b]8;;\x1b\\"
}

// checkTable draws cells, and fails unless each stands whole where its column begins
// on a terminal, links and colours around it change nothing, and no line ends in a
// blank.
func checkTable(t *testing.T, header []string, lines [][]string) {
	t.Helper()
	got := output(t, func(w io.Writer) error { return Table(w, header, lines, 0) })
	drawn := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	if len(drawn) != len(lines)+1 {
		t.Fatalf("%d rows and a header became\n%q", len(lines), got)
	}
	begins, columns := make([]int, len(header)+1), make([]*column, len(header))
	for j, name := range header {
		texts := make([]string, len(lines))
		for i, line := range lines {
			texts[i] = plain(line[j])
		}
		columns[j] = &column{header: name, paint: linked}
		columns[j].set(texts)
		begins[j+1] = begins[j] + widest(name, texts) + len(gap)
	}
	for i, line := range append([][]string{header}, lines...) {
		if strings.TrimRight(drawn[i], " ") != drawn[i] {
			t.Errorf("a line ends in blanks: %q", drawn[i])
		}
		rest, at := drawn[i], 0
		for j := range line {
			cell := plain(line[j])
			if !slices.ContainsFunc(line[j+1:], func(c string) bool { return cells(strings.TrimRight(plain(c), " ")) > 0 }) {
				cell = strings.TrimRight(cell, " ")
			}
			took := cells(cell)
			if took == 0 {
				continue
			}
			space := strings.Repeat(" ", begins[j]-at)
			after, ok := strings.CutPrefix(rest, space+cell)
			if !ok {
				t.Fatalf("column %d of row %d does not begin at cell %d with %q:\n%q", j, i, begins[j], cell, drawn[i])
			}
			rest, at = after, begins[j]+took
		}
		if rest != "" {
			t.Errorf("row %d has %q more:\n%q", i, rest, drawn[i])
		}
	}
	painted := output(t, func(w io.Writer) error { return table(w, columns, nil) })
	if escapes.ReplaceAllString(painted, "") != got {
		t.Errorf("with links and colours it is\n%q\nand without\n%q", painted, got)
	}
	for j, c := range columns {
		for i, cell := range c.cells {
			if cell = strings.TrimRight(cell, " "); cells(cell) > 0 && j == len(columns)-1 && !strings.Contains(painted, linked(cell)) {
				t.Errorf("the link of row %d is not whole in\n%q", i, painted)
			}
		}
	}
}

func TestColumnsBeginWhereTheyShould(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		header := make([]string, 1+random.IntN(5))
		for j := range header {
			header[j] = []string{"A", "Company", "STATE", "REFRESH ISSUED"}[random.IntN(4)]
		}
		lines := make([][]string, random.IntN(6))
		for i := range lines {
			for range header {
				cell := ""
				for range random.IntN(4) {
					cell += pieces[random.IntN(len(pieces))]
				}
				lines[i] = append(lines[i], cell)
			}
		}
		checkTable(t, header, lines)
	}
}

// Tablewriter measures by the reader's locale; what is drawn does not depend on it.
func TestNoLetterIsLostInATable(t *testing.T) {
	var lines [][]string
	for r := rune(' '); r < 0x20000; r++ {
		if r%16 == 0 {
			lines = append(lines, []string{"", "", "end"})
		}
		last := lines[len(lines)-1]
		last[0] += string(r)
		last[1] = string(r)
	}
	checkTable(t, []string{"ALL", "LAST", "END"}, lines)
	for r := rune(0x300); r < 0x20000; r++ {
		checkOne(t, plain(string(r)))
	}
	for _, base := range pieces {
		for _, mark := range []string{"\ufe0f", "\ufe0e", "\u20e3", "\u200d", "\u0301", "🏽", "\u0e33"} {
			checkOne(t, plain(base+mark))
		}
	}
}

// checkOne fails where a text that is seen has no width in tablewriter's eyes, and
// would be left out where nothing is wider. It may have a blank behind it.
func checkOne(t *testing.T, text string) {
	t.Helper()
	if cells(text) == 0 || twwidth.Width(text) > 0 {
		return
	}
	columns := []*column{{}, {}}
	columns[0].set([]string{text})
	columns[1].set([]string{text})
	if got := output(t, func(w io.Writer) error { return table(w, columns, nil) }); got != strings.TrimRight(text+gap+text, " ")+"\n" && got != text+" "+gap+text+" \n" {
		t.Errorf("%+q twice is drawn as %+q", text, got)
	}
}

func FuzzTable(f *testing.F) {
	for i := range pieces {
		f.Add(pieces[i], pieces[(i+7)%len(pieces)], pieces[(i+13)%len(pieces)]+"x", pieces[(i+29)%len(pieces)])
	}
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		checkTable(t, []string{"A", "SECOND"}, [][]string{{a, b}, {c, d}})
		checkTable(t, []string{"A", "B", "C", "D"}, [][]string{{a, b, c, d}, {d, c, b, a}})
	})
}

// The same companies as a table and as JSON; a table is for people.
func BenchmarkTableAndJSON(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		records := many(n)
		for name, write := range map[string]func(io.Writer) error{
			"table": func(w io.Writer) error { return StatusTable(w, records, View{Now: issued, Zone: time.UTC}) },
			"JSON":  func(w io.Writer) error { return JSON(w, NewStatus(records, issued)) },
		} {
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := write(&bytes.Buffer{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
