package keeper

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/ups"
)

// jwt is an access token that says so of itself.
func jwt(t *testing.T, subject string, lifetime time.Duration) string {
	t.Helper()
	payload, err := json.Marshal(map[string]any{"sub": subject, "iat": 1_000_000, "exp": 1_000_000 + int64(lifetime/time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	return "e30." + base64.RawURLEncoding.EncodeToString(payload) + ".c2ln"
}

// UPS's times are shown as UPS gives them; what is still good is reckoned from
// the request on by this machine's clock, however far the two are apart.
func TestTimes(t *testing.T) {
	t.Parallel()
	const hour, day = time.Hour, 24 * time.Hour
	requested := time.Date(2026, 11, 21, 16, 5, 3, 0, time.UTC)
	at := requested.Add
	var none time.Time
	old := grant.Record{
		Facts: grant.Facts{
			Generation:          4,
			RefreshCount:        3,
			User:                "jane@acme.example",
			RefreshTokenIssued:  at(-10 * day),
			RefreshTokenExpires: at(50 * day),
			RefreshUntil:        at(51 * day),
		},
	}

	type times struct {
		Issued, Expires, AccessUntil, RefreshTokenIssued, RefreshTokenExpires, RefreshUntil time.Time
	}
	tests := []struct {
		name   string
		tokens ups.Tokens
		want   times
		user   string // jane@acme.example where empty
	}{
		{name: "clocks that agree",
			tokens: ups.Tokens{AccessToken: "a", RefreshToken: "r", IssuedAt: at(0), ExpiresIn: hour, RefreshTokenIssuedAt: at(0), RefreshTokenExpiresIn: 60 * day},
			want:   times{at(0), at(hour), at(hour), at(0), at(60 * day), at(60 * day)}},
		{name: "UPS's clock five hours ahead",
			tokens: ups.Tokens{AccessToken: "a", RefreshToken: "r", IssuedAt: at(5 * hour), ExpiresIn: hour, RefreshTokenIssuedAt: at(5 * hour), RefreshTokenExpiresIn: 60 * day},
			want:   times{at(5 * hour), at(6 * hour), at(hour), at(5 * hour), at(60*day + 5*hour), at(60 * day)}},
		{name: "UPS's clock five hours behind",
			tokens: ups.Tokens{AccessToken: "a", RefreshToken: "r", IssuedAt: at(-5 * hour), ExpiresIn: hour, RefreshTokenIssuedAt: at(-5 * hour), RefreshTokenExpiresIn: 60 * day},
			want:   times{at(-5 * hour), at(-4 * hour), at(hour), at(-5 * hour), at(60*day - 5*hour), at(60 * day)}},
		{name: "a refresh token that was issued earlier, UPS's clock five hours ahead",
			tokens: ups.Tokens{AccessToken: "a", RefreshToken: "r", IssuedAt: at(5 * hour), ExpiresIn: hour, RefreshTokenIssuedAt: at(5*hour - 20*day), RefreshTokenExpiresIn: 60 * day},
			want:   times{at(5 * hour), at(6 * hour), at(hour), at(5*hour - 20*day), at(40*day + 5*hour), at(40 * day)}},
		{name: "no issued_at",
			tokens: ups.Tokens{AccessToken: "a", RefreshToken: "r", ExpiresIn: hour, RefreshTokenExpiresIn: 60 * day},
			want:   times{at(0), at(hour), at(hour), at(0), at(60 * day), at(60 * day)}},
		{name: "no refresh_token_issued_at",
			tokens: ups.Tokens{AccessToken: "a", RefreshToken: "r", IssuedAt: at(5 * hour), ExpiresIn: hour, RefreshTokenExpiresIn: 60 * day},
			want:   times{at(5 * hour), at(6 * hour), at(hour), at(5 * hour), at(60*day + 5*hour), at(60 * day)}},
		{name: "no refresh_token_expires_in",
			tokens: ups.Tokens{AccessToken: "a", RefreshToken: "r", IssuedAt: at(0), ExpiresIn: hour, RefreshTokenIssuedAt: at(0)},
			want:   times{at(0), at(hour), at(hour), at(0), none, none}},
		{name: "no expires_in, but an access token that knows",
			tokens: ups.Tokens{AccessToken: jwt(t, "joe@acme.example", 4*hour), RefreshToken: "r", IssuedAt: at(0), RefreshTokenExpiresIn: 60 * day},
			want:   times{at(0), at(4 * hour), at(4 * hour), at(0), at(60 * day), at(60 * day)}, user: "joe@acme.example"},
		{name: "expires_in before what the access token says",
			tokens: ups.Tokens{AccessToken: jwt(t, "", 4*hour), RefreshToken: "r", IssuedAt: at(0), ExpiresIn: hour, RefreshTokenExpiresIn: 60 * day},
			want:   times{at(0), at(hour), at(hour), at(0), at(60 * day), at(60 * day)}},
		{name: "no expires_in, and an access token that does not know",
			tokens: ups.Tokens{AccessToken: "a", RefreshToken: "r", IssuedAt: at(0), RefreshTokenExpiresIn: 60 * day},
			want:   times{at(0), at(0), at(0), at(0), at(60 * day), at(60 * day)}},
		{name: "no access token",
			tokens: ups.Tokens{RefreshToken: "r", IssuedAt: at(0), ExpiresIn: hour, RefreshTokenIssuedAt: at(0), RefreshTokenExpiresIn: 60 * day},
			want:   times{at(0), at(0), at(0), at(0), at(60 * day), at(60 * day)}},
		{name: "no refresh token: the old one's times stay",
			tokens: ups.Tokens{AccessToken: "a", IssuedAt: at(0), ExpiresIn: hour, RefreshTokenIssuedAt: at(0), RefreshTokenExpiresIn: 60 * day},
			want:   times{at(0), at(hour), at(hour), old.RefreshTokenIssued, old.RefreshTokenExpires, old.RefreshUntil}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := grant.Grant{Record: old, Secrets: grant.Secrets{AccessToken: "old access", RefreshToken: "old refresh"}}
			before.Void, before.LastError = true, &grant.LastError{Code: "10400"}
			g := renewed(before, ups.Answer{Requested: requested.In(time.FixedZone("", 3600))}, tt.tokens)

			got := times{g.Issued, g.Expires, g.AccessUntil, g.RefreshTokenIssued, g.RefreshTokenExpires, g.RefreshUntil}
			if got != tt.want {
				t.Errorf("the times are\n%+v, want\n%+v", got, tt.want)
			}
			if g.Requested != requested {
				t.Errorf("requested %s, want %s", g.Requested, requested)
			}
			if g.Generation != 5 || g.RefreshCount != 4 || g.Void || g.LastError != nil {
				t.Errorf("generation %d, refreshed %d times, void %t, last error %v", g.Generation, g.RefreshCount, g.Void, g.LastError)
			}
			if g.AccessToken != tt.tokens.AccessToken {
				t.Errorf("the access token is %q: an old one under new times would be served as good", g.AccessToken)
			}
			if want := cmp.Or(tt.tokens.RefreshToken, "old refresh"); g.RefreshToken != want {
				t.Errorf("the refresh token is %q, want %q", g.RefreshToken, want)
			}
			if want := cmp.Or(tt.user, old.User); g.User != want {
				t.Errorf("the user is %q, want %q", g.User, want)
			}
		})
	}
}
