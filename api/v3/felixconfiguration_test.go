package v3

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// object returns a manifest of a kind with one line of spec.
func object(kind Kind, name, spec string) string {
	return fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: %s\nmetadata: {name: %s}\nspec: {%s}\n", kind, name, spec)
}

// verdict returns the path of the first fault of a manifest that decodes, "" if there is none.
func verdict(t *testing.T, manifest string) string {
	t.Helper()
	docs, err := Decode("test.yaml", []byte(manifest))
	if err != nil {
		t.Fatalf("%v\n%s", err, manifest)
	}
	Default(docs[0].Object)
	if err := Validate(docs[0].Object); err != nil {
		return err.(Errors)[0].Path
	}
	return ""
}

func TestFelixConfigurationRules(t *testing.T) {
	for _, c := range []struct{ name, spec, fault string }{
		{"default", ``, ""},
		{"default", `chainInsertMode: append`, ""},
		{"default", `chainInsertMode: last`, "spec.chainInsertMode"},
		{"default", `defaultEndpointToHostAction: accept`, "spec.defaultEndpointToHostAction"},
		{"default", `logSeverityScreen: INFO`, "spec.logSeverityScreen"},
		{"default", `logSeverityScreen: ""`, ""},
		{"default", `floatingIPs: ""`, "spec.floatingIPs"},
		{"default", `iptablesBackend: legacy`, "spec.iptablesBackend"},
		{"default", `prometheusMetricsClientAuth: Maybe`, "spec.prometheusMetricsClientAuth"},
		{"default", `reportingInterval: 0s`, ""},
		{"default", `reportingInterval: 1.5s`, ""},
		{"default", `reportingInterval: 1h30m`, ""},
		{"default", `reportingInterval: -1s`, "spec.reportingInterval"},
		{"default", `reportingInterval: 5us`, "spec.reportingInterval"},
		{"default", `nftablesRefreshInterval: 5us`, ""},
		{"default", `logPrefix: "calico-%t %p: "`, ""},
		{"default", `logPrefix: "a\"b"`, "spec.logPrefix"},
		{"default", `logActionRateLimit: 10/minute`, ""},
		{"default", `logActionRateLimit: 0/minute`, "spec.logActionRateLimit"},
		{"default", `logActionRateLimit: 10/week`, "spec.logActionRateLimit"},
		{"default", `logActionRateLimit: ""`, "spec.logActionRateLimit"},
		{"default", `logActionRateLimitBurst: 10000`, "spec.logActionRateLimitBurst"},
		{"default", `wireguardListeningPort: 0`, "spec.wireguardListeningPort"},
		{"default", `goGCThreshold: -2`, "spec.goGCThreshold"},
		{"default", `goGCThreshold: -1`, ""},
		{"default", `kubeNodePortRanges: [http]`, "spec.kubeNodePortRanges[0]"},
		{"default", `kubeNodePortRanges: [80, 0]`, "spec.kubeNodePortRanges[1]"},
		{"default", `natPortRange: 0`, "spec.natPortRange"},
		{"default", `externalNodesList: [10.0.0.0/8, "fd00::/8"]`, "spec.externalNodesList[1]"},
		{"default", `bpfDSROptoutCIDRs: [10.0.0.0/8, "fd00::1"]`, ""},
		{"default", `bpfDSROptoutCIDRs: [x]`, "spec.bpfDSROptoutCIDRs[0]"},
		{"default", `bpfLogFilters: {"bad name": x}`, "spec.bpfLogFilters[bad name]"},
		{"default", `bpfLogFilters: {eth0: tcp}`, ""},
		{"default", `bpfForceTrackPacketsFromIfaces: ["docker+", "a b"]`, "spec.bpfForceTrackPacketsFromIfaces[1]"},
		{"default", `bpfConntrackTimeouts: {tcpSynSent: 20s, udpTimeout: Auto}`, ""},
		{"default", `bpfConntrackTimeouts: {tcpSynSent: soon}`, "spec.bpfConntrackTimeouts.tcpSynSent"},
		{"default", `featureDetectOverride: "A=true,B="`, ""},
		{"default", `featureDetectOverride: "A=maybe"`, "spec.featureDetectOverride"},
		{"default", `featureGates: "A=x,B=y"`, ""},
		{"default", `featureGates: "A"`, "spec.featureGates"},
		{"default", `wireguardInterfaceName: "*"`, ""},
		{"default", `wireguardInterfaceName: "0123456789abcdef"`, "spec.wireguardInterfaceName"},
		{"default", `openstackRegion: FOO`, "spec.openstackRegion"},
		{"default", `routeSource: workloadips`, ""},
		{"default", `routeTableRange: {min: 1, max: 250}`, ""},
		{"default", `routeTableRanges: []`, ""},
		{"default", `routeTableRanges: [{min: 9223372036854775807, max: 9223372036854775807}]`, "spec.routeTableRanges[0].max"},
		{"default", `istioDSCPMark: ef`, ""},
		{"default", `istioDSCPMark: 64`, "spec.istioDSCPMark"},
		{"default", `istioDSCPMark: CS7`, "spec.istioDSCPMark"},
		{"default", `failsafeInboundHostPorts: [{protocol: tcp, port: 0, net: x}]`, ""}, // as in 3.32; there is a warning
		{"default", `failsafeInboundHostPorts: [{protocol: SCTP, port: 1}, {protocol: ICMP, port: 1}]`, "spec.failsafeInboundHostPorts[1].protocol"},
		{"default", `nodeSelector: ""`, "spec.nodeSelector"},
		{"node.a", `nodeSelector: all()`, "spec.nodeSelector"},
		{"scoped", `nodeSelector: all()`, ""},
		{"scoped", `nodeSelector: 'a = "b"'`, "spec.nodeSelector"},
		{"scoped", `nodeSelector: 'a == "` + strings.Repeat("b", 1024) + `"'`, "spec.nodeSelector"},
	} {
		if got := verdict(t, object(KindFelixConfiguration, c.name, c.spec)); got != c.fault {
			t.Errorf("%s {%s}: fault at %q, want %q", c.name, c.spec, got, c.fault)
		}
	}
}

// TestTagsAreReadable walks every tag: one that cannot be read panics. Fields without the means to be absent would not
// come back as they were.
func TestTagsAreReadable(t *testing.T) {
	for _, spec := range []any{&FelixConfigurationSpec{}, &NodeSpec{}, &NodeStatus{}, &QoSControls{}} {
		v := reflect.ValueOf(spec).Elem()
		fill(v)
		checkTags(&check{}, "spec", spec)
		for i := range v.NumField() {
			_, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			if options != "omitempty" && options != "omitzero" && jsonName(v.Type().Field(i)) != "bpfLogLevel" {
				t.Errorf("field %s is always written", v.Type().Field(i).Name)
			}
		}
	}
}

func TestFelixConfigurationEmptyIsNotAbsent(t *testing.T) {
	for _, spec := range []string{
		`{"failsafeInboundHostPorts":[],"bpfLogLevel":""}`,
		`{"kubeNodePortRanges":[],"bpfLogLevel":""}`,
		`{"externalNodesList":[],"routeTableRanges":[],"bpfLogLevel":"","bpfLogFilters":{},"bpfDSROptoutCIDRs":[]}`,
		`{"healthHost":"","bpfLogLevel":"","debugPort":0}`,
		`{"bpfLogLevel":""}`,
	} {
		var s FelixConfigurationSpec
		if err := json.Unmarshal([]byte(spec), &s); err != nil {
			t.Fatal(err)
		}
		var want, got any
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if json.Unmarshal([]byte(spec), &want) != nil || json.Unmarshal(text, &got) != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s becomes %s", spec, text)
		}
	}
}

func TestFelixConfigurationDefaults(t *testing.T) {
	f := &FelixConfiguration{}
	dsr := "Disabled"
	f.Spec.NFTablesMode = &dsr
	Default(f)
	for name, pair := range map[string][2]string{
		"nftablesMode":                   {*f.Spec.NFTablesMode, "Disabled"},
		"floatingIPs":                    {*f.Spec.FloatingIPs, "Disabled"},
		"bpfConnectTimeLoadBalancing":    {*f.Spec.BPFConnectTimeLoadBalancing, "TCP"},
		"bpfHostNetworkedNATWithoutCTLB": {*f.Spec.BPFHostNetworkedNATWithoutCTLB, "Enabled"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s = %s, want %s", name, pair[0], pair[1])
		}
	}
	g := &FelixConfiguration{}
	Default(g)
	*g.Spec.FloatingIPs = "Enabled"
	h := &FelixConfiguration{}
	if Default(h); *h.Spec.FloatingIPs != "Disabled" {
		t.Error("defaults are shared between objects")
	}
}

func TestFelixConfigurationWarnings(t *testing.T) {
	for _, c := range []struct{ name, spec, warning string }{
		{"default", `failsafeInboundHostPorts: [{port: 22}, {protocol: UDP, port: 68, net: "fd00::/8"}]`, ""},
		{"default", `failsafeInboundHostPorts: [{port: 22}, {protocol: SCTP, port: 68}]`, "spec.failsafeInboundHostPorts[1]: unknown protocol"},
		{"default", `failsafeOutboundHostPorts: [{port: 0}]`, "spec.failsafeOutboundHostPorts[0]: port"},
		{"default", `failsafeOutboundHostPorts: [{port: 22, net: 10.0.0.0/33}]`, "spec.failsafeOutboundHostPorts[0]: invalid CIDR"},
		{"default", `failsafeOutboundHostPorts: []`, "spec.failsafeOutboundHostPorts is empty"},
		{"other", ``, "applies to no host"},
		{"other", `nodeSelector: all()`, ""},
		{"node.a", ``, ""},
	} {
		docs, err := Decode("", []byte(object(KindFelixConfiguration, c.name, c.spec)))
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(Warnings(docs[0].Object), "\n")
		if (got == "") != (c.warning == "") || !strings.Contains(got, c.warning) {
			t.Errorf("%s {%s}: warnings %q, want %q", c.name, c.spec, got, c.warning)
		}
	}
}

func TestParseProtoPorts(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"22", "tcp:22"},
		{"tcp:22", "tcp:22"},
		{"UDP:53", "udp:53"},
		{" tcp:22, udp:68 ,", "tcp:22,udp:68"},
		{"tcp:10.0.0.0/8:22", "tcp:10.0.0.0/8:22"},
		{"tcp:10.1.2.3/8:22", "tcp:10.0.0.0/8:22"},
		{"udp:10.1.2.3:22", "udp:10.1.2.3/32:22"},
		{"tcp:[fd00::/8]:22", "tcp:[fd00::/8]:22"},
		{"tcp:[fd00::1]:22", "tcp:[fd00::1/128]:22"},
		{"[fd00::1]:22", "tcp:[fd00::1/128]:22"},
		{"[10.0.0.1]:22", "tcp:10.0.0.1/32:22"},
		{"0x16", ""}, {"", ""}, {" , ", ""}, {"tcp", ""}, {"tcp:", ""}, {"tcp:0", ""}, {"tcp:65536", ""}, {"tcp:-1", ""},
		{"sctp:22", ""}, {"tcp:22,sctp:22", ""}, {"tcp:x:22", ""}, {"tcp:10.0.0.0/33:22", ""}, {"tcp:fd00::1:22", ""},
		{"tcp:[fd00::1:22", ""}, {"tcp:[fe80::1%eth0]:22", ""}, {"tcp:[::ffff:10.0.0.1]:22", ""}, {"tcp::22", ""},
		{"10.0.0.0/8:22", ""}, {"none", ""}, {"[]:22", ""}, {"[:22", ""},
	} {
		ports, err := ParseProtoPorts(c.text)
		texts := make([]string, len(ports))
		for i, p := range ports {
			texts[i] = p.String()
		}
		if got := strings.Join(texts, ","); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q: %q, %v, want %q", c.text, got, err, c.want)
		}
	}
}

// FuzzParseProtoPort: an error exactly when there is no port, and the text of a port is read as that port.
func FuzzParseProtoPort(f *testing.F) {
	for _, seed := range []string{"22", "tcp:22", "udp:10.0.0.0/8:53", "tcp:[fd00::/8]:22", "[::]:1", "tcp:[:1", "a:b:c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseProtoPort(text)
		if (p == ProtoPort{}) != (err != nil) {
			t.Fatalf("%+v, %v", p, err)
		}
		if err != nil {
			return
		}
		if again, err := ParseProtoPort(p.String()); err != nil || again != p {
			t.Fatalf("%q is %+v, its text %q is %+v, %v", text, p, p, again, err)
		}
	})
}

// TestDefaultLoadBalancing: the older setting of the two that say the same decides.
func TestDefaultLoadBalancing(t *testing.T) {
	for given, want := range map[string][2]string{
		"{}": {"TCP", "Enabled"},
		"{bpfConnectTimeLoadBalancing: Disabled}":                                           {"Disabled", "Enabled"},
		"{bpfConnectTimeLoadBalancingEnabled: true}":                                        {"Enabled", "Disabled"},
		"{bpfConnectTimeLoadBalancingEnabled: false, bpfConnectTimeLoadBalancing: Enabled}": {"Disabled", "Disabled"},
	} {
		r, err := prepare([]byte("apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\nspec: " + given + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		s := &r.(*FelixConfiguration).Spec
		if got := [2]string{*s.BPFConnectTimeLoadBalancing, *s.BPFHostNetworkedNATWithoutCTLB}; got != want {
			t.Errorf("%s: %v, want %v", given, got, want)
		}
	}
}
