package render

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"

	"github.com/upsauth/upsauth/internal/grant"
)

// View is how a table is to be shown.
type View struct {
	Now    time.Time
	Zone   *time.Location
	Wide   bool
	Colour bool
}

// StatusTable writes one line a grant, below a line that sums up.
func StatusTable(w io.Writer, records []grant.Record, view View) error {
	header := []string{"COMPANY", "APPLICATION", "ENVIRONMENT", "STATE", "ISSUED", "EXPIRES", "REFRESH ISSUED", "REFRESH EXPIRES"}
	if view.Wide {
		header = append(header, "USER", "TOKEN VAULT KEY", "VAULT", "LAST ERROR")
	}
	var lines [][]string
	for _, r := range records {
		line := []string{
			plain(r.Company), plain(r.Application), plain(r.Environment), stateCell(r.StateAt(view.Now), view.Colour),
			tableTime(r.Issued, view.Zone), tableTime(r.Expires, view.Zone),
			tableTime(r.RefreshTokenIssued, view.Zone), tableTime(r.RefreshTokenExpires, view.Zone),
		}
		if view.Wide {
			lastError := "-"
			if r.LastError != nil {
				lastError = fmt.Sprintf("%s: %s", r.LastError.Code, r.LastError.Message)
			}
			line = append(line, plain(orDash(r.User)), plain(orDash(r.TokenVaultKey)), plain(orDash(r.Vault)), plain(lastError))
		}
		lines = append(lines, line)
	}
	if _, err := fmt.Fprintf(w, "%s\n\n", Summary(records, view.Now)); err != nil {
		return err
	}
	return table(w, header, lines)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Summary counts grants by state: "12 grants: 9 authorized, 2 expiring, 1 void".
func Summary(records []grant.Record, now time.Time) string {
	count := map[grant.State]int{}
	for _, r := range records {
		count[r.StateAt(now)]++
	}
	var parts []string
	states := grant.States()
	for i := len(states) - 1; i >= 0; i-- {
		if n := count[states[i]]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, states[i]))
		}
	}
	switch len(records) {
	case 0:
		return "0 grants"
	case 1:
		return "1 grant: " + parts[0]
	}
	return fmt.Sprintf("%d grants: %s", len(records), strings.Join(parts, ", "))
}

// plain is text on one line, without control characters.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || unicode.In(r, unicode.Zl, unicode.Zp):
			return ' '
		case unicode.IsControl(r):
			return -1
		}
		return r
	}, s)
}

// Table writes columns aligned by what a terminal shows, two spaces apart,
// without trailing spaces.
func Table(w io.Writer, header []string, lines [][]string) error {
	cells := make([][]string, len(lines))
	for i, line := range lines {
		for _, cell := range line {
			cells[i] = append(cells[i], plain(cell))
		}
	}
	return table(w, header, cells)
}

// table is Table for cells that may have colour in them.
func table(w io.Writer, header []string, lines [][]string) error {
	var out bytes.Buffer
	writer := tablewriter.NewTable(&out,
		tablewriter.WithRenderer(renderer.NewBlueprint(tw.Rendition{
			Borders: tw.BorderNone,
			// The gap is a column symbol: a padding of several characters
			// truncates cells.
			Symbols: tw.NewSymbolCustom("gap").WithColumn("  "),
			Settings: tw.Settings{
				Separators: tw.Separators{BetweenColumns: tw.On, BetweenRows: tw.Off, ShowHeader: tw.Off},
				Lines:      tw.LinesNone,
			},
		})),
		tablewriter.WithPadding(tw.PaddingNone),
		tablewriter.WithTrimSpace(tw.Off),
		tablewriter.WithHeaderAutoFormat(tw.Off),
		tablewriter.WithHeaderAutoWrap(tw.WrapNone),
		tablewriter.WithHeaderAlignment(tw.AlignLeft),
		tablewriter.WithRowAutoWrap(tw.WrapNone),
		tablewriter.WithRowAlignment(tw.AlignLeft),
	)
	writer.Header(header)
	if err := writer.Bulk(lines); err != nil {
		return fmt.Errorf("the table can't be made: %w", err)
	}
	if err := writer.Render(); err != nil {
		return fmt.Errorf("the table can't be made: %w", err)
	}
	for line := range strings.Lines(out.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// stateCell is a state with its colour: what is good is green, what needs a
// person soon yellow, what needs one now red.
func stateCell(s grant.State, colour bool) string {
	if !colour {
		return string(s)
	}
	code := "33"
	switch s {
	case grant.Authorized, grant.Refreshable:
		code = "32"
	case grant.Void, grant.Expired:
		code = "31"
	}
	return "\x1b[" + code + "m" + string(s) + "\x1b[0m"
}
