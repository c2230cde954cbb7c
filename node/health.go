package node

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"margay/serve"
)

// The components that health tells about, in the order of the table.
const (
	componentLoop       = "loop"
	componentStore      = "store"
	componentInterfaces = "interfaces"
	componentDataplane  = "dataplane"
	componentObjects    = "objects"
	componentParameters = "parameters"
)

// loopDeadline is how long the loop may take for one turn before it counts as dead: Felix's DataplaneWatchdogTimeout.
const loopDeadline = 90 * time.Second

// health collects what the parts of the agent say of themselves and answers /liveness and /readiness. The zero
// value is not ready. Methods may be called from several goroutines.
//
// Ready means that the first complete state of the store is enforced and that the last attempt to change the kernel
// succeeded. A lost connection, a stored object that cannot be used or a parameter that cannot be read do not take it
// away, for the host enforces the last good state of everything; they are named in the detail.
type health struct {
	now      func() time.Time
	changed  func() // called after a change, without the lock
	deadline time.Duration

	mu         sync.Mutex
	components map[string]condition
	busySince  time.Time // zero: the loop waits for work
}

// A condition is what one component says of itself.
type condition struct {
	ready  bool
	detail string
}

func newHealth(now func() time.Time, changed func()) *health {
	h := &health{now: now, changed: changed, deadline: loopDeadline, components: map[string]condition{}}
	h.components[componentLoop] = condition{ready: true}
	h.components[componentStore] = condition{detail: "waiting for the store"}
	h.components[componentInterfaces] = condition{detail: "waiting for the list of interfaces"}
	h.components[componentDataplane] = condition{detail: "nothing programmed yet"}
	h.components[componentObjects] = condition{ready: true}
	h.components[componentParameters] = condition{ready: true}
	return h
}

// set records what a component says.
func (h *health) set(component string, c condition) {
	h.mu.Lock()
	same := h.components[component] == c
	h.components[component] = c
	h.mu.Unlock()
	if !same {
		h.changed()
	}
}

// busy is called when the loop takes up work, idle when it waits again.
func (h *health) busy() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busySince = h.now()
}

func (h *health) idle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busySince = time.Time{}
}

// live reports whether the loop's turn is within its deadline.
func (h *health) live() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.busySince.IsZero() || h.now().Sub(h.busySince) < h.deadline
}

// ready reports whether every component is, and the details of those that have one.
func (h *health) ready() (bool, string) {
	live := h.live()
	h.mu.Lock()
	defer h.mu.Unlock()
	ready, details := live, []string{}
	for _, name := range h.names() {
		c := h.components[name]
		ready = ready && c.ready
		if c.detail != "" {
			details = append(details, name+": "+c.detail)
		}
	}
	return ready, strings.Join(details, "; ")
}

// names returns the components in order.
func (h *health) names() []string {
	names := []string{componentLoop, componentStore, componentInterfaces, componentDataplane, componentObjects, componentParameters}
	for name := range h.components {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names[6:])
	return names
}

// table prints the components as Felix's report has them.
func (h *health) table() []byte {
	live := h.live()
	h.mu.Lock()
	defer h.mu.Unlock()
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "COMPONENT\tTIMEOUT\tLIVENESS\tREADINESS\tDETAIL")
	for _, name := range h.names() {
		c := h.components[name]
		timeout, liveness, readiness := "-", "-", "reporting non-ready"
		if name == componentLoop {
			timeout, liveness = h.deadline.String(), "reporting live"
			if !live {
				liveness, c.ready = "timed out", false
			}
		}
		if c.ready {
			readiness = "reporting ready"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", name, timeout, liveness, readiness, strings.ReplaceAll(c.detail, "\n", " "))
	}
	_ = w.Flush() // a bytes.Buffer takes everything
	return out.Bytes()
}

// handler serves /liveness and /readiness.
func (h *health) handler() http.Handler {
	return serve.Probes(h.live, func() bool { ready, _ := h.ready(); return ready }, h.table)
}
