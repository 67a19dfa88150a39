package grant

import "time"

// PortUse is what a process says about a port on which it awaits sign-ins. Another
// process shows it to whoever finds the port taken.
type PortUse struct {
	PID  int `json:"-"` // the process, 0 for none
	Port int `json:"-"`
	// Service says that it is the long-running service, and no command of a person.
	Service bool `json:"service,omitempty"`
	// Company is the one whose sign-in ends last, Others are how many there are
	// beside it. Until is when that ends at the latest.
	Company string    `json:"company,omitempty"`
	Others  int       `json:"others,omitempty"`
	Until   time.Time `json:"until,omitzero"`
	// RedirectURIs are those whose answers are awaited there.
	RedirectURIs []string `json:"redirect_uris,omitempty"`
}
