package render

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
)

// View is how the status table is to be shown.
type View struct {
	Now  time.Time
	Zone *time.Location
	// Wide adds columns; nothing is left out or cut then.
	Wide bool
	// Companies is the list of companies: who signed in and whom to ring stand in
	// the place of most times.
	Companies bool
	Colour    bool
	// Width is how many columns the terminal has. Zero is no terminal: nothing
	// is left out or cut, and nothing is added that changes from one minute to
	// the next.
	Width int
	// TimeFormat is TimeLocal where it is empty.
	TimeFormat TimeFormat
}

const (
	// nameEnough cells of a company's name are enough: one name that is longer
	// must not cost all the others their columns.
	nameEnough = 28
	// nameLong is what a name may take before how long stands beside the times.
	nameLong = 48
	// nameAtLeast cells still tell most companies apart.
	nameAtLeast = 12
	// nameHeader is the least that the column can have.
	nameHeader = len("COMPANY")
)

// StatusTable writes one line a grant, below a line that sums up; a list of
// companies has that line only on a terminal. On a terminal of 40 columns or more
// no line is wider than that, unless the view is wide. Where nothing that is shown
// tells two grants apart, a line below each does.
func StatusTable(w io.Writer, records []grant.Record, view View) error {
	t := newStatusColumns(records, view)
	summary := Summary(records, view.Now)
	var below map[int][]string
	switch {
	case view.Width == 0:
	case view.Wide:
		t.addSpans(t.company.width, view.Width)
	default:
		// Companies without a grant have a dash there, which says nothing.
		if same := slices.DeleteFunc(t.leaveOut(records, view.Width), func(value string) bool { return value == "-" }); len(same) > 0 {
			summary += " (" + strings.Join(same, ", ") + ")"
		}
		t.addSpans(min(t.company.width, nameLong), view.Width)
		below = t.apart(records, t.cutNames(view.Width), view.Width)
		summary = folded(summary, view.Width)
	}
	if !view.Companies || view.Width > 0 {
		if _, err := fmt.Fprintf(w, "%s\n\n", summary); err != nil {
			return err
		}
	}
	if view.Colour {
		t.state.paint = coloured
	}
	return table(w, slices.DeleteFunc(t.columns, func(c *column) bool { return c.hidden }), below)
}

// probablyVoid stands in the place of a state.
const probablyVoid = "probably void"

// invited is what stands beside the state of a grant whose customer was invited, empty
// where nobody was.
func invited(r *grant.Record) string {
	switch {
	case r.Waits != "":
		return ", user to confirm"
	case r.InvitedUntil.IsZero():
		return ""
	case r.WrongUser:
		return ", invited, wrong user"
	}
	return ", invited"
}

// shown is the state of a grant as people see it.
func shown(r *grant.Record, now time.Time) string {
	if r.ProbablyVoid() {
		return probablyVoid
	}
	return string(r.StateAt(now))
}

// statusColumns are the columns in their order, and some of them by name.
type statusColumns struct {
	columns []*column

	company, application, environment, state       *column
	user, contact                                  *column
	issued, expires, refreshIssued, refreshExpires *column
}

func newStatusColumns(records []grant.Record, view View) *statusColumns {
	t := &statusColumns{}
	add := func(header string, text func(*grant.Record) string) *column {
		c := &column{header: header}
		texts := make([]string, len(records))
		for i := range records {
			texts[i] = orDash(plain(text(&records[i])))
		}
		c.set(texts)
		t.columns = append(t.columns, c)
		return c
	}
	addTime := func(header string, of func(*grant.Record) time.Time) *column {
		c := add(header, func(r *grant.Record) string { return view.TimeFormat.text(of(r), view.Now, view.Zone) })
		if view.TimeFormat.takesSpan() {
			c.withSpan = func() []string {
				texts := slices.Clone(c.cells)
				for i := range records {
					if at := of(&records[i]); !at.IsZero() {
						texts[i] += " (" + Relative(at, view.Now) + ")"
					}
				}
				return texts
			}
		}
		return c
	}
	t.company = add("COMPANY", func(r *grant.Record) string { return r.Company })
	t.application = add("APPLICATION", func(r *grant.Record) string { return r.Application })
	t.environment = add("ENVIRONMENT", func(r *grant.Record) string { return r.Environment })
	t.state = add("STATE", func(r *grant.Record) string {
		return shown(r, view.Now) + invited(r)
	})
	if view.Companies {
		t.user = add("USER", func(r *grant.Record) string { return r.User })
		t.refreshExpires = addTime("REFRESH EXPIRES", func(r *grant.Record) time.Time { return r.RefreshTokenExpires })
		t.contact = add("CONTACT", func(r *grant.Record) string { return r.Contact })
		if view.Wide {
			add("NOTE", func(r *grant.Record) string { return r.Note })
		}
		return t
	}
	t.issued = addTime("ISSUED", func(r *grant.Record) time.Time { return r.Issued })
	t.expires = addTime("EXPIRES", func(r *grant.Record) time.Time { return r.Expires })
	t.refreshIssued = addTime("REFRESH ISSUED", func(r *grant.Record) time.Time { return r.RefreshTokenIssued })
	t.refreshExpires = addTime("REFRESH EXPIRES", func(r *grant.Record) time.Time { return r.RefreshTokenExpires })
	if view.Wide {
		add("USER", func(r *grant.Record) string { return r.User })
		add("TOKEN VAULT KEY", func(r *grant.Record) string { return r.TokenVaultKey })
		add("VAULT", func(r *grant.Record) string { return r.Home })
		add("LAST ERROR", func(r *grant.Record) string {
			if r.LastError == nil {
				return ""
			}
			return fmt.Sprintf("%s: %s", r.LastError.Code, r.LastError.Message)
		})
		if slices.ContainsFunc(records, func(r grant.Record) bool { return r.Asked != nil }) {
			add("ASKED BY", func(r *grant.Record) string {
				if r.Asked == nil {
					return ""
				}
				return r.Asked.Host
			})
		}
		if slices.ContainsFunc(records, func(r grant.Record) bool { return r.Contact != "" }) {
			add("CONTACT", func(r *grant.Record) string { return r.Contact })
		}
	}
	return t
}

// widthWith is how wide the table is when the names have so many cells.
func (t *statusColumns) widthWith(name int) int {
	width := name
	for _, c := range t.columns {
		if c != t.company && !c.hidden {
			width += 2 + c.width
		}
	}
	return width
}

// leaveOut hides the columns that a terminal has no room for. It returns the
// application and the environment that are hidden because all grants have the
// same.
func (t *statusColumns) leaveOut(records []grant.Record, width int) (same []string) {
	// The column that goes first stands first, each with how short the names
	// become before it goes.
	type step struct {
		column *column
		name   int
	}
	var first, last []step
	for _, c := range []*column{t.application, t.environment} {
		if len(slices.Compact(slices.Clone(c.cells))) == 1 {
			first = append(first, step{c, nameEnough})
		}
	}
	constant := len(first)
	for _, c := range []*column{t.refreshIssued, t.issued, t.expires, t.contact} {
		if c != nil {
			first = append(first, step{c, nameEnough})
		}
	}
	if t.user != nil {
		last = append(last, step{t.user, nameAtLeast})
	}
	for _, c := range []*column{t.application, t.environment} {
		if tellsApart(records, c) {
			last = append(last, step{c, nameAtLeast})
		} else {
			first = append(first, step{c, nameEnough})
		}
	}
	last = append(last, step{t.refreshExpires, nameHeader})
	for i, s := range append(first, last...) {
		if t.widthWith(min(t.company.width, s.name)) <= width {
			break
		}
		if i < constant {
			same = append(same, s.column.cells[0])
		}
		s.column.hidden = true
	}
	return same
}

// cutNames cuts the companies' names to the room that the other columns leave,
// which it returns.
func (t *statusColumns) cutNames(width int) (room int) {
	room = max(width-t.widthWith(0), nameHeader)
	names := make([]string, len(t.company.cells))
	for i, name := range t.company.cells {
		names[i] = cut(name, room)
	}
	t.company.set(names)
	return room
}

// apart sees to it that no two grants look the same. Names that were cut to the
// same are cut in their middle. Where that does not help, it returns what tells
// the grants apart, for a line below each.
func (t *statusColumns) apart(records []grant.Record, room, width int) map[int][]string {
	alike := func(columns ...*column) (groups [][]int) {
		seen := map[string][]int{}
		var order []string
		for i := range records {
			// What a reader takes for the same is: case does not count.
			look := legible.Fold(t.company.cells[i])
			for _, c := range columns {
				if !c.hidden {
					look += "\x00" + c.cells[i]
				}
			}
			if len(seen[look]) == 0 {
				order = append(order, look)
			}
			seen[look] = append(seen[look], i)
		}
		for _, look := range order {
			if group := seen[look]; len(group) > 1 {
				groups = append(groups, group)
			}
		}
		return groups
	}
	differ := func(group []int, of func(*grant.Record) string) bool {
		return slices.ContainsFunc(group, func(i int) bool { return of(&records[i]) != of(&records[group[0]]) })
	}
	name := func(r *grant.Record) string { return legible.Fold(plain(r.Company)) }
	names := slices.Clone(t.company.cells)
	for _, group := range alike() { // a company's name is the same in all its lines
		if !differ(group, name) {
			continue
		}
		for _, i := range group {
			names[i] = cutMiddle(plain(records[i].Company), room)
		}
	}
	t.company.set(names)
	below := map[int][]string{}
	for _, group := range alike(t.application, t.environment) {
		var parts []func(*grant.Record) string
		for _, of := range []func(*grant.Record) string{
			func(r *grant.Record) string { return plain(r.Company) },
			func(r *grant.Record) string { return r.Application },
			func(r *grant.Record) string { return r.Environment },
		} {
			if differ(group, of) && (len(parts) > 0 || differ(group, func(r *grant.Record) string { return legible.Fold(of(r)) })) {
				parts = append(parts, of)
			}
		}
		said := func(r *grant.Record) string {
			var texts []string
			for _, of := range parts {
				if text := of(r); text != "" {
					texts = append(texts, text)
				}
			}
			return strings.Join(texts, ", ")
		}
		seen := map[string]bool{}
		for _, i := range group {
			seen[said(&records[i])] = true
		}
		if len(seen) < len(group) { // names that only look alike
			parts = append(parts, func(r *grant.Record) string { return r.TokenVaultKey })
		}
		for _, i := range group {
			if text := said(&records[i]); text != "" {
				below[i] = wrap(text, width-2)
			}
		}
	}
	return below
}

// tellsApart reports whether a company has grants that differ in a column.
func tellsApart(records []grant.Record, c *column) bool {
	if !slices.ContainsFunc(c.cells, func(cell string) bool { return cell != c.cells[0] }) {
		return false
	}
	seen := map[grant.Folded]string{}
	for i, r := range records {
		company := grant.Fold(r.Company)
		if cell, ok := seen[company]; ok && cell != c.cells[i] {
			return true
		}
		seen[company] = c.cells[i]
	}
	return false
}

// addSpans puts how long beside the times of the columns that have room for it
// beside names of so many cells, the most telling first.
func (t *statusColumns) addSpans(name, width int) {
	for _, c := range []*column{t.refreshExpires, t.expires, t.refreshIssued, t.issued} {
		if c == nil || c.hidden || c.withSpan == nil || t.widthWith(name)+len(" (now)") > width {
			continue
		}
		texts := c.withSpan()
		if more := widest(c.header, texts) - c.width; t.widthWith(name)+more <= width {
			c.set(texts)
		}
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Summary counts companies, and grants where a company has several, and how
// many are in each state, the best state first:
// "13 companies: 9 authorized, 1 not authorized, 2 expiring, 1 void".
func Summary(records []grant.Record, now time.Time) string {
	companies := map[grant.Folded]bool{}
	count := map[string]int{}
	grants := 0
	for i := range records {
		r := &records[i]
		companies[grant.Fold(r.Company)] = true
		count[shown(r, now)]++
		if r.TokenVaultKey != "" {
			grants++
		}
	}
	text := fmt.Sprintf("%d companies", len(companies))
	if len(companies) == 1 {
		text = "1 company"
	}
	if len(records) == 0 {
		return text
	}
	if len(records) > len(companies) {
		text += fmt.Sprintf(", %d grants", grants)
	}
	var parts []string
	for _, state := range slices.Backward(grant.States()) {
		if n := count[string(state)]; n > 0 {
			word := string(state)
			if state == grant.Unauthorized {
				word = "not authorized"
			}
			parts = append(parts, fmt.Sprintf("%d %s", n, word))
		}
		if n := count[probablyVoid]; n > 0 && state == grant.Expired { // before void
			parts = append(parts, fmt.Sprintf("%d %s", n, probablyVoid))
		}
	}
	return text + ": " + strings.Join(parts, ", ")
}

// folded breaks a list behind its commas, where a line would be too wide.
func folded(list string, width int) string {
	const indent = "  "
	var lines []string
	line := ""
	for part := range strings.SplitAfterSeq(list, ", ") {
		if line != "" && cells(strings.TrimRight(line+part, " ")) > width {
			lines = append(lines, line)
			line = indent
		}
		line += part
	}
	lines = append(lines, line)
	for i, line := range lines {
		lines[i] = cut(strings.TrimRight(line, " "), width)
	}
	return strings.Join(lines, "\n")
}

// coloured is a state with its colour: what is good is green, what needs a
// person soon yellow, what needs one now red.
func coloured(s string) string {
	code := "33"
	state, _, _ := strings.Cut(s, ",")
	switch grant.State(state) {
	case grant.Authorized, grant.Refreshable:
		code = "32"
	case grant.Void, grant.Expired:
		code = "31"
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
