package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/upsauth/upsauth/internal/completion"
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
				script(shell, env)
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
		_ = cmd.RegisterFlagCompletionFunc(flag.Name, func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
			return flagValues(cmd.Context(), env, flag, begun)
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
func flagValues(ctx context.Context, env *Env, flag *pflag.Flag, begun string) ([]string, cobra.ShellCompDirective) {
	const names = cobra.ShellCompDirectiveNoFileComp
	switch flag.Name {
	case "company":
		return completion.Beginning(begun, companyNames(ctx, env)), names
	case "app":
		return completion.Beginning(begun, applicationNames(ctx, env)), names
	case "env":
		return completion.Beginning(begun, environmentNames(env)), names
	case "state":
		// Several are parted by commas.
		before := begun[:strings.LastIndex(begun, ",")+1]
		var states []string
		for _, state := range grant.States() {
			states = append(states, before+string(state))
		}
		return completion.Beginning(begun, states), names
	}
	if list := choices(flag.Usage); list != nil {
		return completion.Beginning(begun, list), names
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
		return completion.Beginning(begun, companyNames(cmd.Context(), env))
	case "app add":
		return completion.Beginning(begun, []string{config.IntelligentRating, config.BatchSuite})
	case "app show", "app remove", "app set-default", "app set-secret":
		return completion.Beginning(begun, registered(cmd.Context(), env))
	}
	return nil
}

func companyNames(ctx context.Context, env *Env) []string {
	companies, _ := knownNames(ctx, env)
	return companies
}

func applicationNames(ctx context.Context, env *Env) []string {
	_, applications := knownNames(ctx, env)
	return append(registered(ctx, env), applications...)
}

func knownNames(ctx context.Context, env *Env) (companies, applications []string) {
	s, err := openJob(env, false)
	if err != nil {
		return nil, nil
	}
	defer s.Close()
	return s.Names(ctx)
}

func environmentNames(env *Env) []string {
	loaded, err := config.Load(env.Getenv)
	if err != nil {
		return nil
	}
	return loaded.EnvironmentNames()
}

func registered(ctx context.Context, env *Env) (names []string) {
	s, err := openJob(env, false)
	if err != nil {
		return nil
	}
	defer s.Close()
	applications, _ := s.Applications(ctx) // none can be offered then
	for _, r := range applications.Applications {
		names = append(names, r.Name)
	}
	return names
}

// script has cobra's completion script of a shell take names as companies have them.
func script(shell *cobra.Command, env *Env) {
	shell.RunE = func(cmd *cobra.Command, _ []string) error {
		bare, _ := cmd.Flags().GetBool("no-descriptions")
		return completion.Script(env.Out, cmd.Root(), shell.Name(), !bare)
	}
}
