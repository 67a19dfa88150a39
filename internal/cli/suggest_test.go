package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// refused is what upsauth says about a command line that can't be meant.
func refused(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	env := &Env{In: strings.NewReader(""), Out: &out, Err: &errs, Now: time.Now, Zone: time.UTC, Getenv: func(name string) string {
		return map[string]string{"UPSAUTH_CONFIG_DIR": t.TempDir(), "UPSAUTH_STATE_DIR": t.TempDir()}[name]
	}}
	if code := Run(context.Background(), env, args); code != exitUsage {
		t.Errorf("%q: exit code %d, want %d", args, code, exitUsage)
	}
	if out.Len() > 0 {
		t.Errorf("%q prints %q", args, out.String())
	}
	return errs.String()
}

// Whoever knows gh, aws-vault or kubelogin is told what it is called here.
func TestOtherToolsWordsAreSuggestedTheirNames(t *testing.T) {
	for words, want := range map[string]string{
		"login": "upsauth authorize", "auth": "upsauth authorize", "LOGIN": "upsauth authorize",
		"logout": "upsauth revoke", "list": "upsauth company list", "ls": "upsauth status", "whoami": "upsauth status", "show": "upsauth status",
		"get-token": "upsauth token", "print-access-token": "upsauth token",
		"add": "upsauth company add", "remove": "upsauth revoke", "rm": "upsauth revoke", "delete": "upsauth company remove",
		"run": "upsauth exec", "renew": "upsauth refresh", "check": "upsauth status --check",
		"statsu": "upsauth status", "refesh": "upsauth refresh",
		"company ls": "upsauth company list", "company rm": "upsauth company remove", "company delete": "upsauth company remove",
		"company new": "upsauth company add", "company mv": "upsauth company rename", "company get": "upsauth company show", "company lst": "upsauth company list",
		"app ls": "upsauth app list", "app rm": "upsauth app remove", "app create": "upsauth app add",
		"vault mv": "upsauth vault move", "vault ls": "upsauth vault status", "vault backup": "upsauth vault export", "vault verify": "upsauth vault check",
	} {
		if got := refused(t, strings.Fields(words)...); !strings.Contains(got, "did you mean: ") || !strings.Contains(got, want) {
			t.Errorf("upsauth %s: %s", words, got)
		}
	}
	if got := refused(t, "bogus"); strings.Contains(got, "did you mean") || !strings.Contains(got, `"bogus" is no command of upsauth`) {
		t.Error(got)
	}
}

// What is suggested is there, and no word that is one already is in the way.
func TestSuggestedCommandsExist(t *testing.T) {
	for _, word := range strings.Fields("login logout list whoami get-token add remove rename import run renew check diagnose call apps companies") {
		for _, meant := range otherNames(word) {
			names := strings.Fields(meant)[1:]
			root := CommandTree()
			cmd, rest, err := root.Find(names)
			if err != nil || cmd == root || strings.Trim(strings.Join(rest, " "), "-chek") != "" {
				t.Errorf("%s stands for %q: %v, %q", word, meant, err, rest)
			}
		}
		if cmd, _, err := CommandTree().Find([]string{word}); err == nil && cmd.HasParent() {
			t.Errorf("%s is a command", word)
		}
	}
}

// A company's name behind a command is taken for what it is, on every command that
// takes a company.
func TestACompanyWithoutItsFlag(t *testing.T) {
	var walk func(*cobra.Command)
	seen := 0
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		if cmd.Flags().Lookup("company") == nil {
			return
		}
		seen++
		path := strings.Fields(cmd.CommandPath())[1:]
		words := append(append([]string{}, path...), "Acme Corp")
		switch path[0] {
		case "exec":
			words = append(words, "--", "true")
		case "api":
			words = append(words, "/api/x")
		}
		want := `Unknown argument "Acme Corp". Did you mean: ` + cmd.CommandPath() + ` --company "Acme Corp"`
		if got := refused(t, words...); !strings.Contains(got, want) {
			t.Errorf("%q: %s", words, got)
		}
	}
	walk(CommandTree())
	if seen < 8 {
		t.Errorf("only %d commands take a company", seen)
	}
	for _, test := range []struct {
		words []string
		want  string
	}{
		{[]string{"status", "Acme", "Corp"}, `status --company "Acme Corp"`},
		{[]string{"status", "--company", "Acme", "Corp"}, `status --company "Acme Corp"`},
		{[]string{"revoke", "--company", "Acme", "Corp"}, `revoke --company "Acme Corp"`},
		{[]string{"api", "--company", "Acme", "Corp", "/x"}, `api --company "Acme Corp"`},
		{[]string{"api", "Acme", "GET", "/x"}, `api --company "Acme`},
		{[]string{"exec", "--company", "Acme", "Corp", "--", "true"}, `exec --company "Acme Corp"`},
		{[]string{"token", `A "quoted" name`}, `token --company 'A "quoted" name'`},
		{[]string{"token", "$(rm -rf ~)"}, `token --company '$(rm -rf ~)'`},
		{[]string{"doctor", "Acme"}, `Unknown argument "Acme".`},
		{[]string{"company", "show", "Acme", "Corp"}, `Unknown argument "Corp"`},
	} {
		if got := refused(t, test.words...); !strings.Contains(got, test.want) {
			t.Errorf("%q: %s", test.words, got)
		}
	}
}
