package calc

import (
	"context"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	v3 "margay/api/v3"
	"margay/dataplane/fake"
	"margay/ruleset"
)

const here = "kubeadm-master"

// fatal is what testing.T and rapid.T have in common here.
type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
}

// parse returns the resources of YAML documents, with their defaults.
func parse(t fatal, text string) []v3.Resource {
	t.Helper()
	var list []v3.Resource
	for _, doc := range strings.Split(text, "\n---\n") {
		var meta struct{ Kind v3.Kind }
		if err := yaml.Unmarshal([]byte(doc), &meta); err != nil {
			t.Fatalf("%v in:\n%s", err, doc)
		}
		info, ok := v3.Lookup(meta.Kind)
		if !ok {
			t.Fatalf("kind %q is not known in:\n%s", meta.Kind, doc)
		}
		r := info.New()
		if err := yaml.UnmarshalStrict([]byte(doc), r); err != nil {
			t.Fatalf("%v in:\n%s", err, doc)
		}
		v3.Default(r)
		list = append(list, r)
	}
	return list
}

// A world is a Calc and a dataplane that applies what it tells.
type world struct {
	t    fatal
	calc *Calc
	fake *fake.Dataplane
}

func newWorld(t fatal) *world {
	w := &world{t, New(here), fake.New()}
	if err := w.fake.Resync(context.Background(), ruleset.NewProgram()); err != nil {
		t.Fatalf("%v", err)
	}
	return w
}

// apply gives resources to the Calc and flushes.
func (w *world) apply(texts ...string) *world {
	w.t.Helper()
	for _, text := range texts {
		for _, r := range parse(w.t, text) {
			w.calc.Update(v3.KeyOf(r), r)
		}
	}
	w.flush()
	return w
}

func (w *world) applyFile(name string) *world {
	w.t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	return w.apply(string(text))
}

func (w *world) remove(kind v3.Kind, namespace, name string) *world {
	w.t.Helper()
	w.calc.Update(v3.Key{Kind: kind, Namespace: namespace, Name: name}, nil)
	w.flush()
	return w
}

func (w *world) iface(name string, addrs ...string) *world {
	w.t.Helper()
	list := make([]netip.Addr, len(addrs))
	for i, a := range addrs {
		list[i] = netip.MustParseAddr(a)
	}
	w.calc.SetInterface(name, list)
	w.flush()
	return w
}

// flush applies what changed. The dataplane refuses a Delta that breaks an invariant; nothing in it may be as it was.
func (w *world) flush() *ruleset.Delta {
	w.t.Helper()
	before := w.fake.Program()
	d := w.calc.Flush()
	if err := w.fake.Apply(context.Background(), d); err != nil {
		w.t.Fatalf("%v", err)
	}
	checkMinimal(w.t, before, d)
	if again := w.calc.Flush(); !again.Empty() {
		w.t.Fatalf("a second Flush is not empty: %+v", again)
	}
	return d
}

func checkMinimal(t fatal, before *ruleset.Program, d *ruleset.Delta) {
	t.Helper()
	if d.Settings != nil && reflect.DeepEqual(*d.Settings, before.Settings) {
		t.Fatalf("settings in the delta are as before")
	}
	checkChanged(t, before.Endpoints, d.Endpoints)
	checkChanged(t, before.Workloads, d.Workloads)
	checkChanged(t, before.Policies, d.Policies)
	checkChanged(t, before.Profiles, d.Profiles)
	for id, change := range d.Sets {
		if change != nil && change.New == nil && len(change.Add)+len(change.Remove) == 0 {
			t.Fatalf("set %s in the delta is as before", id)
		}
	}
}

func checkChanged[K comparable, V any](t fatal, before, change map[K]*V) {
	t.Helper()
	for id, now := range change {
		if reflect.DeepEqual(before[id], now) {
			t.Fatalf("%v in the delta is as before: %+v", id, now)
		}
	}
}

// scrape returns what happens to a TCP connection from src to a port of this host.
func (w *world) scrape(src string, port uint16) ruleset.Verdict {
	return w.fake.Verdict(&ruleset.Packet{
		In: "eth0", Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr("10.100.0.15"),
		Protocol: ruleset.TCP, SrcPort: 40000, DstPort: port,
	})
}

func (w *world) warnings() []string {
	var list []string
	for _, warning := range w.calc.Warnings() {
		list = append(list, warning.Key.String()+": "+warning.Text)
	}
	return list
}

// warned returns the warnings that hold a text.
func (w *world) warned(text string) []string {
	return slices.DeleteFunc(w.warnings(), func(warning string) bool { return !strings.Contains(warning, text) })
}

// hep returns a host endpoint of this node on eth0.
func hep(name, labels string) string {
	return "kind: HostEndpoint\nmetadata: {name: " + name + ", labels: {" + labels + "}}\n" +
		"spec: {node: " + here + ", interfaceName: eth0, expectedIPs: [10.100.0.15]}\n"
}

// gnp returns a policy on everything with one rule for ingress, written as YAML in one line.
func gnp(name, rule string) string {
	return "kind: GlobalNetworkPolicy\nmetadata: {name: " + name + "}\nspec: {types: [Ingress], ingress: [" + rule + "]}\n"
}

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }
