package realpart

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts a program that ends with this process, however that ends, and returns a
// channel that is closed once the program is gone. What SysProcAttr says beside the death
// signal is kept.
func Start(cmd *exec.Cmd) (gone <-chan struct{}, err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	done, started := make(chan struct{}), make(chan error)
	go func() {
		// The death signal is sent when the thread that started the program is gone, so that
		// thread is kept until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return done, nil
}
