package serve

import (
	"crypto/tls"
	"sync"

	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/signin"
)

// certificate is what the programs' port is served with. A new one in the same files,
// as they come every few weeks, is taken without a restart.
type certificate struct {
	cert, key string
	places    *safefile.Places
	trouble   func(error) // is told of files that can't be used; the one before goes on

	mu      sync.Mutex
	current *tls.Config
	files   [2]stamp
}

// load reads the files.
func (c *certificate) load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	files := [2]stamp{stampOf(c.cert), stampOf(c.key)}
	loaded, err := signin.LoadCertificate(c.places, c.cert, c.key)
	if err != nil {
		return err
	}
	c.current, c.files = loaded, files
	return nil
}

// config is the server's, which asks for the certificate at each connection.
func (c *certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		c.mu.Lock()
		changed := c.files[0].changed() || c.files[1].changed()
		c.mu.Unlock()
		if changed {
			// Between the two files of a pair the old one goes on.
			if err := c.load(); err != nil {
				c.trouble(err)
			}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return &c.current.Certificates[0], nil
	}}
}
