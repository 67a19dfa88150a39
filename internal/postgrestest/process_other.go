//go:build !linux

package postgrestest

import (
	"errors"
	"os/exec"
)

// These are here so that the package compiles: Start skips before it gets so far.
type (
	account struct{}
	process struct{ done chan struct{} }
	reaper  struct{}
)

func unprivileged() (account, error)                             { return account{}, errors.ErrUnsupported }
func (account) own(string) error                                 { return errors.ErrUnsupported }
func runAs(account, string, *exec.Cmd, []byte) ([]byte, error)   { return nil, errors.ErrUnsupported }
func start(account, string, *exec.Cmd, string) (*process, error) { return nil, errors.ErrUnsupported }
func (*process) log() string                                     { return "" }
func (*process) runs() bool                                      { return false }
func (*process) interrupt() error                                { return errors.ErrUnsupported }
func (*process) quit() error                                     { return errors.ErrUnsupported }
func (*process) pause() error                                    { return errors.ErrUnsupported }
func (*process) resume() error                                   { return errors.ErrUnsupported }
func (*process) kill() error                                     { return errors.ErrUnsupported }
func (*process) wait() error                                     { return errors.ErrUnsupported }
func releaseMemory(string) error                                 { return errors.ErrUnsupported }
func hasRoom(string, uint64) bool                                { return false }

func reap(string) (*reaper, error) { return nil, errors.ErrUnsupported }
func (*reaper) dismiss() error     { return nil }
