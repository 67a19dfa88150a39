package cli

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/process"
)

// nothing is what a command must not touch yet.
type nothing struct{ t *testing.T }

func (n nothing) RoundTrip(*http.Request) (*http.Response, error) {
	n.t.Error("UPS is asked")
	return nil, io.EOF
}

func (n nothing) Get(string, string) (string, error) {
	n.t.Error("the keychain is asked")
	return "", io.EOF
}
func (n nothing) Set(string, string, string) error { _, err := n.Get("", ""); return err }
func (n nothing) Delete(string, string) error      { _, err := n.Get("", ""); return err }

// Whatever a command does before it is asked for it, all others wait for as well.
func TestNothingIsTouchedBeforeItIsNeeded(t *testing.T) {
	for _, test := range []struct {
		line     string
		mayRead  bool // the configuration and the records
		wantCode int
		signals  bool // asks for them first of all
	}{
		{"version", false, exitDone, false},
		{"version -o json", false, exitDone, false},
		{"help", false, exitDone, false},
		{"help exit-codes", false, exitDone, false},
		{"status --help", false, exitDone, false},
		{"completion bash", false, exitDone, false},
		{"no-such-command", false, exitUsage, false},
		{"status", true, exitDone, false},
		{"status -o json", true, exitDone, false},
		{"company list", true, exitDone, true},
	} {
		t.Run(test.line, func(t *testing.T) {
			dir := t.TempDir()
			env := &Env{
				In: strings.NewReader(""), Out: io.Discard, Err: io.Discard,
				Getenv: func(name string) string {
					if !test.mayRead {
						t.Errorf("%s is looked up", name)
					}
					if name == "UPSAUTH_CONFIG_DIR" || name == "UPSAUTH_STATE_DIR" {
						return filepath.Join(dir, name)
					}
					return ""
				},
				Environ: os.Environ, Now: time.Now, Zone: time.UTC,
				Transport: nothing{t}, Keychain: nothing{t},
			}
			asked := false
			ctx := process.Interruptible{Start: func() context.Context {
				asked = true
				return context.Background()
			}}
			if code := Run(ctx, env, strings.Fields(test.line)); code != test.wantCode {
				t.Errorf("exit code %d", code)
			}
			if asked != test.signals {
				t.Errorf("signals were asked for: %t", asked)
			}
			if made, err := os.ReadDir(dir); err != nil || len(made) > 0 {
				t.Errorf("it made %v, %v", made, err)
			}
		})
	}
}
