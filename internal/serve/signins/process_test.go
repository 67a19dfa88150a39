package signins_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/serve/signins"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/signin"
	"github.com/upsauth/upsauth/internal/vault"
)

// envChild makes the test's program another process: the service or a terminal that
// begins a sign-in for Acme in a world's directory, says that it has, and waits.
const envChild = "UPSAUTH_TEST_SIGN_INS"

func child() {
	kind, dir, _ := strings.Cut(os.Getenv(envChild), ":")
	s := openSession(nil, dir)
	ctx := context.Background()
	switch kind {
	case "service":
		all := signins.New(signins.Options{Session: func(context.Context) (*session.Session, error) { return s, nil }, Home: home, Timeout: patience})
		one, err := all.Begin(ctx, request("Acme"))
		if err != nil {
			panic(err)
		}
		fmt.Println(one.View().Address)
	case "terminal":
		login, err := terminal(ctx, s, "Acme")
		if err != nil {
			panic(err)
		}
		fmt.Println(login.State() != "")
	}
	select {}
}

// terminal begins a sign-in as a terminal does.
func terminal(ctx context.Context, s *session.Session, company string) (*signin.SignIn, error) {
	a, err := s.Authorizing(ctx, session.Target{Application: application, Environment: "lab"})
	if err != nil {
		return nil, err
	}
	if err := a.Ready(ctx); err != nil {
		return nil, err
	}
	return signin.Begin(ctx, s.Keeper, keeper.Request{ID: id(company), Home: "file", Client: a.Client()}, signin.Options{
		Callback: signin.Callback{RedirectURI: a.Registration.RedirectURI}, Ports: s.Disk, NoPreflight: true,
		Timeout: patience, Step: func(signin.Step) {},
	})
}

// process runs another process until the test ends, and returns what it says.
func (w *world) process(kind string) (said string, pid int, kill func()) {
	w.t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), envChild+"="+kind+":"+w.dir)
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		w.t.Fatal(err)
	}
	kill = func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	}
	w.t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		kill()
		w.t.Fatalf("the other process says nothing: %v", err)
	}
	return strings.TrimSpace(line), command.Process.Pid, kill
}

// A terminal that finds the port taken by the service is told for which company and
// until when; so is the service that finds a terminal there.
func TestPortOfAnotherUpsauth(t *testing.T) {
	for kind, name := range map[string]string{"service": "the upsauth service", "terminal": "another upsauth"} {
		w := newWorld(t)
		_, pid, kill := w.process(kind)
		want := fmt.Sprintf("by %s (process %d), for the sign-in of Acme until 20", name, pid)
		var taken *loopback.PortError
		if _, err := terminal(t.Context(), w.Session, "Bolt"); !errors.As(err, &taken) || !taken.SignIn || !strings.Contains(err.Error(), want) {
			t.Errorf("a terminal is told %v, not %s", err, want)
		}
		all := w.serve()
		if _, err := all.Begin(t.Context(), request("Bolt")); !errors.As(err, &taken) || !strings.Contains(err.Error(), want) {
			t.Errorf("the service is told %v", err)
		}
		var busy *vault.LoginBusyError
		if _, err := all.Begin(t.Context(), request("Acme")); !errors.As(err, &busy) || busy.PID != pid {
			t.Errorf("of the same company the service is told %v", err)
		}
		kill()
		w.begin(all, request("Acme"))
	}
}

// The service is killed in the midst of a sign-in: the next one begins, and the person
// who comes back is told what to do.
func TestServiceIsKilled(t *testing.T) {
	w := newWorld(t)
	address, _, kill := w.process("service")
	browser := w.browser(jane)
	back := browser.callback(address)
	kill()
	all := w.serve()
	if err := all.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, late := range []string{back, address} {
		status, _, body := browser.get(late)
		if status != 410 {
			t.Errorf("status %d", status)
		}
		wantText(t, body, "The sign-in was interrupted", "was restarted", "begin again", home)
	}
	if status, _, _ := browser.get(strings.Replace(back, "/cb", "/other", 1)); status != 404 {
		t.Errorf("another path: status %d", status)
	}
	one := w.begin(all, request("Acme"))
	// It is still told, beside the sign-in that waits now.
	_, _, body := browser.get(back)
	wantText(t, body, "The sign-in was interrupted")
	browser.signIn(one.View().Address)
	if v := over(t, one); v.State != signins.Done {
		t.Errorf("it is %+v", v)
	}
	w.wantUser("Acme", jane)
}
