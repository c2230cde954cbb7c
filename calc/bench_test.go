package calc

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// The size that is to be borne: remote endpoints, policies, local host endpoints. Every tenth policy applies here.
const (
	manyRemotes  = 100_000
	manyPolicies = 2_000
	manyLocals   = 200
	manySpaces   = 500
)

func remote(i int) *v3.WorkloadEndpoint {
	r := &v3.WorkloadEndpoint{}
	r.Kind, r.Namespace, r.Name = string(v3.KindWorkloadEndpoint), fmt.Sprint("ns", i%manySpaces), fmt.Sprintf("node%d-k8s-pod%d-eth0", i/100, i)
	r.Labels = map[string]string{
		"app": fmt.Sprint("app", i%1000), "version": fmt.Sprint("v", i%7), "tier": fmt.Sprint("t", i%3), "team": fmt.Sprint(i % 50),
		labelNamespace: r.Namespace, labelOrchestrator: "k8s", labelServiceAccount: "default",
	}
	a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	r.Spec = v3.WorkloadEndpointSpec{
		Node: fmt.Sprint("node", i/100), Orchestrator: "k8s", ServiceAccountName: "default", IPNetworks: []string{a.String() + "/32"},
		Profiles: []string{"kns." + r.Namespace, "ksa." + r.Namespace + ".default"},
	}
	return r
}

func localEndpoint(i int) *v3.HostEndpoint {
	r := &v3.HostEndpoint{}
	r.Kind, r.Name = string(v3.KindHostEndpoint), fmt.Sprint("local", i)
	r.Labels = map[string]string{"role": fmt.Sprint("r", i%10), "host": "yes"}
	r.Spec = v3.HostEndpointSpec{Node: here, InterfaceName: fmt.Sprint("eth", i), Profiles: []string{"projectcalico-default-allow"}}
	return r
}

func manyPolicy(i int) *v3.GlobalNetworkPolicy {
	r := &v3.GlobalNetworkPolicy{}
	r.Kind, r.Name = string(v3.KindGlobalNetworkPolicy), fmt.Sprint("policy", i)
	order := float64(i % 100)
	tcp := v3.ProtocolTCP
	r.Spec.PolicySpec = v3.PolicySpec{
		Tier: "default", Order: &order, Types: []string{"Ingress"}, Selector: fmt.Sprintf(`role == "r%d" && has(host)`, i%100),
		Ingress: []v3.Rule{
			{Action: "Allow", Protocol: &tcp, Source: v3.EntityRule{Selector: fmt.Sprintf(`app == "app%d"`, i%1000)}, Destination: v3.EntityRule{Ports: []v3.Port{{First: 80, Last: 80}}}},
			{Action: "Deny", Source: v3.EntityRule{Selector: fmt.Sprintf(`team == "%d" && version != "v1"`, i%50), NamespaceSelector: `env == "e1"`}},
		},
	}
	return r
}

func namespace(i int) *v3.Profile {
	r := &v3.Profile{}
	r.Kind, r.Name = string(v3.KindProfile), fmt.Sprint("kns.ns", i)
	r.Spec.LabelsToApply = map[string]string{"pcns.env": fmt.Sprint("e", i%4), "pcns.projectcalico.org/name": fmt.Sprint("ns", i), "pcns.team": fmt.Sprint(i % 50)}
	return r
}

func update(c *Calc, r v3.Resource) { c.Update(v3.KeyOf(r), r) }

// fill gives a large cluster to c, endpoints first: the order that does most.
func fill(c *Calc) {
	for i := range manyRemotes {
		update(c, remote(i))
	}
	for i := range manySpaces {
		update(c, namespace(i))
	}
	for i := range manyLocals {
		update(c, localEndpoint(i))
	}
	for i := range manyPolicies {
		update(c, manyPolicy(i))
	}
}

// report shows a figure and, with the same name and -target, what it is to be on an idle machine.
func report(b *testing.B, name string, value, target float64) {
	b.ReportMetric(value, name)
	b.ReportMetric(target, name+"-target")
}

// spent returns the CPU time of this process so far: on a busy machine it says more than the clock.
func spent(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFromScratch computes everything for a large cluster: time by the clock, CPU time, and the heap of Calc and Program
// afterwards, with what they keep of the resources.
func BenchmarkFromScratch(b *testing.B) {
	for b.Loop() {
		before, start, cpu := heap(), time.Now(), spent(b)
		c := New(here)
		fill(c)
		p := ruleset.NewProgram()
		p.Apply(c.Flush())
		took, cpu := time.Since(start), spent(b)-cpu
		b.ReportMetric(0, "ns/op")
		report(b, "s", took.Seconds(), 5)
		b.ReportMetric(cpu.Seconds(), "cpu-s")
		report(b, "MB", float64(heap()-before)/1e6, 500)
		b.ReportMetric(float64(len(p.Sets)), "sets")
		b.ReportMetric(float64(len(p.Policies)), "policies")
		runtime.KeepAlive(c)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkSustained takes in changes of labels of remote endpoints, ten to a Flush, as fast as it can.
func BenchmarkSustained(b *testing.B) {
	c := New(here)
	fill(c)
	c.Flush()
	const burst = 10
	changes := make([]v3.Resource, 50_000)
	for i := range changes {
		r := remote(i)
		r.Labels["app"] = fmt.Sprint("app", i%999)
		changes[i] = r
	}
	done, start := 0, time.Now()
	for b.Loop() {
		for range burst {
			update(c, changes[done%len(changes)])
			done++
		}
		c.Flush()
	}
	b.ReportMetric(0, "ns/op")
	report(b, "updates/s", float64(done)/time.Since(start).Seconds(), 10_000)
}

// BenchmarkChange measures one change and its Flush in a large cluster.
func BenchmarkChange(b *testing.B) {
	c := New(here)
	fill(c)
	c.Flush()
	benchmark := func(name string, change func(i int) v3.Resource) {
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			cpu := spent(b)
			for i := 0; b.Loop(); i++ {
				r := change(i)
				start := time.Now()
				update(c, r)
				c.Flush()
				took = append(took, time.Since(start))
			}
			cpu = spent(b) - cpu
			slices.Sort(took)
			b.ReportMetric(0, "ns/op")
			report(b, "ms-p50", took[len(took)/2].Seconds()*1e3, 1)
			b.ReportMetric(took[len(took)*99/100].Seconds()*1e3, "ms-p99")
			b.ReportMetric(cpu.Seconds()*1e3/float64(len(took)), "cpu-ms")
		})
	}
	benchmark("label of a remote endpoint", func(i int) v3.Resource {
		r := remote(i % manyRemotes)
		r.Labels["app"] = fmt.Sprint("app", i%999)
		return r
	})
	// First of those that change endpoints here: no other endpoint has these policies.
	benchmark("label of a local endpoint, 20 policies come or go", func(i int) v3.Resource {
		r := localEndpoint(0)
		r.Labels["role"] = fmt.Sprint("r", i%2*(80+i/2%20)) // none of the other endpoints has it
		return r
	})
	benchmark("label of a local endpoint", func(i int) v3.Resource {
		r := localEndpoint(i % manyLocals)
		r.Labels["role"] = fmt.Sprint("r", i%100)
		return r
	})
	benchmark("rule of an active policy", func(i int) v3.Resource {
		r := manyPolicy(i % 10)
		r.Spec.Ingress[0].Destination.Ports[0] = v3.Port{First: uint16(i%1000 + 1), Last: 1001}
		return r
	})
	benchmark("new selector of an active policy", func(i int) v3.Resource {
		r := manyPolicy(i % 10)
		r.Spec.Ingress[0].Source.Selector = fmt.Sprintf(`app == "app%d" && team == "7"`, i)
		return r
	})
	benchmark("order of an active policy", func(i int) v3.Resource {
		r, order := manyPolicy(i%10), float64(i%77)
		r.Spec.Order = &order
		return r
	})
	benchmark("labels of a namespace", func(i int) v3.Resource {
		r := namespace(i % manySpaces)
		r.Spec.LabelsToApply["pcns.env"] = fmt.Sprint("e", i%3)
		return r
	})
}
