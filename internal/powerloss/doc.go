// Package powerloss proves that a loss of power loses no refresh token. It records the
// system calls of real commands, works out what the disk may hold when the power fails
// after any of them, and lets the next commands run on every such disk beside a server
// that forgives nothing.
//
// It knows system calls and what commands print. It knows no file's name or format, so
// that it judges whatever way the vault has of keeping things.
package powerloss
