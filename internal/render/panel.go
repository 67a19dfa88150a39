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
func Panel(w io.Writer, r grant.Record) error {
	_, err := fmt.Fprintf(w, "UPS API ACCESS\nAUTHORIZED\nAn OAuth token exists for this company!\n\n%s", rows(GrantRows(r)))
	return err
}

// BatchSuitePanel writes what UPS Batch Suite shows, and the command that its
// button REMOVE AUTH is here.
func BatchSuitePanel(w io.Writer, r grant.Record, removeCommand string) error {
	_, err := fmt.Fprint(w, rows([]Row{
		{"Access Key Configuration", "CONFIGURED"},
		{"OAuth Configuration", "Refresh expires: " + BatchTime(r.RefreshTokenExpires)},
		{"REMOVE AUTH", removeCommand},
	}))
	return err
}

// Rows writes names and values in two columns.
func Rows(w io.Writer, list []Row) error {
	_, err := fmt.Fprint(w, rows(list))
	return err
}

func rows(list []Row) string {
	width := 0
	for _, row := range list {
		width = max(width, len(row.Name))
	}
	var s strings.Builder
	for _, row := range list {
		fmt.Fprintf(&s, "%s\n", strings.TrimRight(fmt.Sprintf("%-*s  %s", width, row.Name, plain(row.Value)), " "))
	}
	return s.String()
}
