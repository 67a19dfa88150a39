package cli

import (
	"io"
	"time"

	"github.com/upsauth/upsauth/internal/browser"
	"github.com/upsauth/upsauth/internal/signin"
	"github.com/upsauth/upsauth/internal/terminal"
)

// doctor's own names for what browser reads out of $BROWSER.
var (
	browserPrograms = browser.Programs
	browserWords    = browser.Words
)

// progress is the bar of the findings.
type progress struct{ bar *terminal.Progress }

func newProgress(w io.Writer, now func() time.Time, total int) *progress {
	return &progress{terminal.NewProgress(w, now, total)}
}

func (p *progress) step(failed bool, lines string) { p.bar.Step(failed, lines) }

func (p *progress) end() { p.bar.End() }

// portHolder is doctor's.
func (s *job) portHolder(port int) string { return signin.Holder(s.Vault)(port) }
