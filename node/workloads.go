package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"margay/node/pods"
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
	l.unflushed, l.relocated = true, true
	if !l.located {
		l.located = true
		l.health.set(componentWorkloads, condition{ready: true})
	}
}

// checkBridges takes readiness away while there are workloads on bridges whose policy is not enforced as it should be: what passes
// from port to port is not seen by the hooks of IP, so that the ports are closed to each other, or ports cannot be held to their
// addresses. A bridge that nobody told to is told to have it seen.
func (l *loop) checkBridges() {
	faults := map[string]string{}
	for _, w := range l.program.Workloads {
		if w.Bridge != "" {
			faults[w.Bridge] = ""
		}
	}
	for _, way := range l.waysFound.get() {
		if _, ok := faults[way.Bridge]; ok && way.Unfiltered != "" {
			faults[way.Bridge] = way.Unfiltered
		}
	}
	ports := l.portsFault(len(faults) > 0)
	var list []string
	for _, bridge := range slices.Sorted(maps.Keys(faults)) {
		why := faults[bridge]
		if why == pods.Unasked && l.filterBridge != nil {
			if err := l.filterBridge(bridge); err == nil {
				l.log.Info("packets between ports of a bridge pass the hooks of IP from now on", "bridge", bridge)
			} else {
				why += ", and cannot be set: " + err.Error()
			}
		}
		switch {
		case ports != "":
			list = append(list, bridge+": "+ports)
		case why != "":
			list = append(list, bridge+": "+why+"; until then its ports are closed to each other")
		}
	}
	l.bridgesBad(list)
}

// portsFault returns why ports of bridges cannot be held to the addresses of workloads; "" if they can, or need not.
func (l *loop) portsFault(needed bool) string {
	if dp, ok := l.dataplane.(interface{ Bridges() error }); ok && needed {
		if err := dp.Bridges(); err != nil {
			return err.Error()
		}
	}
	return ""
}

// bridgesBad sets readiness; list says what is wrong with which bridge.
func (l *loop) bridgesBad(list []string) {
	switch {
	case len(list) > 0:
		l.health.set(componentWorkloads, condition{detail: "the policy of workloads on bridges cannot be enforced: " + strings.Join(list, "; ")})
	case l.unbridged:
		l.health.set(componentWorkloads, condition{ready: true})
	}
	l.unbridged = len(list) > 0
}
