package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	v3 "margay/api/v3"
	"margay/calc"
	"margay/node/params"
	"margay/ruleset"
	"margay/store"
)

// A history is an agent and the model of what it must enforce after whatever happened: the last good version of every
// object, the interfaces as last listed, the default settings.
type history struct {
	*rig
	good    map[v3.Key]v3.Resource
	links   map[string][]netip.Addr
	running bool
	down    bool
}

// expected compiles the model from scratch.
func (h *history) expected() *ruleset.Program {
	c, p := calc.New("h"), ruleset.NewProgram()
	defaults, _ := params.Resolve(params.Sources{Host: "h"})
	c.SetSettings(defaults.Settings())
	for key, r := range h.good {
		c.Update(key, r)
	}
	for name, addrs := range h.links {
		c.SetInterface(name, addrs)
	}
	p.Apply(c.Flush())
	return p
}

// describe returns everything that a program says, in order.
func describe(p *ruleset.Program) string {
	sets := map[ruleset.SetID][]ruleset.Member{}
	for id, s := range p.Sets {
		sets[id] = s.Members()
	}
	text, err := json.MarshalIndent(map[string]any{
		"settings": p.Settings, "endpoints": slices.SortedFunc(maps.Values(p.Endpoints), func(a, b *ruleset.Endpoint) int {
			return strings.Compare(a.ID.Name, b.ID.Name)
		}),
		"policies": slices.SortedFunc(maps.Values(p.Policies), func(a, b *ruleset.Policy) int { return a.ID.Compare(b.ID) }),
		"profiles": p.Profiles, "sets": sets,
	}, "", " ")
	if err != nil {
		panic(err)
	}
	return string(text)
}

// settle waits until what is enforced is what the model says.
func (h *history) settle(t *rapid.T) {
	if h.down {
		h.store.cut(nil)
		h.down = false
	}
	eventually(t, "the agent has seen everything", h.store.followed)
	want := describe(h.expected())
	var got string
	if !becomes(func() bool { got = describe(h.dp.Program()); return got == want }) {
		t.Fatalf("the kernel differs from the model (- model, + kernel):\n%s", cmp.Diff(want, got))
	}
}

// value returns some version of some object.
func value(t *rapid.T) (v3.Kind, string) {
	n := rapid.IntRange(0, 1).Draw(t, "object")
	variant := rapid.IntRange(1, 4).Draw(t, "variant")
	switch rapid.SampledFrom([]string{"policy", "set", "endpoint", "tier"}).Draw(t, "kind") {
	case "policy":
		return v3.KindGlobalNetworkPolicy, fmt.Sprintf(`{"metadata":{"name":"p%d"},"spec":{"tier":"t%d","order":%d,"selector":"role == 'r%d'","types":["Ingress"],
			"ingress":[{"action":"Allow","protocol":"TCP","source":{"selector":"zone == 'z%d'"},"destination":{"ports":[%d]}}]}}`,
			n, variant%2, variant, variant%2, variant%3, 80+variant)
	case "set":
		return v3.KindGlobalNetworkSet, fmt.Sprintf(`{"metadata":{"name":"s%d","labels":{"zone":"z%d"}},"spec":{"nets":["10.%d.0.0/16"]}}`, n, variant%3, variant)
	case "endpoint":
		return v3.KindHostEndpoint, fmt.Sprintf(`{"metadata":{"name":"e%d","labels":{"role":"r%d","zone":"z%d"}},"spec":{"node":"%s","expectedIPs":["10.0.0.%d"]}}`,
			n, variant%2, variant%3, []string{"h", "other"}[variant%2], variant)
	}
	return v3.KindTier, fmt.Sprintf(`{"metadata":{"name":"t%d"},"spec":{"order":%d}}`, n%2, variant)
}

// step is one thing that happens.
func (h *history) step(t *rapid.T) {
	switch rapid.SampledFrom([]string{"put", "put", "put", "remove", "spoil", "spoil", "links", "refuse", "disturb", "outage", "compact", "compact", "kill", "restart", "restart"}).Draw(t, "step") {
	case "put":
		kind, text := value(t)
		r := object(h.t, kind, text)
		h.store.put(r)
		h.good[v3.KeyOf(r)] = r
	case "remove":
		kind, text := value(t)
		key := v3.KeyOf(object(h.t, kind, text))
		h.store.remove(key)
		delete(h.good, key)
	case "spoil":
		kind, text := value(t)
		h.store.spoil(v3.KeyOf(object(h.t, kind, text)), garbage)
	case "links":
		h.links = map[string][]netip.Addr{}
		for i := range rapid.IntRange(1, 4).Draw(t, "interfaces") {
			h.links[fmt.Sprintf("eth%d", i)] = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + i)})}
		}
		h.rig.links <- maps.Clone(h.links)
	case "refuse":
		h.dp.FailNext(errors.New("refused"))
	case "disturb":
		if h.running {
			h.dp.Disturb(ruleset.NewProgram())
			kick(h.dp.disturbed)
		}
	case "outage":
		h.down = !h.down
		h.store.cut(map[bool]error{true: store.ErrUnavailable}[h.down])
	case "compact":
		// What is lost when history goes while no agent runs is another test's.
		if h.running {
			h.settle(t)
			h.store.compact()
		}
	case "kill":
		if h.running {
			h.settle(t) // an agent that never was in line has no last good version to keep
			h.stop()
			h.running = false
		}
	case "restart":
		if h.running {
			h.settle(t)
			h.stop()
			h.running = false
		}
		h.run()
	}
}

func (h *history) run() {
	if h.running {
		return
	}
	kernel := h.dp.Program()
	h.dp = newTestDataplane()
	h.dp.Disturb(kernel)
	h.rig.links <- maps.Clone(h.links)
	h.start()
	h.running = true
}

// Whatever happens, in whatever order: in the end the host enforces the last good version of everything.
func TestRandomHistories(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		h := &history{rig: newRig(t), good: map[v3.Key]v3.Resource{}, links: interfaces("eth0", "10.0.0.1")}
		h.options.Environ = []string{"FELIX_FELIXHOSTNAME=h"}
		h.run()
		for range rapid.IntRange(10, 40).Draw(rt, "steps") {
			h.step(rt)
		}
		h.run()
		h.settle(rt)
		h.stop()
	})
}
