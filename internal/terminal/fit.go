package terminal

import (
	"bytes"
	"io"
	"strings"
	"sync"

	"github.com/upsauth/upsauth/internal/render"
)

// fitted is standard error where it is a terminal: steps, questions, warnings and
// errors are broken where its lines end. A progress bar and what a question is
// answered with stay as they are.
type fitted struct {
	w     io.Writer
	width func() int

	mu sync.Mutex
	// open says that the cursor stands behind something.
	open bool
}

func (f *fitted) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if bytes.ContainsAny(p, "\r\x1b") {
		f.open = false
		return f.w.Write(p)
	}
	begun, rest := "", string(p)
	if f.open {
		begun, rest, _ = strings.Cut(rest, "\n")
		if len(begun) < len(p) {
			begun += "\n"
		}
	}
	if len(p) > 0 {
		f.open = p[len(p)-1] != '\n'
	}
	width := f.width()
	rest = rejoined(Refill(rest, width), width)
	if _, err := io.WriteString(f.w, begun+render.Fit(rest, width)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Fit lets what is written to a terminal fit its width, once.
func Fit(w io.Writer, width func() int) io.Writer {
	if _, ok := w.(*fitted); ok {
		return w
	}
	return &fitted{w: w, width: width}
}

// Unfitted is the writer as it is, for programs that are started and for logs.
func Unfitted(w io.Writer) io.Writer {
	if f, ok := w.(*fitted); ok {
		return f.w
	}
	return w
}

// rejoined joins the lines of a step that go on below it, where one of them is too
// wide, so that they can be broken anew. What ends a sentence or leads to an address
// stays a line of its own.
func rejoined(text string, width int) string {
	const indent = "   "
	lines := strings.Split(text, "\n")
	var out []string
	for i := 0; i < len(lines); i++ {
		whole, wide := lines[i], render.Fit(lines[i], width) != lines[i]
		end := i + 1
		for ; end < len(lines); end++ {
			next, moved := strings.CutPrefix(lines[end], indent)
			if !moved || next == "" || strings.HasPrefix(next, " ") || strings.HasPrefix(next, "http") || strings.ContainsAny(lines[end-1][max(0, len(lines[end-1])-1):], ".:!?") {
				break
			}
			whole += " " + next
			wide = wide || render.Fit(lines[end], width) != lines[end]
		}
		if wide && end > i+1 && lines[i] != "" {
			out = append(out, whole)
			i = end - 1
			continue
		}
		out = append(out, lines[i])
	}
	return strings.Join(out, "\n")
}

// Refill joins the lines of paragraphs that have one which is too wide, so that
// they can be broken anew. What is moved in is no paragraph.
func Refill(text string, width int) string {
	var out, paragraph []string
	end := func() {
		whole := strings.Join(paragraph, "\n")
		if render.Fit(whole, width) != whole {
			whole = strings.Join(paragraph, " ")
		}
		if len(paragraph) > 0 {
			out = append(out, whole)
		}
		paragraph = nil
	}
	for _, line := range strings.Split(text, "\n") {
		if line == "" || strings.HasPrefix(line, " ") {
			end()
			out = append(out, line)
			continue
		}
		paragraph = append(paragraph, line)
		if strings.HasSuffix(line, ":") {
			end()
		}
	}
	end()
	return strings.Join(out, "\n")
}
