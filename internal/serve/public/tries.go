package public

import (
	"errors"
	"net/http"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/session"
)

// failure is why a try came to nothing, for a while.
type failure struct {
	err  error
	till time.Time
	// callback is what can be tried once more, until codeTill.
	callback grant.Callback
	codeTill time.Time
}

const (
	failureLasts = time.Hour
	mostFailures = 1000
	// codeLasts is how long UPS's code can be tried again: it is said to be good for
	// 30 s, and has come some way.
	codeLasts = 25 * time.Second
)

// note keeps for a while why a try came to nothing, for the page that the browser opens next.
func (p *public) note(handle string, f failure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.Now()
	for other, f := range p.failed {
		if !now.Before(f.till) {
			delete(p.failed, other)
		}
	}
	delete(p.failed, handle)
	if f.err == nil {
		return
	}
	if len(p.failed) >= mostFailures {
		clear(p.failed) // their pages say less
	}
	if f.till = now.Add(failureLasts); f.codeTill.IsZero() {
		f.codeTill = now
	}
	p.failed[handle] = f
}

func (p *public) failure(handle string) failure {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f, ok := p.failed[handle]; ok && p.Now().Before(f.till) {
		return f
	}
	return failure{}
}

// takeCode returns what can be tried once more, and forgets it.
func (p *public) takeCode(handle string) (callback grant.Callback, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.failed[handle]
	now := p.Now()
	ok = f.callback.Code != "" && now.Before(f.codeTill) && f.codeTill.Sub(now) <= codeLasts
	callback, f.callback = f.callback, grant.Callback{}
	if f.err != nil {
		p.failed[handle] = f
	}
	return callback, ok
}

// done tells what came of a sign-in, to the browser that has its cookie.
func (p *public) done(w http.ResponseWriter, q request, handle string) {
	remembered, i, found := p.remembered(w, q, handle)
	if found {
		p.tell(w, q, i, remembered, p.failure(handle).err)
	}
}

// again is the button of a page that told of no success: the code that UPS could not
// take is tried once more while it is good, or the customer signs in anew.
func (p *public) again(w http.ResponseWriter, q request) {
	if q.Method != http.MethodPost {
		p.nothing(w)
		return
	}
	if err := q.ParseForm(); err != nil {
		p.nothing(w)
		return
	}
	handle := q.PostForm.Get("sign-in")
	remembered, i, found := p.remembered(w, q, handle)
	switch {
	case !found:
	case !i.Open(p.Now()):
		p.over(w, q, i)
	default:
		if callback, ok := p.takeCode(handle); ok {
			p.finish(q, remembered, callback)
			http.Redirect(w, q.Request, q.at("done/"+handle), http.StatusSeeOther)
			return
		}
		p.press(w, q, i, handle)
	}
}

// remembered is the sign-in that a handle names, in the browser that has its cookie. Any
// other one has its answer.
func (p *public) remembered(w http.ResponseWriter, q request, handle string) (r keeper.Remembered, i session.Invited, found bool) {
	r, found, err := p.find(q, handle, handleOf)
	if err == nil && !found {
		p.say(w, q, http.StatusGone, wordsForgotten)
		return r, i, false
	}
	if err == nil {
		i, err = q.s.InvitationOf(q.Context(), invitation.Key(r.Ref))
	}
	if errors.Is(err, invitation.ErrUnknown) {
		p.say(w, q, http.StatusGone, wordsForgotten)
		return r, i, false
	}
	if err != nil {
		p.trouble(w, q, err)
		return r, i, false
	}
	return r, i, true
}
