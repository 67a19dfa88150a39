package render

import (
	"fmt"
	"io"
	"strings"
)

// Level is how bad a finding is.
type Level string

const (
	OK      Level = "ok"
	Warning Level = "warning"
	Failure Level = "failure"
)

// Finding is one line of upsauth doctor.
type Finding struct {
	Level  Level  `json:"level"`
	Check  string `json:"check"`
	Found  string `json:"found"`
	Remedy string `json:"remedy,omitempty"`
}

// Findings is the JSON of upsauth doctor.
type Findings struct {
	Version  int       `json:"version"`
	Findings []Finding `json:"findings"`
}

// FindingLines writes a line for each finding, with the remedy below it. On a
// terminal of a width, zero for none, lines are broken.
func FindingLines(w io.Writer, findings []Finding, width int) error {
	indent := 25
	// A third of a narrow terminal for the text would be a long read.
	narrow := width > 0 && width < 2*indent
	if narrow {
		indent = 2
	}
	broken := func(text string) string {
		if width == 0 {
			return text
		}
		return strings.Join(wrap(text, width-indent), "\n"+strings.Repeat(" ", indent))
	}
	for _, f := range findings {
		head := fmt.Sprintf("%-7s  %-14s  ", f.Level, f.Check)
		if narrow {
			head = fmt.Sprintf("%s  %s\n%*s", f.Level, f.Check, indent, "")
		}
		if _, err := fmt.Fprintf(w, "%s%s\n", head, broken(plain(f.Found))); err != nil {
			return err
		}
		for _, line := range strings.Split(f.Remedy, "\n") {
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			if _, err := fmt.Fprintf(w, "%*s%s\n", indent, "", broken(plain(line))); err != nil {
				return err
			}
		}
	}
	return nil
}
