package demo

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// grace is how long a process may take to end when it is asked to.
const grace = 5 * time.Second

// A process is one that runs until the end of the demo.
type process struct {
	name string
	cmd  *exec.Cmd
	log  tailBuffer
	done chan struct{} // closed when the process has ended
	err  error         // how; valid once done is closed
}

// start starts margay in a role on a host.
func (s *stage) start(on station, env []string, args ...string) (*process, error) {
	p := &process{name: args[0] + " on " + on.Name(), cmd: s.command(context.Background(), env, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := on.Start(p.cmd); err != nil {
		return nil, err
	}
	s.processes = append(s.processes, p)
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// command prepares a run of margay. Of this process's environment it gets only what finds programs and directories:
// settings for another Calico must not leak into the demo. It is in a process group of its own, so that Ctrl-C reaches
// the demo alone.
func (s *stage) command(ctx context.Context, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.binary, args...)
	cmd.Dir = s.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "TMPDIR=" + s.dir}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = grace
	return cmd
}

// run runs a command of the command line on the store's host, among the manifests of an approach, and returns what it
// printed. It names a configuration file, since the machine may have one for another cluster, which would beat the
// environment.
func (s *stage) run(ctx context.Context, approach string, args []string) (string, error) {
	cmd := s.command(ctx, nil, append(slices.Clone(args), "--config", s.file("calicoctl.cfg"))...)
	cmd.Dir = s.file("guide/" + approach)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	err := s.stations[storeHost].Run(cmd)
	if err != nil {
		err = fmt.Errorf("margay %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimRight(output.String(), "\n"), err
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop asks the process to end, and makes it.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error says that it has ended
	select {
	case <-p.done:
	case <-time.After(grace):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// A tailBuffer keeps the last part of what is written to it.
type tailBuffer struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (b *tailBuffer) Write(p []byte) (int, error) {
	const keep = 64 << 10
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	if len(b.text) > 2*keep {
		b.text = append([]byte(nil), b.text[len(b.text)-keep:]...)
	}
	return len(p), nil
}

// tail returns the last lines.
func (b *tailBuffer) tail(lines int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := strings.Split(strings.TrimRight(string(b.text), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
