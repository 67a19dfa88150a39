package sandbox

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
)

// issuer is what every access token of UPS names in its iss claim.
const issuer = "https://apis.ups.com"

// claims are those seen in access tokens that UPS issued. Times are Unix
// seconds.
type claims struct {
	Subject     string `json:"sub,omitempty"` // the ups.com user name, as typed
	ClientID    string `json:"clientid"`
	Issuer      string `json:"iss"`
	UUID        string `json:"uuid"`
	SessionID   string `json:"sid"`
	Audience    string `json:"aud"` // the application's display name
	At          string `json:"at"`
	NotBefore   int64  `json:"nbf"`
	DisplayName string `json:"DisplayName"`
	Expires     int64  `json:"exp"`
	IssuedAt    int64  `json:"iat"`
	ID          string `json:"jti"`
	Padding     string `json:"padding,omitempty"` // only in a [Fault]'s huge tokens
}

type jwtHeader struct {
	KeyID     string `json:"kid"`
	Type      string `json:"typ"`
	Algorithm string `json:"alg"`
}

// signJWT returns c as a JWS in compact form (RFC 7515 section 7.1), signed
// with RS384 (RFC 7518 section 3.3) as UPS signs its access tokens.
func signJWT(key *rsa.PrivateKey, c claims) (string, error) {
	header, err := json.Marshal(jwtHeader{KeyID: newJWK(&key.PublicKey).KeyID, Type: "JWT", Algorithm: "RS384"})
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	signed := encode64(header) + "." + encode64(payload)
	digest := sha512.Sum384([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA384, digest[:])
	if err != nil {
		return "", err
	}
	return signed + "." + encode64(signature), nil
}

var errNotOurJWT = errors.New("the access token was not signed by this server")

// verifyJWT returns the claims of a token that signJWT made with the same key.
// It looks at the signature only, never at the times.
func verifyJWT(key *rsa.PublicKey, token string) (claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return claims{}, errNotOurJWT
	}
	var h jwtHeader
	if err := decode64JSON(parts[0], &h); err != nil || h.Algorithm != "RS384" {
		return claims{}, errNotOurJWT
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return claims{}, errNotOurJWT
	}
	digest := sha512.Sum384([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA384, digest[:], signature); err != nil {
		return claims{}, errNotOurJWT
	}
	var c claims
	if err := decode64JSON(parts[1], &c); err != nil {
		return claims{}, errNotOurJWT
	}
	return c, nil
}

// jwk is one RSA public key of a JWK set (RFC 7517, RFC 7518 section 6.3).
type jwk struct {
	KeyType   string `json:"kty"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	Modulus   string `json:"n"`
	Exponent  string `json:"e"`
}

// newJWK describes key, with its RFC 7638 thumbprint for an ID.
func newJWK(key *rsa.PublicKey) jwk {
	n := encode64(key.N.Bytes())
	e := encode64(big.NewInt(int64(key.E)).Bytes())
	thumbprint := sha256.Sum256([]byte(`{"e":"` + e + `","kty":"RSA","n":"` + n + `"}`))
	return jwk{KeyType: "RSA", Use: "sig", Algorithm: "RS384", KeyID: encode64(thumbprint[:]), Modulus: n, Exponent: e}
}

func encode64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func decode64JSON(s string, into any) error {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}
