package v3

import (
	"encoding/json"
	"testing"
)

func TestNodeRules(t *testing.T) {
	for _, c := range []struct{ spec, fault string }{
		{``, ""},
		{`bgp: {}`, "spec.bgp"},
		{`bgp: {asNumber: 0}`, ""},
		{`bgp: {ipv4Address: 10.0.0.1/24, ipv6Address: "fd00::1/64"}`, ""},
		{`bgp: {ipv4Address: 10.0.0.1}`, ""},
		{`bgp: {ipv4Address: "fd00::1/64"}`, "spec.bgp.ipv4Address"},
		{`bgp: {ipv4Address: 10.0.0.1/33}`, "spec.bgp.ipv4Address"},
		{`bgp: {ipv4IPIPTunnelAddr: 10.0.0.1/32}`, "spec.bgp.ipv4IPIPTunnelAddr"},
		{`ipv4VXLANTunnelAddr: "fd00::1"`, "spec.ipv4VXLANTunnelAddr"},
		{`ipv6VXLANTunnelAddr: "fd00::1"`, ""},
		{`ipv6VXLANTunnelAddr: 10.0.0.1`, "spec.ipv6VXLANTunnelAddr"},
		{`ipv6VXLANTunnelAddr: "fe80::1%eth0"`, "spec.ipv6VXLANTunnelAddr"},
		{`vxlanTunnelMACAddr: "66:66:66:66:66:66"`, ""},
		{`vxlanTunnelMACAddr: "66"`, "spec.vxlanTunnelMACAddr"},
		{`wireguard: {interfaceIPv6Address: 10.0.0.1}`, "spec.wireguard.interfaceIPv6Address"},
		{`wireguard: {}`, ""},
		{`orchRefs: [{nodeName: a, orchestrator: k8s}], addresses: [{address: 10.0.0.1, type: InternalIP}], interfaces: [{name: eth0, addresses: [10.0.0.1]}]`, ""},
	} {
		if got := verdict(t, object(KindNode, "node1", c.spec)); got != c.fault {
			t.Errorf("{%s}: fault at %q, want %q", c.spec, got, c.fault)
		}
	}
}

func TestASNumber(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`0`, `0`}, {`64512`, `64512`}, {`4294967295`, `4294967295`}, {`"64512"`, `64512`}, {`"1.10"`, `65546`},
		{`"65535.65535"`, `4294967295`},
		{`4294967296`, ""}, {`-1`, ""}, {`1.10`, ""}, {`1e3`, ""}, {`"1.65536"`, ""}, {`"1.2.3"`, ""}, {`""`, ""}, {`"a"`, ""}, {`true`, ""},
	} {
		var n ASNumber
		err := json.Unmarshal([]byte(c.text), &n)
		if got, _ := json.Marshal(n); (err == nil) != (c.want != "") || err == nil && string(got) != c.want {
			t.Errorf("%s becomes %s, %v, want %s", c.text, got, err, c.want)
		}
	}
}

func TestDSCP(t *testing.T) {
	for _, c := range []struct {
		text, want string
		value      uint8
	}{
		{`0`, `0`, 0}, {`63`, `63`, 63}, {`"46"`, `46`, 46}, {`"EF"`, `"EF"`, 46}, {`"ef"`, `"ef"`, 46}, {`"DF"`, `"DF"`, 0},
		{`"CS0"`, `"CS0"`, 0}, {`"CS6"`, `"CS6"`, 48}, {`"AF11"`, `"AF11"`, 10}, {`"AF43"`, `"AF43"`, 38}, {`"AF31"`, `"AF31"`, 26},
		{`64`, `64`, 64}, {`"CS7"`, `"CS7"`, 0}, // for Validate to refuse
		{`256`, "", 0}, {`-1`, "", 0}, {`1.5`, "", 0}, {`true`, "", 0}, {`""`, "", 0},
	} {
		var d DSCP
		err := json.Unmarshal([]byte(c.text), &d)
		got, _ := json.Marshal(d)
		if (err == nil) != (c.want != "") || err == nil && (string(got) != c.want || d.Value != c.value) {
			t.Errorf("%s becomes %s (%d), %v, want %s (%d)", c.text, got, d.Value, err, c.want, c.value)
		}
	}
}

func TestParseDSCP(t *testing.T) {
	for _, c := range []struct {
		text  string
		value int // -1: none
	}{
		{"0", 0}, {"63", 63}, {"ef", 46}, {"CS6", 48}, {"af12", 12}, {"DF", 0},
		{"64", -1}, {"256", -1}, {"-1", -1}, {"", -1}, {"CS7", -1}, {"CS", -1}, {"AF44", -1}, {"AF01", -1}, {"AF10", -1}, {" EF", -1},
	} {
		d, err := ParseDSCP(c.text)
		if (err != nil) != (c.value < 0) || err == nil && int(d.Value) != c.value {
			t.Errorf("%q: %+v, %v, want %d", c.text, d, err, c.value)
		}
	}
}
