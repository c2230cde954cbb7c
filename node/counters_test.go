package node

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"margay/ruleset"
)

// Counters are added up by policy, direction and action; the kernel is read once a second at most; an error leaves the last
// values.
func TestPolicyCounters(t *testing.T) {
	policy := ruleset.PolicyID{Kind: "NetworkPolicy", Namespace: "ns", Name: "p"}
	one, two := ruleset.EndpointID{Kind: "HostEndpoint", Name: "1"}, ruleset.EndpointID{Kind: "HostEndpoint", Name: "2"}
	counters := []ruleset.Counter{
		{Endpoint: one, Reason: ruleset.PolicyRule, Tier: "default", Policy: policy, Action: ruleset.Allow, Packets: 1, Bytes: 10},
		{Endpoint: one, Reason: ruleset.PolicyRule, Tier: "default", Policy: policy, Rule: 1, Action: ruleset.Allow, Packets: 2, Bytes: 20},
		{Endpoint: two, Reason: ruleset.PolicyRule, Tier: "default", Policy: policy, Rule: 2, Action: ruleset.Deny, Packets: 4, Bytes: 40},
		{Endpoint: one, Reason: ruleset.EndOfTier, Tier: "default", Action: ruleset.Deny, Packets: 8, Bytes: 80},
		{Endpoint: one, Reason: ruleset.PolicyRule, Tier: "default", Policy: policy, Action: ruleset.Deny, Staged: true, Packets: 16, Bytes: 160},
		{Endpoint: two, Reason: ruleset.PolicyRule, Tier: "default", Policy: policy, Action: ruleset.Deny, Staged: true, Packets: 32, Bytes: 320},
		{Endpoint: one, Reason: ruleset.EndOfTier, Tier: "default", Action: ruleset.Deny, Staged: true, Packets: 64, Bytes: 640},
		{Endpoint: one, Note: "something", Direction: ruleset.Egress, Stage: ruleset.Forward, Action: ruleset.Deny},
	}
	readings, now := 0, time.Unix(1000, 0)
	var failure error
	c := &counterCollector{
		read: func(context.Context) ([]ruleset.Counter, error) { readings++; return counters, failure },
		now:  func() time.Time { return now }, errors: prometheus.NewCounter(prometheus.CounterOpts{Name: "e", Help: "e"}),
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(c, c.errors)
	scrape := func(also string) {
		t.Helper()
		answer := httptest.NewRecorder()
		promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
		for _, want := range []string{
			`margay_default_packets_total{action="Deny",cause="end of tier",direction="ingress",stage="normal",tier="default"} 8`,
			`margay_default_packets_total{action="Deny",cause="something",direction="egress",stage="forward",tier=""} 0`,
			`margay_default_bytes_total{action="Deny",cause="end of tier",direction="ingress",stage="normal",tier="default"} 80`,
			`margay_policy_packets_total{action="Allow",direction="ingress",kind="NetworkPolicy",name="p",namespace="ns",stage="normal",tier="default"} 3`,
			`margay_policy_packets_total{action="Deny",direction="ingress",kind="NetworkPolicy",name="p",namespace="ns",stage="normal",tier="default"} 4`,
			`margay_policy_bytes_total{action="Allow",direction="ingress",kind="NetworkPolicy",name="p",namespace="ns",stage="normal",tier="default"} 30`,
			`margay_staged_policy_packets_total{action="Deny",direction="ingress",kind="NetworkPolicy",name="p",namespace="ns",stage="normal",tier="default"} 48`,
			`margay_staged_policy_bytes_total{action="Deny",direction="ingress",kind="NetworkPolicy",name="p",namespace="ns",stage="normal",tier="default"} 480`,
			`margay_staged_default_packets_total{action="Deny",cause="end of tier",direction="ingress",stage="normal",tier="default"} 64`,
			`margay_staged_default_bytes_total{action="Deny",cause="end of tier",direction="ingress",stage="normal",tier="default"} 640`,
			also,
		} {
			if !strings.Contains(answer.Body.String(), want+"\n") {
				t.Errorf("no line %s in\n%s", want, answer.Body)
			}
		}
	}
	scrape("e 0")
	scrape("e 0")
	if readings != 1 {
		t.Errorf("%d readings within a second, want 1", readings)
	}
	now, failure = now.Add(countersAge), errors.New("busy")
	scrape("") // the counter of errors may be shown before it is counted up
	scrape("e 1")
	if readings != 2 {
		t.Errorf("%d readings, want 2", readings)
	}
}
