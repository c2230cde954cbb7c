package ctl

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

// askTimeout bounds what a diagnosis asks of the agent.
const askTimeout = 5 * time.Second

func (c *cli) nodeDiagsCommand(host Host) *cobra.Command {
	var logDir string
	cmd := &cobra.Command{
		Use:   "diags",
		Short: "Collect what this host tells about network policy, in a .tar.gz",
		Long: "Collect interfaces, addresses, routes, sockets and connections of this host, what its kernel enforces and counts,\n" +
			"what its agent says, and the logs of a directory, in a .tar.gz in a new directory. Run it as root.",
		Example: c.example("$ node diags"),
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.nodeDiags(cmd.Context(), host, logDir) },
	}
	cmd.Flags().StringVar(&logDir, "log-dir", "/var/log/calico", "directory of logs to copy")
	return cmd
}

func (c *cli) nodeDiags(ctx context.Context, host Host, logDir string) error {
	if err := needRoot(); err != nil {
		return err
	}
	out := c.env.Stdout
	fmt.Fprintln(out, "Collecting diagnostics")
	dir, err := os.MkdirTemp("", "calico")
	if err != nil {
		return fmt.Errorf("error creating temp directory to dump logs: %w", err)
	}
	fmt.Fprintln(out, "Using temp dir:", dir)
	now := time.Now()
	b, err := newBundle(filepath.Join(dir, "diags-"+now.Format("20060102_150405")+".tar.gz"), "diagnostics", now)
	if err != nil {
		return err
	}
	c.addHost(b, host)
	c.addAgent(ctx, b, host)
	if info, err := os.Stat(logDir); err != nil {
		fmt.Fprintf(out, "Error copying log files: %v\n", err)
	} else if !info.IsDir() {
		fmt.Fprintf(out, "No logs found in %s; skipping log copying\n", logDir)
	} else {
		fmt.Fprintln(out, "Copying Calico logs")
		if err := b.addTree("logs", logDir); err != nil {
			fmt.Fprintf(out, "Error copying log files: %v\n", err)
		}
	}
	if err := b.close(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nDiags saved to %s\n", b.path)
	fmt.Fprintln(out, "If required, you can upload the diagnostics bundle to a file sharing service.")
	return nil
}

// needRoot is calicoctl's refusal.
func needRoot() error {
	if os.Geteuid() != 0 {
		//lint:ignore ST1005 this is how calicoctl says it
		return fmt.Errorf("Need super user privileges: Operation not permitted")
	}
	return nil
}

// addHost puts in what the kernel tells everybody.
func (c *cli) addHost(b *bundle, host Host) {
	fmt.Fprintln(c.env.Stdout, "Dumping routes, sockets and connections")
	b.add("date", []byte(b.now.Format(time.RFC3339)+"\n"), nil)
	name, err := os.Hostname()
	b.add("hostname", []byte(name+"\n"), err)
	b.add("version", []byte(c.env.Version+" "+c.env.Commit+"\n"), nil)
	for _, file := range []string{
		"version", "cmdline", "meminfo", "modules", "net/route", "net/ipv6_route", "net/if_inet6", "net/dev", "net/arp", "net/fib_trie",
		"net/tcp", "net/tcp6", "net/udp", "net/udp6", "net/raw", "net/raw6", "net/nf_conntrack", "sys/net/netfilter/nf_conntrack_count",
		"sys/net/netfilter/nf_conntrack_max", "sys/net/ipv4/ip_forward", "sys/net/ipv6/conf/all/forwarding",
	} {
		b.addFile("proc/"+file, filepath.Join(host.Root, "proc", file))
	}
	fmt.Fprintln(c.env.Stdout, "Dumping interface info")
	interfaces, err := interfaceTable()
	b.add("interfaces", []byte(interfaces), err)
}

// interfaceTable lists interfaces with their addresses.
func interfaceTable() (string, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	text := ""
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			return text, err
		}
		text += fmt.Sprintf("%d %s %s mtu %d %s %v\n", i.Index, i.Name, i.HardwareAddr, i.MTU, i.Flags, addrs)
	}
	return text, nil
}

// addAgent puts in what the kernel enforces and the agent says.
func (c *cli) addAgent(ctx context.Context, b *bundle, host Host) {
	fmt.Fprintln(c.env.Stdout, "Dumping nftables")
	if host.Counters != nil {
		counters, err := host.Counters(ctx)
		list := make([]shownCounter, len(counters))
		for i := range counters {
			list[i] = shown(&counters[i])
		}
		b.addJSON("rules.json", list, err)
	}
	fmt.Fprintln(c.env.Stdout, "Dumping what the agent says")
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	state, err := askAgent(ctx, c.env.AgentSocket)
	b.addJSON("agent.json", state, err)
	for name, url := range map[string]string{
		"readiness": "http://127.0.0.1:9099/readiness", "liveness": "http://127.0.0.1:9099/liveness", "metrics": "http://127.0.0.1:9091/metrics",
	} {
		text, err := fetch(ctx, url)
		b.add(name, text, err)
	}
}

// fetch reads what a server of this host answers, whatever its status.
func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxCollected))
	return append([]byte(resp.Status+"\n\n"), body...), err
}
