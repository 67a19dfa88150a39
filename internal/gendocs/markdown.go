package main

import (
	"fmt"
	"strings"
)

// markdown is the page for docs/reference.
func markdown(p *page) string {
	var b strings.Builder
	b.WriteString("<!-- Generated from the command tree by make docs. -->\n")
	fmt.Fprintf(&b, "# %s\n\n", p.title())
	fmt.Fprintf(&b, "%s.\n\n", markdownText(p.cmd.Short))
	if !p.isTopic() {
		fence(&b, []string{p.usage()})
	}
	if p.cmd.Long != "" {
		markdownBlocks(&b, p.cmd.Long)
	}
	if p.isTopic() {
		markdownSeeAlso(&b, p)
		return b.String()
	}
	if p.cmd.Example != "" {
		b.WriteString("## Examples\n\n")
		for _, example := range blocks(p.cmd.Example) {
			fence(&b, example.lines)
		}
	}
	for _, part := range []struct {
		title string
		list  []option
	}{{"Options", options(p.cmd.NonInheritedFlags())}, {"Options of all commands", options(p.cmd.InheritedFlags())}} {
		if len(part.list) == 0 {
			continue
		}
		fmt.Fprintf(&b, "## %s\n\n| option | meaning |\n|---|---|\n", part.title)
		for _, o := range part.list {
			name := "--" + o.long
			if o.short != "" {
				name = "-" + o.short + ", " + name
			}
			if o.value != "" {
				name += " " + o.value
			}
			fmt.Fprintf(&b, "| `%s` | %s |\n", name, strings.ReplaceAll(markdownText(o.help), "|", `\|`))
		}
		b.WriteString("\n")
	}
	if p.parent == nil {
		markdownIndex(&b, p)
		return b.String()
	}
	markdownSeeAlso(&b, p)
	return b.String()
}

// markdownIndex lists every page on the root's.
func markdownIndex(b *strings.Builder, root *page) {
	b.WriteString("## Commands\n\n")
	var list func(p *page)
	list = func(p *page) {
		for _, sub := range p.below {
			if !sub.isTopic() {
				fmt.Fprintf(b, "- %s: %s\n", link(sub), markdownText(sub.cmd.Short))
				list(sub)
			}
		}
	}
	list(root)
	b.WriteString("\n## Help topics\n\n")
	for _, topic := range root.topics {
		fmt.Fprintf(b, "- %s: %s\n", link(topic), markdownText(topic.cmd.Short))
	}
}

func markdownSeeAlso(b *strings.Builder, p *page) {
	b.WriteString("## See also\n\n")
	for _, other := range p.seeAlso() {
		fmt.Fprintf(b, "- %s: %s\n", link(other), markdownText(other.cmd.Short))
	}
}

func link(p *page) string { return fmt.Sprintf("[%s](%s.md)", p.title(), p.name) }

func markdownBlocks(b *strings.Builder, text string) {
	for _, part := range blocks(text) {
		if part.verbatim {
			fence(b, part.lines)
			continue
		}
		for _, line := range part.lines {
			b.WriteString(markdownText(line) + "\n")
		}
		b.WriteString("\n")
	}
}

func fence(b *strings.Builder, lines []string) {
	fmt.Fprintf(b, "```\n%s\n```\n\n", strings.Join(lines, "\n"))
}

// markdownText keeps plain text from being taken for markup.
func markdownText(text string) string {
	return strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "<", `\<`, "[", `\[`).Replace(text)
}
