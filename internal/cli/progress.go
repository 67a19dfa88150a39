package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/render"
)

// progress draws a bar on a terminal while many companies are refreshed.
type progress struct {
	w     io.Writer
	now   func() time.Time
	start time.Time
	total int

	mu           sync.Mutex
	done, failed int
}

func newProgress(w io.Writer, now func() time.Time, total int) *progress {
	p := &progress{w: w, now: now, start: now(), total: total}
	p.draw()
	return p
}

// step counts one company as done. Lines, where there are any, stay above the
// bar.
func (p *progress) step(failed bool, lines string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if failed {
		p.failed++
	}
	if lines != "" {
		fmt.Fprintf(p.w, "\r\x1b[K%s", lines)
	}
	p.draw()
}

func (p *progress) draw() {
	const width = 30
	filled := width * p.done / max(p.total, 1)
	left := ""
	if p.done > 0 && p.done < p.total {
		each := p.now().Sub(p.start) / time.Duration(p.done)
		left = ", " + render.Span(each*time.Duration(p.total-p.done)) + " left"
	}
	fmt.Fprintf(p.w, "\r\x1b[K[%s%s] %d of %d, %d failed%s",
		strings.Repeat("#", filled), strings.Repeat(".", width-filled), p.done, p.total, p.failed, left)
}

// end takes the bar away.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprint(p.w, "\r\x1b[K")
}
