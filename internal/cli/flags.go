package cli

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagError is what is said about flags that a command does not have or can't
// take. Args is the command line.
func flagError(cmd *cobra.Command, err error, args []string) error {
	text := err.Error()
	if unknown := new(pflag.NotExistError); errors.As(err, &unknown) {
		if meant := meantFlags(cmd, unknown.GetSpecifiedName(), args); len(meant) > 0 {
			text += "; did you mean: " + strings.Join(meant, ", or: ")
		}
	}
	return usagef("%s\n  See: %s --help", text, cmd.CommandPath())
}

// meantFlags are what an unknown flag may stand for: a flag that is spelt nearly so
// or does what other tools call so, or a command that has the flag.
func meantFlags(cmd *cobra.Command, name string, args []string) []string {
	switch name {
	case "version", "V":
		return []string{"upsauth version"}
	case "v":
		return []string{"upsauth version", "--verbose"}
	}
	others := otherFlags(name)
	if cmd.HasSubCommands() {
		return commandsWithFlag(cmd, append([]string{name}, others...), args)
	}
	for _, other := range others {
		if flag := cmd.Flags().Lookup(other); flag != nil {
			return []string{written(flag, args)}
		}
	}
	return nearFlags(cmd, name)
}

// written is a flag as it is suggested. One that chooses the output format is
// written with the format that most people mean.
func written(flag *pflag.Flag, args []string) string {
	if flag.Name == "output" && strings.HasPrefix(flag.Usage, "output format") {
		return "-o json"
	}
	if flag.Name == "company" {
		if value := valueOf(args, "company"); value != "" {
			return "--company " + shellQuote(value)
		}
	}
	return "--" + flag.Name
}

// valueOf is what a command line gives a flag, empty where it gives it nothing.
func valueOf(args []string, name string) string {
	for i, arg := range args {
		if value, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
			return value
		}
		if arg == "--"+name && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

// commandsWithFlag is the command below one that most people mean by a flag which
// it does not have itself.
func commandsWithFlag(cmd *cobra.Command, names, args []string) []string {
	subs := slices.Clone(cmd.Commands())
	usual := func(c *cobra.Command) int { return slices.Index([]string{"list", "status"}, c.Name()) }
	slices.SortStableFunc(subs, func(a, b *cobra.Command) int { return usual(b) - usual(a) })
	for _, name := range names {
		for _, sub := range subs {
			flag := sub.Flags().Lookup(name)
			if len(name) == 1 {
				flag = sub.Flags().ShorthandLookup(name)
			}
			if flag != nil {
				return []string{sub.CommandPath() + " " + written(flag, args)}
			}
		}
	}
	return nil
}

// nearFlags are the flags of a command that are spelt nearly like a name; of a
// single letter those that begin with it, where that leaves no doubt.
func nearFlags(cmd *cobra.Command, name string) []string {
	// A flag is looked for as cobra looks for commands: as many letters apart, or
	// what was typed is its beginning.
	names := &cobra.Command{SuggestionsMinimumDistance: 2}
	typed := strings.ReplaceAll(strings.ToLower(name), "_", "-")
	if len(typed) <= 4 {
		names.SuggestionsMinimumDistance = 1
	}
	var turned []string // two letters of a short name that changed places
	visit := func(flag *pflag.Flag) {
		if flag.Hidden {
			return
		}
		names.AddCommand(&cobra.Command{Use: flag.Name, Run: func(*cobra.Command, []string) {}})
		if sorted(flag.Name) == sorted(typed) {
			turned = append(turned, flag.Name)
		}
	}
	cmd.Flags().VisitAll(visit)
	near := names.SuggestionsFor(typed)
	if len(turned) > 0 {
		near = turned
	}
	const most = 3
	if len(near) > most {
		return nil
	}
	meant := make([]string, len(near))
	for i, one := range near {
		meant[i] = "--" + one
	}
	return meant
}

func sorted(name string) string {
	letters := []byte(name)
	slices.Sort(letters)
	return string(letters)
}

// otherFlags are the flags that do what other tools, or other commands of this one,
// call so.
func otherFlags(name string) []string {
	switch strings.ReplaceAll(strings.ToLower(name), "_", "-") {
	case "json", "format", "fmt", "out":
		return []string{"output"}
	case "debug", "trace":
		return []string{"verbose"}
	case "customer", "account", "name", "client", "org", "organization", "profile":
		return []string{"company"}
	case "application", "app-name":
		return []string{"app"}
	case "environment", "envrionment", "enviroment": //nolint:misspell // as people type it
		return []string{"env"}
	case "y", "confirm", "assume-yes", "no-confirm", "non-interactive", "no-prompt":
		return []string{"yes"}
	case "headless", "browser", "nobrowser":
		return []string{"no-browser"}
	case "client-secret", "secret":
		return []string{"client-secret-stdin"}
	case "passphrase", "password":
		return []string{"passphrase-stdin", "new-passphrase-stdin"}
	case "redirect", "redirect-url", "callback", "callback-url":
		return []string{"redirect-uri"}
	case "all":
		return []string{"force"}
	case "interval", "watch", "daemon":
		return []string{"every"}
	case "parallel", "concurrency", "workers":
		return []string{"jobs"}
	}
	return nil
}

// once is the value of a flag that says which one is meant. A second one would take
// the place of the first without a word.
type once struct {
	value *string
	times int
}

func (o *once) String() string {
	if o.value == nil {
		return ""
	}
	return *o.value
}

func (o *once) Type() string { return "string" }

// Set never fails, as flags are parsed more than once where a shell completes them.
func (o *once) Set(value string) error {
	*o.value = value
	o.times++
	return nil
}

// onlyOnce refuses flags that are given more often than they can be meant.
func onlyOnce(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		if flag := cmd.Flags().Lookup(name); flag != nil {
			if value, ok := flag.Value.(*once); ok && value.times > 1 {
				return usagef("--%s can be given once only\n  See: %s --help", name, cmd.CommandPath())
			}
		}
	}
	return nil
}
