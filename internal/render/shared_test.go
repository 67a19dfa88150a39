package render

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

// TestDetailsOfASharedVault reads what is said of a grant that hosts share: who asked last,
// who is awaited and until when, and how it was lost.
func TestDetailsOfASharedVault(t *testing.T) {
	r := acme()
	r.Asked = &grant.Asked{Host: "web-1", Time: issued}
	details := func() string {
		var said []string
		for _, row := range (Details{}).Rows(r, issued) {
			said = append(said, row.Name+": "+row.Value)
		}
		return strings.Join(said, "\n")
	}
	contains := func(want string) {
		t.Helper()
		if got := details(); !strings.Contains(got, want) {
			t.Errorf("there is no %q in\n%s", want, got)
		}
	}
	contains("Asked UPS last: web-1, at 11/21/2026 4:05:03 PM +00:00")
	r.Loss = "A disk was lost."
	contains("What happened: A disk was lost.")
	r.Interrupted = true
	r.CutOff = &grant.Journal{
		Shared: &grant.Shared{Host: "3f8a", Name: "web-2"},
		Fate:   grant.Fate{Time: issued, Outcome: "web-2 asked UPS at 16:05:03; its answer has not arrived here"},
	}
	contains("What happened: web-2 asked UPS at 16:05:03; its answer has not arrived here (11/21/2026 4:05:03 PM +00:00). Until the answer arrives, UPS is not asked again, unless a person takes over.")
	r.CutOff.Shared.Until = issued.Add(10 * time.Minute)
	contains("From 11/21/2026 4:15:03 PM +00:00 on, any host may ask UPS again.")

	wide := output(t, func(w io.Writer) error {
		return StatusTable(w, []grant.Record{r}, View{Now: issued, Zone: time.UTC, Wide: true})
	})
	if !strings.Contains(wide, "ASKED BY") || !strings.Contains(wide, "web-1") {
		t.Errorf("the wide table is\n%s", wide)
	}
}
