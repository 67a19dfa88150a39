//go:build unix

package events

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func script(t *testing.T, text string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tell")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	// The file itself can't be run while another test forks that still has it open.
	return []string{"/bin/sh", path, "--json"}
}

func TestRun(t *testing.T) {
	runner := Runner{Limit: 20 * time.Second, Environ: []string{
		"PATH=/usr/bin:/bin", "HOME=/home/x", "LC_ALL=C", "https_proxy=http://proxy:3128", "UPSAUTH_PASSPHRASE=pw", "UPSAUTH_CLIENT_SECRET=cs",
		"AWS_SECRET_ACCESS_KEY=x", "NOTIFY_SOCKET=/x", "LD_PRELOAD=/x", "CREDENTIALS_DIRECTORY=/x", "DBUS_SESSION_BUS_ADDRESS=x",
	}}
	for name, test := range map[string]struct{ text, said, fails string }{
		"all well":        {"cat; echo; echo ' done '; echo", "done", ""},
		"event":           {`test "$(cat)" = '{"id":1}' && test "$*" = --json`, "", ""},
		"environment":     {"env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD= | sort | tr '\\n' ' '", "HOME=/home/x LC_ALL=C PATH=/usr/bin:/bin https_proxy=http://proxy:3128", ""},
		"reads nothing":   {"exit 0", "", ""},
		"fails":           {"echo one; echo two >&2; exit 3", "two", "exit status 3"},
		"control":         {`printf 'a\033[31mb\007\n'`, "a[31mb", ""},
		"secret":          {"echo 'POST https://u:pw@h/x?key=abc: Authorization: Bearer eyJhbGciOi.abc'", "POST https://***@h/x?key=*** Authorization: ***", ""},
		"long":            {"head -c 100000 /dev/zero | tr '\\0' 'x'", strings.Repeat("x", 300) + "…", ""},
		"leaves a child":  {"sleep 4 & echo started", "started", ""},
		"ended by signal": {"kill -9 $$", "", "signal: killed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			said, err := runner.Run(t.Context(), script(t, test.text), []byte(`{"id":1}`))
			if said != test.said || (err == nil) != (test.fails == "") || err != nil && err.Error() != test.fails {
				t.Errorf("said %q, %v", said, err)
			}
		})
	}
	if _, err := runner.Run(t.Context(), []string{"/nosuch/tell"}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such program: %v", err)
	}
}

// A command that hangs holds up all others, and one that outlives the service tells an
// event at the same time as the next service.
func TestRunEnds(t *testing.T) {
	const hangs = `trap '' TERM; sh -c 'trap "" TERM; echo $$ >child; while :; do sleep 0.05; done' & echo x; wait; while :; do sleep 0.05; done`
	child := func(t *testing.T) (there func() bool) {
		t.Helper()
		return func() bool {
			text, err := os.ReadFile("child")
			if err != nil {
				return false
			}
			var pid int
			for _, c := range strings.TrimSpace(string(text)) {
				pid = pid*10 + int(c-'0')
			}
			return pid > 0 && syscall.Kill(pid, 0) == nil
		}
	}
	gone := func(t *testing.T, there func() bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); there(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("its child is there yet")
			}
		}
	}
	t.Run("limit", func(t *testing.T) {
		t.Chdir(t.TempDir())
		said, err := Runner{Environ: os.Environ(), Limit: time.Second}.Run(t.Context(), script(t, hangs), nil)
		if limit := new(limitError); !errors.As(err, &limit) || said != "x" {
			t.Errorf("said %q, %v", said, err)
		}
		gone(t, child(t))
	})
	t.Run("told to end", func(t *testing.T) {
		t.Chdir(t.TempDir())
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		there := child(t)
		go func() {
			for !there() {
				time.Sleep(time.Millisecond)
			}
			stop()
		}()
		began := time.Now()
		if _, err := (Runner{Environ: os.Environ()}).Run(ctx, script(t, hangs), nil); err == nil {
			t.Error("no error")
		}
		gone(t, there)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func TestMask(t *testing.T) {
	for line, want := range map[string]string{
		"curl: (22) The requested URL returned error: 503":                                 "curl: (22) The requested URL returned error: 503",
		"id 5f0c21aa-1111-5222-8333-123456789abc":                                          "id 5f0c21aa-1111-5222-8333-123456789abc",
		"/usr/local/share/upsauth-webhook/very/long/path2/to/something.py line 3":          "/usr/local/share/upsauth-webhook/very/long/path2/to/something.py line 3",
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw":                                           "***",
		"key MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw=":                                            "key ***",
		"webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=":               "webhook-signature: ***,***",
		`{"password": "x y"}`:                                                              `{"password": ***}`,
		"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9": "***",
		"--client_secret=abc done":                                                         "--client_secret=*** done",
	} {
		if got := Mask(line); got != want {
			t.Errorf("%q is %q, want %q", line, got, want)
		}
	}
}
