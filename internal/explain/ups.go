package explain

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/upsauth/upsauth/internal/ups"
)

const (
	portal  = "developer.ups.com, My Apps, this application"
	captive = "Does the network want a sign-in first (a captive portal)? Then sign in there with a browser."
)

// answers are what to do about a failure at one of UPS's endpoints.
func answers(e *ups.Error) []Remedy {
	switch e.Kind {
	case ups.RefreshTokenRefused:
		return []Remedy{sentence("The company must be authorized again. Did the person who signed in change the ups.com password? A changed password voids all authorizations of that person.")}
	case ups.CodeRefused:
		return []Remedy{act("An authorization code is valid for about 30 seconds and works once. Start again[ with {}].", Act{Do: AuthorizeAny})}
	case ups.ClientRefused:
		return oneLine(
			sentence("Compare the client ID and secret with the application's page in UPS's developer portal. They must belong to this environment."),
			act("[Then: {}, ][or {}.]", Act{Do: SetSecretOf}, Act{Do: RegisterAgain}),
			sentence("Stored tokens are kept."))
	case ups.HeaderMissing:
		return []Remedy{act("Register the application [with {}, ]so that upsauth sends the client ID and the secret in the Authorization header.", Act{Do: ChangePKCE})}
	case ups.RedirectURIRefused:
		return []Remedy{act("In UPS's developer portal ("+portal+"), a Callback URL must be exactly the same as the redirect URI, including a slash at the end. Change the Callback URL there, or register the application here with the portal's Callback URL[: {}].", Act{Do: RegisterFree})}
	case ups.Blocked:
		return []Remedy{sentence("Ask UPS why the merchant is blocked. Stored tokens are kept.")}
	case ups.RateLimited:
		again := "Try again in a minute."
		if e.RetryAfter > 0 {
			again = fmt.Sprintf("Try again in %s.", e.RetryAfter)
		}
		return []Remedy{sentence(unharmed(e.Endpoint) + " " + again)}
	case ups.Down, ups.Lost:
		if e.Endpoint == ups.RefreshEndpoint {
			return []Remedy{act("UPS may have spent the refresh token, so upsauth does not send the token again at once. Try again after a minute or more[ ({})]. Through a proxy, wait until the access token has expired. Stored tokens are kept.", Act{Do: RetrySetting})}
		}
		return []Remedy{sentence("Try again later. Stored tokens are kept.")}
	case ups.Unreachable:
		return oneLine(sentence(connecting(e)), sentence(unharmed(e.Endpoint)))
	case ups.Unusable:
		return []Remedy{sentence("Try again later. If the error remains, check the environment's base URL: it may not be UPS's.")}
	case ups.AccessTokenRefused:
		return []Remedy{act("Refresh the token [with {} ]and try again.", Act{Do: Refresh})}
	case ups.ProductMissing:
		return []Remedy{sentence("In UPS's developer portal (" + portal + "), add the product that the path belongs to, such as Rating, Shipping or Tracking. A product that is \"Pending\" there does not work yet. Refreshing the token again changes nothing.")}
	case ups.AccountMissing:
		who := "the user who signed in"
		if e.User != "" {
			who = e.User
		}
		return []Remedy{sentence("At ups.com, sign in as " + who + " and choose Accounts and Payment, Add Existing Account. UPS verifies the account with a PIN or with the amounts of an invoice. Then authorize the company again with that user. A CampusShip profile does not work.")}
	case ups.UserLocked:
		return []Remedy{sentence("Wait 24 hours, or ask that user to sign in at ups.com and to follow UPS's instructions there. If the password changes, authorize the company again.")}
	case ups.RequestRefused:
		return []Remedy{sentence("The token is valid. Compare path, headers and body with UPS's documentation of this API, which lists the error codes.")}
	}
	return []Remedy{sentence("Ask UPS's support what the message means. Stored tokens are kept.")}
}

// unharmed says what a request that UPS did not take up leaves as it was.
func unharmed(e ups.Endpoint) string {
	if e == ups.RefreshEndpoint {
		return "The refresh token was not spent."
	}
	return "Nothing was changed."
}

// connecting says what to look at where there is no connection.
func connecting(e *ups.Error) string {
	byProxy := new(ups.ProxyError)
	switch {
	case e.Distrust != "":
		return trusting(e.Distrust)
	case errors.As(e.Err, &byProxy):
		return throughProxy(byProxy)
	}
	return "Check the network, the proxy and the environment's base URL."
}

func throughProxy(e *ups.ProxyError) string {
	switch {
	case e.Status == http.StatusProxyAuthRequired && !e.Basic():
		return "Run a proxy on this machine that signs in for you, such as cntlm or px, and name it in HTTPS_PROXY."
	case e.Status == http.StatusProxyAuthRequired:
		return "Set HTTPS_PROXY=http://USER:PASSWORD@" + e.Proxy + ", with % as %25, @ as %40, : as %3A and / as %2F in USER and PASSWORD."
	case e.Status >= 500:
		return "Try again later. If the error remains, ask the administrator of the proxy."
	case e.Status != 0:
		return "Ask the administrator of the proxy to allow connections to " + e.Host + "."
	}
	return "Check HTTPS_PROXY: its host, its port and its protocol. If no proxy is needed, unset HTTPS_PROXY, or add the host to NO_PROXY."
}

// trusting says what to look at where a connection was not trusted.
func trusting(d ups.Distrust) string {
	switch d {
	case ups.UnknownAuthority:
		return captive + " Does your company's proxy open TLS connections? Then name a file with the certificate of its CA in SSL_CERT_FILE; on Windows and macOS, add the certificate to the system's store."
	case ups.Expired, ups.NotYetValid:
		return "Check this machine's clock first. If the clock is right, the server's certificate is wrong: try again later, or look for a captive portal or a proxy that opens TLS."
	case ups.WrongName:
		return captive + " Otherwise check the environment's base URL, the name server and the proxy."
	case ups.NoTLS:
		return "Check the environment's base URL and its port. " + captive
	}
	return "Check the network, the proxy and the environment's base URL."
}
