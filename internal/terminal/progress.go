package terminal

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/render"
)

// Progress draws a bar on a terminal while many companies are refreshed.
type Progress struct {
	w     io.Writer
	now   func() time.Time
	start time.Time
	total int

	mu           sync.Mutex
	done, failed int
}

// NewProgress draws the bar of as many as there are.
func NewProgress(w io.Writer, now func() time.Time, total int) *Progress {
	p := &Progress{w: w, now: now, start: now(), total: total}
	p.draw()
	return p
}

// Step counts one company as done. Lines, where there are any, stay above the
// bar.
func (p *Progress) Step(failed bool, lines string) {
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

func (p *Progress) draw() {
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

// End takes the bar away.
func (p *Progress) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprint(p.w, "\r\x1b[K")
}

// CountDown shows every second how long it is until the end, until it is done.
func CountDown(w io.Writer, now func() time.Time, end time.Time, done <-chan struct{}) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		if left := end.Sub(now()).Round(time.Second); left > 0 {
			fmt.Fprintf(w, "\r   %s left   ", left)
		}
		select {
		case <-ticker.C:
		case <-done:
			fmt.Fprintf(w, "\r%20s\r", "") // which every console understands
			return
		}
	}
}
