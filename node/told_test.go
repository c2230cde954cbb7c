package node

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	v3 "margay/api/v3"
	"margay/node/params"
	"margay/store"
)

// What a change brought is told, also when the kernel refused it and only the next attempt, which has nothing new, succeeded.
func TestRefusedChangeIsToldLater(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	r.begin()
	r.untilReady()
	r.dp.FailNext(fmt.Errorf("no memory"))
	r.put(v3.KindHostEndpoint, `{"metadata": {"name": "late"}, "spec": {"node": "h", "interfaceName": "eth7", "profiles": ["gone"]}}`)
	r.untilStatus("the endpoint", func(s store.NodeStatus) bool {
		return s.Endpoints["HostEndpoint(late)"] == store.EndpointError
	})
	if failures := r.log.count("no memory"); failures == 0 {
		t.Error("nothing was refused")
	}
}

// An interface that changes nothing of the rules may be worth a warning all the same.
func TestInterfaceIsWarnedOf(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	r.begin()
	r.untilReady()
	r.untilStatus("the first warnings", func(s store.NodeStatus) bool { return len(s.Warnings) > 0 })
	both := interfaces("eth0", "10.0.0.1")
	both["cali7"] = []netip.Addr{netip.MustParseAddr("169.254.1.1")}
	r.links <- both
	closed := func(w string) bool { return strings.Contains(w, "no WorkloadEndpoint is for cali7") }
	r.untilStatus("that cali7 is closed", func(s store.NodeStatus) bool { return slices.ContainsFunc(s.Warnings, closed) })
	r.links <- interfaces("eth0", "10.0.0.1")
	r.untilStatus("that it is gone", func(s store.NodeStatus) bool { return !slices.ContainsFunc(s.Warnings, closed) })
}

// A status stays small enough to be stored, whatever is in the store.
func TestStatusIsBounded(t *testing.T) {
	var faults []fault
	for i := range 10_000 {
		faults = append(faults, fault{key: gnp(fmt.Sprint("p", i)), reason: strings.Repeat("ä", 5000)})
	}
	texts := faultTexts(faults)
	size := 0
	for _, text := range texts {
		size += len(text)
		if !utf8.ValidString(text) {
			t.Fatalf("%q is cut in the middle of a letter", text)
		}
	}
	if size > 1<<20 || len(texts) != maxFaults+1 || !strings.HasPrefix(texts[maxFaults-1], "GlobalNetworkPolicy(p499): ä") {
		t.Errorf("%d texts, %d bytes, the last ones %.40q", len(texts), size, texts[maxFaults-1:])
	}
	if last := texts[maxFaults]; last != "and 9500 more, which the agent's log names" {
		t.Errorf("%q", last)
	}
	if short := faultTexts(faults[:2]); len(short) != 2 {
		t.Errorf("%d texts for 2 faults", len(short))
	}
}

// Interfaces of workloads come and go; only those by which others reach the host are worth a report to the store.
func TestOnlyWaysAreReported(t *testing.T) {
	s := &standing{}
	for _, step := range []struct {
		ways map[string][]string
		new  bool
	}{
		{map[string][]string{}, true},
		{map[string][]string{}, false},
		{map[string][]string{"eth0": {"10.0.0.1"}}, true},
		{map[string][]string{"eth0": {"10.0.0.1"}}, false},
		{map[string][]string{"eth0": {"10.0.0.1", "10.0.0.2"}}, true},
		{map[string][]string{"eth1": {"10.0.0.1", "10.0.0.2"}}, true},
		{map[string][]string{}, true},
	} {
		if is := s.setInterfaces(step.ways); is != step.new {
			t.Errorf("%v: new is %v", step.ways, is)
		}
	}
}

// A Node changes all the time; its labels seldom do, and only they are a matter of parameters.
func TestOnlyLabelsOfTheNodeMatter(t *testing.T) {
	s := &settings{now: &params.Params{}, resources: map[string]*v3.FelixConfiguration{}}
	s.now.FelixHostname = "h"
	node := func(name, spec string) v3.Resource {
		return object(t, v3.KindNode, `{"metadata": {"name": "`+name+`", "labels": {"a": "`+spec+`"}}, "spec": {"addresses": [{"address": "10.0.0.1"}]}}`)
	}
	bare := object(t, v3.KindNode, `{"metadata": {"name": "h"}, "spec": {}}`)
	for i, step := range []struct {
		name    string
		r       v3.Resource
		matters bool
	}{
		{"h", bare, true}, // all() selects a Node without labels, too
		{"h", bare, false},
		{"h", node("h", "x"), true}, {"h", node("h", "x"), false}, {"h", node("h", "y"), true},
		{"other", node("other", "z"), false}, {"h", nil, true}, {"h", nil, false}, {"h", node("h", "y"), true},
	} {
		if is := s.take(v3.Key{Kind: v3.KindNode, Name: step.name}, step.r); is != step.matters {
			t.Errorf("step %d: it matters: %v", i, is)
		}
	}
}
