package keeper

import (
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/ups"
)

// usable reports whether an answer has anything in it that is worth keeping.
func usable(t ups.Tokens) bool { return t.AccessToken != "" || t.RefreshToken != "" }

// renewed is the grant after a refresh was granted: what the answer says, and
// the old refresh token where the answer has none. It is the next generation.
func renewed(old grant.Grant, a ups.Answer, t ups.Tokens) grant.Grant {
	if t.RefreshToken == old.RefreshToken && t.Earlier != "" {
		t.RefreshToken = t.Earlier // the other one is spent
	}
	g := old
	g.Generation++
	g.RefreshCount++
	g.Void, g.LastError = false, nil
	applyTokens(&g, a, t)
	return g
}

// applyTokens takes over what an answer says. UPS's times are kept as they are,
// for showing; what is still good is reckoned from the moment before the
// request by this machine's clock, so that a wrong clock on either side does
// no harm.
func applyTokens(g *grant.Grant, a ups.Answer, t ups.Tokens) {
	requested := a.Requested.UTC()
	issued := t.IssuedAt
	if issued.IsZero() {
		issued = requested
	}
	claims := ups.ReadClaims(t.AccessToken)
	lifetime := t.ExpiresIn
	if lifetime == 0 {
		lifetime = claims.Lifetime
	}
	g.AccessToken, g.TokenType, g.Scope = t.AccessToken, t.TokenType, t.Scope
	g.Requested = requested
	g.Issued, g.Expires, g.AccessUntil = issued, issued, requested
	if t.AccessToken != "" {
		g.Expires, g.AccessUntil = issued.Add(lifetime), requested.Add(lifetime)
		if claims.Subject != "" {
			g.User = claims.Subject
		}
	}
	if t.RefreshToken == "" {
		return
	}
	g.RefreshToken, g.NoRefreshToken = t.RefreshToken, false
	refreshIssued := t.RefreshTokenIssuedAt
	if refreshIssued.IsZero() {
		refreshIssued = issued
	}
	g.RefreshTokenIssued = refreshIssued
	g.RefreshTokenExpires, g.RefreshUntil = zeroTime, zeroTime
	if t.RefreshTokenExpiresIn > 0 {
		g.RefreshTokenExpires = refreshIssued.Add(t.RefreshTokenExpiresIn)
		// UPS's clock and ours differ by issued less requested.
		g.RefreshUntil = g.RefreshTokenExpires.Add(requested.Sub(issued))
	}
}
