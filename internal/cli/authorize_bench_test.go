package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/sandbox"
)

// BenchmarkSignIn measures what a person waits for, on the real program and a
// server on loopback: from the start to the browser, question to UPS included,
// and from the callback to the page that says what came of it, exchange and
// save included. The person's own time lies between the two. Medians, in
// milliseconds.
func BenchmarkSignIn(b *testing.B) {
	if _, err := exec.LookPath("sh"); err != nil {
		b.Skip(err)
	}
	dir := b.TempDir()
	program := filepath.Join(dir, "upsauth")
	if out, err := exec.Command("go", "build", "-o", program, "../../cmd/upsauth").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	lab, err := sandbox.New(sandbox.Options{})
	if err != nil {
		b.Fatal(err)
	}
	server := httptest.NewServer(lab)
	defer server.Close()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		b.Fatal(err)
	}
	config := filepath.Join(dir, "config")
	files := map[string]string{
		filepath.Join(dir, "identity.txt"):   identity.String() + "\n",
		filepath.Join(config, "config.toml"): fmt.Sprintf("[environments.lab]\nbase_url = %q\n", server.URL),
		filepath.Join(dir, "browser"):        "#!/bin/sh\necho \"$1\" >" + filepath.Join(dir, "addresses") + "\n",
	}
	if err := os.Mkdir(config, 0o700); err != nil {
		b.Fatal(err)
	}
	for path, text := range files {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			b.Fatal(err)
		}
	}
	if out, err := exec.Command("mkfifo", filepath.Join(dir, "addresses")).CombinedOutput(); err != nil {
		b.Skipf("%v %s", err, out)
	}
	environ := append(os.Environ(),
		"UPSAUTH_CONFIG_DIR="+config, "UPSAUTH_STATE_DIR="+filepath.Join(dir, "state"), "UPSAUTH_VAULT=file",
		"UPSAUTH_IDENTITY="+filepath.Join(dir, "identity.txt"), "BROWSER="+filepath.Join(dir, "browser"),
		"UPSAUTH_CLIENT_ID=cid", "UPSAUTH_CLIENT_SECRET=s-e-c-r-e-t", "UPSAUTH_REDIRECT_URI=http://127.0.0.1:5820/cb",
	)
	var opening, closing []time.Duration
	for n := 0; b.Loop(); n++ {
		command := exec.Command(program, "authorize", "--env", "lab", "--app", "x", "--company", fmt.Sprint("Company ", n))
		command.Env = environ
		start := time.Now()
		if err := command.Start(); err != nil {
			b.Fatal(err)
		}
		address, err := os.ReadFile(filepath.Join(dir, "addresses"))
		if err != nil {
			b.Fatal(err)
		}
		opening = append(opening, time.Since(start))
		jar, err := cookiejar.New(nil)
		if err != nil {
			b.Fatal(err)
		}
		callback, err := sandbox.Person{User: "jane", Password: "any", Jar: jar}.Callback(context.Background(), strings.TrimSpace(string(address)))
		if err != nil {
			b.Fatal(err)
		}
		start = time.Now()
		page, err := (&http.Client{Jar: jar}).Get(callback)
		if err != nil {
			b.Fatal(err)
		}
		text, err := io.ReadAll(page.Body)
		page.Body.Close()
		closing = append(closing, time.Since(start))
		if err != nil || !strings.Contains(string(text), "is authorized") {
			b.Fatalf("%v: %s", err, text)
		}
		if err := command.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(milliseconds(opening), "ms-start-to-browser")
	b.ReportMetric(milliseconds(closing), "ms-callback-to-page")
}

func milliseconds(times []time.Duration) float64 {
	slices.Sort(times)
	return float64(times[len(times)/2].Microseconds()) / 1000
}
