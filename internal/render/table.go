package render

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/clipperhouse/displaywidth"
	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/pkg/twwidth"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"

	"github.com/upsauth/upsauth/internal/legible"
)

// Text is what came from outside, as people get to see it.
func Text(s string) string { return legible.Line(s) }

func plain(s string) string { return Text(s) }

// Table writes columns aligned by what a terminal shows, two spaces apart,
// without trailing spaces. A header is ASCII. Columns that have no room on a
// terminal of a width, zero for none, stand in lines of their own below the others.
func Table(w io.Writer, header []string, lines [][]string, width int) error {
	columns := make([]*column, len(header))
	for i, name := range header {
		texts := make([]string, len(lines))
		for j, line := range lines {
			texts[j] = plain(line[i])
		}
		columns[i] = &column{header: name}
		columns[i].set(texts)
	}
	parts := [][]*column{nil}
	for _, c := range columns {
		last := len(parts) - 1
		if n := len(parts[last]); width > 0 && n > 0 && widthOf(append(parts[last][:n:n], c))+indentOf(last) > width {
			parts = append(parts, nil)
			last++
		}
		parts[last] = append(parts[last], c)
	}
	if len(parts) == 1 && (width == 0 || widthOf(columns) <= width) {
		return table(w, columns, nil)
	}
	return stacked(w, parts, width)
}

// indentOf is how far the lines below the first of a row are moved in.
func indentOf(part int) int {
	if part == 0 {
		return 0
	}
	return 4
}

func widthOf(columns []*column) int {
	width := 0
	for i, c := range columns {
		if i > 0 {
			width += 2
		}
		width += c.width
	}
	return width
}

// stacked writes rows of several lines each, in which the columns are aligned as
// in a table.
func stacked(w io.Writer, parts [][]*column, width int) error {
	tables := make([][]string, len(parts))
	for i, columns := range parts {
		var text bytes.Buffer
		if err := table(&text, columns, nil); err != nil {
			return err
		}
		tables[i] = strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
	}
	out := bufio.NewWriter(w)
	for row := range tables[0] {
		for part, lines := range tables {
			room := width - indentOf(part)
			line := []string{lines[row]}
			if cells(lines[row]) > room { // one column alone
				line = wrap(lines[row], room)
			}
			for _, text := range line {
				if text = cut(text, room); text != "" {
					fmt.Fprintf(out, "%*s%s\n", indentOf(part), "", text)
				}
			}
		}
	}
	return out.Flush() // with the error of any write
}

// column is a column of a table. Its cells have no colour, and may have several lines.
type column struct {
	header string
	cells  []string
	width  int
	// paint, where set, gives a cell its colour.
	paint func(cell string) string
	// withSpan makes the cells of a column of times with how long beside them.
	withSpan func() []string
	hidden   bool
}

func (c *column) set(texts []string) {
	c.cells, c.width = texts, widest(c.header, texts)
}

// add puts a cell at the end.
func (c *column) add(cell string) {
	c.cells = append(c.cells, cell)
	for line := range strings.SplitSeq(cell, "\n") {
		c.width = max(c.width, cells(line))
	}
}

func widest(header string, texts []string) int {
	width := cells(header)
	for _, text := range texts {
		width = max(width, cells(text))
	}
	return width
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

// table draws columns that have the same number of cells each, below their names
// where they have any. The lines in below, which may be nil, follow the row of their
// number. Without rows and names there is nothing.
//
// Rows are drawn as they are appended: tablewriter holds no second copy of a large
// table. The columns' widths are known before.
func table(w io.Writer, columns []*column, below map[int][]string) error {
	out := bufio.NewWriterSize(w, 64<<10)
	names, widths := make([]string, len(columns)), tw.NewMapper[int, int]()
	for i, c := range columns {
		names[i] = c.header
		widths.Set(i, c.width)
	}
	t := tablewriter.NewTable(out,
		tablewriter.WithRenderer(&measured{columns: columns, Blueprint: renderer.NewBlueprint(tw.Rendition{
			Borders: tw.BorderNone,
			// The gap is a column symbol: a padding of several characters
			// truncates cells.
			Symbols: tw.NewSymbolCustom("gap").WithColumn(gap),
			Settings: tw.Settings{
				Separators: tw.Separators{BetweenColumns: tw.On, BetweenRows: tw.Off, ShowHeader: tw.Off},
				Lines:      tw.LinesNone,
			},
		})}),
		tablewriter.WithStreaming(tw.StreamConfig{Enable: true, StrictColumns: true}),
		tablewriter.WithColumnWidths(widths),
		tablewriter.WithPadding(tw.PaddingNone),
		tablewriter.WithTrimSpace(tw.Off),
		tablewriter.WithHeaderAutoFormat(tw.Off), // upper case otherwise
		tablewriter.WithHeaderAutoWrap(tw.WrapNone),
		tablewriter.WithHeaderAlignment(tw.AlignLeft),
		tablewriter.WithRowAutoWrap(tw.WrapNone),
		tablewriter.WithRowAlignment(tw.AlignLeft),
	)
	if err := t.Start(); err != nil {
		return fmt.Errorf("the table can't be made: %w", err)
	}
	if strings.Join(names, "") != "" {
		t.Header(names)
	}
	row := make([]string, len(columns))
	for i := range columns[0].cells {
		for j, c := range columns {
			row[j] = c.cells[i]
		}
		if err := t.Append(row); err != nil {
			return fmt.Errorf("the table can't be made: %w", err)
		}
		for _, text := range below[i] {
			fmt.Fprintf(out, "  %s\n", text)
		}
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("the table can't be made: %w", err)
	}
	return out.Flush() // with the error of any write
}

// gap stands between two columns.
const gap = "  "

// measured is tablewriter's renderer with what it lacks. Tablewriter adds up the
// widths of single characters, those of ambiguous width by the reader's locale:
// a flag has four cells, and the columns behind would not begin where they should.
// It fills the last column with spaces. It does not color a cell.
type measured struct {
	*renderer.Blueprint
	columns []*column
}

func (m *measured) Header(lines [][]string, ctx tw.Formatting) {
	m.Blueprint.Header(lines, m.measure(ctx, false))
}

func (m *measured) Row(line []string, ctx tw.Formatting) {
	m.Blueprint.Row(line, m.measure(ctx, true))
}

// measure gives each cell of a line the width by which tablewriter fills the column
// to where it ends on a terminal.
func (m *measured) measure(ctx tw.Formatting, paint bool) tw.Formatting {
	widths := tw.NewMapper[int, int]()
	end := true // nothing but blanks follows
	for i := len(m.columns) - 1; i >= 0; i-- {
		c, cell := m.columns[i], ctx.Row.Current[i]
		if end {
			cell.Data = strings.TrimRight(cell.Data, " ")
		}
		took := cells(cell.Data)
		if took == 0 { // such as a mark without a letter: it would stick to the gap
			cell.Data = ""
		}
		room := c.width - took
		if end {
			room = 0
		}
		end = end && took == 0
		width := twwidth.Width(cell.Data) + room
		if width == 0 && took > 0 { // tablewriter leaves out what it thinks has no width
			width = 1
		}
		widths.Set(i, width)
		if paint && c.paint != nil && took > 0 {
			cell.Data = c.paint(cell.Data)
		}
		ctx.Row.Current[i] = cell
	}
	ctx.Row.Widths = widths
	return ctx
}
