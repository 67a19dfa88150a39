package keeper

import (
	"fmt"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/ups"
)

// retryProxied is the least time before a refresh token of unknown fate is sent
// again where a proxy is on the way. What a process has sent to UPS itself dies
// with its connection; what a proxy has read it can deliver after everybody here
// has gone.
const retryProxied = 10 * time.Minute

// RetryTooSoonError says that retry_unknown_after is shorter than the time that a
// request can take, so that a retry could arrive before the request that it repeats.
// Nothing was sent.
type RetryTooSoonError struct {
	Set, Least time.Duration
}

func (e *RetryTooSoonError) Error() string {
	return fmt.Sprintf("retry_unknown_after of [refresh] is %s and must be at least %s, because a request to UPS can take that long; nothing was sent", legible.Duration(e.Set), legible.Duration(e.Least))
}

// checkRetry refuses a wait for the retry that is no bound. On loopback nothing
// is under way for long.
func (k *Keeper) checkRetry(client *ups.Client) error {
	if k.RetryUnknownAfter >= ups.CallTimeout || ups.OnLoopback(client.BaseURL) {
		return nil
	}
	return &RetryTooSoonError{Set: k.RetryUnknownAfter, Least: ups.CallTimeout}
}

// tooEarly is how long to wait before the token of a pending refresh is sent
// again. Where that went through a proxy, or goes through one now, the access
// token is used to its end first.
func (k *Keeper) tooEarly(g grant.Grant, j *grant.Journal) time.Duration {
	now := k.Now()
	passed := now.Sub(j.Time)
	wait := k.RetryUnknownAfter - passed
	if !j.Proxied && !ups.ThroughProxy(j.BaseURL) {
		return wait
	}
	wait = max(wait, retryProxied-passed)
	if g.AccessGood(now, 0) {
		wait = max(wait, g.AccessUntil.Sub(now))
	}
	return wait
}
