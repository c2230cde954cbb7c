package node

import (
	"strings"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/calc"
)

// TestSlips: a policy that is given another one's name is warned of, until that is put right or long ago (guide defect G1).
func TestSlips(t *testing.T) {
	c, s := calc.New("h"), newSlips()
	at := time.Unix(1_700_000_000, 0)
	put := func(key v3.Key, r v3.Resource) {
		s.take(key, r, at)
		c.Update(key, r)
		c.Flush()
	}
	policy := func(name string, port uint16) (v3.Key, v3.Resource) {
		tcp := v3.ProtocolTCP
		r := &v3.GlobalNetworkPolicy{}
		r.Name = name
		r.Spec.Types = []string{v3.TypeIngress}
		r.Spec.Ingress = []v3.Rule{{Action: v3.ActionDeny, Protocol: &tcp, Destination: v3.EntityRule{Ports: []v3.Port{{First: port, Last: port}}}}}
		return v3.Key{Kind: v3.KindGlobalNetworkPolicy, Name: name}, r
	}
	expect := func(step string, want ...string) {
		t.Helper()
		got := s.warnings(c, at)
		if len(got) != len(want) || len(want) == 1 && (!strings.Contains(got[0].Text, want[0]) || got[0].Key.Name != "restrict") {
			t.Errorf("%s: %+v, want %q", step, got, want)
		}
	}
	hep := &v3.HostEndpoint{}
	hep.Name = "h.eth0"
	hep.Spec.Node, hep.Spec.InterfaceName = "h", "eth0"
	const slipped = "no longer in force on HostEndpoint(h.eth0): ingress[0] Deny TCP to port 9091 (now only to port 9093)"

	put(policy("restrict", 9091))
	put(policy("restrict", 9091))
	expect("written again")
	put(policy("restrict", 9093))
	expect("no endpoint")
	put(v3.Key{Kind: v3.KindHostEndpoint, Name: hep.Name}, hep)
	expect("slipped", slipped)
	put(policy("restrict", 9093))
	expect("still", slipped)
	put(policy("restrict-9091", 9091))
	expect("under a name of its own")
	key, _ := policy("restrict-9091", 0)
	put(key, nil)
	expect("gone again", slipped)
	put(policy("restrict", 9091))
	expect("put right")
	put(policy("restrict", 9093))
	expect("slipped again", slipped)
	at = at.Add(2 * time.Hour)
	put(policy("restrict", 9095))
	expect("long ago, and again", "ingress[0] Deny TCP to port 9093 (now only to port 9095)")
	at = at.Add(2 * time.Hour)
	expect("long ago")
}
