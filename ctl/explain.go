package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// explainFlags are the flags of explain.
type explainFlags struct {
	store                storeFlags
	files                []string
	input                inputFlags
	withStore            bool
	live                 bool
	socket               string
	from, to             string
	addresses            []string
	protocol             string
	port, sourcePort     uint16
	icmpType, icmpCode   uint8
	node, in, out        string
	output               string
	rules                bool
	hasPort, hasICMPType bool
}

func (c *cli) explainCommand() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain --from ADDR|ENDPOINT --to ADDR|ENDPOINT [--protocol tcp] [--port N]",
		Short: "Say what becomes of a connection, and which rule decides",
		Long: "Say whether a new connection is allowed, what decides that at either end, and what the smallest change is that\n" +
			"would turn it round. The answer comes first, then the way of the packet: every stage, tier and policy that is\n" +
			"looked at, staged policies with what they would have decided.\n\n" +
			"An ENDPOINT is the name of a HostEndpoint or WorkloadEndpoint (namespace/name works, too, and Kind(name)); its\n" +
			"first address counts unless --address names another. The policies are those of the datastore; with -f those of\n" +
			"files, as if nothing else were stored, or with --with-store on top of what is stored; with --live what the agent\n" +
			"of this host enforces now. --port is the port after destination NAT. Exit code 0 says that there is an answer.",
		Example: c.example("$ explain --from 172.15.0.101 --to kubeadm-node-0.eth0 --port 9091",
			"$ explain --from kubeadm-master.eth0 --to 10.100.0.2 --protocol udp --port 53",
			"$ explain -f changed-policy.yaml --with-store --from 10.0.0.9 --to web --port 443",
			"$ explain --live --from 10.0.0.9 --to 10.0.0.1 --protocol icmp --icmp-type 8"),
		Args: onlyFlags,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.hasPort, f.hasICMPType = cmd.Flags().Changed("port"), cmd.Flags().Changed("icmp-type")
			return c.explain(cmd.Context(), &f)
		},
	}
	c.addStoreFlags(cmd, &f.store)
	flags := cmd.Flags()
	flags.StringVar(&f.from, "from", "", "address or endpoint that opens the connection")
	flags.StringVar(&f.to, "to", "", "address or endpoint that it goes to")
	flags.StringSliceVar(&f.addresses, "address", nil, "the address to use of an endpoint that has several or none")
	flags.StringVar(&f.protocol, "protocol", "tcp", "tcp, udp, sctp, udplite, icmp, icmpv6 or a number")
	flags.Uint16Var(&f.port, "port", 0, "destination port")
	flags.Uint16Var(&f.sourcePort, "source-port", 49152, "source port")
	flags.Uint8Var(&f.icmpType, "icmp-type", 0, "type of icmp or icmpv6 (default echo request)")
	flags.Uint8Var(&f.icmpCode, "icmp-code", 0, "code of icmp or icmpv6")
	flags.StringVar(&f.node, "node", "", "look at this node only")
	flags.StringVar(&f.in, "in", "", "interface that the packet comes in by, where it arrives")
	flags.StringVar(&f.out, "out", "", "interface that the packet leaves by, where it comes from")
	flags.StringSliceVarP(&f.files, "filename", "f", nil, "manifest file, directory or - for standard input; may be given several times")
	flags.BoolVarP(&f.input.recursive, "recursive", "R", false, "with a directory: go through its subdirectories as well")
	f.input.addNamespace(cmd)
	flags.BoolVar(&f.withStore, "with-store", false, "with -f: put the files on top of what is stored")
	flags.BoolVar(&f.live, "live", false, "ask the agent of this host what it enforces now")
	flags.StringVar(&f.socket, "agent-socket", c.env.AgentSocket, "with --live: the agent's socket")
	flags.BoolVar(&f.rules, "rules", false, "print every rule that is looked at, not only those that match")
	flags.StringVarP(&f.output, "output", "o", "text", "text, yaml or json")
	for _, name := range []string{"from", "to"} {
		_ = cmd.RegisterFlagCompletionFunc(name, c.completeEndpoint)
	}
	return cmd
}

// explain finds the packet's ends and nodes, walks each node, and prints.
func (c *cli) explain(ctx context.Context, f *explainFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	w, err := c.explainWorld(ctx, f)
	if err != nil {
		return err
	}
	q, err := w.question(f)
	if err != nil {
		return err
	}
	e, err := w.explanation(q)
	if err != nil {
		return err
	}
	switch f.output {
	case "json":
		enc := json.NewEncoder(c.env.Stdout)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(e)
	case "yaml", "yml":
		text, err := yaml.Marshal(e)
		if err == nil {
			_, err = c.env.Stdout.Write(text)
		}
		return err
	}
	return e.write(c.env.Stdout, f.rules)
}

// check refuses flags that do not go together.
func (f *explainFlags) check() error {
	switch {
	case f.from == "" || f.to == "":
		return errors.New("both ends are needed: --from and --to, each an address or the name of an endpoint")
	case f.live && (len(f.files) > 0 || f.withStore):
		return errors.New("--live asks the agent what it enforces; it cannot be combined with -f or --with-store")
	case f.withStore && len(f.files) == 0:
		return errors.New("--with-store is for -f: without files the datastore is what is looked at anyway")
	case f.output != "text" && f.output != "yaml" && f.output != "yml" && f.output != "json":
		return fmt.Errorf("unrecognized output format '%s' (text, yaml or json)", f.output)
	}
	return nil
}

// explainWorld reads what the flags ask for.
func (c *cli) explainWorld(ctx context.Context, f *explainFlags) (*world, error) {
	if f.live {
		return c.liveWorld(ctx, f.socket)
	}
	w := newWorld(c.env.Settings)
	if len(f.files) == 0 || f.withStore {
		s, err := c.openForWork(ctx, f.store)
		if err != nil {
			return nil, err
		}
		defer s.close()
		stored, err := s.list(ctx, "", v3.AgentKinds()...)
		if err != nil {
			return nil, err
		}
		for _, r := range stored.Items {
			w.put(r)
		}
		for i := range stored.Faults {
			w.note("%v; agents go on with its last good version, which is not looked at here", &stored.Faults[i])
		}
	}
	for _, name := range f.files {
		input := f.input
		input.filename = name
		docs, err := c.load(input)
		if err != nil {
			return nil, err
		}
		if errs := prepare(docs, input); len(errs) > 0 {
			return nil, &inputError{errs}
		}
		for i := range docs {
			w.put(docs[i].Object)
		}
	}
	return w, w.complete()
}

// protocolOf reads --protocol; names count in any case.
func protocolOf(text string) (uint8, error) {
	for _, p := range []v3.Protocol{v3.ProtocolTCP, v3.ProtocolUDP, v3.ProtocolICMP, v3.ProtocolICMPv6, v3.ProtocolSCTP, v3.ProtocolUDPLite} {
		if strings.EqualFold(text, string(p)) {
			n, _ := p.Number()
			return n, nil
		}
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("--protocol %q is none of tcp, udp, sctp, udplite, icmp, icmpv6 or a number from 1 to 255", text)
	}
	return uint8(n), nil
}

// packet returns the packet that the flags describe, but for its way.
func (f *explainFlags) packet(from, to netip.Addr) (ruleset.Packet, error) {
	pkt := ruleset.Packet{Src: from, Dst: to}
	var err error
	if pkt.Protocol, err = protocolOf(f.protocol); err != nil {
		return pkt, err
	}
	if pkt.Protocol == ruleset.ICMP && from.Is6() {
		pkt.Protocol = ruleset.ICMPv6 // nobody means the other one
	}
	icmp := pkt.Protocol == ruleset.ICMP || pkt.Protocol == ruleset.ICMPv6
	switch {
	case pkt.Protocol == ruleset.ICMPv6 && from.Is4():
		return pkt, fmt.Errorf("--protocol icmpv6 does not go with the IPv4 address %s (use icmp)", from)
	case f.hasICMPType && !icmp:
		return pkt, fmt.Errorf("--icmp-type does not go with --protocol %s", f.protocol)
	case ruleset.HasPorts(pkt.Protocol) && (!f.hasPort || f.port == 0):
		return pkt, fmt.Errorf("--port is needed with --protocol %s: the destination port, 1 to 65535", f.protocol)
	case !ruleset.HasPorts(pkt.Protocol) && f.hasPort:
		return pkt, fmt.Errorf("--port does not go with --protocol %s, which has no ports", f.protocol)
	case ruleset.HasPorts(pkt.Protocol):
		pkt.SrcPort, pkt.DstPort = f.sourcePort, f.port
	case f.hasICMPType:
		pkt.ICMPType, pkt.ICMPCode = f.icmpType, f.icmpCode
	case pkt.Protocol == ruleset.ICMP:
		pkt.ICMPType = 8
	case pkt.Protocol == ruleset.ICMPv6:
		pkt.ICMPType = 128
	}
	return pkt, nil
}
