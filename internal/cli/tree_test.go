package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Whoever asks for help learns most from an example.
func TestEveryCommandHasAnExample(t *testing.T) {
	seen := 0
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		// Groups, topics and cobra's own are no commands of ours to be run.
		if !cmd.Runnable() || cmd.HasSubCommands() || cmd.Name() == "help" || (cmd.HasParent() && cmd.Parent().Name() == "completion") {
			return
		}
		seen++
		if !strings.Contains(cmd.Example, "upsauth ") {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("the short text of %s is %q", cmd.CommandPath(), cmd.Short)
		}
	}
	walk(newRootCmd(&Env{}))
	if seen < 25 {
		t.Errorf("only %d commands were seen", seen)
	}
}
