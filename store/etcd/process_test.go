package etcd_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	member "go.etcd.io/etcd/server/v3/embed"

	"margay/store/embed"
)

// serverVariable, when set, makes the test binary a server: servers that are killed or frozen are processes.
const serverVariable = "MARGAY_TEST_ETCD_SERVER"

// serverArgs is its value.
type serverArgs struct {
	Dir, Listen string
	// For a member of a cluster of several, started by etcd's own package: its name, its address towards the others, and
	// all of them as etcd's --initial-cluster.
	Name, Peer, Cluster string
}

func TestMain(m *testing.M) {
	if value := os.Getenv(serverVariable); value != "" {
		var args serverArgs
		if err := json.Unmarshal([]byte(value), &args); err != nil {
			panic(err)
		}
		serve(args)
		return
	}
	os.Exit(m.Run())
}

// serve runs the server until the parent closes its end of stdin, or is gone.
func serve(args serverArgs) {
	var address string
	var stop func()
	if args.Cluster != "" {
		address, stop = serveMember(args)
	} else {
		server, err := embed.Start(context.Background(), embed.Config{Dir: args.Dir, Listen: []string{args.Listen}})
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		address, stop = server.Addrs()[0].String(), func() { server.Close() }
	}
	fmt.Println("ready " + address)
	io.Copy(io.Discard, os.Stdin)
	stop()
}

func serveMember(args serverArgs) (address string, stop func()) {
	cfg := member.NewConfig()
	cfg.Name, cfg.Dir, cfg.InitialCluster = args.Name, args.Dir, args.Cluster
	cfg.LogOutputs, cfg.LogLevel = []string{"/dev/null"}, "panic"
	cfg.TickMs, cfg.ElectionMs = 50, 500
	for list, address := range map[*[]url.URL]string{
		&cfg.ListenPeerUrls: args.Peer, &cfg.AdvertisePeerUrls: args.Peer,
		&cfg.ListenClientUrls: args.Listen, &cfg.AdvertiseClientUrls: args.Listen,
	} {
		*list = []url.URL{{Scheme: "http", Host: address}}
	}
	e, err := member.StartEtcd(cfg)
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	<-e.Server.ReadyNotify()
	return args.Listen, e.Close
}

// A process is a server that can be killed, frozen and started again.
type process struct {
	args  serverArgs
	cmd   *exec.Cmd
	stdin io.Closer
}

// startProcess starts a server with an empty store.
func startProcess(t *testing.T) *process {
	t.Helper()
	p := &process{args: serverArgs{Dir: filepath.Join(t.TempDir(), "store"), Listen: ownAddress(t) + ":0"}}
	p.start(t)
	t.Cleanup(func() { p.kill(t) })
	return p
}

func (p *process) endpoint() string { return "http://" + p.args.Listen }

// start waits until the server is ready.
func (p *process) start(t *testing.T) {
	t.Helper()
	p.begin(t)()
}

// begin starts the server; what it returns waits until it is ready.
func (p *process) begin(t *testing.T) (ready func()) {
	t.Helper()
	value, err := json.Marshal(p.args)
	if err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), serverVariable+"="+string(value))
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		address, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
		if !ok {
			t.Fatalf("the server says %q", line)
		}
		p.args.Listen = address
	}
}

func (p *process) signal(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// freeze stops the process without ending it: its connections stay, and nobody answers.
func (p *process) freeze(t *testing.T) { p.signal(t, syscall.SIGSTOP) }

func (p *process) thaw(t *testing.T) { p.signal(t, syscall.SIGCONT) }

// kill ends the process at once; it may have ended before.
func (p *process) kill(t *testing.T) {
	t.Helper()
	p.stdin.Close()
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// stop ends the process in good order.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.stdin.Close()
	if err := p.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

// startCluster starts a cluster of three.
func startCluster(t *testing.T) (members []*process, endpoints []string) {
	t.Helper()
	var cluster []string
	for i := range 3 {
		args := serverArgs{
			Dir: filepath.Join(t.TempDir(), "store"), Name: fmt.Sprintf("m%d", i), Listen: freeAddress(t), Peer: freeAddress(t),
		}
		cluster = append(cluster, args.Name+"=http://"+args.Peer)
		members = append(members, &process{args: args})
		endpoints = append(endpoints, "http://"+args.Listen)
	}
	var ready []func()
	for _, p := range members {
		p.args.Cluster = strings.Join(cluster, ",")
		ready = append(ready, p.begin(t))
		t.Cleanup(func() { p.kill(t) })
	}
	for _, wait := range ready {
		wait()
	}
	return members, endpoints
}

// ownAddress returns a loopback address that nobody else uses: a port of it that was free, or that a server had which was
// ended, is not given to a connection of another program meanwhile.
func ownAddress(t *testing.T) string {
	t.Helper()
	n := rand.Uint32()
	return netip.AddrFrom4([4]byte{127, 1 + byte(n>>16)%254, byte(n >> 8), 1 + byte(n)%254}).String()
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", ownAddress(t)+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// leader returns the member that leads the cluster, as one of the others says.
func leader(t *testing.T, members []*process, ask *clientv3.Client) *process {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, p := range members {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			status, err := ask.Status(ctx, p.endpoint())
			cancel()
			if err == nil && status.Leader == status.Header.MemberId {
				return p
			}
		}
	}
	t.Fatal("no member leads")
	return nil
}
