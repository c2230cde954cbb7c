package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"margay/ruleset"
	"margay/store"
)

// A Host is what the commands about one host ask of it. Paths are below Root, which is "/" but in tests.
type Host struct {
	Root string
	// Counters returns what the kernel enforces and counts; nil says that nothing is enforced.
	Counters func(context.Context) ([]ruleset.Counter, error)
	// Try programs rules of every form into the kernel, where they concern nobody, and removes them.
	Try func(context.Context) error
}

// NewNodeCommands returns the commands of calicoctl node that are about an agent of ours: status, diags and checksystem.
func NewNodeCommands(env Env, host Host) []*cobra.Command {
	c := newCLI(env)
	if host.Root == "" {
		host.Root = "/"
	}
	return []*cobra.Command{c.nodeStatusCommand(host), c.nodeDiagsCommand(host), c.checkSystemCommand(host),
		absent("run", "it starts Calico's container; the agent of a host is `margay node`, which needs none")}
}

// NewNodeGroup returns the command node of a program that is no agent, with what [NewNodeCommands] returns below it.
func NewNodeGroup(env Env, host Host) *cobra.Command {
	return group(&cobra.Command{
		Use: "node", GroupID: GroupCare,
		Short: "Find out about the agent of this host",
		Long:  "Find out about the agent of this host: whether it runs, what it says of itself, whether the kernel can do what it needs.",
	}, NewNodeCommands(env, host)...)
}

func (c *cli) nodeStatusCommand(host Host) *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Print whether the agent of this host runs, and what it says of itself",
		Long: "Print whether the agent of this host runs, whether it is ready and enforces everything that is stored, which stored\n" +
			"objects it cannot use, and which parameters are set and have no effect. Exit code 0 says that it runs.",
		Example: c.example("$ node status"),
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.nodeStatus(cmd.Context(), f, host) },
	}
	c.addStoreFlags(cmd, &f)
	return cmd
}

func (c *cli) nodeStatus(ctx context.Context, f storeFlags, host Host) error {
	running, err := host.agentRuns()
	switch {
	case err != nil:
		return err
	case !running:
		//lint:ignore ST1005 this is how calicoctl says it
		return errors.New("Calico process is not running.")
	}
	out := c.env.Stdout
	fmt.Fprintln(out, "Calico process is running.")
	status, last, err := c.ownStatus(ctx, f)
	if err != nil {
		fmt.Fprintf(out, "\nWhat it reports is not known: %v\n", err)
		c.writeAnswer(ctx, out)
	} else if err := writeOwnStatus(out, status, last, time.Now()); err != nil {
		return err
	}
	_, err = fmt.Fprint(out, "\nThe BGP backend process (BIRD) is not running.\n\n")
	return err
}

// writeAnswer prints what the agent tells root, with or without a datastore.
func (c *cli) writeAnswer(ctx context.Context, out io.Writer) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	state, err := askAgent(ctx, c.env.AgentSocket)
	if err != nil {
		return
	}
	fmt.Fprintf(out, "\nAsked directly:\nNode:       %s\n", state.Node)
	if p := state.Program; p == nil {
		fmt.Fprintln(out, "In force:   nothing yet")
	} else {
		fmt.Fprintf(out, "In force:   %d policies and profiles at %d endpoints (margay node show)\n", len(p.Policies)+len(p.Profiles), len(p.Endpoints)+len(p.Workloads))
	}
	for _, text := range state.Warnings {
		fmt.Fprintf(out, "Warning:    %s\n", text)
	}
	if state.Detail != "" {
		fmt.Fprintf(out, "Detail:     %s\n", state.Detail)
	}
}

// nodeName is the name under which the agent of this host reports: it tells root, for others it is what it is started with.
func (c *cli) nodeName(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if state, err := askAgent(ctx, c.env.AgentSocket); err == nil && state.Node != "" {
		return state.Node, nil
	}
	for _, name := range []string{"FELIX_FELIXHOSTNAME", "NODENAME"} {
		if value := c.env.Getenv(name); value != "" {
			return value, nil
		}
	}
	host, err := os.Hostname()
	return strings.ToLower(host), err
}

// ownStatus returns what the agent of this host reported last, and the node report it makes up.
func (c *cli) ownStatus(ctx context.Context, f storeFlags) (nodeReport, store.Revision, error) {
	name, err := c.nodeName(ctx)
	if err != nil {
		return nodeReport{}, "", err
	}
	s, err := c.open(ctx, f)
	if err != nil {
		return nodeReport{}, "", err
	}
	defer s.close()
	r, err := s.report(ctx)
	if err != nil {
		return nodeReport{}, "", err
	}
	i := slices.IndexFunc(r.Nodes, func(n nodeReport) bool { return n.Node == name && n.Reports })
	if i < 0 {
		return nodeReport{}, "", fmt.Errorf("no agent reports to %s as node %s (%s; name the node of this host by NODENAME)",
			s.cfg, name, r.reporting())
	}
	return r.Nodes[i], r.Revision, nil
}

// reporting names the nodes that report.
func (r *report) reporting() string {
	var names []string
	for _, n := range r.Nodes {
		if n.Reports {
			names = append(names, n.Node)
		}
	}
	if len(names) == 0 {
		return "no node does"
	}
	return "those that do: " + some(names)
}

func writeOwnStatus(w io.Writer, n nodeReport, last store.Revision, now time.Time) error {
	tw := tabwriter.NewWriter(w, minWidth, 1, padding, ' ', 0)
	fmt.Fprintf(tw, "\nNode:\t%s\nVersion:\t%s\nReported:\t%s\n", n.Node, orDash(n.Version), age(n.Time, now))
	fmt.Fprintf(tw, "Ready:\t%s\nIn force:\t%s (revision %s, last change %s)\n", yes(n.Ready), yes(n.Current), orDash(string(n.Enforced)), orDash(string(last)))
	if n.Detail != "" {
		fmt.Fprintf(tw, "Detail:\t%s\n", n.Detail)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, part := range []struct {
		title string
		lines []string
	}{
		{"Stored objects that it cannot use, of which the last good version stays in force:", n.Faults},
		{"Parameters that are set and have no effect:", n.Unused},
		{"Warnings about the policy that is in force:", n.Warnings},
	} {
		if len(part.lines) > 0 {
			fmt.Fprintf(w, "\n%s\n  %s\n", part.title, strings.Join(part.lines, "\n  "))
		}
	}
	return nil
}

// agentRuns looks for a process that is an agent of ours, or Felix.
func (h Host) agentRuns() (bool, error) {
	files, err := filepath.Glob(filepath.Join(h.Root, "proc", "[0-9]*", "cmdline"))
	if err != nil || len(files) == 0 {
		return false, errors.Join(err, fmt.Errorf("find the agent: no process is to be seen below %s", filepath.Join(h.Root, "proc")))
	}
	for _, file := range files {
		// A process may be gone by now.
		if line, err := os.ReadFile(file); err == nil && isAgent(strings.Split(string(bytes.TrimRight(line, "\x00")), "\x00")) {
			return true, nil
		}
	}
	return false, nil
}

// isAgent tells by a command line.
func isAgent(args []string) bool {
	name := filepath.Base(args[0])
	switch {
	case name == "calico-felix":
		return true
	case name == "calico-node":
		return slices.Contains(args, "-felix")
	case len(args) < 2 || name != "margay":
		return false
	}
	// margay node show is no agent.
	return args[1] == "standalone" || args[1] == "node" && (len(args) == 2 || strings.HasPrefix(args[2], "-"))
}
