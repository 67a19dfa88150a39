package public_test

import (
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/session"
)

var many = flag.Int("invitations.n", 100, "how many customers are invited at once; make soak invites 1000")

// TestManyInvitationsOutlastScanners invites many customers. A scanner opens and posts each
// address 20 times, follows it to UPS and tries what it finds there. None is used up, and
// each customer completes their own.
func TestManyInvitationsOutlastScanners(t *testing.T) {
	if dir := "/dev/shm"; runtime.GOOS == "linux" {
		if fast, err := os.MkdirTemp(dir, "invitations"); err == nil {
			t.Cleanup(func() { _ = os.RemoveAll(fast) })
			t.Setenv("TMPDIR", fast)
		}
	}
	a := newAgency(t)
	type one struct {
		session.Invited
		address string
	}
	invited := make([]one, *many)
	var scans atomic.Int64
	clock := time.Now()
	lap := func(what string) {
		t.Logf("%d: %s after %s", *many, what, time.Since(clock).Round(time.Millisecond))
	}
	each := func(do func(n int)) {
		t.Helper()
		var all sync.WaitGroup
		numbers := make(chan int)
		for range 4 {
			all.Go(func() {
				for n := range numbers {
					do(n)
				}
			})
		}
		for n := range invited {
			numbers <- n
		}
		close(numbers)
		all.Wait()
	}
	each(func(n int) {
		i, address := a.invite(fmt.Sprintf("Company %04d", n))
		invited[n] = one{i, address}
	})
	lap("invited")
	each(func(n int) {
		with, without := a.customer(), a.customer()
		without.http.Jar = nil
		for round := range 20 {
			scanner := with
			if round%2 == 1 {
				scanner = without
			}
			if page := scanner.do(http.MethodGet, invited[n].address, nil); page.status != http.StatusOK {
				t.Errorf("scan %d of %s: %d", round, invited[n].Company, page.status)
			}
			at := scanner.press(invited[n].address)
			scans.Add(1)
			// One of them has all that a browser has, and goes on to UPS.
			if u, err := url.Parse(at); err == nil && round == 0 {
				scanner.do(http.MethodGet, at, nil)
				state := "state=" + url.QueryEscape(u.Query().Get("state"))
				scanner.do(http.MethodGet, a.front+"/callback?error=access_denied&"+state, nil)
			}
		}
	})
	lap("scanned")
	list, problems, err := a.ListInvitations(t.Context(), session.Target{})
	if err != nil || len(problems) > 0 || len(list) != *many {
		t.Fatalf("%d, %v, %v", len(list), problems, err)
	}
	for _, i := range list {
		if i.State(a.now()) != invitation.StateOpen {
			t.Errorf("the invitation for %s is %s after the scans", i.Company, i.State(a.now()))
		}
	}
	each(func(n int) {
		c := a.customer()
		at := c.press(invited[n].address)
		back, err := sandbox.Person{User: fmt.Sprintf("user%d", n), Password: "pw", HTTP: c.http.Transport}.Callback(t.Context(), at)
		if err != nil {
			t.Error(err)
			return
		}
		c.do(http.MethodGet, back, nil).has(t, 200, "Thank you")
	})
	lap("completed")
	list, _, err = a.ListInvitations(t.Context(), session.Target{})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if i.State(a.now()) != invitation.StateCompleted {
			t.Errorf("the invitation for %s is %s at the end", i.Company, i.State(a.now()))
		}
	}
	for n := range invited {
		if got, want := a.user(invited[n].Company), fmt.Sprintf("user%d", n); got != want {
			t.Errorf("%s is authorized by %q", invited[n].Company, got)
		}
	}
	t.Logf("%d invitations, %d scans, all completed by their customers", *many, scans.Load())
}
