package render

import (
	"fmt"
	"io"
	"strings"

	"github.com/upsauth/upsauth/internal/grant"
)

// Row is one line of a panel.
type Row struct{ Name, Value string }

// NotRevoked is the truth about a removal, on two lines.
const NotRevoked = "UPS has no way to revoke a token: a token stays valid until it expires.\n" +
	"To void it at once, the person who signed in must change the ups.com password."

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
	if _, err := fmt.Fprint(w, "UPS API ACCESS\nAUTHORIZED\nAn OAuth token exists for this company!\n\n"); err != nil {
		return err
	}
	return Rows(w, GrantRows(r), width)
}

// BatchSuitePanel writes what UPS Batch Suite shows, and the command that its
// button REMOVE AUTH is here.
func BatchSuitePanel(w io.Writer, r grant.Record, removeCommand string, width int) error {
	return Rows(w, []Row{
		{"Access Key Configuration", "CONFIGURED"},
		{"OAuth Configuration", "Refresh expires: " + BatchTime(r.RefreshTokenExpires)},
		{"REMOVE AUTH", removeCommand},
	}, width)
}

// Rows writes names and values in two columns. On a terminal of a width, zero for
// none, values are broken; where one has no room beside the names, all stand
// below them.
func Rows(w io.Writer, list []Row, width int) error {
	names := &column{}
	for _, row := range list {
		names.add(row.Name)
	}
	room := width - names.width - len(gap)
	// Each table of tablewriter's begins with a cache for ten thousand types: much more work
	// than these few lines.
	var s strings.Builder
	for _, row := range list {
		value := plain(row.Value)
		words, mark := strings.Fields(value), 0
		if isCommand(row.Value) {
			words, mark = shellWords(value), len(commandGoesOn)
		}
		for _, word := range words {
			if width > 0 && cells(word)+mark > room && !isAddress(word) {
				return rowsBelow(w, list, width)
			}
		}
		if width > 0 && cells(value) > room {
			value = strings.Join(wrap(value, room), "\n")
		}
		name := row.Name
		for line := range strings.SplitSeq(value, "\n") {
			fmt.Fprintln(&s, strings.TrimRight(name+strings.Repeat(" ", names.width-cells(name))+gap+line, " "))
			name = ""
		}
	}
	_, err := io.WriteString(w, s.String())
	return err
}

// rowsBelow writes each value below its name.
func rowsBelow(w io.Writer, list []Row, width int) error {
	const indent = 2
	var s strings.Builder
	for _, row := range list {
		fmt.Fprintf(&s, "%s\n", row.Name)
		for _, line := range wrap(plain(row.Value), width-indent) {
			fmt.Fprintf(&s, "%s\n", strings.TrimRight(strings.Repeat(" ", indent)+line, " "))
		}
	}
	_, err := io.WriteString(w, s.String())
	return err
}
