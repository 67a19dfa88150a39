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
	// At least so wide, so that checks that run one by one look the same.
	levels, checks, texts := &column{width: len(Warning)}, &column{width: 14}, &column{}
	for _, f := range findings {
		levels.add(string(f.Level))
		checks.add(f.Check)
	}
	indent := levels.width + len(gap) + checks.width + len(gap)
	// A third of a narrow terminal for the text would be a long read.
	narrow := width > 0 && width < 2*indent
	if narrow {
		indent = 2
	}
	for _, f := range findings {
		lines := []string{f.Found}
		for line := range strings.SplitSeq(f.Remedy, "\n") {
			if line = strings.TrimSpace(line); line != "" {
				lines = append(lines, line)
			}
		}
		for i, line := range lines {
			lines[i] = plain(line)
			if width > 0 {
				lines[i] = strings.Join(wrap(lines[i], width-indent), "\n")
			}
		}
		texts.add(strings.Join(lines, "\n"))
	}
	if !narrow {
		return table(w, []*column{levels, checks, texts}, nil)
	}
	var s strings.Builder
	for i, f := range findings {
		fmt.Fprintf(&s, "%s  %s\n", f.Level, f.Check)
		for line := range strings.SplitSeq(texts.cells[i], "\n") {
			s.WriteString(strings.TrimRight(strings.Repeat(" ", indent)+line, " ") + "\n")
		}
	}
	_, err := io.WriteString(w, s.String())
	return err
}
