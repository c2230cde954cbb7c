// Command guest is process 1 of the virtual machine: it loads modules, runs tests, says how they ended, and turns the machine off.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"margay/test/kernel/plan"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: only for the virtual machine that test/kernel makes")
		os.Exit(2)
	}
	if err := run(); err != nil {
		fmt.Printf("%s%v\n", plan.Failed, err)
	}
	os.Stdout.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	for _, m := range []struct{ kind, dir string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"}, {"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	b, err := os.ReadFile("/plan")
	if err != nil {
		return err
	}
	p, err := plan.Decode(b)
	if err != nil {
		return err
	}
	for _, name := range p.Modules {
		if err := load(name); err != nil {
			fmt.Printf("module %s: %v\n", name, err) // whether that matters, the tests know
		}
	}
	version, err := os.ReadFile("/proc/version")
	if err != nil {
		return err
	}
	fmt.Print(string(version))
	for i := range p.Tests {
		test(p, &p.Tests[i])
	}
	fmt.Println(plan.Done)
	return nil
}

func load(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// test runs a test program with the directory of its sources as the working directory, as go test does.
func test(p *plan.Plan, t *plan.Test) {
	cmd := exec.Command(t.Program, p.Args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = t.Dir, p.Env, os.Stdout, os.Stdout
	start := time.Now()
	err := cmd.Run()
	took := time.Since(start).Round(time.Second / 10)
	if err != nil {
		fmt.Printf("%s%s (%s)\n", plan.Failed, t.Package, strings.TrimSpace(err.Error()))
		return
	}
	fmt.Printf("%s%s in %v\n", plan.Passed, t.Package, took)
}
