package cli

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/spf13/cobra"

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
	rest = rejoined(refilled(rest, width), width)
	if _, err := io.WriteString(f.w, begun+render.Fit(rest, width)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// stderr is standard error as it is, for programs that are started and for logs.
func (env *Env) stderr() io.Writer {
	if f, ok := env.Err.(*fitted); ok {
		return f.w
	}
	return env.Err
}

// fitErr lets what people read on standard error fit their terminal.
func (env *Env) fitErr() {
	if _, done := env.Err.(*fitted); env.ErrTerminal && env.Columns != nil && !done {
		env.Err = &fitted{w: env.Err, width: env.Columns}
	}
}

// fitHelp lets the help of all commands fit the terminal.
func fitHelp(root *cobra.Command, env *Env) {
	standard := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		width := env.width()
		if width == 0 {
			standard(cmd, args)
			return
		}
		out := cmd.OutOrStdout()
		var text bytes.Buffer
		cmd.SetOut(&text)
		standard(cmd, args)
		cmd.SetOut(out)
		_, _ = io.WriteString(out, render.Fit(refilled(text.String(), width), width))
	})
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

// tell prints what a command did, in lines that fit the terminal.
func (env *Env) tell(format string, args ...any) {
	fmt.Fprint(env.Out, render.Fit(fmt.Sprintf(format, args...), env.width()))
}

// refilled joins the lines of paragraphs that have one which is too wide, so that
// they can be broken anew. What is moved in is no paragraph.
func refilled(text string, width int) string {
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
