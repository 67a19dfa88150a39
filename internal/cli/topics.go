package cli

import (
	_ "embed" // the pages
	"strings"

	"github.com/spf13/cobra"
)

// The help pages that are no commands.
var (
	//go:embed topics/environment.txt
	environmentTopic string
	//go:embed topics/exit-codes.txt
	exitCodesTopic string
	//go:embed topics/states.txt
	statesTopic string
	//go:embed topics/output.txt
	outputTopic string
)

func topics() []*cobra.Command {
	page := func(name, short, text string) *cobra.Command {
		return &cobra.Command{Use: name, Short: short, Long: strings.TrimSuffix(text, "\n")}
	}
	return []*cobra.Command{
		page("environment", "Environment variables and files", environmentTopic),
		page("exit-codes", "What the exit codes mean", exitCodesTopic),
		page("states", "What the states of a grant mean", statesTopic),
		page("output", "What the commands print, for scripts", outputTopic),
	}
}
