package ctl

import (
	"context"
	"strings"
	"testing"

	"margay/ruleset"
)

func TestShow(t *testing.T) {
	h := ruleset.EndpointID{Kind: "HostEndpoint", Name: "h"}
	policy := ruleset.PolicyID{Kind: "NetworkPolicy", Namespace: "ns", Name: "p"}
	counters := []ruleset.Counter{
		{Endpoint: h, Reason: ruleset.FlowInvalid, Action: ruleset.Deny, Packets: 1, Bytes: 40},
		{Endpoint: h, Reason: ruleset.FailsafePort, Action: ruleset.Allow, Packets: 12, Bytes: 720},
		{Endpoint: h, Reason: ruleset.PolicyRule, Tier: "default", Policy: policy, Action: ruleset.Deny, Packets: 4, Bytes: 240},
		{Endpoint: h, Reason: ruleset.EndOfTier, Tier: "default", Action: ruleset.Deny},
		{Endpoint: h, Reason: ruleset.PolicyRule, Tier: "default", Policy: ruleset.PolicyID{Kind: "StagedNetworkPolicy", Namespace: "ns", Name: "p"}, Action: ruleset.Allow, Staged: true, Packets: 3, Bytes: 180},
		{Endpoint: h, Reason: ruleset.EndOfTier, Tier: "default", Action: ruleset.Deny, Staged: true, Packets: 1, Bytes: 60},
		{Endpoint: h, Direction: ruleset.Egress, Reason: ruleset.ProfileRule, Policy: ruleset.PolicyID{Kind: "Profile", Name: "x"}, Rule: 2, Action: ruleset.Allow},
		{Endpoint: h, Direction: ruleset.Egress, Reason: ruleset.ProfileMissing, Policy: ruleset.PolicyID{Kind: "Profile", Name: "y"}, Action: ruleset.Deny},
		{Stage: ruleset.Forward, Note: "something new", Action: ruleset.Deny},
		{Stage: ruleset.Forward, Reason: ruleset.ServiceLoop, Action: ruleset.Deny, Packets: 2, Bytes: 80},
	}
	run := func(args ...string) (string, error) {
		var out strings.Builder
		cmd := NewShowCommand(func(context.Context) ([]ruleset.Counter, error) { return counters, nil })
		cmd.SetOut(&out)
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		cmd.SetArgs(args)
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	if out, err := run(); err != nil || out != shownText {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := run("-o", "json"); err != nil || !strings.Contains(out, `"policy": "NetworkPolicy(ns/p)",
    "rule": 0,
    "reason": "policy rule",
    "action": "Deny",
    "packets": 4,`) {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := run("-o", "yaml"); err != nil || !strings.Contains(out, "policy: NetworkPolicy(ns/p)\n  reason: policy rule\n  rule: 0\n") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := run("-o", "wide"); err == nil {
		t.Error("-o wide is accepted")
	}
	state := `{"node": "n", "program": {"Settings": {"FailsafeIngress": [{"Protocol": 6, "Port": 22}], "ServiceNets": ["10.96.0.0/12", "fd96::/112"]},
		"Policies": [{"ID": {"Kind": "NetworkPolicy", "Namespace": "ns", "Name": "p"}, "Ingress": [{"Protocol": 6}]}],
		"Profiles": [{"Name": "x"}]}}`
	if out, err := run("--rules", "--agent-socket", serveState(t, state)); err != nil || !strings.Contains(out, "BYTES   SAYS\n") ||
		!strings.Contains(out, "NetworkPolicy(ns/p)   0      Deny     4         240   Deny TCP\n") || !strings.Contains(out, " 720   TCP 22\n") || !strings.Contains(out, " 80   to 10.96.0.0/12, fd96::/112\n") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := run("--rules", "--agent-socket", "no.sock"); err == nil || !strings.Contains(err.Error(), "without --rules the agent is not asked") {
		t.Errorf("%v\n%s", err, out)
	}
	counters = nil
	if out, err := run("-o", "json"); err != nil || out != "[]\n" {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := run(); err != nil || !strings.HasPrefix(out, "No packet of this host is filtered") {
		t.Errorf("%v\n%s", err, out)
	}
}

const shownText = `ingress of HostEndpoint(h)
TIER      POLICY                RULE   ACTION   PACKETS   BYTES
-         (invalid)             -      Deny     1         40
-         (failsafe)            -      Allow    12        720
default   NetworkPolicy(ns/p)   0      Deny     4         240
default   (end of tier)         -      Deny     0         0

ingress of HostEndpoint(h), if staged policies were enforced
TIER      POLICY                      RULE   WOULD BE   PACKETS   BYTES
default   StagedNetworkPolicy(ns/p)   0      Allow      3         180
default   (end of tier)               -      Deny       1         60

egress of HostEndpoint(h)
TIER   POLICY                          RULE   ACTION   PACKETS   BYTES
-      Profile(x)                      2      Allow    0         0
-      (profile missing: Profile(y))   -      Deny     0         0

forward ingress, of no single endpoint
TIER   POLICY              RULE   ACTION   PACKETS   BYTES
-      (something new)     -      Deny     0         0
-      (no such service)   -      Deny     2         80
`
