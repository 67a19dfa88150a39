package keyringtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/upsauth/upsauth/internal/realpart"
)

// process is a program in the background.
type process struct {
	cmd  *exec.Cmd
	path string          // of what it said on standard error
	done <-chan struct{} // closed when it is gone
}

// start starts a program that ends with this one, however this one ends.
func start(cmd *exec.Cmd, logPath string) (*process, error) {
	logFile, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	cmd.Stderr = logFile
	gone, err := realpart.Start(cmd)
	if err != nil {
		return nil, err
	}
	return &process{cmd: cmd, path: logPath, done: gone}, nil
}

func (p *process) log() string {
	text, _ := os.ReadFile(p.path)
	return string(text)
}

func (p *process) pause() error {
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	// The signal is only on its way: what is asked right after it could still
	// be answered.
	var info syscall.WaitStatus
	for {
		pid, err := syscall.Wait4(p.cmd.Process.Pid, &info, syscall.WUNTRACED, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid != p.cmd.Process.Pid || !info.Stopped() {
			return fmt.Errorf("the process did not stop (%v, %w)", info, err)
		}
		return nil
	}
}

func (p *process) resume() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

// stop asks the process to end, and after a while sees to it; one that is not
// there is no error.
func (p *process) stop() error {
	if p == nil {
		return nil
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGCONT} {
		if err := p.signal(signal); err != nil {
			return err
		}
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(patience / 4):
		return p.kill()
	}
}

// kill ends the process, whatever it is at; one that is not there is no error.
func (p *process) kill() error {
	if p == nil {
		return nil
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(patience / 4):
		return fmt.Errorf("the process %d does not end", p.cmd.Process.Pid)
	}
}

func (p *process) signal(signal syscall.Signal) error {
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}
