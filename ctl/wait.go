package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v3 "margay/api/v3"
	"margay/store"
)

// waitFlags say whether a command that wrote ends only when what it wrote is in force.
type waitFlags struct {
	wait    bool
	timeout time.Duration
}

func (f *waitFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.wait, "wait", false, "return when every node says that it enforces what was written")
	cmd.Flags().DurationVar(&f.timeout, "wait-timeout", 30*time.Second, "with --wait: give up after this time")
}

// pollInterval is how often the nodes' reports are read. An agent reports at most four times a second.
const pollInterval = 50 * time.Millisecond

// await waits until what the writer wrote is in force on every node that reports, is a Node, or has a host endpoint. All of
// them are concerned: a label or an address anywhere may be in a set of any of them.
func (c *cli) await(ctx context.Context, w *writer, f waitFlags) error {
	goal := w.lastRevision()
	if !f.wait || goal == "" || ctx.Err() != nil || w.down {
		return nil
	}
	p, err := w.progress(ctx, goal, f.timeout)
	if err != nil {
		return err
	}
	for _, line := range p.faults(w.changes) {
		err = errors.Join(err, errors.New(line))
	}
	c.tell(p.String())
	for _, line := range p.nowhere(w.changes) {
		c.warning("%s", line)
	}
	return err
}

// lastRevision returns the revision from which on the state is what the command asked for: that of the last write, or of
// what was unchanged; "" if nothing came of it.
func (w *writer) lastRevision() store.Revision {
	last := store.Revision("")
	for _, c := range w.changes {
		revision := c.revision
		if c.state == stateUnchanged {
			revision = store.Revision(c.result.GetResourceVersion())
		}
		if revision != "" && w.store.Reached(revision, last) {
			last = revision
		}
	}
	return last
}

// tell says something beyond what calicoctl says.
func (c *cli) tell(text string) {
	if text != "" && !c.silent() {
		fmt.Fprintln(c.env.Stderr, text)
	}
}

// A progress is what is known of the nodes' way to a revision.
type progress struct {
	goal    store.Revision
	began   time.Time
	nodes   map[string]*arrival
	reports []store.NodeStatus
}

// An arrival is a node's way to the goal.
type arrival struct {
	node   string
	at     time.Duration // after the beginning; -1: not yet
	status store.NodeStatus
	silent bool // it does not report
}

// progress follows the nodes until all have arrived, or the time is over, which is an error.
func (s *session) progress(ctx context.Context, goal store.Revision, timeout time.Duration) (*progress, error) {
	p := &progress{goal: goal, began: time.Now(), nodes: map[string]*arrival{}}
	stored, err := s.list(ctx, "", nodeKinds()...)
	if err != nil {
		return nil, err
	}
	for _, node := range expectedNodes(stored.Items) {
		p.nodes[node] = &arrival{node: node, at: -1, silent: true}
	}
	for {
		statuses, err := s.statuses(ctx)
		if err != nil && !unreachable(err) {
			return nil, err
		}
		if err == nil && p.take(s.store, statuses) {
			return p, nil
		}
		if time.Since(p.began) > timeout {
			return nil, p.late(timeout)
		}
		if pause(ctx, pollInterval); ctx.Err() != nil {
			return nil, fmt.Errorf("interrupted: %w", p.late(time.Since(p.began).Round(time.Millisecond)))
		}
	}
}

// take notes what the nodes say, and reports whether all have arrived.
func (p *progress) take(s store.Store, statuses []store.NodeStatus) bool {
	p.reports = statuses
	now := time.Since(p.began)
	for _, status := range statuses {
		a := p.nodes[status.Node]
		if a == nil {
			a = &arrival{node: status.Node, at: -1}
			p.nodes[status.Node] = a
		}
		a.status, a.silent = status, false
		if a.at < 0 && s.Reached(status.Enforced, p.goal) {
			a.at = now
		}
	}
	for _, a := range p.nodes {
		if a.at < 0 {
			return false
		}
	}
	return true
}

// String says how long it took, and who was last.
func (p *progress) String() string {
	if len(p.nodes) == 0 {
		return "no node reports to this datastore: nothing is in force yet"
	}
	slowest := &arrival{at: -1}
	for _, a := range p.nodes {
		if a.at > slowest.at || a.at == slowest.at && a.node < slowest.node {
			slowest = a
		}
	}
	return fmt.Sprintf("in force on %d node(s) after %v; last was %s", len(p.nodes), slowest.at.Round(time.Millisecond), slowest.node)
}

// late is the error that the time is over.
func (p *progress) late(after time.Duration) error {
	var behind []string
	var all []*arrival
	for _, a := range p.nodes {
		if a.at < 0 {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b *arrival) int { return cmp.Compare(a.node, b.node) })
	for _, a := range all {
		behind = append(behind, a.describe())
	}
	return fmt.Errorf("written, but not in force everywhere after %v: revision %s is not enforced on %d of %d nodes: %s",
		after, p.goal.Short(), len(all), len(p.nodes), some(behind))
}

// describe says how far a node is.
func (a *arrival) describe() string {
	switch {
	case a.silent:
		return a.node + " (does not report)"
	case !a.status.Ready:
		return fmt.Sprintf("%s (at %s, not ready: %s)", a.node, orDash(a.status.Enforced.Short()), a.status.Detail)
	}
	text := "at " + orDash(a.status.Enforced.Short())
	if a.status.Detail != "" {
		text += ", " + a.status.Detail
	}
	return a.node + " (" + text + ")"
}

// faults returns what nodes report of the objects that were written: they keep an earlier version in force.
func (p *progress) faults(changes []*change) []string {
	var out []string
	for _, status := range p.reports {
		for _, fault := range status.Faults {
			for _, c := range changes {
				if strings.HasPrefix(fault, c.key.String()+":") {
					out = append(out, fmt.Sprintf("node %s cannot use %s", status.Node, fault))
				}
			}
		}
	}
	return out
}

// nowhere returns the endpoints that were written and that are no interface of their node: all is in force, and nothing of it for
// them.
func (p *progress) nowhere(changes []*change) []string {
	var out []string
	for _, c := range changes {
		for _, status := range p.reports {
			if status.Endpoints[c.key.String()] == store.EndpointError {
				out = append(out, fmt.Sprintf("%s: no interface of node %s is it, so nothing is enforced for it (check interfaceName and expectedIPs)",
					c.key, status.Node))
			}
		}
	}
	return out
}

// nodeKinds are the kinds that name nodes.
func nodeKinds() []v3.Kind { return []v3.Kind{v3.KindNode, v3.KindHostEndpoint} }
