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
	}{
		{"version", false, exitDone},
		{"version -o json", false, exitDone},
		{"help", false, exitDone},
		{"help exit-codes", false, exitDone},
		{"status --help", false, exitDone},
		{"completion bash", false, exitDone},
		{"no-such-command", false, exitUsage},
		{"status", true, exitDone},
		{"status -o json", true, exitDone},
		{"company list", true, exitDone},
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
			ctx := interruptible{func() context.Context {
				t.Error("signals are asked for")
				return context.Background()
			}}
			if code := Run(ctx, env, strings.Fields(test.line)); code != test.wantCode {
				t.Errorf("exit code %d", code)
			}
			if made, err := os.ReadDir(dir); err != nil || len(made) > 0 {
				t.Errorf("it made %v, %v", made, err)
			}
		})
	}
}
