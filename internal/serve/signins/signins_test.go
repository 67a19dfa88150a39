package signins_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/serve/signins"
)

const jane, john = "jane@acme.example", "john@apex.example"

func TestSignIn(t *testing.T) {
	w := newWorld(t)
	all := w.serve()
	one := w.begin(all, request("Acme Corp"))
	v := one.View()
	if v.State != signins.Waiting || v.Port != w.port || v.ListensAt != fmt.Sprintf("127.0.0.1:%d", w.port) || v.Machine == "" ||
		!strings.HasPrefix(v.Address, fmt.Sprintf("http://localhost:%d/start/", w.port)) || !strings.Contains(v.AtUPS, "/oauth/authorize?") ||
		time.Until(v.Until) > patience || len(one.Handle()) < 32 || all.Get(one.Handle()) != one || all.Of(id("ACME corp")) != one {
		t.Fatalf("it begins as %+v", v)
	}
	page := w.browser(jane).signIn(v.Address)
	wantText(t, page, "Acme Corp is authorized", "An OAuth token exists for this company!", jane, "HOME")
	v = over(t, one)
	if v.State != signins.Done || v.Err != nil || v.User != jane || v.Record.User != jane || v.Record.TokenVaultKey == "" || v.Address != "" || v.AtUPS != "" || !v.SecretUntried {
		t.Errorf("it ends as %+v", v)
	}
	wantText(t, page, v.Record.TokenVaultKey)
	w.wantUser("Acme Corp", jane)
	w.wantFree()
	if all.Of(id("Acme Corp")) != nil || len(all.Active()) != 0 || all.Get(one.Handle()) != one || all.Get("x") != nil {
		t.Error("what has ended is still under way, or is forgotten")
	}
	// The company is known by its own name from now on.
	again := w.begin(all, request(" acme corp"))
	if again.ID() != id("Acme Corp") {
		t.Errorf("it is for %s", again.ID())
	}
}

// Guards against an answer that reaches another company's sign-in: three wait at one
// redirect URI and one at the same port, and their people come back out of order.
func TestSharedListener(t *testing.T) {
	w := newWorld(t)
	w.register("other", fmt.Sprintf("http://127.0.0.1:%d/elsewhere", w.port))
	all := w.serve()
	companies := []string{"Acme", "Bolt", "Crate"}
	var begun []*signins.SignIn
	for _, company := range companies {
		begun = append(begun, w.begin(all, request(company)))
	}
	other := request("Dune")
	other.Application = "other"
	begun = append(begun, w.begin(all, other))

	// A state that nobody knows ends nothing.
	stranger := w.browser(john)
	for _, address := range []string{
		fmt.Sprintf("http://localhost:%d/cb?code=c&state=unknown", w.port),
		fmt.Sprintf("http://127.0.0.1:%d/elsewhere?error=access_denied&state=unknown", w.port),
		fmt.Sprintf("http://localhost:%d/cb?code=c", w.port),
	} {
		if status, _, body := stranger.get(address); status != 400 || !strings.Contains(body, "This answer was not accepted") || !strings.Contains(body, home) {
			t.Errorf("%s: %d %s", address, status, body)
		}
	}
	for _, address := range []string{"/start/x", "/done/x", "/", "/cb/"} {
		if status, _, _ := stranger.get(fmt.Sprintf("http://localhost:%d%s", w.port, address)); status != 404 {
			t.Errorf("%s: %d", address, status)
		}
	}
	if status, _, _ := stranger.get(fmt.Sprintf("http://127.0.0.1:%d/cb?code=c&state=unknown", w.port)); status != 400 && status != 404 {
		t.Errorf("at another host: %d", status)
	}

	// All of them are on their way before the first comes back.
	user := func(n int) string { return fmt.Sprintf("user%d@ups.example", n) }
	browsers, backs := map[int]*browser{}, map[int]string{}
	for n, one := range begun {
		browsers[n] = w.browser(user(n))
		backs[n] = browsers[n].callback(one.View().Address)
	}
	for _, n := range []int{2, 0, 3, 1} {
		// Nobody takes the answer of another browser, even with the right state.
		if status, _, _ := stranger.get(backs[n]); status != 400 {
			t.Errorf("the answer of another browser: %d", status)
		}
		status, header, _ := browsers[n].get(backs[n])
		if status != 303 {
			t.Fatalf("%s: status %d", begun[n].ID(), status)
		}
		v := over(t, begun[n])
		if v.State != signins.Done || v.User != user(n) || len(v.Warnings) != 1 {
			t.Errorf("%s: %+v", begun[n].ID(), v)
		}
		if n != 1 { // the listener is still there for the others
			_, _, body := browsers[n].get("http://" + strings.Split(backs[n], "/")[2] + header.Get("Location"))
			wantText(t, body, v.Record.TokenVaultKey, begun[n].ID().Company+" is authorized")
		}
	}
	w.wantFree()
	for n, company := range companies {
		w.wantUser(company, user(n))
	}
}

// One browser has two sign-ins in two tabs: their cookies are apart.
func TestTwoTabs(t *testing.T) {
	w := newWorld(t)
	all := w.serve()
	acme, bolt := w.begin(all, request("Acme")), w.begin(all, request("Bolt"))
	tabs := w.browser(jane)
	first := tabs.callback(acme.View().Address)
	tabs.User = john
	second := tabs.callback(bolt.View().Address)
	for _, back := range []string{second, first} {
		if status, _, _ := tabs.get(back); status != 303 {
			t.Errorf("status %d", status)
		}
	}
	for _, one := range []*signins.SignIn{acme, bolt} {
		if v := over(t, one); v.State != signins.Done {
			t.Errorf("%s: %+v", v.ID, v)
		}
	}
	w.wantUser("Acme", jane)
	w.wantUser("Bolt", john)
}

// As many as there may be, at one port, and all of them end.
func TestAHundred(t *testing.T) {
	w := newWorld(t)
	all := w.serve(func(o *signins.Options) { o.Timeout = 5 * time.Minute }) // none ends before the last begins
	var people sync.WaitGroup
	for worker := range 4 {
		people.Go(func() {
			for n := range 25 {
				if _, err := all.Begin(t.Context(), request(fmt.Sprintf("Company %d", 25*worker+n))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	people.Wait()
	if _, err := all.Begin(t.Context(), request("One more")); !errors.As(err, new(*signins.FullError)) {
		t.Errorf("one too many: %v", err)
	}
	one := all.Of(id("Company 77"))
	w.browser(jane).signIn(one.View().Address)
	if v := over(t, one); v.State != signins.Done {
		t.Errorf("it is %+v", v)
	}
	w.close(all)
	w.wantFree()
}

func TestNewPressSupersedes(t *testing.T) {
	w := newWorld(t)
	all := w.serve()
	old := w.begin(all, request("Acme"))
	address := old.View().Address
	browser := w.browser(jane)
	back := browser.callback(address)
	again := w.begin(all, request("Acme"))
	if v := over(t, old); v.State != signins.Superseded || !errors.Is(v.Err, signins.ErrSuperseded) || v.Address != "" {
		t.Errorf("the old one is %+v", v)
	}
	if again.Handle() == old.Handle() || all.Of(id("Acme")) != again {
		t.Error("the new one did not take its place")
	}
	for _, late := range []string{back, address} {
		status, _, body := browser.get(late)
		if status != 410 {
			t.Errorf("status %d", status)
		}
		wantText(t, body, "A newer sign-in took the place of this one", old.Handle())
	}
	if status, _, body := w.browser(john).get(back); status != 410 || strings.Contains(body, "still waits") {
		t.Errorf("from another browser: %d %s", status, body)
	}
	if err := old.Paste(t.Context(), back); !errors.As(err, new(*signins.NotAwaitedError)) {
		t.Errorf("the old one's address is taken: %v", err)
	}
	browser.signIn(again.View().Address)
	if v := over(t, again); v.State != signins.Done {
		t.Errorf("the new one is %+v", v)
	}
	w.wantUser("Acme", jane)
}

func TestWrongPerson(t *testing.T) {
	w := newWorld(t)
	all := w.serve()
	first := w.begin(all, request("Acme"))
	w.browser(jane).signIn(first.View().Address)
	before := over(t, first).Record
	for _, yes := range []bool{false, true} {
		one := w.begin(all, request("Acme"))
		browser := w.browser(john)
		back := browser.callback(one.View().Address)
		status, header, _ := browser.get(back)
		if status != 303 {
			t.Fatalf("status %d", status)
		}
		v := until(t, one, signins.Asking)
		if len(v.Doubts) != 1 || !strings.Contains(v.Doubts[0], jane) || v.User != john {
			t.Errorf("it asks %+v", v)
		}
		_, asked, body := browser.get(fmt.Sprintf("http://localhost:%d%s", w.port, header.Get("Location")))
		wantText(t, body, "Answer in the company manager", john)
		if to := asked.Get("Refresh"); to != "0; url="+home+"sign-in/"+one.Handle() {
			t.Errorf("the page leads to %q", to)
		}
		w.wantUser("Acme", jane) // nothing is in place before the yes
		if err := one.Answer(t.Context(), yes); err != nil {
			t.Fatal(err)
		}
		if err := one.Answer(t.Context(), !yes); !errors.As(err, new(*signins.NotAwaitedError)) {
			t.Errorf("a second answer: %v", err)
		}
		v = one.View()
		record, err := w.Vault.Record(t.Context(), id("Acme"))
		if err != nil {
			t.Fatal(err)
		}
		if !yes && (v.State != signins.Refused || !errors.Is(v.Err, signins.ErrRefused) || record.TokenVaultKey != before.TokenVaultKey || record.Interrupted) {
			t.Errorf("after the no: %+v, %+v", v, record)
		}
		if yes && (v.State != signins.Done || record.TokenVaultKey == before.TokenVaultKey || record.User != john) {
			t.Errorf("after the yes: %+v, %+v", v, record)
		}
		// The page that waited shows the result, a moment after the state does.
		result := map[bool]string{true: "Acme is authorized", false: "was not kept"}[yes]
		for body = result; listens(w.port); {
			_, _, body = browser.get(fmt.Sprintf("http://localhost:%d%s", w.port, header.Get("Location")))
			if strings.Contains(body, result) {
				break
			}
		}
		wantText(t, body, result)
		w.wantFree()
	}
	// Somebody who stands for another company, at the first sign-in already.
	bolt := w.begin(all, request("Bolt"))
	w.browser(john).get(w.browser(john).callback(bolt.View().AtUPS)) // from another browser: refused
	if err := bolt.Paste(t.Context(), w.browser(john).callback(bolt.View().AtUPS)); err != nil {
		t.Fatal(err)
	}
	if v := until(t, bolt, signins.Asking); len(v.Doubts) != 1 || !strings.Contains(v.Doubts[0], "Acme") {
		t.Errorf("it asks %+v", v)
	}
	// A new press is a no.
	w.begin(all, request("Bolt"))
	if v := bolt.View(); v.State != signins.Superseded {
		t.Errorf("it is %+v", v)
	}
	w.wantUser("Bolt", "")
}

func listens(port int) bool {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

func TestExpectedUser(t *testing.T) {
	w := newWorld(t)
	all := w.serve()
	r := request("Acme")
	r.ExpectUser = jane
	one := w.begin(all, r)
	page := w.browser(john).signIn(one.View().Address)
	wantText(t, page, "Acme was not authorized", "ohn@apex.example signed in")
	v := over(t, one)
	if v.State != signins.Failed || v.User != john || !errors.As(v.Err, new(*keeper.OtherUserError)) {
		t.Errorf("it is %+v", v)
	}
	w.wantUser("Acme", "")
}

func TestPaste(t *testing.T) {
	for _, elsewhere := range []bool{true, false} {
		w := newWorld(t)
		all := w.serve()
		r := request("Acme")
		r.Elsewhere = elsewhere
		one := w.begin(all, r)
		v := one.View()
		if elsewhere != (v.Address == v.AtUPS) {
			t.Errorf("elsewhere %t: %+v", elsewhere, v)
		}
		back := w.browser(jane).callback(v.AtUPS)
		for _, wrong := range []string{
			"", "a code", "code=abc", withQuery(t, back, "state", "other"), strings.Replace(back, "/cb", "/other", 1),
			strings.Replace(back, "localhost", "127.0.0.1", 1), back + "&state=twice",
		} {
			if err := one.Paste(t.Context(), wrong); err == nil || one.View().State != signins.Waiting {
				t.Errorf("%q is taken: %v", wrong, err)
			}
		}
		// A code that UPS does not take leaves the sign-in waiting.
		if err := one.Paste(t.Context(), withQuery(t, back, "code", "other")); err == nil || one.View().Last == nil || one.View().State != signins.Waiting {
			t.Errorf("another code: %v, %+v", err, one.View())
		}
		if err := one.Paste(t.Context(), " <"+back+"> "); err != nil {
			t.Fatal(err)
		}
		if v := over(t, one); v.State != signins.Done || v.User != jane {
			t.Errorf("it is %+v", v)
		}
		w.wantUser("Acme", jane)
	}
}

// Where the browser is elsewhere its port may be forwarded: then the answer arrives here,
// without a cookie.
func TestForwarded(t *testing.T) {
	w := newWorld(t)
	all := w.serve()
	r := request("Acme")
	r.Elsewhere = true
	one := w.begin(all, r)
	wantText(t, w.browser(jane).signIn(one.View().Address), "Acme is authorized")
	if v := over(t, one); v.State != signins.Done {
		t.Errorf("it is %+v", v)
	}
}

func TestDeclined(t *testing.T) {
	w := newWorld(t)
	all := w.serve()
	one := w.begin(all, request("Acme"))
	browser := w.browser(jane)
	page, err := browser.Decline(t.Context(), one.View().Address)
	if err != nil {
		t.Fatal(err)
	}
	wantText(t, page.Text, "Acme was not authorized", "The sign-in still waits.", "Sign in again")
	if strings.Contains(page.Text, "terminal") {
		t.Errorf("the page speaks of a terminal: %s", page.Text)
	}
	// It waits before as well.
	v := untilIt(t, one, signins.Waiting, func(v signins.View) bool { return v.Last != nil })
	if !errors.As(v.Last, new(*keeper.DeclinedError)) || v.Address == "" {
		t.Errorf("it is %+v", v)
	}
	browser.signIn(v.Address)
	if v := over(t, one); v.State != signins.Done {
		t.Errorf("it is %+v", v)
	}
}

// A second browser at the start address voids it, and a pasted address has the new state.
func TestVoided(t *testing.T) {
	w := newWorld(t)
	all := w.serve()
	one := w.begin(all, request("Acme"))
	first := one.View()
	w.browser(jane).get(first.Address)
	status, _, body := w.browser(john).get(first.Address)
	wantText(t, body, "This address is no longer valid", "The company manager shows a new address")
	var v signins.View
	for end := time.Now().Add(patience); v.Address == "" || v.Address == first.Address; v = one.View() {
		if time.Now().After(end) {
			t.Fatalf("status %d, %+v", status, v)
		}
	}
	if v = one.View(); v.AtUPS == first.AtUPS {
		t.Error("UPS's address has the void state")
	}
	old := w.browser(john)
	if status, _, _ := old.get(old.callback(first.AtUPS)); status != 400 {
		t.Errorf("the void state: status %d", status)
	}
	if err := one.Paste(t.Context(), w.browser(john).callback(first.AtUPS)); err == nil {
		t.Error("an address with the void state is taken")
	}
	if err := one.Paste(t.Context(), w.browser(jane).callback(v.AtUPS)); err != nil {
		t.Fatal(err)
	}
	if v := over(t, one); v.State != signins.Done || len(v.Warnings) == 0 {
		t.Errorf("it is %+v", v)
	}
}

func TestPortTaken(t *testing.T) {
	w := newWorld(t)
	all := w.serve()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", w.port))
	if err != nil {
		t.Fatal(err)
	}
	_, err = all.Begin(t.Context(), request("Acme"))
	var taken *loopback.PortError
	if !errors.As(err, &taken) || taken.Port != w.port || all.Of(id("Acme")) != nil {
		t.Fatalf("got %v", err)
	}
	// Where the address is pasted it does not matter.
	r := request("Acme")
	r.Elsewhere = true
	one := w.begin(all, r)
	if v := one.View(); v.ListensAt != "" || len(v.Warnings) != 1 {
		t.Errorf("it is %+v", v)
	}
	if err := one.Paste(t.Context(), w.browser(jane).callback(one.View().Address)); err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	w.begin(all, request("Acme")) // nothing is stuck
}

func TestBounds(t *testing.T) {
	w := newWorld(t)
	w.register("other", fmt.Sprintf("http://localhost:%d/cb", w.port))
	all := w.serve(func(o *signins.Options) { o.Most = 2 })
	acme := w.begin(all, request("Acme"))
	other := request("Acme")
	other.Application = "other"
	var busy *signins.CompanyBusyError
	if _, err := all.Begin(t.Context(), other); !errors.As(err, &busy) || busy.Handle != acme.Handle() {
		t.Errorf("another application of the company: %v", err)
	}
	w.begin(all, request("Bolt"))
	if _, err := all.Begin(t.Context(), request("Crate")); !errors.As(err, new(*signins.FullError)) {
		t.Errorf("one too many: %v", err)
	}
	w.begin(all, request("Bolt")) // in place of the earlier one
	if err := acme.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v := over(t, acme); v.State != signins.Ended || !errors.Is(v.Err, signins.ErrEnded) {
		t.Errorf("it is %+v", v)
	}
	w.begin(all, other)
}

// A name that is near a known one is a question first.
func TestNearName(t *testing.T) {
	w := newWorld(t)
	all := w.serve()
	one := w.begin(all, request("Acme Corporation"))
	w.browser(jane).signIn(one.View().Address)
	over(t, one)
	r := request("Acme Corporatoin")
	r.Another = false
	var near *signins.NearError
	if _, err := all.Begin(t.Context(), r); !errors.As(err, &near) || near.Near.Known != "Acme Corporation" {
		t.Fatalf("got %v", err)
	}
	r.Company = "Acme Corporation"
	w.begin(all, r)
}

func TestTimeIsOver(t *testing.T) {
	w := newWorld(t)
	all := w.serve(func(o *signins.Options) { o.Timeout = 300 * time.Millisecond })
	one := w.begin(all, request("Acme"))
	if v := over(t, one); v.State != signins.TimedOut || v.Err == nil {
		t.Errorf("it is %+v", v)
	}
	w.wantFree()

	usual := w.serve()
	first := w.begin(usual, request("Acme"))
	w.browser(jane).signIn(first.View().Address)
	over(t, first)
	w.wantFree() // the first service has let go of it
	all = w.serve(func(o *signins.Options) { o.Timeout = 3 * time.Second })
	one = w.begin(all, request("Acme"))
	if err := one.Paste(t.Context(), w.browser(john).callback(one.View().AtUPS)); err != nil {
		t.Fatal(err)
	}
	if v := over(t, one); v.State != signins.Refused || !errors.Is(v.Err, signins.ErrUnanswered) {
		t.Errorf("it is %+v", v)
	}
	w.wantUser("Acme", jane)
}

// The service ends: who is at ups.com is told, an exchange is finished and saved, and a
// question without an answer is a no.
func TestServiceEnds(t *testing.T) {
	w := newWorld(t)
	all := w.serve()
	first := w.begin(all, request("Acme"))
	w.browser(jane).signIn(first.View().Address)
	before := over(t, first).Record

	asking := w.begin(all, request("Acme"))
	if err := asking.Paste(t.Context(), w.browser(john).callback(asking.View().AtUPS)); err != nil {
		t.Fatal(err)
	}
	waiting := w.begin(all, request("Bolt"))
	exchanging := w.begin(all, request("Crate"))
	address := w.browser("kim@ups.example").callback(exchanging.View().AtUPS)
	asked, free := make(chan bool, 1), make(chan bool)
	w.ups.set(func(endpoint string) {
		if endpoint == "token" {
			asked <- true
			<-free
		}
	})
	var pasting sync.WaitGroup
	pasting.Go(func() { _ = exchanging.Paste(t.Context(), address) })
	<-asked
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() { ended <- all.Close(ctx) }()
	if v := over(t, waiting); v.State != signins.Ended || !errors.Is(v.Err, signins.ErrStopped) {
		t.Errorf("who waited is %+v", v)
	}
	if v := over(t, asking); v.State != signins.Ended {
		t.Errorf("who was asked is %+v", v)
	}
	select {
	case err := <-ended:
		t.Errorf("the service ended in the midst of an exchange: %v", err)
	default:
	}
	close(free)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	pasting.Wait()
	w.ups.set(nil)
	if v := over(t, exchanging); v.State != signins.Done || v.Err != nil {
		t.Errorf("who was at it is %+v", v)
	}
	w.wantUser("Crate", "kim@ups.example")
	if _, err := all.Begin(t.Context(), request("Bolt")); !errors.Is(err, signins.ErrStopped) {
		t.Errorf("after the end: %v", err)
	}

	// Only who was at ups.com comes back.
	if left := w.Disk.LeftPorts(); len(left) != 1 || left[0].Company != "Bolt" || left[0].Others != 0 {
		t.Errorf("to the next service it is left that %+v", left)
	}
	// The next service: nothing is stuck, and whoever comes back is told.
	next := w.serve()
	if err := next.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, _, body := w.browser(jane).get(fmt.Sprintf("http://localhost:%d/cb?code=c&state=s", w.port))
	wantText(t, body, "The sign-in was interrupted", "begin again", home)
	again := w.begin(next, request("Bolt"))
	w.browser("bo@ups.example").signIn(again.View().Address)
	if v := over(t, again); v.State != signins.Done {
		t.Errorf("it is %+v", v)
	}
	acme := w.begin(next, request("Acme"))
	record, err := w.Vault.Record(t.Context(), id("Acme"))
	if err != nil || record.TokenVaultKey != before.TokenVaultKey || record.Interrupted {
		t.Errorf("Acme has %+v, %v", record, err)
	}
	w.browser(jane).signIn(acme.View().Address)
	if v := over(t, acme); v.State != signins.Done {
		t.Errorf("it is %+v", v)
	}
	w.close(next)
	w.wantFree()
}

// Views are cheap, and any number of goroutines may ask; presses for one company at once
// leave one sign-in, and none stuck.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	all := w.serve()
	var people sync.WaitGroup
	for n := range 8 {
		people.Go(func() {
			_, err := all.Begin(t.Context(), request("Acme"))
			if err != nil && !errors.Is(err, signins.ErrSuperseded) {
				t.Errorf("a press: %v", err)
			}
			one, err := all.Begin(t.Context(), request(fmt.Sprint("Company ", n)))
			if err != nil {
				t.Error(err)
				return
			}
			for range 100 {
				one.View()
				all.Of(one.ID())
				all.Active()
			}
		})
	}
	people.Wait()
	if active := all.Active(); len(active) != 9 {
		t.Errorf("%d are under way", len(active))
	}
	if one := all.Of(grant.ID{Company: "Acme", Application: application, Environment: "lab"}); one == nil {
		t.Error("none is left for the company")
	} else {
		w.browser(jane).signIn(one.View().Address)
		over(t, one)
	}
	w.wantUser("Acme", jane)
}
