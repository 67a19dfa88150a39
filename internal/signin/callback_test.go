package signin

import "testing"

// Guards against: a port that is held for another sign-in, or an answer that is awaited
// where nobody brings it.
func TestCallback(t *testing.T) {
	for _, test := range []struct {
		uri, listen string
		leads       bool
		port        int
	}{
		{"http://localhost:8400/cb", "", true, 8400},
		{"http://127.0.0.1:0/cb", "", true, 0},
		{"http://[::1]:8400/cb", "", true, 8400},
		{"http://localhost/cb", "", true, 0},
		{"https://localhost:8400/cb", "", false, 8400},
		{"https://shop.example/cb", "", false, 0},
		{"https://shop.example/cb", "127.0.0.1:8401", true, 8401},
		{"http://localhost:8400/cb", "127.0.0.1:8401", true, 8401},
	} {
		c := Callback{RedirectURI: test.uri, Listen: test.listen}
		if c.LeadsHere() != test.leads || c.Port() != test.port {
			t.Errorf("%s, %s: leads here %t, port %d", test.uri, test.listen, c.LeadsHere(), c.Port())
		}
	}
}
