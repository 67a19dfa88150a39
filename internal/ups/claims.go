package ups

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// Claims is what UPS's access tokens say about themselves. Nobody here has the
// key that signs them: claims are for display and comparison only, never for a
// decision about security.
type Claims struct {
	// Subject is the ups.com user name or e-mail that signed in.
	Subject string
	// ClientID and DisplayName are the application's.
	ClientID    string
	DisplayName string
	// Lifetime is how long the token says that it is good for, exp less iat.
	Lifetime time.Duration
}

// ReadClaims reads the claims of a JWT without verifying it. A token that is
// no JWT has none.
func ReadClaims(accessToken string) Claims {
	var claims Claims
	parts := strings.Split(accessToken, ".")
	if len(parts) != 3 {
		return claims
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return claims
	}
	var raw map[string]any
	if json.Unmarshal(payload, &raw) != nil {
		return claims
	}
	text := func(name string) string {
		s, _ := raw[name].(string)
		return Presentable(s)
	}
	claims.Subject = text("sub")
	claims.ClientID = text("clientid")
	claims.DisplayName = text("DisplayName")
	issued, _ := raw["iat"].(float64)
	expiry, _ := raw["exp"].(float64)
	if expiry > issued && issued > 0 {
		claims.Lifetime = time.Duration(min(expiry-issued, maxLifetime.Seconds())) * time.Second
	}
	return claims
}
