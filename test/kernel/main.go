// Command kernel runs tests on another kernel than this machine's, in a virtual machine that has nothing but that kernel, some of
// its modules, the sources and the tests, all in memory:
//
//	go test -c, modules in order --cpio--> qemu: guest (process 1) runs one test program after the other --serial line--> here
//
// It must not be needed by `make test`. It fails when a test fails, and when it cannot tell that all of them ran.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"margay/test/kernel/plan"
)

// wanted are the modules that tests need, or that load on demand where there is a modprobe. Those that the kernel has built in, or
// has not at all, are passed over.
const wanted = "crc32c_generic crc32c_intel nf_tables nft_compat nft_ct nft_counter nft_fib_inet nft_hash nft_limit nft_log nft_masq nft_nat nft_chain_nat " +
	"nft_numgen nft_objref nft_queue nft_redir nft_reject_inet nft_reject_bridge nft_reject_netdev nft_meta_bridge nft_socket nft_tunnel " +
	"nft_set_rbtree nft_set_hash nft_set_bitmap nf_conntrack nf_conntrack_netlink nf_conntrack_bridge nf_log_syslog nfnetlink_log nf_nat " +
	"nf_reject_ipv4 nf_reject_ipv6 bridge br_netfilter veth tun dummy vxlan sctp xfrm_user udp_diag tcp_diag inet_diag ip_vs ip_vs_rr"

type options struct {
	kernel, modules, accel string
	tests                  []string // arguments of every test program
	limit                  time.Duration
}

func main() {
	var o options
	var run, skip string
	flag.StringVar(&o.kernel, "kernel", "", "kernel image (vmlinuz)")
	flag.StringVar(&o.modules, "modules", "", "directory of its modules (lib/modules/VERSION)")
	flag.StringVar(&o.accel, "accel", "tcg", "what runs the machine: tcg works everywhere, kvm is faster where it works")
	flag.StringVar(&run, "run", "", "run only tests that match, as go test -run")
	flag.StringVar(&skip, "skip", "", "skip tests that match, as go test -skip")
	flag.DurationVar(&o.limit, "timeout", 30*time.Minute, "how long everything may take")
	verbose := flag.Bool("v", false, "print all tests, those that are skipped included")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: kernel -kernel VMLINUZ -modules DIRECTORY [-run REGEXP] [-skip REGEXP] [-timeout 30m] [-v] PACKAGE... (in the directory of go.mod)")
		flag.PrintDefaults()
	}
	flag.Parse()
	if o.kernel == "" || o.modules == "" || flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	o.tests = []string{"-test.timeout=" + o.limit.String()}
	if run != "" {
		o.tests = append(o.tests, "-test.run="+run)
	}
	if skip != "" {
		o.tests = append(o.tests, "-test.skip="+skip)
	}
	if *verbose {
		o.tests = append(o.tests, "-test.v")
	}
	if err := o.all(flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "kernel:", err)
		os.Exit(1)
	}
}

// all builds, packs and runs. Nothing is left behind.
func (o *options) all(packages []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	work, err := os.MkdirTemp("", "margay-kernel-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	image := filepath.Join(work, "initramfs")
	if err := o.pack(ctx, image, packages); err != nil {
		return err
	}
	return o.boot(ctx, image)
}

// pack writes the initial file system: the guest, its plan, modules, test programs, nft(8), and the sources, since tests read some.
func (o *options) pack(ctx context.Context, image string, packages []string) error {
	f, err := os.Create(image)
	if err != nil {
		return err
	}
	defer f.Close()
	a := newArchive(f)
	p := &plan.Plan{Args: o.tests, Env: []string{"HOME=/tmp", "TMPDIR=/tmp", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "MARGAY_REQUIRE_IPVS=1"}}
	for _, e := range os.Environ() {
		if strings.HasPrefix(e, "MARGAY_") {
			p.Env = append(p.Env, e)
		}
	}
	if err := a.modules(ctx, o.modules, p); err != nil {
		return err
	}
	if err := a.programs(ctx, filepath.Dir(image), packages, p); err != nil {
		return err
	}
	if err := a.command(ctx, "nft"); err != nil {
		return err
	}
	if err := a.sources("src"); err != nil {
		return err
	}
	if err := a.file("plan", 0o644, p.Encode()); err != nil {
		return err
	}
	return errors.Join(a.close(), f.Close())
}

// programs builds the guest and the tests, and adds them.
func (a *archive) programs(ctx context.Context, work string, packages []string, p *plan.Plan) error {
	build := func(name string, args ...string) error {
		to := filepath.Join(work, "program")
		cmd := exec.CommandContext(ctx, "go", append(args[:len(args)-1:len(args)-1], "-o", to, args[len(args)-1])...)
		cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), "CGO_ENABLED=0"), os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build %s: %w", name, err)
		}
		defer os.Remove(to)
		return a.copy(name, to)
	}
	if err := build("init", "build", "./test/kernel/guest"); err != nil {
		return err
	}
	for i, pkg := range packages {
		dir := filepath.Clean(pkg)
		if !filepath.IsLocal(dir) {
			return fmt.Errorf("package %s: not below the module's directory", pkg)
		}
		name := fmt.Sprintf("tests/%d", i)
		if err := build(name, "test", "-c", "./"+dir); err != nil {
			return err
		}
		p.Tests = append(p.Tests, plan.Test{Package: pkg, Program: "/" + name, Dir: "/src/" + dir})
	}
	return nil
}

// boot runs the machine until it is off. What it says is passed through, line by line, and understood.
func (o *options) boot(ctx context.Context, image string) error {
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", o.accel, "-cpu", "max", "-smp", "2", "-m", "3G",
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-kernel", o.kernel, "-initrd", image, "-append", "console=ttyS0 quiet loglevel=3 panic=-1 rdinit=/init")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start virtual machine: %w (install qemu-system-x86)", err)
	}
	r := newReport(os.Stdout)
	_, copyErr := io.Copy(r, out)
	if err := errors.Join(copyErr, cmd.Wait()); err != nil {
		return fmt.Errorf("run virtual machine: %w", errors.Join(err, context.Cause(ctx)))
	}
	return r.result()
}
