// Package cli is the command tree of upsauth: one file for each command.
package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/session"
)

// command is a command of the root's, which may never be made.
type command struct {
	name, group string
	make        func() *cobra.Command
	// reads says that a signal may end it as it ends any process, until it looks
	// at its context.
	reads bool
}

func (c command) add(root *cobra.Command) {
	cmd := c.make()
	cmd.GroupID = c.group
	if !c.reads {
		cmd.PersistentPreRun = func(cmd *cobra.Command, _ []string) { cmd.Context().Done() }
	}
	root.AddCommand(cmd)
}

func commands(env *Env) []command {
	return []command{
		{"authorize", "grants", func() *cobra.Command { return newAuthorizeCmd(env) }, false},
		{"status", "grants", func() *cobra.Command { return newStatusCmd(env) }, true},
		{"refresh", "grants", func() *cobra.Command { return newRefreshCmd(env) }, false},
		{"revoke", "grants", func() *cobra.Command { return newRevokeCmd(env) }, false},
		{"invite", "grants", func() *cobra.Command { return newInviteCmd(env) }, false},
		{"token", "grants", func() *cobra.Command { return newTokenCmd(env) }, true},
		{"exec", "grants", func() *cobra.Command { return newExecCmd(env) }, false},
		{"api", "grants", func() *cobra.Command { return newAPICmd(env) }, false},
		{"serve", "grants", func() *cobra.Command { return newServeCmd(env) }, false},
		{"company", "grants", func() *cobra.Command { return newCompanyCmd(env) }, false},
		{"app", "setup", func() *cobra.Command { return newAppCmd(env) }, false},
		{"vault", "setup", func() *cobra.Command { return newVaultCmd(env) }, false},
		{"doctor", "setup", func() *cobra.Command { return newDoctorCmd(env) }, false},
		{"sandbox", "setup", func() *cobra.Command { return newSandboxCmd(env) }, false},
		{"demo", "setup", func() *cobra.Command { return newDemoCmd(env) }, false},
		{"version", "", func() *cobra.Command { return newVersionCmd(env) }, true},
	}
}

// newRootCmd returns the command tree on an Env. For a command line that begins
// with a command it has that one only: making all of them takes a quarter of what
// upsauth version takes.
func newRootCmd(env *Env, args ...string) *cobra.Command {
	root := &cobra.Command{
		Use:   "upsauth",
		Short: "Authorize UPS's APIs for many companies",
		Long: `upsauth authorizes UPS's APIs for many companies, by OAuth 2.0 authorization code.
For each company, a person signs in at ups.com once. upsauth keeps the tokens in
the keychain, and shows, refreshes and removes them.

Try it without an account: upsauth demo`,
		Example: `  upsauth app add intelligent-rating --client-id ID --redirect-uri http://localhost:8400/callback
  upsauth authorize --company "Acme Corp"
  upsauth status
  upsauth token --company "Acme Corp"`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().Bool("verbose", false, "print each step to standard error, with secrets masked")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return flagError(cmd, err, args)
	})
	root.AddGroup(
		&cobra.Group{ID: "grants", Title: "Companies and their authorizations:"},
		&cobra.Group{ID: "setup", Title: "Setting up:"},
	)
	fitHelp(root, env)
	all := commands(env)
	if len(args) > 0 {
		if one := slices.IndexFunc(all, func(c command) bool { return c.name == args[0] }); one >= 0 {
			all[one].add(root)
			root.CompletionOptions.DisableDefaultCmd = true
			return root
		}
	}
	for _, c := range all {
		c.add(root)
	}
	root.AddCommand(topics()...)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	strictBuiltins(root)
	completions(root, env)
	return root
}

// noArgs refuses words that are no flags, as a usage error. On a command with
// subcommands it is a subcommand that there is not.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !cmd.HasSubCommands() {
		return unknownArgument(cmd, args)
	}
	meant := meantBy(cmd, args[0])
	if len(meant) == 0 && cmd.Flags().Lookup("company") != nil {
		return unknownArgument(cmd, args)
	}
	text := fmt.Sprintf("%q is not a command of %s", args[0], cmd.CommandPath())
	if len(meant) > 0 {
		text += "; did you mean: " + strings.Join(meant, ", or: ")
	}
	return usagef("%s\n  See: %s --help", text, cmd.CommandPath())
}

// unknownArgument refuses words on a command that takes none. A company is what
// most people mean by one.
func unknownArgument(cmd *cobra.Command, args []string) error {
	words := strings.Join(args, " ")
	company := cmd.Flags().Lookup("company")
	if company == nil {
		return usagef("Unknown argument %q.\n  See: %s --help", words, cmd.CommandPath())
	}
	if given := strings.Trim(company.Value.String(), "[]"); company.Changed && given != "" {
		words = given + " " + words // a name without its quotes
	}
	return usagef("Unknown argument %q. Did you mean: %s --company %s\n  See: %s --help", strings.Join(args, " "), cmd.CommandPath(), doubleQuote(words), cmd.CommandPath())
}

// doubleQuote is shellQuote with the quotes that most people write, where a shell
// takes nothing in them for its own.
func doubleQuote(name string) string {
	if strings.ContainsAny(name, "\"$`\\!") {
		return shellQuote(name)
	}
	return `"` + name + `"`
}

// meantBy are the commands that a word may stand for: one that is spelt nearly so,
// or that does what other tools call so.
func meantBy(cmd *cobra.Command, word string) []string {
	if meant := otherwiseCalled(cmd, strings.ToLower(word)); len(meant) > 0 {
		return meant
	}
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(word); len(near) > 0 {
		return []string{cmd.CommandPath() + " " + near[0]}
	}
	return nil
}

// otherwiseCalled are the commands below one that other tools call by a word.
func otherwiseCalled(cmd *cobra.Command, word string) []string {
	if !cmd.HasParent() {
		return otherNames(word)
	}
	for name, others := range map[string][]string{
		"list":   {"ls", "all", "dir"},
		"add":    {"new", "create", "set", "edit", "update"},
		"remove": {"rm", "delete", "del", "forget", "unregister"},
		"show":   {"get", "view", "info", "describe", "cat"},
		"rename": {"mv", "move"},
		"move":   {"mv", "migrate"},
		"status": {"ls", "list", "show", "info"},
		"export": {"backup", "save", "dump"},
		"import": {"restore", "load"},
		"check":  {"verify", "test", "doctor"},
	} {
		if !slices.Contains(others, word) {
			continue
		}
		for _, sub := range cmd.Commands() {
			if sub.Name() == name {
				return []string{cmd.CommandPath() + " " + name}
			}
		}
	}
	return nil
}

// otherNames are the commands that do what gh, aws-vault, kubelogin and their like
// call so. They are no aliases: one thing has one name.
func otherNames(word string) []string {
	switch word {
	case "login", "signin", "sign-in", "auth", "authenticate", "connect", "setup", "configure", "init":
		return []string{"upsauth authorize"}
	case "logout", "signout", "sign-out", "deauthorize", "unauthorize", "disconnect", "clear":
		return []string{"upsauth revoke"}
	case "list", "ls":
		return []string{"upsauth status", "upsauth company list"}
	case "whoami", "who", "show", "info", "get", "view", "describe":
		return []string{"upsauth status"}
	case "get-token", "print-access-token", "print-token", "access-token", "print", "export", "credentials":
		return []string{"upsauth token"}
	case "add", "new", "create":
		return []string{"upsauth company add", "upsauth app add"}
	case "remove", "rm", "delete", "del":
		return []string{"upsauth revoke", "upsauth company remove"}
	case "rename", "mv":
		return []string{"upsauth company rename"}
	case "import":
		return []string{"upsauth company import", "upsauth vault import"}
	case "run", "shell", "env":
		return []string{"upsauth exec"}
	case "renew", "rotate", "update":
		return []string{"upsauth refresh"}
	case "check", "monitor", "health":
		return []string{"upsauth status --check"}
	case "diagnose", "test", "verify":
		return []string{"upsauth doctor"}
	case "call", "request", "curl", "rest":
		return []string{"upsauth api"}
	case "apps", "application", "applications", "client", "clients":
		return []string{"upsauth app list"}
	case "companies", "customer", "customers", "account", "accounts":
		return []string{"upsauth company list"}
	}
	return nil
}

// oneArg asks for exactly one word, which the text names.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch len(args) {
		case 0:
			return usagef("%s is missing\n  See: %s --help", what, cmd.CommandPath())
		case 1:
			return nil
		}
		if cmd.Flags().Lookup("company") != nil {
			return unknownArgument(cmd, args[1:])
		}
		return usagef("Unknown argument %q; a name with spaces needs quotes.\n  See: %s --help", strings.Join(args[1:], " "), cmd.CommandPath())
	}
}

// target is what every command that takes a company can be told.
type target struct {
	session.Target
	Verbose bool
}

// needsCompany refuses a target without a company.
func (t target) needsCompany() error {
	if strings.TrimSpace(t.Company) == "" {
		return usagef("--company is missing: name the company")
	}
	return nil
}

func (t *target) addFlags(cmd *cobra.Command) {
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		// An empty variable in a script must not mean all companies.
		if cmd.Flags().Changed("company") && strings.TrimSpace(t.Company) == "" {
			return usagef("--company is empty: name the company")
		}
		if err := onlyOnce(cmd, "company", "app", "env"); err != nil {
			return err
		}
		return noEmpty(cmd, "app", "env")
	}
	cmd.Flags().Var(&once{value: &t.Company}, "company", "the company's name")
	cmd.Flags().Var(&once{value: &t.Application}, "app", "the application, if several match")
	cmd.Flags().Var(&once{value: &t.Environment}, "env", "the environment, if several match: "+config.Sandbox+", cie, production or one of your own")
}

// noEmpty refuses flags that are given and empty: an empty variable in a script
// must not mean all.
func noEmpty(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && strings.TrimSpace(f.Value.String()) == "" {
			return usagef("--%s is empty", name)
		}
	}
	return nil
}

// verbose reads the flag that all commands share.
func verbose(cmd *cobra.Command) bool {
	on, _ := cmd.Flags().GetBool("verbose")
	return on
}

// outputFlag adds -o with the formats that a command has, and refuses others before it
// runs. Without says what comes where none is named; empty where that has a name too.
func outputFlag(cmd *cobra.Command, format *string, without string, formats ...string) {
	last := len(formats) - 1
	list, usage := formats[last], ""
	if last > 0 {
		list = strings.Join(formats[:last], ", ") + " or " + list
	}
	if without != "" {
		list, usage = list+", or none for "+without, list+"; default: "+without
	}
	cmd.Flags().StringVarP(format, "output", "o", "", "output format: "+cmp.Or(usage, list))
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *format != "" && !slices.Contains(formats, *format) {
			return usagef("%q is not an output format of %s: use %s", *format, strings.TrimPrefix(cmd.CommandPath(), "upsauth "), list)
		}
		return run(cmd, args)
	}
}

// strictBuiltins makes cobra's own commands refuse what can't be meant, as all
// others do.
func strictBuiltins(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Run = nil
			cmd.RunE = func(_ *cobra.Command, args []string) error {
				about, rest, err := root.Find(args)
				if err != nil || len(rest) > 0 {
					return usagef("there is no help about %q\n  See: upsauth --help", strings.Join(args, " "))
				}
				return about.Help()
			}
		case "completion":
			cmd.Args = noArgs
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
			for _, shell := range cmd.Commands() {
				shell.Args = noArgs
			}
		}
	}
}
