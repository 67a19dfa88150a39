package cli

import (
	"io"

	"github.com/spf13/cobra"
)

// CommandTree returns the commands to be described, not run: it is the same on
// every machine.
func CommandTree() *cobra.Command {
	return newRootCmd(&Env{Out: io.Discard, Err: io.Discard, Getenv: func(string) string { return "" }})
}
