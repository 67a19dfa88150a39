package main

import (
	"fmt"
	"regexp"
	"strings"
)

// man is the page for man, in the macros of man(7), which every man knows.
func man(p *page) string {
	var b strings.Builder
	b.WriteString(".\\\" Generated from the command tree by make docs.\n")
	// No date: it would have to change although nothing else did.
	fmt.Fprintf(&b, ".TH %s %s \"\" upsauth \"upsauth manual\"\n", roff(strings.ToUpper(p.name)), p.section)
	b.WriteString(".nh\n.ad l\n") // a command that is parted at the end of a line can't be copied
	section(&b, "NAME")
	fmt.Fprintf(&b, "%s \\- %s\n", roff(p.name), roff(p.cmd.Short))
	if !p.isTopic() {
		section(&b, "SYNOPSIS")
		b.WriteString(synopsis(p.usage()) + "\n")
	}
	section(&b, "DESCRIPTION")
	manBlocks(&b, p.about())
	if p.isTopic() {
		manSeeAlso(&b, p)
		return b.String()
	}
	if p.cmd.HasAvailableSubCommands() {
		section(&b, "COMMANDS")
		for _, sub := range p.below {
			if !sub.isTopic() {
				fmt.Fprintf(&b, ".TP\n%s\n%s.\n", reference(sub), roff(sub.cmd.Short))
			}
		}
	}
	section(&b, "OPTIONS")
	for _, o := range append(options(p.cmd.NonInheritedFlags()), options(p.cmd.InheritedFlags())...) {
		b.WriteString(".TP\n")
		if o.short != "" {
			fmt.Fprintf(&b, "\\fB\\-%s\\fR, ", roff(o.short))
		}
		fmt.Fprintf(&b, "\\fB\\-\\-%s\\fR", roff(o.long))
		if o.value != "" {
			fmt.Fprintf(&b, " \\fI%s\\fR", roff(o.value))
		}
		fmt.Fprintf(&b, "\n%s\n", roff(o.help))
	}
	if p.cmd.Example != "" {
		section(&b, "EXAMPLES")
		for i, example := range blocks(p.cmd.Example) {
			verbatim(&b, example.lines, i == 0)
		}
	}
	section(&b, "EXIT STATUS")
	manBlocks(&b, p.exitCodes)
	section(&b, "ENVIRONMENT")
	for _, topic := range p.topics {
		if topic.cmd.Name() == "environment" {
			fmt.Fprintf(&b, "%s\nlists the environment variables and the files.\n", reference(topic))
		}
	}
	manSeeAlso(&b, p)
	return b.String()
}

func section(b *strings.Builder, title string) {
	fmt.Fprintf(b, ".SH %s\n", title)
}

func manBlocks(b *strings.Builder, text string) {
	for i, part := range blocks(text) {
		if part.verbatim {
			verbatim(b, part.lines, i == 0)
			continue
		}
		if i > 0 {
			b.WriteString(".PP\n")
		}
		for _, line := range part.lines {
			b.WriteString(roff(line) + "\n")
		}
	}
}

func verbatim(b *strings.Builder, lines []string, first bool) {
	if !first {
		b.WriteString(".PP\n")
	}
	b.WriteString(".RS 4\n.nf\n")
	for _, line := range lines {
		b.WriteString(roff(line) + "\n")
	}
	b.WriteString(".fi\n.RE\n")
}

func manSeeAlso(b *strings.Builder, p *page) {
	section(b, "SEE ALSO")
	others := p.seeAlso()
	for i, other := range others {
		end := ","
		if i == len(others)-1 {
			end = ""
		}
		fmt.Fprintf(b, ".BR %s (%s)%s\n", roff(other.name), other.section, end)
	}
}

func reference(p *page) string { return fmt.Sprintf(".BR %s (%s)", roff(p.name), p.section) }

// synopsis sets what is typed as it stands in bold, and what stands for
// something, as NAME does, in italics.
func synopsis(usage string) string {
	usage = strings.ReplaceAll(usage, "[flags]", "[OPTIONS]")
	return regexp.MustCompile(`[\pL\pN/.-]+`).ReplaceAllStringFunc(usage, func(word string) string {
		switch {
		case strings.Trim(word, ".") == "":
			return roff(word)
		case strings.ToUpper(word) == word && strings.ToLower(word) != word:
			return `\fI` + roff(word) + `\fR`
		}
		return `\fB` + roff(word) + `\fR`
	})
}

// roff keeps plain text from being taken for requests or for typography: a
// hyphen or a quote has to be the one that a shell takes, as people copy it. What
// is not ASCII is named, for the encoding of a page is anybody's guess.
func roff(text string) string {
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == '\\':
			b.WriteString(`\e`)
		case r == '-':
			b.WriteString(`\-`)
		case r == '\'':
			b.WriteString(`\(aq`)
		case r == '"':
			b.WriteString(`\(dq`)
		case r == '`':
			b.WriteString(`\(ga`)
		case r == '^':
			b.WriteString(`\(ha`)
		case r == '~':
			b.WriteString(`\(ti`)
		case r == '.' && i == 0:
			b.WriteString(`\&.`)
		case r > '~':
			fmt.Fprintf(&b, `\[u%04X]`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
