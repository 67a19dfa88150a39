package public

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/address"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/serve/page"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
)

// fromElsewhere reports whether a page of another site has sent a form here. Whoever has an
// invitation could let other people's browsers press otherwise, who then read nothing of
// whose it is before they are at UPS.
func (q request) fromElsewhere() bool {
	own := http.NewCrossOriginProtection()
	// A proxy may change the Host, which browsers without Sec-Fetch-Site are compared with.
	if err := own.AddTrustedOrigin(q.front.Scheme + "://" + q.front.Host); err != nil {
		return true
	}
	return own.Check(q.Request) != nil
}

// press begins a sign-in: its page leads to UPS. A POST that redirected there would be
// blocked by form-action. The handle is that of the sign-in after which it begins anew,
// empty at an invitation's address.
func (p *public) press(w http.ResponseWriter, q request, i session.Invited, handle string) {
	if err := p.askUPS(q, i); err != nil {
		p.Log(i.GrantID().String(), "UPS lets nobody sign in for "+i.GrantID().String()+": "+err.Error())
		said := wordsUPSDownBefore
		if isOurs(err) {
			said = wordsNotOurs
		}
		retry := after{Again: q.URL.EscapedPath(), Handle: handle}
		p.say(w, q, http.StatusServiceUnavailable, said, retry)
		return
	}
	pressed, err := q.s.Press(q.Context(), i)
	if err != nil {
		p.trouble(w, q, err)
		return
	}
	http.SetCookie(w, q.cookie(p.freeSlot(q), pressed.Sealed, int(pressed.Ends.Sub(p.Now()).Seconds())))
	p.write(w, http.StatusOK, "go", page.Page{Heading: wordsGo.Heading, Site: siteOf(q), Go: pressed.Address, Body: goOn{pressed.Address, wordsGo}})
}

// asked is what UPS said whether it would let somebody sign in.
type asked struct {
	err  error
	till time.Time
}

const (
	// askPatience is how long UPS's word is waited for: a browser finds out for itself
	// what takes longer.
	askPatience = 5 * time.Second
	// askAgain is how long UPS is not asked again after it said yes, and askSoon after a
	// no. Scanners press many buttons.
	askAgain = time.Minute
	askSoon  = 5 * time.Second
)

// askUPS reports why UPS would let nobody sign in, so that customers read it here, in
// their words, and not at UPS, from where nothing leads back.
func (p *public) askUPS(q request, i session.Invited) error {
	registration, err := q.s.Registration(q.Context(), i.Application, i.Environment)
	if err != nil {
		return nil // the press says so
	}
	name := strings.Join([]string{registration.Environment, registration.ClientID, registration.PublicRedirectURI}, " ")
	now := p.Now()
	p.mu.Lock()
	last, known := p.asked[name]
	p.mu.Unlock()
	if known && now.Before(last.till) && last.till.Sub(now) <= askAgain {
		return last.err
	}
	asking, cancel := context.WithTimeout(q.Context(), askPatience)
	defer cancel()
	err = q.s.AskUPS(asking, i)
	last = asked{till: now.Add(askAgain)}
	if errors.As(err, new(*ups.Error)) && asking.Err() == nil {
		last = asked{err, now.Add(askSoon)}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.asked) >= mostFailures {
		clear(p.asked)
	}
	p.asked[name] = last
	return last.err
}

// slots are how many sign-ins a browser can have under way.
const slots = 4

// cookie is that of a slot. Only over http on loopback, for trials, it has a plain name:
// the prefix __Host- keeps other hosts from setting it, and takes TLS.
func (q request) cookie(slot int, value string, maxAge int) *http.Cookie {
	return &http.Cookie{ //nolint:gosec // over http there is no secure cookie
		Name: q.cookieName(slot), Value: value, Path: "/", HttpOnly: true, Secure: !q.plain(), SameSite: http.SameSiteLaxMode, MaxAge: maxAge,
	}
}

func (q request) plain() bool {
	return q.front.Scheme == "http" && address.IsLoopback(q.front.Hostname())
}

func (q request) cookieName(slot int) string {
	name := fmt.Sprintf("upsauth-invitation-%d", slot)
	if q.plain() {
		return name
	}
	return "__Host-" + name
}

// pressed are the presses that the browser remembers and that can still be finished, by
// their slots. An error is this machine's.
func (p *public) pressed(q request) (map[int]keeper.Remembered, error) {
	found := map[int]keeper.Remembered{}
	for slot := range slots {
		// A browser sends one of a name; whoever sends several is none.
		cookies := q.CookiesNamed(q.cookieName(slot))
		if len(cookies) != 1 {
			continue
		}
		remembered, err := q.s.OpenPress(q.Context(), cookies[0].Value)
		switch {
		case err == nil:
			found[slot] = remembered
		case !errors.As(err, new(*session.ForeignPressError)):
			return nil, err
		}
	}
	return found, nil
}

// find is the press that the browser remembers and that has such a text.
func (p *public) find(q request, text string, of func(keeper.Remembered) string) (r keeper.Remembered, found bool, err error) {
	pressed, err := p.pressed(q)
	for _, remembered := range pressed {
		if subtle.ConstantTimeCompare([]byte(of(remembered)), []byte(text)) == 1 {
			return remembered, true, err
		}
	}
	return keeper.Remembered{}, false, err
}

// freeSlot is a slot that nothing is in, or the one whose sign-in began first. Which of
// those that are free is left to chance: two tabs may press before either has its cookie.
func (p *public) freeSlot(q request) int {
	pressed, err := p.pressed(q)
	first := rand.N(slots)
	if err != nil {
		return first
	}
	oldest := first
	for n := range slots {
		slot := (first + n) % slots
		remembered, ok := pressed[slot]
		if !ok {
			return slot
		}
		if remembered.Begun.Before(pressed[oldest].Begun) {
			oldest = slot
		}
	}
	return oldest
}
