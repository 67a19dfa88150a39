package cli

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/vault/keychain"
)

// TestWindows runs the scripts in testdata/windows: what Windows does in its own
// way. Beside the commands of TestScripts they have:
//
//	credentials     lists upsauth's new items in the Credential Manager on stdout
//	committed N     waits until the lab has carried out N refreshes
func TestWindows(t *testing.T) {
	// The Credential Manager is the user's, and may have items of their own.
	before, err := keychain.System{}.List(keychain.Service)
	if err != nil {
		t.Fatal(err)
	}
	p := scriptParams(filepath.Join("testdata", "windows"))
	p.Cmds["credentials"] = func(ts *testscript.TestScript, _ bool, _ []string) {
		items, err := keychain.System{}.List(keychain.Service)
		ts.Check(err)
		items = slices.DeleteFunc(items, func(item string) bool { return slices.Contains(before, item) })
		fmt.Fprintf(ts.Stdout(), "%d items\n", len(items))
		for _, item := range items {
			fmt.Fprintln(ts.Stdout(), item)
		}
	}
	p.Cmds["committed"] = func(ts *testscript.TestScript, _ bool, args []string) {
		want, err := strconv.Atoi(args[0])
		ts.Check(err)
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			events := slices.DeleteFunc(worldOf(ts).lab.Refreshes(), func(e sandbox.Event) bool {
				return e.Endpoint != "refresh" || e.Outcome != "committed"
			})
			if len(events) >= want {
				return
			}
			if time.Now().After(deadline) {
				ts.Fatalf("%d refreshes were carried out", len(events))
			}
		}
	}
	testscript.Run(t, p)
}
