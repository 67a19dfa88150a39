package cli

import (
	"bytes"
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
	if _, err := io.WriteString(f.w, begun+render.Fit(rest, f.width())); err != nil {
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
