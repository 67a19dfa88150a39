package loopback

import "testing"

// UPS does not escape what it puts into a callback: a code ends in "==", and may
// have what else base64 has. What other parameters hold ends no login.
func TestCallbackIsTakenApartByAmpersandAndFirstEqualsSign(t *testing.T) {
	const redirect, state = "http://localhost:8400/callback", "st-1_2"
	for _, tt := range []struct{ name, query, code string }{
		{"==", "code=Zm9v==&scope=read&state=st-1_2", "Zm9v=="},
		{"one =", "state=st-1_2&code=Zm9vYg=", "Zm9vYg="},
		{"= inside", "code=a=b=c&state=st-1_2", "a=b=c"},
		{"escaped", "code=Zm9v%3D%3D&state=st-1_2", "Zm9v=="},
		{"half escaped", "code=Zm9v%3D=&state=st-1_2", "Zm9v=="},
		{"+", "code=a+b/c==&state=st-1_2", "a+b/c=="},
		{"escaped +", "code=a%2Bb%2fc%3d%3D&state=st-1_2", "a+b/c=="},
		{"% at the end", "code=Zm9v%&state=st-1_2", "Zm9v%"},
		{"% and one digit", "code=Zm9v%3&state=st-1_2", "Zm9v%3"},
		{"% and no digits", "code=Zm%zz9v==&state=st-1_2", "Zm%zz9v=="},
		{";", "code=a;b==&state=st-1_2", "a;b=="},
		{"%, in a scope", "code=Zm9v==&scope=100%&state=st-1_2", "Zm9v=="},
		{"%, in a name", "code=Zm9v==&%=1&%zz&state=st-1_2", "Zm9v=="},
		{";, in a scope", "code=Zm9v==&scope=read;write&state=st-1_2", "Zm9v=="},
		{"scope twice", "code=Zm9v==&scope=read&scope=write&state=st-1_2", "Zm9v=="},
		{"two &", "code=Zm9v==&&scope=read&state=st-1_2&", "Zm9v=="},
		{"escaped name", "c%6Fde=Zm9v==&state=st-1_2", "Zm9v=="},
	} {
		for where, pasted := range map[string]string{"address": redirect + "?" + tt.query, "query": tt.query} {
			cb, err := ParseCallback(Config{RedirectURI: redirect, State: state}, pasted)
			if err != nil || cb.Code != tt.code {
				t.Errorf("%s, %s: the code is %q, %v; want %q", tt.name, where, cb.Code, err, tt.code)
			}
		}
	}
	for _, tt := range []struct {
		query string
		want  error
	}{
		{"code=Zm9v==&code=Zm9v==&state=st-1_2", errRepeated},
		{"code=Zm9v==&c%6fde=Zm9v==&state=st-1_2", errRepeated},
		{"code=Zm9v==&state=st-1_2=", errState},
		{"code=Zm9v==&state=st-1_2%", errState},
		{"code=Zm9v==;state=st-1_2", errNoState},
		{"code==&state=st-1_2&error=a+b", errBoth},
	} {
		l, err := newLogin(Config{RedirectURI: redirect, State: state})
		if err != nil {
			t.Fatal(err)
		}
		if cb, err := l.read(tt.query); err != tt.want {
			t.Errorf("%s: %v, %v; want %v", tt.query, cb, err, tt.want)
		}
	}
	l, _ := newLogin(Config{RedirectURI: redirect, State: state})
	if cb, err := l.read("error=access_denied&error_description=The+person+said+100%25+no&state=st-1_2"); err != nil || cb.ErrorDescription != "The person said 100% no" {
		t.Errorf("%q, %v", cb.ErrorDescription, err)
	}
	// The redirect URI's own query is compared as it was always read.
	own, err := newLogin(Config{RedirectURI: "http://localhost:8400/callback?tenant=a+b%2f1", State: state})
	if err != nil {
		t.Fatal(err)
	}
	if cb, err := own.read("tenant=a%20b/1&code=Zm9v==&scope=read&state=st-1_2"); err != nil || cb.Code != "Zm9v==" {
		t.Errorf("%v, %v", cb, err)
	}
}
