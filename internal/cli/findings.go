package cli

import (
	"fmt"

	"github.com/upsauth/upsauth/internal/render"
)

// findings collects what doctor and vault check find.
type findings struct {
	found []render.Finding
	worst int // the exit code of the worst failure
}

func (f *findings) ok(check, format string, args ...any) {
	f.found = append(f.found, render.Finding{Level: render.OK, Check: check, Found: fmt.Sprintf(format, args...)})
}

func (f *findings) warn(check, found, remedy string) {
	f.found = append(f.found, render.Finding{Level: render.Warning, Check: check, Found: found, Remedy: remedy})
}

func (f *findings) fail(check string, err error) {
	f.failWith(exitCode(err), check, message(err), advice(err))
}

func (f *findings) failWith(code int, check, found, remedy string) {
	f.found = append(f.found, render.Finding{Level: render.Failure, Check: check, Found: found, Remedy: remedy})
	f.worst = worse(f.worst, code)
}

// report writes the findings; the exit code is that of the worst.
func (f *findings) report(env *Env, format string) error {
	var err error
	if format == "json" {
		err = render.JSON(env.Out, render.Findings{Version: 1, Findings: f.found})
	} else {
		err = render.FindingLines(env.Out, f.found)
	}
	if err != nil || f.worst == exitDone {
		return err
	}
	return &statusError{code: f.worst}
}
