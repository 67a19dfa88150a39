package render

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/clipperhouse/displaywidth"
	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"
)

// Text is what came from outside, as people get to see it.
func Text(s string) string { return plain(s) }

// plain is text on one line, without control characters and without the
// invisible characters that join no letters: those that reorder the text around
// them, and those that only make two names look the same.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= ' ' && r <= '~':
			return r
		case r == '\n' || r == '\t' || unicode.In(r, unicode.Zl, unicode.Zp):
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r) && !shapes(r):
			return -1
		}
		return r
	}, s)
}

// shapes reports whether a format character belongs to how a word is written:
// the joiners of Persian, Indic and emoji, the marks of direction that move
// nothing but themselves, signs that are seen, the tags of flags.
func shapes(r rune) bool {
	switch r {
	case '\u200c', '\u200d', '\u200e', '\u200f', '\u061c':
		return true
	}
	return unicode.Is(unicode.Prepended_Concatenation_Mark, r) || r >= 0xe0020 && r <= 0xe007f
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

// cells is how many cells of a terminal a text takes: what its letters take
// one by one, as every terminal counts, but that an emoji of several characters
// (family, flag, skin tone) takes two, as those count that can draw it.
// Characters whose width is ambiguous are narrow, wherever this runs.
func cells(s string) int {
	if isASCII(s) {
		return len(s)
	}
	n := 0
	for clusters := displaywidth.StringGraphemes(s); clusters.Next(); {
		n += clusterCells(clusters.Value(), clusters.Width())
	}
	return n
}

// clusterCells corrects the width of a grapheme cluster, which is that of its
// first letter even where others stand beside it, as in Thai.
func clusterCells(cluster string, width int) int {
	if width > 1 {
		return width
	}
	width = 0
	for _, r := range cluster {
		width += displaywidth.Rune(r)
	}
	return width
}

// cut shortens a text to a number of cells, with an ellipsis where something
// is missing. It never cuts through a letter and its marks.
func cut(s string, most int) string {
	if cells(s) <= most {
		return s
	}
	var kept strings.Builder
	left := most - 1
	for clusters := displaywidth.StringGraphemes(s); clusters.Next(); {
		if left -= clusterCells(clusters.Value(), clusters.Width()); left < 0 {
			break
		}
		kept.WriteString(clusters.Value())
	}
	return strings.TrimRight(kept.String(), " ") + "…"
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] > unicode.MaxASCII {
			return false
		}
	}
	return true
}

// standIn takes the place of what is not ASCII while tablewriter lays out the
// table. It is no character, and one cell wide everywhere.
const standIn = '\ufdd0'

// table is Table for cells that may have colour in them.
//
// tablewriter adds up the widths of single characters, so that a flag has four
// cells, and some of them by the reader's locale. It is therefore given cells of
// the right width that it can't mistake, and what they stand for is put back
// into what it writes.
func table(w io.Writer, header []string, lines [][]string) error {
	var hidden []string
	hide := func(line []string) []string {
		out := make([]string, len(line))
		for i, cell := range line {
			if out[i] = cell; !isASCII(cell) {
				if out[i] = strings.Repeat(string(standIn), cells(cell)); out[i] != "" {
					hidden = append(hidden, cell)
				}
			}
		}
		return out
	}
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
	writer.Header(hide(header))
	for _, line := range lines {
		if err := writer.Append(hide(line)); err != nil {
			return fmt.Errorf("the table can't be made: %w", err)
		}
	}
	if err := writer.Render(); err != nil {
		return fmt.Errorf("the table can't be made: %w", err)
	}
	var shown strings.Builder
	for line := range strings.Lines(out.String()) {
		for {
			before, after, found := strings.Cut(line, string(standIn))
			if !found {
				break
			}
			shown.WriteString(before)
			shown.WriteString(hidden[0])
			hidden, line = hidden[1:], strings.TrimLeft(after, string(standIn))
		}
		shown.WriteString(strings.TrimRight(line, " \n"))
		shown.WriteByte('\n')
	}
	_, err := io.WriteString(w, shown.String())
	return err
}
