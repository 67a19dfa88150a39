// Gendocs writes the reference from the command tree: a Markdown page for GitHub
// and a man page for each command and each help topic. make docs runs it.
//
// It does not use cobra/doc, which takes the help texts for Markdown: the
// indented tables and examples of ours, which are plain text, come out of it as
// one run of words, help topics not at all, and go-md2man is needed for it.
//
// The pages have no date and no version, so that they change with the commands
// and with nothing else.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/upsauth/upsauth/internal/cli"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gendocs DIRECTORY, which gets reference and man")
		os.Exit(2)
	}
	if err := generate(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "gendocs:", err)
		os.Exit(1)
	}
}

// generate writes all pages below dir, in the place of those that are there.
func generate(dir string) error {
	for _, name := range []string{"reference", "man"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil { //nolint:gosec // make says which
			return err
		}
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil { //nolint:gosec // anybody may read them
			return err
		}
	}
	root := cli.CommandTree()
	for _, p := range pages(root) {
		file := filepath.Join(dir, "reference", p.name+".md")
		if err := os.WriteFile(file, []byte(markdown(p)), 0o644); err != nil { //nolint:gosec // as above
			return err
		}
		file = filepath.Join(dir, "man", p.name+"."+p.section)
		if err := os.WriteFile(file, []byte(man(p)), 0o644); err != nil { //nolint:gosec // as above
			return err
		}
	}
	return nil
}

// page is what there is to say about a command or a topic.
type page struct {
	cmd *cobra.Command
	// name is the file's: upsauth-vault-move.
	name string
	// section is that of the manual: 1 for commands; 7 for topics, which nobody
	// can run.
	section string
	parent  *page
	// below are the commands and topics of a command.
	below []*page
	// topics are those of the root.
	topics []*page
	// exitCodes is the text of the topic that has them.
	exitCodes string
}

func pages(root *cobra.Command) []*page {
	all := add(nil, nil, root)
	top := all[0]
	for _, p := range top.below {
		if p.isTopic() {
			top.topics = append(top.topics, p)
		}
		if p.cmd.Name() == "exit-codes" {
			top.exitCodes = p.cmd.Long
		}
	}
	for _, p := range all {
		p.topics, p.exitCodes = top.topics, top.exitCodes
	}
	return all
}

func add(all []*page, parent *page, cmd *cobra.Command) []*page {
	cmd.InitDefaultHelpFlag()
	p := &page{cmd: cmd, parent: parent, name: strings.ReplaceAll(cmd.CommandPath(), " ", "-"), section: "1"}
	if p.isTopic() {
		p.section = "7"
	}
	if parent != nil {
		parent.below = append(parent.below, p)
	}
	all = append(all, p)
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand() {
			all = add(all, p, sub)
		}
	}
	return all
}

func (p *page) isTopic() bool { return p.cmd.IsAdditionalHelpTopicCommand() }

// title is what to type for the command, or to read the topic.
func (p *page) title() string {
	if p.isTopic() {
		return p.parent.title() + " help " + p.cmd.Name()
	}
	return p.cmd.CommandPath()
}

func (p *page) usage() string {
	if p.cmd.HasAvailableSubCommands() {
		return p.cmd.CommandPath() + " COMMAND [flags]"
	}
	return p.cmd.UseLine()
}

// about is the whole description, the short one where there is no other.
func (p *page) about() string {
	if p.cmd.Long == "" {
		return p.cmd.Short + "."
	}
	return p.cmd.Long
}

// seeAlso lists the pages around p, the parent first.
func (p *page) seeAlso() []*page {
	var others []*page
	if p.parent != nil {
		others = append(others, p.parent)
	}
	for _, other := range slices.Concat(p.below, p.topics) {
		if other != p && !slices.Contains(others, other) {
			others = append(others, other)
		}
	}
	return others
}

// option is one flag as people read it.
type option struct {
	short, long string
	value       string // what follows, as in NAME; empty for switches
	help        string
}

func options(flags *pflag.FlagSet) []option {
	var list []option
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Deprecated != "" {
			return
		}
		value, help := pflag.UnquoteUsage(f)
		value = strings.TrimSuffix(value, "Array") // the help says what may be repeated
		o := option{short: f.Shorthand, long: f.Name, value: value, help: help}
		switch f.DefValue {
		case "", "false", "0", "0s", "[]":
		default:
			o.help += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		list = append(list, o)
	})
	return list
}

// block is a paragraph of a help text, or lines that stay as they are.
type block struct {
	verbatim bool
	lines    []string
}

// blocks parts a help text: what is indented is a table, a list or an example.
func blocks(text string) []block {
	var list []block
	blank := true
	for _, line := range strings.Split(strings.ReplaceAll(text, "\t", "    "), "\n") {
		line = strings.TrimRight(line, " ")
		if line == "" {
			blank = true
			continue
		}
		verbatim := strings.HasPrefix(line, " ")
		if !verbatim {
			line = strings.TrimLeft(line, "# ") // cobra's own texts have headings
		}
		last := len(list) - 1
		switch {
		case last >= 0 && verbatim && list[last].verbatim:
			if blank {
				list[last].lines = append(list[last].lines, "")
			}
			list[last].lines = append(list[last].lines, line)
		case last >= 0 && !blank && !verbatim && !list[last].verbatim:
			list[last].lines = append(list[last].lines, line)
		default:
			list = append(list, block{verbatim, []string{line}})
		}
		blank = false
	}
	for i := range list {
		if list[i].verbatim {
			list[i].lines = outdented(list[i].lines)
		}
	}
	return list
}

// outdented takes away the indentation that all lines share.
func outdented(lines []string) []string {
	least := -1
	for _, line := range lines {
		if indent := len(line) - len(strings.TrimLeft(line, " ")); line != "" && (least < 0 || indent < least) {
			least = indent
		}
	}
	var list []string
	for _, line := range lines {
		list = append(list, line[min(max(least, 0), len(line)):])
	}
	return list
}
