package cli

import (
	"bytes"
	"cmp"
	_ "embed" // completion.bash
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
)

// completions lets the shells complete what the commands take: names from the
// records and the configuration, which nothing has to be opened for. Nothing is
// read before a shell asks. What goes wrong then is not told, as there is no
// place for it: there are no names.
func completions(root *cobra.Command, env *Env) {
	complete(root, env)
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "completion":
			for _, shell := range cmd.Commands() {
				mendScript(shell, env)
			}
		case "help":
			commands := cmd.ValidArgsFunction
			cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
				names, directive := commands(cmd, args, begun)
				if len(args) == 0 {
					names = append(names, topicNames(root, begun)...)
				}
				return names, directive
			}
		}
	}
}

func topicNames(root *cobra.Command, begun string) []string {
	var names []string
	for _, cmd := range root.Commands() {
		if cmd.IsAdditionalHelpTopicCommand() && strings.HasPrefix(cmd.Name(), begun) {
			names = append(names, cobra.CompletionWithDesc(cmd.Name(), cmd.Short))
		}
	}
	return names
}

// complete attaches the functions that complete the values of the flags and the
// words of a command and of those below it.
func complete(cmd *cobra.Command, env *Env) {
	cmd.Flags().VisitAll(func(flag *pflag.Flag) {
		// The error is that there is no such flag.
		_ = cmd.RegisterFlagCompletionFunc(flag.Name, func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
			return flagValues(env, flag, begun)
		})
	})
	if cmd.ValidArgsFunction == nil && !takesFiles(cmd) {
		cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			return words(env, cmd, args, begun), cobra.ShellCompDirectiveNoFileComp
		}
	}
	for _, sub := range cmd.Commands() {
		complete(sub, env)
	}
}

// takesFiles reports whether a command's words are left to the shell: files, or
// another program's command line.
func takesFiles(cmd *cobra.Command) bool {
	_, takes, _ := strings.Cut(cmd.Use, " ")
	return strings.Contains(takes, "FILE") || strings.Contains(takes, "-- COMMAND")
}

// flagValues are what may follow a flag.
func flagValues(env *Env, flag *pflag.Flag, begun string) ([]string, cobra.ShellCompDirective) {
	const names = cobra.ShellCompDirectiveNoFileComp
	switch flag.Name {
	case "company":
		return beginningWith(begun, companyNames(env)), names
	case "app":
		return beginningWith(begun, applicationNames(env)), names
	case "env":
		return beginningWith(begun, environmentNames(env)), names
	case "state":
		// Several are parted by commas.
		before := begun[:strings.LastIndex(begun, ",")+1]
		var states []string
		for _, state := range grant.States() {
			states = append(states, before+string(state))
		}
		return beginningWith(begun, states), names
	}
	if list := choices(flag.Usage); list != nil {
		return beginningWith(begun, list), names
	}
	if !strings.HasPrefix(flag.Value.Type(), "string") {
		return nil, names // a number or a length of time is no file
	}
	return nil, cobra.ShellCompDirectiveDefault
}

// choices reads the values that a flag takes from its help, which is the only
// place that has them all: "output format: table, json or csv". It returns nil
// where the help ends in no such list of single words.
func choices(usage string) []string {
	_, list, found := strings.Cut(usage, ": ")
	if !found {
		return nil
	}
	list, _, _ = strings.Cut(list, ";")
	values := strings.Split(strings.ReplaceAll(list, " or ", ", "), ", ")
	for i := range values {
		values[i], _, _ = strings.Cut(values[i], " (")
		if _, err := grant.CleanName("value", values[i]); err != nil {
			return nil
		}
	}
	return values
}

// words are what may follow a command that takes words.
func words(env *Env, cmd *cobra.Command, args []string, begun string) []string {
	if len(args) > 0 || cmd.Parent() == nil {
		return nil
	}
	switch cmd.Parent().Name() + " " + cmd.Name() {
	case "company rename", "company remove", "company show":
		return beginningWith(begun, companyNames(env))
	case "app add":
		return beginningWith(begun, []string{config.IntelligentRating, config.BatchSuite})
	case "app show", "app remove", "app set-default", "app set-secret":
		var names []string
		for _, r := range registered(env) {
			names = append(names, r.Name)
		}
		return beginningWith(begun, names)
	}
	return nil
}

func companyNames(env *Env) []string {
	companies, _ := knownNames(env)
	return companies
}

func applicationNames(env *Env) []string {
	var names []string
	for _, r := range registered(env) {
		names = append(names, r.Name)
	}
	_, applications := knownNames(env)
	return append(names, applications...)
}

func knownNames(env *Env) (companies, applications []string) {
	s, err := openJob(env, false)
	if err != nil {
		return nil, nil
	}
	defer s.Close()
	return s.Names()
}

func environmentNames(env *Env) []string {
	loaded, err := config.Load(env.Getenv)
	if err != nil {
		return nil
	}
	return loaded.EnvironmentNames()
}

func registered(env *Env) []config.Registration {
	paths, err := config.FindPaths(env.Getenv)
	if err != nil {
		return nil
	}
	applications, err := config.LoadApplications(paths.Config)
	if err != nil {
		return nil
	}
	return applications.Applications
}

// beginningWith keeps the names that begin with what was typed, as names are
// compared everywhere, each once and in order.
func beginningWith(begun string, names []string) []string {
	found := withPrefix(begun, names)
	if len(found) == 0 {
		// fish hands over a word as it was typed, quotes included.
		found = withPrefix(unquoted(begun), names)
	}
	slices.SortFunc(found, func(a, b string) int {
		return cmp.Or(strings.Compare(grant.Fold(a), grant.Fold(b)), strings.Compare(a, b))
	})
	return slices.CompactFunc(found, func(a, b string) bool { return grant.Fold(a) == grant.Fold(b) })
}

func withPrefix(begun string, names []string) []string {
	// Fold trims; a space that was typed after a word counts here.
	const end = "."
	begun = strings.TrimSuffix(grant.Fold(begun+end), end)
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return !strings.HasPrefix(grant.Fold(name), begun)
	})
}

// unquoted takes the quotes and backslashes out of a word that is not complete.
func unquoted(word string) string {
	var text strings.Builder
	var quote rune
	escaped := false
	for _, r := range word {
		switch {
		case escaped:
			text.WriteRune(r)
			escaped = false
		case r == '\\':
			escaped = true
		case r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote = r
		default:
			text.WriteRune(r)
		}
	}
	return text.String()
}

// mendScript lets cobra's script for a shell take names as companies have them,
// with spaces, quotes and dollar signs. Unmended, those of bash and fish even run
// the command in a name such as "$(reboot) Inc" when the Tab key is pressed.
func mendScript(shell *cobra.Command, env *Env) {
	var generate func(root *cobra.Command, script *bytes.Buffer, describe bool) error
	var mend func(string) string
	switch shell.Name() {
	case "bash":
		generate = func(root *cobra.Command, script *bytes.Buffer, describe bool) error {
			return root.GenBashCompletionV2(script, describe)
		}
		mend = func(script string) string { return script + bashQuoting }
	case "zsh":
		generate = func(root *cobra.Command, script *bytes.Buffer, describe bool) error {
			if describe {
				return root.GenZshCompletion(script)
			}
			return root.GenZshCompletionNoDesc(script)
		}
		mend = strings.NewReplacer(zshWords, zshWords+zshQuoting, zshColons, zshBackslashes+zshColons).Replace
	case "fish":
		generate = func(root *cobra.Command, script *bytes.Buffer, describe bool) error {
			return root.GenFishCompletion(script, describe)
		}
		mend = strings.NewReplacer("(commandline -opc)", "(string escape -- (commandline -opc))").Replace
	case "powershell":
		generate = func(root *cobra.Command, script *bytes.Buffer, describe bool) error {
			if describe {
				return root.GenPowerShellCompletionWithDesc(script)
			}
			return root.GenPowerShellCompletion(script)
		}
		mend = func(script string) string { return script }
	}
	shell.RunE = func(cmd *cobra.Command, _ []string) error {
		var script bytes.Buffer
		bare, _ := cmd.Flags().GetBool("no-descriptions")
		if err := generate(cmd.Root(), &script, !bare); err != nil {
			return err
		}
		_, err := io.WriteString(env.Out, mend(script.String()))
		return err
	}
}

// bashQuoting is put behind cobra's script for bash.
//
//go:embed completion.bash
var bashQuoting string

// zshWords is the line of cobra's script for zsh behind which zshQuoting goes. The
// words are evaluated, also where a quote is still open; and noSpace is what ends
// the options of zsh's function that offers the names. That function wants
// backslashes escaped, not only colons.
const (
	zshWords   = `words=("${=words[1,CURRENT]}")`
	zshQuoting = `
    words[-1]+=$compstate[quote]
    noSpace="-M 'm:{[:lower:][:upper:]}={[:upper:][:lower:]}'"`
	zshColons      = `comp=${comp//:/\\:}`
	zshBackslashes = `comp=${comp//\\/\\\\}
            `
)
