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

// FindingLines writes a line for each finding, with the remedy below it.
func FindingLines(w io.Writer, findings []Finding) error {
	const indent = 25
	for _, f := range findings {
		if _, err := fmt.Fprintf(w, "%-7s  %-14s  %s\n", f.Level, f.Check, plain(f.Found)); err != nil {
			return err
		}
		for _, line := range strings.Split(f.Remedy, "\n") {
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			if _, err := fmt.Fprintf(w, "%*s%s\n", indent, "", plain(line)); err != nil {
				return err
			}
		}
	}
	return nil
}
