package demo

import (
	"context"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"margay/lab"
)

// guide holds the guide's manifests under the names that the guide gives them. Their data is the guide's.
//
//go:embed guide
var guide embed.FS

// The ports that matter. 22, 53 by UDP and 2379 are failsafe by default.
const (
	portSSH     uint16 = 22
	portDNS     uint16 = 53
	portHTTP    uint16 = 80
	portHTTPAlt uint16 = 8080
	portStore   uint16 = 2379
	portMetrics uint16 = 9091
	portHealth  uint16 = 9099
)

// The hosts, as the table names them.
const (
	master     = "kubeadm-master"
	node0      = "kubeadm-node-0"
	storeHost  = "store"
	stranger   = "stranger"
	prometheus = "prometheus-0"
	mgmt101    = "172.15.0.101"
	mgmt102    = "172.15.0.102"
	mgmtOther  = "172.101.0.7"
)

// storeEndpoint is the store's address as agents and command line read it.
const storeEndpoint = "http://10.100.0.10:2379"

// startUp bounds how long the store and the agents may take to be ready.
const startUp = 30 * time.Second

// A station is a host of the demo with its one address.
type station struct {
	*lab.Host
	addr netip.Addr
}

// port returns a port of the station.
func (s station) port(number uint16) netip.AddrPort { return netip.AddrPortFrom(s.addr, number) }

// A stage is the lab with everything that runs in it.
type stage struct {
	out       *screen
	binary    string
	dir       string // temporary: the store's data and the manifests
	lab       *lab.Lab
	stations  map[string]station
	agents    []*process
	processes []*process // all, in the order of their start
	listeners []io.Closer
}

// newStage makes the hosts and starts what runs on them. It returns when the agents say that they are ready.
func newStage(ctx context.Context, binary string, out *screen) (*stage, error) {
	s := &stage{out: out, binary: binary, stations: map[string]station{}}
	for _, do := range []func(context.Context) error{s.writeFiles, s.makeHosts, s.listen, s.startStore, s.startAgents} {
		if err := do(ctx); err != nil {
			if ctx.Err() == nil {
				s.printLogs()
			}
			s.close()
			return nil, err
		}
	}
	return s, nil
}

// writeFiles makes the temporary directory and puts there the manifests, and files that keep those of the machine out.
func (s *stage) writeFiles(context.Context) error {
	var err error
	if s.dir, err = os.MkdirTemp("", "margay-demo-"); err != nil {
		return fmt.Errorf("make a directory for the store: %w", err)
	}
	manifests, err := fs.Sub(guide, "guide")
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"felix.cfg": "",
		"calicoctl.cfg": "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata: {}\nspec:\n" +
			"  datastoreType: etcdv3\n  etcdEndpoints: " + storeEndpoint + "\n",
	} {
		if err := os.WriteFile(s.file(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return os.CopyFS(s.file("guide"), manifests)
}

// file returns the path of something in the temporary directory.
func (s *stage) file(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

// makeHosts makes the cast. Whoever is not in 10.100.0.0/24 gets there, and back, over the same wire.
func (s *stage) makeHosts(context.Context) error {
	var err error
	if s.lab, err = lab.New(); err != nil {
		return err
	}
	for name, addr := range map[string]string{
		master: "10.100.0.15/24", node0: "10.100.0.16/24", storeHost: "10.100.0.10/24", stranger: "10.100.0.66/24",
		prometheus: "10.100.0.20/24", mgmt101: mgmt101 + "/24", mgmt102: mgmt102 + "/24", mgmtOther: mgmtOther + "/24",
	} {
		prefix := netip.MustParsePrefix(addr)
		host, err := s.lab.Host(name, prefix)
		if err != nil {
			return err
		}
		s.stations[name] = station{host, prefix.Addr()}
		for _, wire := range []string{"10.100.0.0/24", "172.15.0.0/24", "172.101.0.0/24"} {
			if other := netip.MustParsePrefix(wire); other != prefix.Masked() {
				if err := host.AddRoute("eth0", other); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// listen opens the ports that belong to no program of Margay.
func (s *stage) listen(context.Context) error {
	for _, name := range []string{master, node0} {
		for _, port := range []uint16{portSSH, portHTTP, portHTTPAlt} {
			if err := s.greet(s.stations[name], port); err != nil {
				return err
			}
		}
	}
	if err := s.greet(s.stations[stranger], portHTTP); err != nil {
		return err
	}
	return s.echo(s.stations[stranger], portDNS)
}

// greet answers every connection to a TCP port with a line.
func (s *stage) greet(on station, port uint16) error {
	listener, err := on.Listen("tcp", on.port(port).String())
	if err != nil {
		return fmt.Errorf("listen on %s: %w", on.Name(), err)
	}
	s.listeners = append(s.listeners, listener)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			// The line fits into the socket's buffer; whoever does not read it loses it.
			_, _ = io.WriteString(conn, greeting)
			_ = conn.Close()
		}
	}()
	return nil
}

// echo answers every datagram to a UDP port with the same.
func (s *stage) echo(on station, port uint16) error {
	conn, err := on.ListenPacket("udp", on.port(port).String())
	if err != nil {
		return fmt.Errorf("listen on %s: %w", on.Name(), err)
	}
	s.listeners = append(s.listeners, conn)
	go func() {
		buffer := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return // closed
			}
			_, _ = conn.WriteTo(buffer[:n], from) // lost like any datagram
		}
	}()
	return nil
}

func (s *stage) startStore(ctx context.Context) error {
	on := s.stations[storeHost]
	p, err := s.start(on, nil, "store", "--dir", s.file("etcd"), "--listen", on.port(portStore).String(),
		"--socket", s.file("store.sock"))
	if err != nil {
		return err
	}
	return s.await(ctx, []*process{p}, "the store to listen", func(ctx context.Context) bool {
		conn, err := on.Dial(ctx, "tcp", on.port(portStore).String())
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
}

// startAgents starts the agents and waits until both have programmed their kernel.
func (s *stage) startAgents(ctx context.Context) error {
	for _, name := range []string{master, node0} {
		p, err := s.start(s.stations[name], []string{
			"FELIX_FELIXHOSTNAME=" + name,
			"FELIX_DATASTORETYPE=etcdv3",
			"FELIX_ETCDENDPOINTS=" + storeEndpoint,
			"FELIX_PROMETHEUSMETRICSENABLED=true",
			"FELIX_HEALTHENABLED=true",
		}, "node", "--config-file", s.file("felix.cfg"), "--state-dir", s.file(name))
		if err != nil {
			return err
		}
		s.agents = append(s.agents, p)
	}
	return s.await(ctx, s.agents, "the agents to be ready", func(ctx context.Context) bool {
		for _, name := range []string{master, node0} {
			if agentState(ctx, s.stations[name]) != answered {
				return false
			}
		}
		return true
	})
}

// await waits until ready holds, unless one of the processes ends before.
func (s *stage) await(ctx context.Context, processes []*process, what string, ready func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, startUp)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	s.out.progress("waiting for " + what)
	defer s.out.clear()
	for !ready(ctx) {
		for _, p := range processes {
			if p.ended() {
				return fmt.Errorf("wait for %s: %s ended: %v", what, p.name, p.err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// close ends the processes, agents first, and takes the lab and the directory away.
func (s *stage) close() {
	for i := len(s.processes) - 1; i >= 0; i-- {
		s.processes[i].stop()
	}
	for _, l := range s.listeners {
		_ = l.Close() // it held nothing but a port of a host that goes away
	}
	if s.lab != nil {
		s.lab.Close()
	}
	if err := os.RemoveAll(s.dir); err != nil {
		s.out.text(fmt.Sprintf("remove %s: %v", s.dir, err))
	}
}

// printLogs shows the end of what every process said.
func (s *stage) printLogs() {
	for _, p := range s.processes {
		state := "runs"
		if p.ended() {
			state = fmt.Sprintf("ended: %v", p.err)
		}
		s.out.heading(fmt.Sprintf("Log of margay %s (%s)", p.name, state))
		s.out.text(p.log.tail(40))
	}
}
