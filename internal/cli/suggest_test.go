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
	if got := refused(t, "bogus"); strings.Contains(got, "did you mean") || !strings.Contains(got, `"bogus" is not a command of upsauth`) {
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
			if err != nil || cmd == root || strings.TrimPrefix(strings.Join(rest, " "), "--check") != "" {
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
		case "serve":
			words = append(append([]string{}, path...), "shop", "Acme Corp")
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

// A flag that is misspelt, or that other tools have, is suggested its name here; of
// one that is like none nothing is guessed.
func TestUnknownFlagsAreSuggestedTheirNames(t *testing.T) {
	for line, want := range map[string]string{
		"--version":                              "did you mean: upsauth version\n",
		"-V":                                     "did you mean: upsauth version\n",
		"-v":                                     "did you mean: upsauth version, or: --verbose\n",
		"status --version":                       "did you mean: upsauth version\n",
		"status -v":                              "--verbose",
		"status --debug":                         "did you mean: --verbose\n",
		"status --json":                          "did you mean: -o json\n",
		"status --format json":                   "did you mean: -o json\n",
		"status --ouput json":                    "did you mean: --output\n",
		"--output json":                          "did you mean: upsauth status -o json\n",
		"-o json":                                "did you mean: upsauth status -o json\n",
		"--json":                                 "did you mean: upsauth status -o json\n",
		"app -o json":                            "did you mean: upsauth app list -o json\n",
		"company --output json":                  "did you mean: upsauth company list -o json\n",
		"--company Acme":                         "did you mean: upsauth status --company Acme\n",
		"--company=Acme":                         "did you mean: upsauth status --company Acme\n",
		"--company A'B":                          `did you mean: upsauth status --company 'A'\''B'` + "\n",
		"status --comapny Acme":                  "did you mean: --company\n",
		"status --compny=Acme":                   "did you mean: --company\n",
		"status --COMPANY Acme":                  "did you mean: --company\n",
		"status --customer Acme":                 "did you mean: --company\n",
		"status -c Acme":                         "--company",
		"token --envrionment cie":                "did you mean: --env\n",
		"token --environment cie":                "did you mean: --env\n",
		"token --evn cie":                        "did you mean: --env\n",
		"token --application x":                  "did you mean: --app\n",
		"token --minvalid 5m":                    "did you mean: --min-valid\n",
		"token --min_valid 5m":                   "did you mean: --min-valid\n",
		"revoke --company A -y":                  "did you mean: --yes\n",
		"revoke --company A --confirm":           "did you mean: --yes\n",
		"authorize --nobrowser":                  "did you mean: --no-browser\n",
		"app add x --clientid c":                 "did you mean: --client-id\n",
		"app add x --redirect-url u":             "did you mean: --redirect-uri\n",
		"app add x --client-secret s3cret-value": "did you mean: --client-secret-stdin\n",
		"refresh --forse":                        "did you mean: --force\n",
		"vault export --out f":                   "did you mean: --output\n",
	} {
		got := refused(t, strings.Split(line, " ")...)
		if !strings.Contains(got, "did you mean: ") || !strings.Contains(got, want) {
			t.Errorf("upsauth %s: %s", line, got)
		}
		if strings.Contains(got, "s3cret") {
			t.Errorf("upsauth %s repeats a secret: %s", line, got)
		}
	}
	for _, line := range []string{"--bogus", "status --bogus", "status --x", "status -Z", "token --company", "doctor --company-of-nobody x"} {
		if got := refused(t, strings.Split(line, " ")...); strings.Contains(got, "did you mean") {
			t.Errorf("upsauth %s: %s", line, got)
		}
	}
}
