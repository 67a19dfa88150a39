package grant

// Callback is what the browser brought back from a sign-in: a code, or the error that
// the authorization server sent (RFC 6749 sections 4.1.2 and 4.1.2.1). Error and
// ErrorDescription hold printable characters only.
type Callback struct{ Code, Error, ErrorDescription string }

// String leaves out the code, so that no message shows it by accident.
func (c Callback) String() string {
	if c.Error != "" {
		return "error " + c.Error
	}
	return "a code"
}

// GoString is String, for %#v.
func (c Callback) GoString() string { return c.String() }
