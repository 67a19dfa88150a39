package company

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/upsauth/upsauth/internal/grant"
)

// New is a company to be made known, with what is to be known of it beside its
// name; nil is what stays as it is.
type New struct {
	Name          string
	Contact, Note *string
}

// Change puts it into what is known.
func (c New) Change(d *Details) {
	if c.Contact != nil {
		d.Contact = *c.Contact
	}
	if c.Note != nil {
		d.Note = *c.Note
	}
}

// ReadList reads a list of companies: one on each line, blank lines and those that
// begin with # left out, each company once. Clean makes a name of a line.
func ReadList(text []byte, clean func(string) (string, error)) ([]string, error) {
	var companies []string
	seen := map[grant.Folded]bool{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimPrefix(lines.Text(), "\ufeff")
		if text = strings.TrimSpace(text); text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		company, err := clean(text)
		if err != nil {
			return nil, fmt.Errorf("line %d of the companies' file: %w", n, err)
		}
		if !seen[grant.Fold(company)] {
			seen[grant.Fold(company)] = true
			companies = append(companies, company)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("the companies' file can't be read: %w", err)
	}
	if len(companies) == 0 {
		return nil, errors.New("the companies' file names no company")
	}
	return companies, nil
}

// nameColumns are what the column with the companies may be called.
var nameColumns = []string{"company", "company name", "company_name", "name", "customer", "customer name"}

// contactColumns and noteColumns are what the columns with them may be called.
var (
	contactColumns = []string{"contact", "contact person", "contact_person", "phone", "telephone"}
	noteColumns    = []string{"note", "notes", "comment", "remark"}
)

// columnOf is where a column stands that has one of the names, -1 for nowhere. The
// first name that is there counts.
func columnOf(header []string, names []string) int {
	for _, name := range names {
		if i := slices.IndexFunc(header, func(f string) bool { return strings.EqualFold(strings.TrimSpace(f), name) }); i >= 0 {
			return i
		}
	}
	return -1
}

// ReadCSV reads companies, each once, with what the file says about them. Field is a
// field without what a writer of such files put around it for a spreadsheet.
func ReadCSV(text string, field func(string) string) ([]New, error) {
	text = strings.TrimPrefix(text, "\ufeff")
	if !utf8.ValidString(text) {
		return nil, errors.New("the file is not UTF-8 text: save it as \"CSV UTF-8\"")
	}
	separator := ','
	// Excel's own first line.
	if rest, ok := strings.CutPrefix(text, "sep="); ok && rest != "" {
		separator, _ = utf8.DecodeRuneInString(rest)
		_, text, _ = strings.Cut(rest, "\n")
	}
	reader := csv.NewReader(strings.NewReader(text))
	reader.Comma = separator
	reader.FieldsPerRecord = -1
	first, _, _ := strings.Cut(text, "\n")
	// The commas of fields in quotes part nothing.
	first = regexp.MustCompile(`"[^"]*"`).ReplaceAllString(first, "")
	for _, comma := range ";\t" {
		if strings.Count(first, string(comma)) > strings.Count(first, string(reader.Comma)) {
			reader.Comma = comma
		}
	}
	column, contact, note := -1, -1, -1
	var companies []New
	seen := map[grant.Folded]int{}
	for {
		fields, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("the file is not CSV: %w", err)
		}
		if column < 0 {
			column, contact, note = columnOf(fields, nameColumns), columnOf(fields, contactColumns), columnOf(fields, noteColumns)
			if column >= 0 {
				continue
			}
			if len(fields) > 1 {
				return nil, errors.New("no column has the companies: add a first line to the file that calls the column company")
			}
			column, contact, note = 0, -1, -1
		}
		if column >= len(fields) || strings.TrimSpace(fields[column]) == "" {
			continue
		}
		name, err := grant.CleanCompany(field(fields[column]))
		if err != nil {
			line, _ := reader.FieldPos(column)
			return nil, fmt.Errorf("line %d: %w; nothing was added", line, err)
		}
		i, again := seen[grant.Fold(name)]
		if !again {
			i = len(companies)
			seen[grant.Fold(name)] = i
			companies = append(companies, New{Name: name})
		}
		for _, detail := range []struct {
			what   string
			column int
			to     **string
		}{{"contact", contact, &companies[i].Contact}, {"note", note, &companies[i].Note}} {
			if detail.column < 0 || detail.column >= len(fields) {
				continue
			}
			text, err := CleanDetail(detail.what, field(fields[detail.column]))
			if err != nil {
				line, _ := reader.FieldPos(detail.column)
				return nil, fmt.Errorf("line %d: %w; nothing was added", line, err)
			}
			if text != "" && *detail.to == nil {
				*detail.to = &text
			}
		}
	}
	if len(companies) == 0 {
		return nil, errors.New("the file names no company")
	}
	return companies, nil
}
