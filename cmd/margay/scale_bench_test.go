package main

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay/api/v3"
	"margay/dataplane/nft"
)

// BenchmarkScale runs store and agent with more and more in the store, and prints figures next to their targets: a
// metric and, with the same name and -target, what it must not exceed on an idle machine. The load average tells what
// else the machine did.
//
//	start           from the start of the agent's process, without rules in the kernel, to ready
//	restart         the same with rules, while probes of an allowed port all arrive and of a denied port none do
//	policy          from just before a policy is written to the first probe with the new verdict; put is the store's share
//	label, object   the same for a set of one address that gets or loses the label of a rule over 50,000 addresses, and
//	                for the set that brings those addresses
//	idle            memory, CPU of the agent, objects in the kernel; what a scrape costs
func BenchmarkScale(b *testing.B) {
	for _, s := range []scale{
		{"10", 10, 10, 0, targets{write{5, 25}, 150, 40}},
		{"1000,50-here", 1000, 50, 0, targets{write{5, 25}, 250, 80}},
		{"1000", 1000, 1000, 0, targets{write{10, 50}, 500, 80}},
		{"10,50000-nets", 10, 10, 50_000, targets{write{5, 25}, 500, 80}},
	} {
		b.Run(s.name, func(b *testing.B) { s.run(b) })
	}
}

// A scale is how much there is in the store. Every policy has ten rules.
type scale struct {
	name     string
	policies int
	here     int // of them, those that select the host's endpoint
	nets     int // of a set that a further policy has a rule for; 0: neither
	targets  targets
}

// targets of a scale: what policies take to be enforced, the start in ms, and memory in MiB.
type targets struct {
	policy        write
	start, memory float64
}

// write is what a write takes to be enforced, in ms.
type write struct{ p50, p99 float64 }

func (s scale) run(b *testing.B) {
	w := newWorld(b)
	w.useProduct(b)
	w.apply(frame)
	w.load(s.objects())
	w.startAgent()
	w.awaitReady()
	b.Run("start", func(b *testing.B) {
		w.measureStarts(b, s.targets.start, func() {
			w.must(nft.Cleanup(w.ctx(), nft.Options{NetNS: w.host.NetNS()}))
			w.must(os.RemoveAll(filepath.Join(w.dir, "node")))
		})
	})
	b.Run("restart", func(b *testing.B) {
		passes, fails := w.startProbe(b, w.other, allowedPort), w.startProbe(b, w.other, deniedPort)
		w.measureStarts(b, s.targets.start, func() {})
		passes.endAll(allowed)
		fails.endAll(denied)
	})
	b.Run("policy", func(b *testing.B) {
		w.measureWrites(b, flipPort, s.targets.policy, func(v verdict) v3.Resource { return s.flip(v) })
	})
	if s.nets > 0 {
		b.Run("label", func(b *testing.B) {
			w.measureWrites(b, bigPort, write{3, 20}, func(v verdict) v3.Resource { return set("friend", v, friendAddr) })
		})
		b.Run("object", func(b *testing.B) {
			w.measureWrites(b, bigPort, write{60, 120}, func(v verdict) v3.Resource { return s.big(v) })
		})
	}
	b.Run("idle", func(b *testing.B) { w.measureIdle(b, s.targets.memory) })
}

// UDP ports: two of frame, one of the policy that changes, one of the rule for sets with a label.
const (
	allowedPort = 7001
	deniedPort  = 7002
	flipPort    = 7100
	bigPort     = 7101
)

// sources is the number of sets that the rules refer to.
const sources = 100

// objects returns what is in the store at first.
func (s scale) objects() []v3.Resource {
	var out []v3.Resource
	for i := range sources {
		r := set(fmt.Sprint("source-", i), denied, fmt.Sprintf("10.1.%d.0/24", i), fmt.Sprintf("10.2.%d.7", i), fmt.Sprintf("10.3.%d.64/26", i))
		r.Labels["source"] = fmt.Sprint(i)
		out = append(out, r)
	}
	for i := range s.policies {
		switch {
		case i == s.policies/2:
			out = append(out, s.flip(denied))
		case i%(s.policies/s.here) == 0:
			out = append(out, policy(i, `role == "host"`))
		default:
			out = append(out, policy(i, `role == "elsewhere"`))
		}
	}
	if s.nets > 0 {
		p := policy(s.policies, `role == "host"`)
		p.Spec.Ingress[5] = rule(v3.ActionAllow, v3.ProtocolUDP, bigPort)
		p.Spec.Ingress[5].Source.Selector = `big == "true"`
		out = append(out, p, s.big(denied))
	}
	return out
}

// flip returns the policy in the middle, which allows or denies a port.
func (s scale) flip(v verdict) v3.Resource {
	p := policy(s.policies/2, `role == "host"`)
	action := v3.ActionDeny
	if v == allowed {
		action = v3.ActionAllow
	}
	p.Spec.Ingress[5] = rule(action, v3.ProtocolUDP, flipPort)
	return p
}

// big returns the large set, with or without the friend's address.
func (s scale) big(v verdict) v3.Resource {
	nets := make([]string, 0, s.nets+1)
	for i := range s.nets {
		nets = append(nets, netip.AddrFrom4([4]byte{11, byte(i >> 15), byte(i >> 7), byte(i << 1)}).String()+"/32")
	}
	if v == allowed {
		nets = append(nets, friendAddr)
	}
	return set("big", allowed, nets...)
}

// set returns a set with or without the label of the rule for bigPort.
func set(name string, v verdict, nets ...string) *v3.GlobalNetworkSet {
	r := &v3.GlobalNetworkSet{}
	r.Kind, r.APIVersion, r.Name = string(v3.KindGlobalNetworkSet), v3.APIVersion, name
	r.Labels = map[string]string{"big": fmt.Sprint(bool(v))}
	r.Spec.Nets = nets
	return r
}

// policy returns a policy of ten rules, none of which is for a probe.
func policy(i int, selector string) *v3.GlobalNetworkPolicy {
	r := &v3.GlobalNetworkPolicy{}
	r.Kind, r.APIVersion, r.Name = string(v3.KindGlobalNetworkPolicy), v3.APIVersion, fmt.Sprintf("policy-%04d", i)
	order := float64(100 + i)
	r.Spec.PolicySpec = v3.PolicySpec{Tier: v3.DefaultTier, Order: &order, Selector: selector, Types: []string{v3.TypeIngress}}
	for j := range 10 {
		one := rule(v3.ActionAllow, v3.ProtocolTCP, uint16(10_000+i*10+j))
		one.Source.Selector = fmt.Sprintf("source == '%d'", (i+j)%sources)
		r.Spec.Ingress = append(r.Spec.Ingress, one)
	}
	return r
}

func rule(action string, protocol v3.Protocol, port uint16) v3.Rule {
	r := v3.Rule{Action: action, Protocol: &protocol}
	r.Destination.Ports = []v3.Port{{First: port, Last: port}}
	return r
}

// load writes objects past the store's rules, as many at once as etcd takes.
func (w *world) load(objects []v3.Resource) {
	w.Helper()
	const operations, size = 100, 1 << 20
	var ops []clientv3.Op
	bytes := 0
	commit := func() {
		_, err := w.raw.Txn(w.ctx()).Then(ops...).Commit()
		w.must(err)
		ops, bytes = nil, 0
	}
	for _, r := range objects {
		key, value := w.stored(r)
		if len(ops) == operations || bytes+len(value) > size {
			commit()
		}
		ops, bytes = append(ops, clientv3.OpPut(key, value)), bytes+len(value)
	}
	commit()
}

// stored returns an object as it is in the store.
func (w *world) stored(r v3.Resource) (key, value string) {
	w.Helper()
	data, err := v3.Encode(r)
	w.must(err)
	info, _ := v3.Lookup(v3.KeyOf(r).Kind)
	return "/calico/resources/v3/projectcalico.org/" + info.Plural + "/" + r.GetName(), string(data)
}

// samples are enough for a median, and for the largest of them to be a p99. When they take longer than sampleTime, there
// are fewer.
const (
	samples    = 100
	sampleTime = 20 * time.Second
)

// measureWrites writes an object with which probes of a port are allowed, then one with which they are not, and so on.
func (w *world) measureWrites(b *testing.B, port uint16, target write, object func(verdict) v3.Resource) {
	probes := w.startProbe(b, w.friend, port)
	defer probes.end()
	var puts, enforced []time.Duration
	to := denied
	put := func() {
		to = !to
		key, value := w.stored(object(to))
		enforced = append(enforced, probes.change(to, func() {
			start := time.Now()
			_, err := w.raw.Put(w.ctx(), key, value)
			w.must(err)
			puts = append(puts, time.Since(start))
		}))
	}
	put()
	put()
	puts, enforced = nil, nil
	before, cpu := w.metric("margay_nft_messages_total"), w.agent.cpu(b)
	for b.Loop() {
		for end := time.Now().Add(sampleTime); len(puts) < samples && time.Now().Before(end); {
			put()
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric((w.metric("margay_nft_messages_total")-before)/float64(len(puts)), "messages")
	b.ReportMetric(millis(slices.Min(enforced)), "ms-min")
	report(b, "ms-p50", millis(quantile(enforced, 50)), target.p50)
	report(b, "ms-p99", millis(quantile(enforced, 99)), target.p99)
	b.ReportMetric(millis(quantile(puts, 50)), "put-ms-p50")
	b.ReportMetric(millis(quantile(puts, 99)), "put-ms-p99")
	b.ReportMetric(millis(w.agent.cpu(b)-cpu)/float64(len(puts)), "cpu-ms")
	reportLoad(b)
}

// starts is how often an agent is started.
const starts = 7

// measureStarts kills the agent and starts it.
func (w *world) measureStarts(b *testing.B, target float64, before func()) {
	var took, cpu []time.Duration
	for b.Loop() {
		for range starts {
			w.agent.kill()
			before()
			start := time.Now()
			w.startAgent()
			w.awaitReady()
			took = append(took, time.Since(start))
			cpu = append(cpu, w.agent.cpu(b))
		}
	}
	b.ReportMetric(0, "ns/op")
	report(b, "ms-p50", millis(quantile(took, 50)), target)
	b.ReportMetric(millis(slices.Min(took)), "ms-min")
	b.ReportMetric(millis(slices.Max(took)), "ms-max")
	b.ReportMetric(millis(quantile(cpu, 50)), "cpu-ms-p50")
	reportLoad(b)
}

// idleTime is for how long the CPU of the agent is counted, after a moment in which it may end what it is at.
const idleTime = 10 * time.Second

// measureIdle is about an agent that did something before and has nothing to do now.
func (w *world) measureIdle(b *testing.B, memory float64) {
	var busy time.Duration
	for b.Loop() {
		<-time.After(time.Second)
		before := w.agent.cpu(b)
		<-time.After(idleTime)
		busy = w.agent.cpu(b) - before
	}
	b.ReportMetric(0, "ns/op")
	w.agent.reportMemory(b, memory)
	report(b, "cpu-%", 100*busy.Seconds()/idleTime.Seconds(), 0.1)
	w.reportScrape(b)
	b.ReportMetric(w.metric("felix_nft_chains"), "chains")
	b.ReportMetric(w.metric("felix_nft_rules"), "rules")
	b.ReportMetric(w.metric("felix_nft_sets"), "sets")
	b.ReportMetric(w.metric("margay_nft_elements"), "elements")
	reportLoad(b)
}

// reportScrape shows what one scrape costs the agent, which has not been asked for a while and reads the kernel's counters.
func (w *world) reportScrape(b *testing.B) {
	before := w.agent.cpu(b)
	code, body := get(w.host, "http://127.0.0.1:9091/metrics")
	if code != http.StatusOK {
		b.Fatalf("scrape: %d %s", code, body)
	}
	series := 0
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, "#") {
			series++
		}
	}
	b.ReportMetric(millis(w.agent.cpu(b)-before), "scrape-cpu-ms")
	b.ReportMetric(float64(series), "series")
}

// crowd is the number of sets that change at once.
const crowd = 1000

// BenchmarkCrowd measures, with ten policies, 1,000 sets that get the label of one rule, then lose it, by writes as fast
// as they go: from just before the last write to the first probe with the new verdict, and the CPU of the agent for all.
func BenchmarkCrowd(b *testing.B) {
	w := newWorld(b)
	w.apply(frame)
	s := scale{policies: 10, here: 10, nets: 1}
	w.load(append(s.objects(), crowdOf(denied)...))
	w.startAgent()
	w.awaitReady()
	probes := w.startProbe(b, w.friend, bigPort)
	defer probes.end()
	var join, leave crowdFigures
	for b.Loop() {
		join = w.moveCrowd(b, probes, allowed)
		leave = w.moveCrowd(b, probes, denied)
	}
	w.must(w.differs(w.program()))
	b.ReportMetric(0, "ns/op")
	join.report(b, "join")
	leave.report(b, "leave")
	reportLoad(b)
}

// crowdFigures are how long all but the last write took, what passed from the last to the verdict, and the agent's CPU.
type crowdFigures struct{ writing, enforced, cpu time.Duration }

func (f crowdFigures) report(b *testing.B, what string) {
	b.ReportMetric(millis(f.writing), what+"-writing-ms")
	report(b, what+"-ms", millis(f.enforced), 50)
	report(b, what+"-cpu-ms", millis(f.cpu), 500)
}

func (w *world) moveCrowd(b *testing.B, probes *probe, to verdict) (f crowdFigures) {
	objects := crowdOf(to)
	before, start := w.agent.cpu(b), time.Now()
	w.putAll(objects[1:])
	f.writing = time.Since(start)
	f.enforced = probes.change(to, func() { w.putAll(objects[:1]) })
	f.cpu = w.agent.cpu(b) - before
	return f
}

// crowdOf returns the sets of the crowd, with or without the label; the first has the friend's address.
func crowdOf(v verdict) []v3.Resource {
	var out []v3.Resource
	for i := range crowd {
		r := set(fmt.Sprint("crowd-", i), v, fmt.Sprintf("10.200.%d.%d", i/250, i%250))
		if i == 0 {
			r.Spec.Nets = []string{friendAddr}
		}
		out = append(out, r)
	}
	return out
}

// writers write at the same time.
const writers = 16

// putAll writes objects, each in a request of its own.
func (w *world) putAll(objects []v3.Resource) {
	w.Helper()
	work := make(chan v3.Resource)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for r := range work {
				key, value := w.stored(r)
				if _, err := w.raw.Put(w.ctx(), key, value); err != nil {
					w.Errorf("write %s: %v", r.GetName(), err)
				}
			}
		})
	}
	for _, r := range objects {
		work <- r
	}
	close(work)
	wg.Wait()
}
