// Package sandbox shows how a program's own tests use the sandbox: each starts
// one on a free port and goes the whole life of a grant with the OAuth client
// that the program has anyway.
package sandbox

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/oauth2"
)

// startSandbox returns the address of a sandbox that ends with the test. In
// another module, make the program a tool of it first:
//
//	go get -tool github.com/upsauth/upsauth/cmd/upsauth@latest
func startSandbox(t *testing.T, flags ...string) (base string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "upsauth.exe")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/upsauth/upsauth/cmd/upsauth").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(program, append([]string{"sandbox", "--listen", "127.0.0.1:0", "--state", "memory"}, flags...)...)
	cmd.Stderr = t.Output() // a line for each request
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	base, found := strings.CutPrefix(strings.TrimSpace(line), "The sandbox is at ")
	if err != nil || !found {
		t.Fatalf("the sandbox said %q, %v", line, err)
	}
	return base
}

// signIn does what the person does whom the application sends to address: both
// pages' fields at once. It returns where the browser ends.
func signIn(t *testing.T, address string) *url.URL {
	t.Helper()
	browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	page, err := browser.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	page.Body.Close()
	agreed, err := browser.PostForm(page.Header.Get("Location"), url.Values{"username": {"jane"}, "agree": {"yes"}, "password": {"made-up"}})
	if err != nil {
		t.Fatal(err)
	}
	agreed.Body.Close()
	callback, err := agreed.Location()
	if err != nil {
		t.Fatal(err)
	}
	return callback
}

// order sends a command to the sandbox: a fault, or a changed password.
func order(t *testing.T, address, body string) {
	t.Helper()
	answer, err := http.Post(address, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode >= 300 {
		t.Fatalf("%s: %s", address, answer.Status)
	}
}

func TestLifeOfAGrant(t *testing.T) {
	base := startSandbox(t)
	for _, pkce := range []bool{false, true} {
		application := &oauth2.Config{
			ClientID: "my-client", ClientSecret: "made-up", RedirectURL: "http://localhost:8000/callback",
			Endpoint: oauth2.Endpoint{AuthURL: base + "/security/v1/oauth/authorize", TokenURL: base + "/security/v1/oauth/token"},
		}
		// UPS refreshes at a path of its own, so it takes a second Config.
		refreshing := *application
		refreshing.Endpoint.TokenURL = base + "/security/v1/oauth/refresh"
		var asking, exchanging []oauth2.AuthCodeOption
		if pkce {
			// UPS wants no secret and no Authorization header then.
			application.ClientSecret = ""
			application.Endpoint.AuthStyle = oauth2.AuthStyleInParams
			verifier := oauth2.GenerateVerifier()
			asking, exchanging = append(asking, oauth2.S256ChallengeOption(verifier)), append(exchanging, oauth2.VerifierOption(verifier))
		}

		callback := signIn(t, application.AuthCodeURL("my-state", asking...)).Query()
		if callback.Get("state") != "my-state" {
			t.Fatalf("the callback says %v", callback)
		}
		first, err := application.Exchange(t.Context(), callback.Get("code"), exchanging...)
		if err != nil {
			t.Fatal(err)
		}
		if left := first.ExpiresIn; left != 3599 || first.Type() != "Bearer" {
			t.Errorf("a %s token for %d s", first.Type(), left)
		}
		if status := track(t, first, base); status != http.StatusOK {
			t.Errorf("the access token gets %d", status)
		}

		renew := func(token string) (*oauth2.Token, error) {
			return refreshing.TokenSource(t.Context(), &oauth2.Token{RefreshToken: token}).Token()
		}
		second, err := renew(first.RefreshToken)
		if err != nil || second.RefreshToken == first.RefreshToken {
			t.Fatalf("the refresh gave %v, %v", second, err)
		}
		wantRefused(t, renew, first.RefreshToken) // it works once

		// A rate limit spends nothing.
		order(t, base+"/sandbox/faults", `{"endpoint":"refresh","status":429,"retry_after":1,"times":1}`)
		_, err = renew(second.RefreshToken)
		if refused, ok := errors.AsType[*oauth2.RetrieveError](err); !ok || refused.Response.Header.Get("Retry-After") != "1" {
			t.Errorf("no rate limit: %v", err)
		}
		third, err := renew(second.RefreshToken)
		if err != nil {
			t.Fatal(err)
		}

		order(t, base+"/sandbox/users/jane/password", "")
		wantRefused(t, renew, third.RefreshToken)
		if status := track(t, third, base); status != http.StatusUnauthorized {
			t.Errorf("after a changed password the access token gets %d", status)
		}
	}
}

func wantRefused(t *testing.T, renew func(string) (*oauth2.Token, error), token string) {
	t.Helper()
	_, err := renew(token)
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); !ok || !strings.Contains(string(refused.Body), "Invalid Refresh Token") {
		t.Errorf("the refresh token was not refused: %v", err)
	}
}

func track(t *testing.T, token *oauth2.Token, base string) (status int) {
	t.Helper()
	answer, err := oauth2.NewClient(context.Background(), oauth2.StaticTokenSource(token)).Get(base + "/api/track/v1/details/1Z999AA10123456784")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode
}
