package sandbox

import (
	"net/http"
	"strings"
)

// keys publishes the key that access tokens are signed with, as a JWK set
// (RFC 7517 section 5). UPS has no such endpoint; tests want one.
func (s *Server) keys(r *http.Request, _ []byte, _ Fault) *answer {
	if !isGet(r) {
		return notAllowed("GET, HEAD")
	}
	key, err := s.store.key()
	if err != nil {
		return s.broken(err)
	}
	return jsonAnswer(http.StatusOK, map[string][]jwk{"keys": {newJWK(&key.PublicKey)}})
}

// echo is what an API answer says about its request.
type echo struct {
	Method         string   `json:"method"`
	Path           string   `json:"path"`
	Query          string   `json:"query"`
	TransID        string   `json:"transId"`
	TransactionSrc string   `json:"transactionSrc"`
	Bytes          int      `json:"bytes"` // of the request's body
	ClientID       string   `json:"client_id"`
	User           string   `json:"user"`
	Company        string   `json:"company"`
	Accounts       []string `json:"accounts"`
}

// api is what access tokens open: two of UPS's APIs in miniature, and below
// /api/ an echo of whatever is asked.
func (s *Server) api(r *http.Request, body []byte, _ Fault) *answer {
	e, refusal := s.bearer(r)
	if refusal != nil {
		return refusal
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/api/"), "/")
	// Whoever linked no account can look up where a package is, and nothing else.
	if u, ok := s.listed(e.User); ok && u.Unlinked && parts[0] != "track" {
		return refuse(http.StatusBadRequest, "120100", "Missing or invalid shipper number")
	}
	e.Method, e.Path, e.Query, e.Bytes = r.Method, r.URL.Path, r.URL.RawQuery, len(body)
	e.TransID, e.TransactionSrc = r.Header.Get("transId"), r.Header.Get("transactionSrc")

	type object = map[string]any
	result := object{}
	switch {
	case len(parts) == 3 && parts[0] == "rating":
		if r.Method != http.MethodPost {
			return notAllowed(http.MethodPost)
		}
		result["RateResponse"] = object{
			"Response": object{
				"ResponseStatus":       object{"Code": "1", "Description": "Success"},
				"TransactionReference": object{"TransactionIdentifier": e.TransID},
			},
			"RatedShipment": []object{{
				"Service":      object{"Code": "03"},
				"TotalCharges": object{"CurrencyCode": "USD", "MonetaryValue": "12.34"},
			}},
		}
	case len(parts) == 4 && parts[0] == "track" && parts[1] == "v1" && parts[2] == "details":
		if !isGet(r) {
			return notAllowed("GET, HEAD")
		}
		result["trackResponse"] = object{"shipment": []object{{
			"inquiryNumber": parts[3],
			"package": []object{{
				"trackingNumber": parts[3],
				"currentStatus":  object{"code": "011", "description": "Delivered"},
			}},
		}}}
	}
	result["sandbox"] = e
	a := jsonAnswer(http.StatusOK, result)
	for _, name := range []string{"transId", "transactionSrc"} {
		if v := r.Header.Get(name); v != "" {
			a.header.Set(name, v)
		}
	}
	return a
}

// bearer returns whom the request's access token stands for.
func (s *Server) bearer(r *http.Request) (echo, *answer) {
	refusal := refuse(http.StatusUnauthorized, "250002", "Invalid Authentication Information.")
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return echo{}, refusal
	}
	key, err := s.store.key()
	if err != nil {
		return echo{}, s.broken(err)
	}
	c, err := verifyJWT(&key.PublicKey, strings.TrimSpace(token))
	if err != nil {
		return echo{}, refusal
	}
	var e echo
	now := s.opts.Now()
	err = s.store.do(func(st *state) bool {
		t, ok := st.Access[hash(c.ID)]
		if !ok || !now.Before(t.Expires) {
			return false
		}
		g, ok := st.Grants[t.Family]
		if !ok {
			return false
		}
		p := st.People[userKey(g.User)]
		e = echo{ClientID: g.ClientID, User: g.User, Company: p.Company, Accounts: p.Accounts}
		return false
	})
	if err != nil {
		return echo{}, s.broken(err)
	}
	if e.ClientID == "" {
		return echo{}, refusal
	}
	if u, ok := s.listed(e.User); ok {
		e.Company, e.Accounts = u.Company, u.Accounts
	}
	if e.Accounts == nil {
		e.Accounts = []string{}
	}
	return e, nil
}
