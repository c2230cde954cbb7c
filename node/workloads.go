package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// componentWorkloads is there when workloads are looked for in the kernel.
const componentWorkloads = "workloads"

// followWays keeps the loop's list up to date until the context ends.
func (a *agent) followWays(ctx context.Context, into *mailbox[wayList]) {
	a.health.set(componentWorkloads, condition{detail: "waiting for routes and neighbours"})
	if err := a.options.Ways(ctx, into.put); ctx.Err() == nil {
		a.log.Error("ways to workloads are no longer followed", "error", err)
		a.health.set(componentWorkloads, condition{detail: fmt.Sprintf("ways to them are no longer followed: %v", err)})
	}
}

// takeWays tells calc where workloads are.
func (l *loop) takeWays(found wayList) {
	l.calc.SetWays(found)
	l.unflushed = true
	if !l.located {
		l.located = true
		l.health.set(componentWorkloads, condition{ready: true})
	}
}

// checkBridges takes readiness away while there are workloads whose policy is not enforced: what passes from port to port of
// a bridge, and what comes from a port, does not show the dataplane the workload's interface.
func (l *loop) checkBridges() {
	bridges := map[string]int{}
	for _, w := range l.program.Workloads {
		if w.Bridge != "" {
			bridges[w.Bridge]++
		}
	}
	if len(bridges) == 0 {
		if l.unbridged {
			l.health.set(componentWorkloads, condition{ready: true})
		}
		l.unbridged = false
		return
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(bridges)) {
		list = append(list, fmt.Sprintf("%d on %s", bridges[name], name))
	}
	l.unbridged = true
	l.health.set(componentWorkloads, condition{detail: "the policy of workloads on a bridge is not enforced, for this release filters what is " +
		"routed, not what is bridged: " + strings.Join(list, ", ") + " (use a CNI that routes to each pod, or keep such nodes out of those that Margay is to protect)"})
}
