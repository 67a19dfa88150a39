package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// No line of any help is wider than the terminal, but for words of examples that
// can't be broken; piped it is as it was written.
func TestHelpFitsTheTerminal(t *testing.T) {
	help := func(terminal bool, width int, args ...string) string {
		var out bytes.Buffer
		env := &Env{In: strings.NewReader(""), Out: &out, Err: &out, Now: time.Now, Zone: time.UTC,
			Getenv: func(string) string { return "" }, OutTerminal: terminal, Columns: func() int { return width }}
		if code := Run(context.Background(), env, args); code != exitDone {
			t.Fatalf("%q: exit code %d", args, code)
		}
		return out.String()
	}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		path := strings.Fields(cmd.CommandPath())[1:]
		args := append(path, "--help")
		if !cmd.Runnable() {
			args = append([]string{"help"}, path...) // a topic
		}
		piped := help(false, 40, args...)
		if wide := help(true, 1000, args...); wide != piped {
			t.Errorf("%q on a wide terminal is\n%s\nand piped\n%s", args, wide, piped)
		}
		for _, width := range []int{40, 50, 60, 72, 80, 100} {
			for line := range strings.Lines(help(true, width, args...)) {
				line = strings.TrimSuffix(line, "\n")
				whole := !strings.Contains(strings.TrimSuffix(strings.TrimSpace(line), ` \`), " ") || strings.ContainsAny(line, "'\"")
				if utf8.RuneCountInString(line) > width && !whole {
					t.Errorf("%q at %d columns: %q", args, width, line)
				}
			}
		}
	}
	walk(CommandTree())
}
