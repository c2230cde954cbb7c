package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v3 "margay/api/v3"
	"margay/store"
)

// What agents warn of concerns whoever made the object, who looks at it with kubectl and not into the agents' logs. The
// agents say it in their reports anyhow (store.NodeStatus), so that one writer, the instance that leads, tells it: a fleet
// of agents would write the same a thousand times.
const (
	// All reports are read every tellInterval, or more seldom the more nodes there are: a thousand reports are some megabytes.
	tellInterval = 10 * time.Second
	tellPerNode  = 50 * time.Millisecond
	// tellAgain is how often a notice is shown again that still holds: a server of Kubernetes forgets it after an hour.
	tellAgain = 30 * time.Minute
	// overAfter is for how long no agent must have said a thing before it is shown as over: agents restart.
	overAfter = 2 * time.Minute
	// maxTold bounds the notices of one round, maxTexts those of one kind about one object: many nodes say the same of a
	// policy in other words, as each names its own endpoints.
	maxTold  = 50
	maxTexts = 3
)

// The reasons of notices, as machines know them.
const (
	reasonWarning = "PolicyWarning" // it is in force otherwise than its author may expect
	reasonFault   = "NotInForce"    // it cannot be used: what was there before counts
)

// A teller tells in Kubernetes what the agents report. It belongs to one goroutine.
type teller struct {
	to store.Notifier
	// from returns the reports.
	from func(context.Context) ([]store.NodeStatus, error)
	// knows reports whether Kubernetes has an object; nil: all.
	knows func(v3.Key) bool
	// count counts what became of a notice.
	count func(error)
	nodes int // how many have reported
	told  map[store.Notice]showing
}

// A showing is what a teller knows of a notice, which it keeps by key, ID and reason.
type showing struct {
	text      string
	at, holds time.Time // when it was shown last, and when an agent said so last
}

// notices returns what shows the warnings of the agents until the context ends.
func (s *supervisor) notices(to store.Notifier) func(context.Context) {
	t := &teller{
		to: to, from: s.stores[target].Statuses, told: map[store.Notice]showing{},
		count: func(err error) { s.metrics.notices.WithLabelValues(outcome(err)).Inc() },
	}
	if s.stores[source] != s.stores[target] {
		t.knows = ofKubernetes
	}
	return func(ctx context.Context) {
		failing := false
		for ctx.Err() == nil {
			err := t.round(ctx, time.Now())
			if err != nil && !failing && ctx.Err() == nil {
				s.log.Warn("what agents warn of is not shown in Kubernetes, trying again", "error", err)
			}
			failing = err != nil
			pause(ctx, max(tellInterval, time.Duration(t.nodes)*tellPerNode))
		}
	}
}

// ofKubernetes reports whether an object of an etcd datastore is a copy of one that Kubernetes has.
func ofKubernetes(key v3.Key) bool {
	switch key.Kind {
	case v3.KindWorkloadEndpoint, v3.KindProfile, v3.KindNode:
		return true
	case v3.KindNetworkPolicy:
		return strings.HasPrefix(key.Name, v3.PrefixKubernetesPolicy)
	}
	return false
}

// round shows what is new, what was shown long ago, and what is over; the first error ends it, but for objects that are gone.
func (t *teller) round(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	statuses, err := t.from(ctx)
	if err != nil {
		return err
	}
	t.nodes = len(statuses)
	left := maxTold
	for _, n := range noticesOf(statuses) {
		id := n
		id.Text, id.Node = "", ""
		if t.knows != nil && !t.knows(n.Key) {
			continue
		}
		if known, told := t.told[id]; told {
			known.holds = now
			t.told[id] = known
			if now.Sub(known.at) <= tellAgain {
				continue
			}
		}
		if left--; left < 0 {
			continue // it is due in the next round
		}
		if err := t.notify(ctx, n); err != nil {
			return err
		}
		t.told[id] = showing{n.Text, now, now}
	}
	return t.over(ctx, now, max(left, 0))
}

// notify shows a notice; that its object is gone is no error.
func (t *teller) notify(ctx context.Context, n store.Notice) error {
	err := t.to.Notify(ctx, n)
	t.count(err)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// over shows of some notices that no agent says so any longer.
func (t *teller) over(ctx context.Context, now time.Time, left int) error {
	for id, known := range t.told {
		if now.Sub(known.holds) < overAfter {
			continue
		}
		if left--; left < 0 {
			return nil
		}
		n := id
		n.Text, n.Over = known.text, true
		if err := t.notify(ctx, n); err != nil {
			return err
		}
		delete(t.told, id)
	}
	return nil
}

// noticesOf returns what agents warn of, in order: of every object the first texts, each once, and how many there are more.
func noticesOf(statuses []store.NodeStatus) []store.Notice {
	type about struct {
		key    v3.Key
		reason string
	}
	nodes := map[about]map[string]string{} // by text, the first node that says so
	add := func(node, reason string, texts []string) {
		for _, line := range texts {
			key, text, ok := cutKey(line)
			if !ok {
				continue // how many more there are
			}
			a := about{key, reason}
			if nodes[a] == nil {
				nodes[a] = map[string]string{}
			}
			if first, known := nodes[a][text]; !known || node < first {
				nodes[a][text] = node
			}
		}
	}
	for _, s := range statuses {
		add(s.Node, reasonFault, s.Faults)
		add(s.Node, reasonWarning, s.Warnings)
	}
	var list []store.Notice
	for _, a := range slices.SortedFunc(maps.Keys(nodes), func(a, b about) int {
		return strings.Compare(a.key.String()+a.reason, b.key.String()+b.reason)
	}) {
		texts := slices.Sorted(maps.Keys(nodes[a]))
		for _, text := range texts[:min(len(texts), maxTexts)] {
			list = append(list, store.Notice{Key: a.key, ID: text, Reason: a.reason, Text: text, Node: nodes[a][text]})
		}
		if more := len(texts) - maxTexts; more > 0 {
			list = append(list, store.Notice{Key: a.key, ID: "more", Reason: a.reason,
				Text: fmt.Sprintf("agents have %d more like this to say about it (margay status shows them)", more)})
		}
	}
	return list
}

// cutKey splits Kind(namespace/name): text.
func cutKey(line string) (key v3.Key, text string, ok bool) {
	head, text, ok := strings.Cut(line, "): ")
	kind, name, open := strings.Cut(head, "(")
	info, known := v3.Lookup(v3.Kind(kind))
	if !ok || !open || !known {
		return v3.Key{}, "", false
	}
	key = v3.Key{Kind: info.Kind, Name: name}
	if info.Namespaced {
		key.Namespace, key.Name, ok = strings.Cut(name, "/")
	}
	return key, text, ok && key.Name != ""
}
