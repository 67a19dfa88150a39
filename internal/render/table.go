package render

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

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
			r.Company, r.Application, r.Environment, stateCell(r.StateAt(view.Now), view.Colour),
			tableTime(r.Issued, view.Zone), tableTime(r.Expires, view.Zone),
			tableTime(r.RefreshTokenIssued, view.Zone), tableTime(r.RefreshTokenExpires, view.Zone),
		}
		if view.Wide {
			lastError := "-"
			if r.LastError != nil {
				lastError = fmt.Sprintf("%s: %s", r.LastError.Code, r.LastError.Message)
			}
			line = append(line, orDash(r.User), r.TokenVaultKey, r.Vault, lastError)
		}
		lines = append(lines, line)
	}
	if _, err := fmt.Fprintf(w, "%s\n\n", Summary(records, view.Now)); err != nil {
		return err
	}
	return Table(w, header, lines)
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
	noun := "grants"
	if len(records) == 1 {
		noun = "grant"
	}
	return fmt.Sprintf("%d %s: %s", len(records), noun, strings.Join(parts, ", "))
}

// Table writes columns aligned by what a terminal shows, two spaces apart,
// without trailing spaces.
func Table(w io.Writer, header []string, lines [][]string) error {
	var out bytes.Buffer
	table := tablewriter.NewTable(&out,
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
	table.Header(header)
	if err := table.Bulk(lines); err != nil {
		return fmt.Errorf("the table can't be made: %w", err)
	}
	if err := table.Render(); err != nil {
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
