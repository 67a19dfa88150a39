package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestChoices(t *testing.T) {
	for usage, want := range map[string][]string{
		"output format: table, wide, json or csv":        {"table", "wide", "json", "csv"},
		"output format: json; without it a line of text": {"json"},
		"the order: urgency (of the table) or company":   {"urgency", "company"},
		"the company's name":                             nil,
		"the environment: sandbox or one of your own":    nil,
		"who can open the file: age1…, ssh-ed25519 …":    nil,
	} {
		if got := choices(usage); !slices.Equal(got, want) {
			t.Errorf("%q has the choices %q instead of %q", usage, got, want)
		}
	}
}

// TestCompletionsOfEveryCommand asks as the shells do, where there is nothing and
// where what is there can't be read: an answer that is no answer is never an error.
func TestCompletionsOfEveryCommand(t *testing.T) {
	damaged := t.TempDir()
	for _, name := range []string{"config.toml", "applications.toml", "records", "companies"} {
		if err := os.WriteFile(filepath.Join(damaged, name), []byte("no = [such"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{t.TempDir(), damaged} {
		for _, line := range []string{
			"status --company", "status --app", "authorize --env", "status -o", "vault move --to", "company rename", "app show", "app add", "status",
		} {
			var out, failed bytes.Buffer
			env := &Env{Out: &out, Err: &failed, Getenv: func(name string) string {
				if strings.HasSuffix(name, "_DIR") {
					return dir
				}
				return ""
			}, Now: SystemEnv().Now}
			args := append(append([]string{"__complete"}, strings.Fields(line)...), "")
			if code := Run(context.Background(), env, args); code != exitDone {
				t.Errorf("%s: exit code %d: %s", line, code, failed.String())
			}
			if !strings.HasSuffix(out.String(), ":4\n") || strings.Contains(failed.String(), "Warning") {
				t.Errorf("%s: %q, %q", line, out.String(), failed.String())
			}
		}
	}
}

// TestMendedScripts holds what is put into cobra's scripts against them: it must
// still fit, and PowerShell's and the one without descriptions are made as well.
func TestMendedScripts(t *testing.T) {
	for shell, want := range map[string][]string{
		"bash":       {"__upsauth_find_quote", "__upsauth_get_completion_results()", "__upsauth_handle_standard_completion_case()"},
		"zsh":        {"words[-1]+=$compstate[quote]", `comp//\\/\\\\`, "$flagPrefix $noSpace"},
		"fish":       {"(string escape -- (commandline -opc))"},
		"powershell": {"Register-ArgumentCompleter"},
	} {
		for _, bare := range []bool{false, true} {
			var out bytes.Buffer
			env := &Env{Out: &out, Err: &out, Getenv: func(string) string { return "" }}
			args := []string{"completion", shell}
			if bare {
				args = append(args, "--no-descriptions")
			}
			if code := Run(context.Background(), env, args); code != exitDone {
				t.Fatal(out.String())
			}
			for _, text := range want {
				if !strings.Contains(out.String(), text) {
					t.Errorf("%q has no %q", args, text)
				}
			}
			if got := strings.Contains(out.String(), "__completeNoDesc "); got != bare {
				t.Errorf("%q asks without descriptions: %t", args, got)
			}
		}
	}
}
