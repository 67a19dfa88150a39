package programs

import (
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/session"
)

// What a token is answered with is what the command prints, and a second request is
// answered without the home of the secrets.
func TestTokenFromMemory(t *testing.T) {
	w := newWorld(t)
	w.authorize("Acme Corp", "rating", "lab")
	first := w.token("acme corp")
	if first.Code != 200 || first.AccessToken == "" || first.Company != "Acme Corp" || first.Application != "rating" {
		t.Fatalf("%d %s", first.Code, first.Body)
	}
	if !strings.HasPrefix(first.Body.String(), "{\n  \"version\": 1,\n  \"company\": \"Acme Corp\",\n") || !strings.HasSuffix(first.Body.String(), "\n}\n") {
		t.Errorf("it is not what the command prints: %s", first.Body)
	}
	if err := os.Rename(w.dir+"/state/vault", w.dir+"/state/vault-away"); err != nil {
		t.Fatal(err)
	}
	for _, company := range []string{"Acme Corp", "ACME CORP", " acme corp "} {
		if again := w.token(company); again.Code != 200 || again.Body.String() != first.Body.String() {
			t.Errorf("%q: %d %s", company, again.Code, again.Body)
		}
	}
	if head := w.ask("", http.MethodHead, "/v1/token?company=Acme+Corp"); head.Code != 200 || head.Body.Len() != 0 || head.Header().Get("Content-Length") == "0" {
		t.Errorf("HEAD: %d, %q, Content-Length %s", head.Code, head.Body, head.Header().Get("Content-Length"))
	}
}

// What other processes do is seen by the very next request.
func TestNextRequestSeesOtherProcesses(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	acme := w.authorize("Acme", "rating", "lab")
	token := func() string {
		t.Helper()
		a := w.token("Acme")
		if a.Code != 200 {
			t.Fatalf("%d %s", a.Code, a.Body)
		}
		return a.AccessToken
	}
	first := token()
	other := w.open()
	result, err := other.Keeper.Refresh(ctx, acme, keeper.Need{Always: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := token(); got == first || got != result.AccessToken {
		t.Error("the refresh of another process is not seen")
	}

	w.authorize("Acme", "batch", "lab")
	if a := w.token("Acme"); a.Code != 400 || a.Error.ExitCode != 2 || a.Error.Class != "usage" || !strings.Contains(a.Error.Message, "several authorizations") {
		t.Errorf("a second grant: %d %s", a.Code, a.Body)
	}
	if a := w.token("Acme", "app=batch"); a.Code != 200 || a.Application != "batch" {
		t.Errorf("app=batch: %d %s", a.Code, a.Body)
	}
	for _, name := range []string{"rating", "batch", "rating"} {
		if err := other.UpdateApplications(ctx, func(a *config.Applications) { a.Default = &config.Default{Application: name, Environment: "lab"} }); err != nil {
			t.Fatal(err)
		}
		if a := w.token("Acme"); a.Code != 200 || a.Application != name {
			t.Errorf("default %s: %d %s", name, a.Code, a.Body)
		}
	}

	list, err := other.Known(ctx, "Acme")
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Rename(ctx, "Acme", session.Authorized(list.Records), "Apex"); err != nil {
		t.Fatal(err)
	}
	if a := w.token("Acme"); a.Code != 404 || a.Error.ExitCode != 3 || a.Error.Class != "not-found" {
		t.Errorf("renamed: %d %s", a.Code, a.Body)
	}
	if a := w.token("Apex"); a.Code != 200 || a.Company != "Apex" {
		t.Errorf("renamed: %d %s", a.Code, a.Body)
	}
	if err := other.Keeper.Revoke(ctx, grant.ID{Company: "Apex", Application: "rating", Environment: "lab"}); err != nil {
		t.Fatal(err)
	}
	if a := w.token("Apex", "app=rating"); a.Code != 404 || a.Error.ExitCode != 3 {
		t.Errorf("revoked: %d %s", a.Code, a.Body)
	}
	if a := w.token("Apex"); a.Code != 200 || a.Application != "batch" {
		t.Errorf("the one that is left: %d %s", a.Code, a.Body)
	}
}

// The same with real processes.
func TestNextRequestSeesARealProcess(t *testing.T) {
	w := newWorld(t)
	do := func(act string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "PROGRAMS_TEST_PROCESS="+act)
		for name, value := range w.settings {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", act, err, out)
		}
	}
	do("authorize Acme")
	first := w.token("Acme").AccessToken
	do("refresh Acme")
	second := w.token("Acme").AccessToken
	if first == "" || second == "" || first == second {
		t.Errorf("%q, then %q", first, second)
	}
	do("revoke Acme")
	if a := w.token("Acme"); a.Code != 404 || a.Error.ExitCode != 3 {
		t.Errorf("revoked: %d %s", a.Code, a.Body)
	}
	do("authorize Acme")
	if third := w.token("Acme").AccessToken; third == "" || third == second {
		t.Errorf("%q after %q", third, second)
	}
}

// A token that has ended makes one refresh, however many ask at once.
func TestOneRefreshForAll(t *testing.T) {
	w := newWorld(t)
	w.authorize("Acme Corp", "rating", "lab")
	client := w.serve(false)
	for round := range int64(2) {
		w.Advance(2 * time.Hour)
		const many = 200
		type got struct {
			status int
			body   string
		}
		answers := make(chan got, many)
		for range many {
			go func() {
				status, body := get(t, client, "/v1/token?company=Acme%20Corp")
				answers <- got{status, string(body)}
			}()
		}
		seen := map[got]int{}
		for range many {
			seen[<-answers]++
		}
		if len(seen) != 1 {
			t.Errorf("%d different answers: %v", len(seen), seen)
		}
		for answer := range seen {
			if answer.status != 200 {
				t.Errorf("%d %s", answer.status, answer.body)
			}
		}
		if n := w.refreshes.Load(); n != round+1 {
			t.Errorf("%d refreshes, want %d", n, round+1)
		}
	}
}
