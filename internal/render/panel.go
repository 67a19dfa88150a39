package render

import (
	"fmt"
	"io"
	"strings"

	"github.com/upsauth/upsauth/internal/grant"
)

// Row is one line of a panel.
type Row struct{ Name, Value string }

// GrantRows are the five values that UPS Intelligent Rating shows of a grant.
func GrantRows(r grant.Record) []Row {
	return []Row{
		{"Token Vault Key", r.TokenVaultKey},
		{"Issued", UPSTime(r.Issued)},
		{"Expires", UPSTime(r.Expires)},
		{"Refresh Token Issued", UPSTime(r.RefreshTokenIssued)},
		{"Refresh Token Expires", UPSTime(r.RefreshTokenExpires)},
	}
}

// Panel writes what UPS Intelligent Rating shows when a company has a grant.
func Panel(w io.Writer, r grant.Record, width int) error {
	_, err := fmt.Fprintf(w, "UPS API ACCESS\nAUTHORIZED\nAn OAuth token exists for this company!\n\n%s", rows(GrantRows(r), width))
	return err
}

// BatchSuitePanel writes what UPS Batch Suite shows, and the command that its
// button REMOVE AUTH is here.
func BatchSuitePanel(w io.Writer, r grant.Record, removeCommand string, width int) error {
	_, err := fmt.Fprint(w, rows([]Row{
		{"Access Key Configuration", "CONFIGURED"},
		{"OAuth Configuration", "Refresh expires: " + BatchTime(r.RefreshTokenExpires)},
		{"REMOVE AUTH", removeCommand},
	}, width))
	return err
}

// Rows writes names and values in two columns. On a terminal of a width, zero for
// none, values are broken; where one has no room beside the names, all stand
// below them.
func Rows(w io.Writer, list []Row, width int) error {
	_, err := fmt.Fprint(w, rows(list, width))
	return err
}

func rows(list []Row, width int) string {
	const gap, indent = 2, 2
	names := 0
	for _, row := range list {
		names = max(names, len(row.Name))
	}
	room := width - names - gap
	below := false
	for _, row := range list {
		words, mark := strings.Fields(plain(row.Value)), 0
		if isCommand(row.Value) {
			words, mark = shellWords(plain(row.Value)), len(commandGoesOn)
		}
		for _, word := range words {
			below = below || width > 0 && cells(word)+mark > room && !isAddress(word)
		}
	}
	var s strings.Builder
	for _, row := range list {
		value := plain(row.Value)
		switch {
		case below:
			fmt.Fprintf(&s, "%s\n", row.Name)
			for _, line := range wrap(value, width-indent) {
				fmt.Fprintf(&s, "%s\n", strings.TrimRight(strings.Repeat(" ", indent)+line, " "))
			}
			continue
		case width > 0 && cells(value) > room:
			value = strings.Join(wrap(value, room), "\n"+strings.Repeat(" ", names+gap))
		}
		fmt.Fprintf(&s, "%s\n", strings.TrimRight(fmt.Sprintf("%-*s  %s", names, row.Name, value), " "))
	}
	return s.String()
}
