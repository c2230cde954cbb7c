package fake

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"margay/ruleset"
)

var (
	eth0    = ruleset.EndpointID{Kind: "HostEndpoint", Name: "eth0"}
	policy  = ruleset.PolicyID{Kind: "GlobalNetworkPolicy", Name: "p"}
	member  = ruleset.Member{Prefix: netip.MustParsePrefix("192.0.2.1/32")}
	another = ruleset.Member{Prefix: netip.MustParsePrefix("192.0.2.2/32")}
	errTest = errors.New("planned")
)

// program allows what is in set s on eth0.
func program() *ruleset.Program {
	p := ruleset.NewProgram()
	tiers := []ruleset.Tier{{Name: "t", Policies: []ruleset.PolicyID{policy}}}
	p.Endpoints[eth0] = &ruleset.Endpoint{ID: eth0, Interfaces: []string{"eth0"}, Normal: ruleset.Walk{Ingress: tiers}}
	p.Policies[policy] = &ruleset.Policy{ID: policy, Ingress: []ruleset.Rule{{Action: ruleset.Allow, Source: ruleset.Entity{Sets: []ruleset.SetID{"s"}}}}}
	p.Sets["s"] = ruleset.NewSet(ruleset.Addrs, "", member)
	return p
}

func packet(m ruleset.Member) *ruleset.Packet {
	return &ruleset.Packet{In: "eth0", Protocol: ruleset.TCP, Src: m.Prefix.Addr(), Dst: netip.MustParseAddr("192.0.2.9")}
}

func change(id ruleset.SetID, d *ruleset.SetDelta) *ruleset.Delta {
	return &ruleset.Delta{Sets: map[ruleset.SetID]*ruleset.SetDelta{id: d}}
}

func TestVerdictFollowsApply(t *testing.T) {
	ctx, d, p := context.Background(), New(), program()
	if !d.Verdict(packet(another)).Allowed {
		t.Error("filters before the first Resync")
	}
	if err := d.Resync(ctx, p); err != nil {
		t.Fatal(err)
	}
	if !d.Verdict(packet(member)).Allowed || d.Verdict(packet(another)).Allowed {
		t.Error("does not enforce what Resync was given")
	}
	p.Sets["s"].Add(another)
	if d.Verdict(packet(another)).Allowed {
		t.Error("shares sets with the caller")
	}
	if err := d.Apply(ctx, change("s", &ruleset.SetDelta{Add: []ruleset.Member{another}, Remove: []ruleset.Member{member}})); err != nil {
		t.Fatal(err)
	}
	if d.Verdict(packet(member)).Allowed || !d.Verdict(packet(another)).Allowed {
		t.Error("does not enforce what Apply was given")
	}
	fresh := ruleset.NewSet(ruleset.Addrs, "", member)
	if err := d.Apply(ctx, change("n", &ruleset.SetDelta{New: fresh})); err != nil {
		t.Fatal(err)
	}
	fresh.Add(another)
	if got := d.Program().Sets["n"].Len(); got != 1 {
		t.Errorf("a new set is shared with the caller: %d members", got)
	}
	if got, want := d.Calls(), (Calls{Resync: 1, Apply: 2}); got != want {
		t.Errorf("Calls = %+v, want %+v", got, want)
	}
}

func TestFailures(t *testing.T) {
	ctx, d := context.Background(), New()
	ended, end := context.WithCancel(ctx)
	end()
	add := change("n", &ruleset.SetDelta{New: ruleset.NewSet(ruleset.Addrs, "")})
	steps := []struct {
		name string
		call func() error
		want error
	}{
		{"apply before resync", func() error { return d.Apply(ctx, add) }, ErrUnsynced},
		{"planned failure of resync", func() error { d.FailNext(errTest); return d.Resync(ctx, program()) }, errTest},
		{"apply after a failure", func() error { return d.Apply(ctx, add) }, ErrUnsynced},
		{"resync", func() error { return d.Resync(ctx, program()) }, nil},
		{"context ended", func() error { return d.Apply(ended, add) }, context.Canceled},
		{"resync again", func() error { return d.Resync(ctx, program()) }, nil},
		{"planned failure of apply", func() error { d.FailNext(errTest); return d.Apply(ctx, add) }, errTest},
		{"nothing was changed by failures", func() error {
			if !reflect.DeepEqual(d.Program(), program()) {
				return errors.New("the program changed")
			}
			return nil
		}, nil},
		{"resync after all", func() error { return d.Resync(ctx, program()) }, nil},
		{"apply", func() error { return d.Apply(ctx, add) }, nil},
		{"close", d.Close, nil},
		{"apply after close", func() error { return d.Apply(ctx, add) }, ErrClosed},
	}
	for _, step := range steps {
		if err := step.call(); !errors.Is(err, step.want) {
			t.Errorf("%s: %v, want %v", step.name, err, step.want)
		}
	}
	if d.Verdict(packet(another)).Allowed {
		t.Error("does not enforce any more after Close")
	}
}

// TestInvariants: a change that breaks an invariant of ruleset.Delta is refused and nothing of it is applied.
func TestInvariants(t *testing.T) {
	set := ruleset.NewSet(ruleset.Addrs, "")
	other := ruleset.EndpointID{Kind: "HostEndpoint", Name: "other"}
	pod := ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "ns", Name: "pod"}
	workload := func(w *ruleset.Workload, prefixes ...string) *ruleset.Delta {
		return &ruleset.Delta{Settings: &ruleset.Settings{WorkloadPrefixes: prefixes}, Workloads: map[ruleset.EndpointID]*ruleset.Workload{pod: w}}
	}
	void := []ruleset.Tier{{Name: "t"}}
	endpoint := func(ep *ruleset.Endpoint) *ruleset.Delta {
		return &ruleset.Delta{Endpoints: map[ruleset.EndpointID]*ruleset.Endpoint{other: ep}}
	}
	rule := func(e ruleset.Entity) *ruleset.Delta {
		return &ruleset.Delta{Profiles: map[string]*ruleset.Profile{"x": {Egress: []ruleset.Rule{{Destination: e}}}}}
	}
	tests := []struct {
		name  string
		delta *ruleset.Delta
		want  string
	}{
		{"remove a set that is used", change("s", nil), "set s of kind 0 does not exist"},
		{"remove a set that is not there", change("x", nil), "there is none"},
		{"add a set that is there", change("s", &ruleset.SetDelta{New: set}), "it exists"},
		{"change a set that is not there", change("x", &ruleset.SetDelta{Add: []ruleset.Member{member}}), "there is none"},
		{"add a member twice", change("s", &ruleset.SetDelta{Add: []ruleset.Member{member}}), "it is there"},
		{"remove a member that is not there", change("s", &ruleset.SetDelta{Remove: []ruleset.Member{another}}), "there is none"},
		{"remove a policy that is used", &ruleset.Delta{Policies: map[ruleset.PolicyID]*ruleset.Policy{policy: nil}}, "policy GlobalNetworkPolicy(p) does not exist"},
		{"two endpoints of one interface", endpoint(&ruleset.Endpoint{ID: other, Interfaces: []string{"eth0"}}), "interface eth0 belongs to"},
		{"an endpoint and a workload of one interface", workload(&ruleset.Workload{ID: pod, Interface: "eth0"}, "eth"), "interface eth0 of HostEndpoint(eth0) is a workload's"},
		{"a workload on all interfaces", workload(&ruleset.Workload{ID: pod, Interface: "*"}, "cali"), "claims all interfaces"},
		{"a workload and an endpoint of one interface, whatever its name", workload(&ruleset.Workload{ID: pod, Interface: "eth0"}, "cali"), "interface eth0 belongs to"},
		{"a workload with a tier without policies", workload(&ruleset.Workload{ID: pod, Normal: ruleset.Walk{Egress: void}}), "tier t has no policy"},
		{"egress before DNAT", endpoint(&ruleset.Endpoint{ID: other, PreDNAT: ruleset.Walk{Egress: []ruleset.Tier{{Name: "t", Policies: []ruleset.PolicyID{policy}}}}}), "no egress before DNAT"},
		{"forward without policies", endpoint(&ruleset.Endpoint{ID: other, Forward: ruleset.Walk{Egress: void}}), "forward: tier t has no policy"},
		{"a tier without policies", endpoint(&ruleset.Endpoint{ID: other, Normal: ruleset.Walk{Egress: []ruleset.Tier{{Name: "t"}}}}), "tier t has no policy"},
		{"a rule with a set that is not there", rule(ruleset.Entity{NotSets: []ruleset.SetID{"x"}}), "set x of kind 0 does not exist"},
		{"a port set of the wrong kind", rule(ruleset.Entity{NotPorts: &ruleset.Ports{Named: []ruleset.SetID{"s"}}}), "set s of kind 1 does not exist"},
	}
	for _, test := range tests {
		d := New()
		if err := d.Resync(context.Background(), program()); err != nil {
			t.Fatal(err)
		}
		err := d.Apply(context.Background(), test.delta)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
		if !reflect.DeepEqual(d.Program(), program()) {
			t.Errorf("%s: the program changed", test.name)
		}
	}
}

func TestDisturb(t *testing.T) {
	d := New()
	if err := d.Resync(context.Background(), program()); err != nil {
		t.Fatal(err)
	}
	d.Disturb(ruleset.NewProgram())
	if !d.Verdict(packet(another)).Allowed {
		t.Error("still enforces what somebody else removed")
	}
	if d.Calls().Resync != 1 {
		t.Error("counts what somebody else did")
	}
}
