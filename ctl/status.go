package ctl

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	v3 "margay/api/v3"
	"margay/store"
)

func (c *cli) statusCommand() *cobra.Command {
	var f storeFlags
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Print what every node says of itself: ready, what it enforces, faults",
		Long: "Print for every node whether its agent reports, is ready, and enforces every resource that is stored; below the\n" +
			"table which stored objects it cannot use, which endpoints are not up, and what in its policy is remarkable. Nodes\n" +
			"are those that report, Node resources, and the nodes of host endpoints.\n\n" +
			"IN FORCE yes: the node enforces the last change that was written. Exit code 1 says that some node does not report,\n" +
			"is not ready, is behind, or cannot use something that is stored; standard error says which.",
		Example: c.example("$ status", "$ status -o json"),
		Args:    onlyFlags,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.status(cmd.Context(), f, output) },
	}
	c.addStoreFlags(cmd, &f)
	cmd.Flags().StringVarP(&output, "output", "o", "ps", "ps, yaml or json")
	return cmd
}

// A report is what status prints.
type report struct {
	// Revision of the last change, deletions included.
	Revision store.Revision `json:"revision"`
	Nodes    []nodeReport   `json:"nodes"`
}

// A nodeReport is what one node says, and what follows from it.
type nodeReport struct {
	store.NodeStatus `json:",inline"`
	Reports          bool `json:"reports"`
	// Current: every resource that is stored is in force there.
	Current bool `json:"current"`
}

func (c *cli) status(ctx context.Context, f storeFlags, output string) error {
	if !slices.Contains([]string{"ps", "yaml", "yml", "json"}, output) {
		return fmt.Errorf("unrecognized output format '%s'", output)
	}
	s, err := c.open(ctx, f)
	if err != nil {
		return err
	}
	defer s.close()
	r, err := s.report(ctx)
	if err != nil {
		return err
	}
	switch output {
	case "json":
		err = json.NewEncoder(c.env.Stdout).Encode(r)
	case "yaml", "yml":
		var text []byte
		if text, err = yaml.Marshal(r); err == nil {
			_, err = c.env.Stdout.Write(text)
		}
	default:
		err = r.write(c.env.Stdout, time.Now())
	}
	return errors.Join(err, r.problem())
}

// report asks the store for everything that status prints.
func (s *session) report(ctx context.Context) (*report, error) {
	stored, err := s.list(ctx, "", v3.AgentKinds()...)
	if err != nil {
		return nil, err
	}
	statuses, err := s.statuses(ctx)
	if err != nil {
		return nil, err
	}
	r := &report{}
	if r.Revision, err = s.lastChange(ctx); err != nil {
		return nil, err
	}
	nodes := map[string]nodeReport{}
	for _, node := range expectedNodes(stored.Items) {
		nodes[node] = nodeReport{NodeStatus: store.NodeStatus{Node: node}}
	}
	for _, status := range statuses {
		nodes[status.Node] = nodeReport{status, true, s.store.Reached(status.Enforced, r.Revision)}
	}
	r.Nodes = slices.SortedFunc(maps.Values(nodes), func(a, b nodeReport) int { return cmp.Compare(a.Node, b.Node) })
	return r, nil
}

// expectedNodes returns the nodes that ought to have an agent.
func expectedNodes(items []v3.Resource) []string {
	var nodes []string
	for _, item := range items {
		switch r := item.(type) {
		case *v3.Node:
			nodes = append(nodes, r.Name)
		case *v3.HostEndpoint:
			nodes = append(nodes, r.Spec.Node)
		}
	}
	return nodes
}

// write prints a table, and under it what is wrong.
func (r *report) write(w io.Writer, now time.Time) error {
	if len(r.Nodes) == 0 {
		_, err := fmt.Fprintln(w, "No node reports to this datastore, and no resource names one.")
		return err
	}
	fmt.Fprintf(w, "Last change in the datastore: revision %s\n\n", r.Revision.Short())
	tw := tabwriter.NewWriter(w, 5, 1, 3, ' ', 0)
	fmt.Fprintln(tw, "NODE\tREADY\tIN FORCE\tREVISION\tFAULTS\tREPORTED\tDETAIL")
	for _, n := range r.Nodes {
		if !n.Reports {
			fmt.Fprintf(tw, "%s\t-\t-\t-\t-\t-\t%s\n", n.Node, "no report: its agent does not run or cannot reach the datastore (if the host is gone: delete node "+n.Node+")")
			continue
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", n.Node, yes(n.Ready), yes(n.Current), orDash(n.Enforced.Short()),
			len(n.Faults), age(n.Time, now), n.Detail)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return errors.Join(err,
		r.writeTold(w, "Fault", func(n *nodeReport) []string { return n.Faults }),
		r.writeTold(w, "Endpoint", notUp),
		r.writeTold(w, "Warning", func(n *nodeReport) []string { return n.Warnings }),
		r.writeTold(w, "Note", func(n *nodeReport) []string {
			if len(n.Unused) == 0 {
				return nil
			}
			return []string{fmt.Sprintf("%d parameter(s) that are set have no effect (status -o yaml, and node status there, name them)", len(n.Unused))}
		}))
}

// writeTold prints each text once, with the nodes that report it.
func (r *report) writeTold(w io.Writer, what string, texts func(*nodeReport) []string) error {
	nodes := map[string][]string{}
	for i := range r.Nodes {
		n := &r.Nodes[i]
		for _, text := range texts(n) {
			nodes[text] = append(nodes[text], n.Node)
		}
	}
	var err error
	for _, text := range slices.Sorted(maps.Keys(nodes)) {
		_, err = fmt.Fprintf(w, "%s on %s: %s\n", what, some(nodes[text]), text)
	}
	return err
}

// notUp says which endpoints of a node are not up, and why that is so.
func notUp(n *nodeReport) []string {
	var out []string
	for name, state := range n.Endpoints {
		switch state {
		case store.EndpointDown:
			out = append(out, name+" is down: its interface is")
		case store.EndpointError:
			out = append(out, name+" is in error: no interface of the node is it, so nothing is enforced for it")
		}
	}
	return out
}

// problem is the error of a report in which something is not as it should be.
func (r *report) problem() error {
	var silent, unready, behind, faulty []string
	for _, n := range r.Nodes {
		switch {
		case !n.Reports:
			silent = append(silent, n.Node)
			continue
		case !n.Ready:
			unready = append(unready, n.Node)
		case !n.Current:
			behind = append(behind, n.Node)
		}
		if len(n.Faults) > 0 {
			faulty = append(faulty, n.Node)
		}
	}
	var errs []error
	for _, p := range []struct {
		nodes []string
		text  string
	}{
		{silent, "not reporting"}, {unready, "not ready"}, {behind, "not enforcing the last change yet"},
		{faulty, "with stored objects that cannot be used"},
	} {
		if len(p.nodes) > 0 {
			errs = append(errs, fmt.Errorf("%d of %d nodes %s: %s", len(p.nodes), len(r.Nodes), p.text, some(p.nodes)))
		}
	}
	return errors.Join(errs...)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// age says how long ago an RFC 3339 time was.
func age(text string, now time.Time) string {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return orDash(text)
	}
	return max(0, now.Sub(t)).Round(time.Second).String() + " ago"
}
