package cli

import (
	"bytes"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/terminal"
)

// stderr is standard error as it is, for programs that are started and for logs.
func (env *Env) stderr() io.Writer { return terminal.Unfitted(env.Err) }

// fitErr lets what people read on standard error fit their terminal.
func (env *Env) fitErr() {
	if env.ErrTerminal && env.Columns != nil {
		env.Err = terminal.Fit(env.Err, env.Columns)
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
		_, _ = io.WriteString(out, render.Fit(terminal.Refill(text.String(), width), width))
	})
}

// tell prints what a command did, in lines that fit the terminal.
func (env *Env) tell(format string, args ...any) {
	fmt.Fprint(env.Out, render.Fit(fmt.Sprintf(format, args...), env.width()))
}
