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

// A command line makes the command that it begins with and no other; its help must
// not show that.
func TestCommandsAreTheSameAlone(t *testing.T) {
	whole := newRootCmd(&Env{})
	made := map[string]bool{}
	for _, c := range commands(&Env{}) {
		made[c.name] = true
		root := newRootCmd(&Env{}, c.name, "--help")
		if n := len(root.Commands()); n != 1 {
			t.Errorf("%s: %d commands were made", c.name, n)
		}
		var compare func(alone, among *cobra.Command)
		compare = func(alone, among *cobra.Command) {
			if alone.CommandPath() != among.CommandPath() || alone.Long != among.Long || alone.UsageString() != among.UsageString() {
				t.Errorf("alone\n%s\nand among all\n%s", alone.UsageString(), among.UsageString())
			}
			if len(alone.Commands()) != len(among.Commands()) {
				t.Fatalf("%s has %d commands alone and %d among all", c.name, len(alone.Commands()), len(among.Commands()))
			}
			for i, sub := range alone.Commands() {
				compare(sub, among.Commands()[i])
			}
		}
		among, _, err := whole.Find([]string{c.name})
		if err != nil || among.Name() != c.name {
			t.Fatalf("%s: %v", c.name, err)
		}
		compare(root.Commands()[0], among)
	}
	for _, cmd := range whole.Commands() {
		if cmd.Runnable() && !made[cmd.Name()] && cmd.Name() != "help" && cmd.Name() != "completion" {
			t.Errorf("%s is not in the list of commands", cmd.Name())
		}
	}
}
