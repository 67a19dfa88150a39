package render

import (
	"strings"

	"github.com/clipperhouse/displaywidth"
)

// Fit breaks the lines of a text that are wider than a terminal, zero for none.
// What follows a line's beginning stands below it: below the text of a numbered
// step, below the second column of a line that has two. A command that is broken
// can be pasted all the same, and an address is never broken.
func Fit(text string, width int) string {
	if width <= 0 {
		return text
	}
	var fitted strings.Builder
	for line := range strings.Lines(text) {
		line, end := strings.TrimSuffix(line, "\n"), ""
		if strings.HasSuffix(text, "\n") || !strings.HasSuffix(text, line) {
			end = "\n"
		}
		if cells(line) <= width {
			fitted.WriteString(line + end)
			continue
		}
		rest := strings.TrimRight(line, " ")
		trailing := line[len(rest):] // of a prompt
		begin := hangsAt(rest, width)
		head, tail := rest[:begin.bytes], rest[begin.bytes:]
		if strings.TrimLeft(head, " ") == "" {
			head = head[:begin.cells] // less than it was, where that is far in
		}
		indent := begin.cells
		if begin.below {
			head = strings.TrimRight(head, " ")
		}
		fitted.WriteString(head)
		if begin.below {
			fitted.WriteString("\n" + strings.Repeat(" ", indent))
		}
		fitted.WriteString(strings.Join(wrap(tail, width-indent), "\n"+strings.Repeat(" ", indent)) + trailing + end)
	}
	return fitted.String()
}

// hang is where the text of a line begins that what follows stands below.
type hang struct {
	bytes, cells int
	// below says that the text leaves its line: too little room is behind what
	// stands before it.
	below bool
}

func hangsAt(line string, width int) hang {
	text := strings.TrimLeft(line, " ")
	indent := len(line) - len(text)
	// "1. Listening", "10. Listening"
	digits := len(text) - len(strings.TrimLeft(text, "0123456789"))
	if digits > 0 && strings.HasPrefix(text[digits:], ". ") {
		return hang{bytes: indent + digits + 2, cells: indent + digits + 2}
	}
	// "  --flag string   what it is for"
	if name, column, ok := strings.Cut(text, "  "); ok && name != "" && indent > 0 {
		column = strings.TrimLeft(column, " ")
		at := len(line) - len(column)
		if n := cells(line[:at]); n <= width/2 {
			return hang{bytes: at, cells: n}
		}
		return hang{bytes: at, cells: min(indent+4, width/2), below: true}
	}
	return hang{bytes: indent, cells: min(indent, width/2)}
}

// commandGoesOn ends a line of a command that goes on in the next.
const commandGoesOn = ` \`

// wrap breaks a text on one line into lines of so many cells. A word that is
// longer is broken, unless it is an address or of a command.
func wrap(text string, width int) []string {
	width = max(width, 1)
	command := isCommand(text)
	end := ""
	words := strings.Fields(text)
	if command {
		words = shellWords(text)
		end = commandGoesOn
	}
	var lines []string
	line := ""
	for i, word := range words {
		room := width
		if i < len(words)-1 {
			room -= len(end)
		}
		switch {
		case line == "":
			line = word
		case cells(line)+1+cells(word) <= room:
			line += " " + word
		default:
			lines = append(lines, line+end)
			line = word
		}
		for !command && !isAddress(word) && cells(line) > width {
			head := head(line, width)
			if head == "" {
				break // not one letter has room
			}
			lines, line = append(lines, head), line[len(head):]
		}
	}
	return append(lines, line)
}

// isCommand reports whether a line is there to be pasted into a shell.
func isCommand(line string) bool {
	line = strings.TrimPrefix(line, "Run: ")
	if !strings.HasPrefix(line, "upsauth ") && !strings.Contains(line, "$(upsauth ") {
		return false
	}
	for _, word := range shellWords(line) {
		if strings.HasSuffix(word, ",") || strings.HasSuffix(word, ".") || strings.HasSuffix(word, ":") {
			return false // a sentence that begins with the program's name
		}
	}
	return true
}

func isAddress(word string) bool { return strings.Contains(word, "://") }

// shellWords parts a command at the spaces that are outside of quotes.
func shellWords(command string) []string {
	var words []string
	begin, quote := 0, byte(0)
	for i := range len(command) {
		switch c := command[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == ' ':
			if begin < i {
				words = append(words, command[begin:i])
			}
			begin = i + 1
		}
	}
	if begin < len(command) {
		words = append(words, command[begin:])
	}
	return words
}

// head is the beginning of a text that has so many cells at most.
func head(s string, most int) string {
	n := 0
	for clusters := displaywidth.StringGraphemes(s); clusters.Next(); {
		if most -= clusterCells(clusters.Value(), clusters.Width()); most < 0 {
			break
		}
		n += len(clusters.Value())
	}
	return s[:n]
}

// tail is the end of a text that has so many cells at most.
func tail(s string, most int) string {
	skip := cells(s) - most
	n := 0
	for clusters := displaywidth.StringGraphemes(s); skip > 0 && clusters.Next(); {
		skip -= clusterCells(clusters.Value(), clusters.Width())
		n += len(clusters.Value())
	}
	return s[n:]
}

// cutMiddle shortens a text to a number of cells as cut does, and keeps its end.
func cutMiddle(s string, most int) string {
	if cells(s) <= most {
		return s
	}
	begin := head(s, most/2)
	return strings.TrimRight(begin, " ") + "…" + strings.TrimLeft(tail(s, most-1-cells(begin)), " ")
}
