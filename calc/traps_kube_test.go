package calc

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// undoing says whom a policy lets reach a workload that one of Kubernetes isolates.
type undoing struct {
	leak
	kubernetes ruleset.PolicyID
	workload   v3.Key
}

// undoings goes through the tiers of each local workload as packets do.
func undoings(c *Calc) map[undoing]bool {
	out := map[undoing]bool{}
	for key, ep := range c.locals {
		if ep.workload == nil {
			continue
		}
		walk := c.walkOf(ep)
		for _, d := range []ruleset.Direction{ruleset.Ingress, ruleset.Egress} {
			for _, tier := range walk.Tiers(d) {
				var passed []ruleset.PolicyID
				for _, id := range tier.Policies {
					told := c.policies[id].told
					switch {
					case told == nil || told.Staged:
					case strings.HasPrefix(id.Name, "knp.default."):
						passed = append(passed, id)
					case slices.ContainsFunc(told.Rules(d), func(r ruleset.Rule) bool { return r.Action == ruleset.Allow }):
						for _, before := range passed {
							out[undoing{leak{id, d}, before, key}] = true
						}
					}
				}
			}
		}
	}
	return out
}

// saying returns what is warned of for all that is in one and not in the other, in order.
func saying(is, was map[undoing]bool) []Warning {
	found, list := leaks{}, []Warning(nil)
	for u := range is {
		if found[u.leak] == nil && !was[u] {
			found[u.leak] = map[ruleset.PolicyID]bool{}
		}
		if !was[u] {
			found[u.leak][u.kubernetes] = true
		}
	}
	found.warn(func(key v3.Key, texts ...string) { list = append(list, Warning{key, texts[0]}) })
	slices.SortFunc(list, compareWarnings)
	return list
}

// drawIsolation returns one of a few objects that an Isolation is told of. Policies of Kubernetes are among them, and all
// workloads are here.
func drawIsolation(t *rapid.T) v3.Resource {
	for {
		_, r := drawResource(t)
		switch r := r.(type) {
		case *v3.NetworkPolicy:
			if !rarely(t) {
				r.Name = v3.PrefixKubernetesPolicy + r.Name
			}
			meet(t, &r.Spec)
			return r
		case *v3.WorkloadEndpoint:
			r.Spec.Node, r.Spec.InterfaceName = here, "cali-"+r.Namespace+r.Name
			return r
		case *v3.GlobalNetworkPolicy:
			meet(t, &r.Spec.PolicySpec)
			return r
		case *v3.StagedGlobalNetworkPolicy:
			meet(t, &r.Spec.PolicySpec)
			return r
		case *v3.Profile:
			return r
		}
	}
}

// meet makes it likelier that a policy is in the same tier as others, selects something and allows something.
func meet(t *rapid.T, spec *v3.PolicySpec) {
	if rarely(t) {
		return
	}
	spec.Tier, spec.Selector, spec.ServiceAccountSelector = "default", draw(t, []string{"", "", `a == "x"`, "has(b)"}), ""
	spec.Ingress = append(spec.Ingress, v3.Rule{Action: draw(t, []string{"Allow", "Allow", "Deny"})})
}

// TestIsolationIsWhatAgentsFind: of random objects and changes the warnings are those that follow from the walks, for agents
// of all that is, and for an Isolation of what the change brought about. It needs no workload of other namespaces than it says.
func TestIsolationIsWhatAgentsFind(t *testing.T) {
	warned := 0
	rapid.Check(t, func(t *rapid.T) {
		was := map[v3.Key]v3.Resource{}
		for range rapid.IntRange(12, 30).Draw(t, "objects") {
			r := drawIsolation(t)
			was[v3.KeyOf(r)] = r
		}
		is := maps.Clone(was)
		for range rapid.IntRange(1, 6).Draw(t, "changes") {
			r := drawIsolation(t)
			is[v3.KeyOf(r)] = r
		}
		before, after := calculated(was), calculated(is)
		var agents []Warning
		after.unisolated(func(key v3.Key, texts ...string) { agents = append(agents, Warning{key, texts[0]}) })
		slices.SortFunc(agents, compareWarnings)
		if diff := cmp.Diff(saying(undoings(after), nil), agents); diff != "" {
			t.Fatalf("agents, -want +got:\n%s", diff)
		}
		i := NewIsolation()
		for key, r := range is {
			if key.Kind != v3.KindWorkloadEndpoint || was[key] != r {
				i.Update(key, was[key], r)
			}
		}
		namespaces := i.Namespaces()
		for key, r := range is {
			if key.Kind == v3.KindWorkloadEndpoint && was[key] == r && slices.Contains(namespaces, key.Namespace) {
				i.Update(key, r, r)
			}
		}
		want := saying(undoings(after), undoings(before))
		warned += len(want)
		if diff := cmp.Diff(want, i.Warnings()); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
	})
	if warned == 0 {
		t.Error("nothing was to be warned of in any of the worlds")
	}
}

func calculated(resources map[v3.Key]v3.Resource) *Calc {
	c := New(here)
	for key, r := range resources {
		c.Update(key, r)
	}
	c.Flush()
	return c
}

// TestIsolation has a change in each line, and who is named.
func TestIsolation(t *testing.T) {
	np := func(name, fields string) string {
		return "kind: NetworkPolicy\nmetadata: {name: " + name + ", namespace: ns}\nspec: {" + fields + "}"
	}
	const allow = `types: [Ingress], ingress: [{action: Allow}]`
	kubernetes, later, w := np("knp.default.k", "order: 1000, types: [Ingress]"), np("p", allow), wep("w", "cali1", "")
	elsewhere := strings.Replace(w, "namespace: ns", "namespace: other", 1)
	for _, test := range []struct {
		name    string
		before  []string
		changes []string
		want    int
	}{
		{"the policy comes", []string{w, kubernetes}, []string{later}, 1},
		{"the policy of Kubernetes comes", []string{w, later}, []string{kubernetes}, 1},
		{"the workload comes", []string{later, kubernetes}, []string{w}, 1},
		{"all come", nil, []string{w, later, kubernetes}, 1},
		{"it was so", []string{w, later, kubernetes}, []string{np("p", allow+", order: 2000")}, 0},
		{"it was so of another workload", []string{w, later, kubernetes}, []string{wep("v", "cali2", "")}, 1},
		{"a second policy of Kubernetes", []string{w, later, kubernetes}, []string{np("knp.default.l", "order: 1000, types: [Ingress]")}, 1},
		{"the order is turned round", []string{w, np("p", allow+", order: 1"), kubernetes}, []string{np("p", allow+", order: 1001")}, 1},
		{"the same order, by name before", []string{w, kubernetes}, []string{np("a", allow+", order: 1000")}, 0},
		{"an Allow rule is added", []string{w, np("p", "types: [Ingress], ingress: [{action: Deny}]"), kubernetes}, []string{later}, 1},
		{"no Allow rule", []string{w, kubernetes}, []string{np("p", "types: [Ingress], ingress: [{action: Deny}, {action: Log}, {action: Pass}]")}, 0},
		{"the other direction", []string{w, kubernetes}, []string{np("p", "types: [Egress], egress: [{action: Allow}]")}, 0},
		{"another namespace", []string{elsewhere, kubernetes}, []string{strings.Replace(later, "namespace: ns", "namespace: other", 1)}, 0},
		{"no workload", []string{kubernetes}, []string{later}, 0},
		{"a workload of another namespace", []string{elsewhere, kubernetes}, []string{"kind: GlobalNetworkPolicy\nmetadata: {name: p}\nspec: {" + allow + "}"}, 0},
		{"another tier", []string{w, kubernetes}, []string{np("p", allow+", tier: t")}, 0},
		{"staged", []string{w, kubernetes}, []string{strings.Replace(later, "NetworkPolicy", "StagedNetworkPolicy", 1)}, 0},
		{"of Kubernetes itself", []string{w, kubernetes}, []string{np("knp.default.z", "order: 1000, "+allow)}, 0},
		{"before translation", []string{w, kubernetes}, []string{"kind: GlobalNetworkPolicy\nmetadata: {name: p}\nspec: {preDNAT: true, applyOnForward: true, " + allow + "}"}, 0},
		{"a profile gives the label", []string{wep("w", "cali1", "profiles: [kns.ns]"), "kind: Profile\nmetadata: {name: kns.ns}\nspec: {}", np("p", "selector: a == 'x', "+allow), kubernetes}, []string{"kind: Profile\nmetadata: {name: kns.ns}\nspec: {labelsToApply: {a: x}}"}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			was, is := map[v3.Key]v3.Resource{}, map[v3.Key]v3.Resource{}
			for _, text := range test.before {
				r := parse(t, text)[0]
				was[v3.KeyOf(r)], is[v3.KeyOf(r)] = r, r
			}
			for _, text := range test.changes {
				r := parse(t, text)[0]
				is[v3.KeyOf(r)] = r
			}
			i := NewIsolation()
			for key, r := range is {
				i.Update(key, was[key], r)
			}
			if test.name == "another namespace" && len(i.Namespaces()) > 0 {
				t.Errorf("workloads of %q are asked for", i.Namespaces())
			}
			if got := i.Warnings(); len(got) != test.want || len(got) == 1 && (got[0].Key.Name != "p" || !strings.Contains(got[0].Text, "of Kubernetes does not allow goes on")) {
				t.Errorf("warnings %q, want %d", fmt.Sprint(got), test.want)
			}
		})
	}
}
