package params

import (
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// felix returns a FelixConfiguration from a line of spec, of an age in minutes.
func felix(t *testing.T, name, spec string, age int) *v3.FelixConfiguration {
	t.Helper()
	text := fmt.Sprintf("{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {name: %s}, spec: {%s}}", name, spec)
	docs, err := v3.Decode("", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	f := docs[0].Object.(*v3.FelixConfiguration)
	v3.Default(f)
	f.CreationTimestamp = metav1.NewTime(time.Unix(1e9, 0).Add(-time.Duration(age) * time.Minute))
	return f
}

func TestDefaults(t *testing.T) {
	p, problems := Resolve(Sources{Host: "host1"})
	if len(problems) > 0 {
		t.Error(problems)
	}
	for name, pair := range map[string][2]any{
		"DatastoreType":     {p.DatastoreType, "etcdv3"},
		"FelixHostname":     {p.FelixHostname, "host1"},
		"health":            {p.HealthAddress(), "localhost:9099"},
		"metrics":           {p.MetricsAddress(), ":9091"},
		"HealthEnabled":     {p.HealthEnabled, false},
		"GoMetrics":         {p.PrometheusGoMetricsEnabled, true},
		"ClientAuth":        {p.PrometheusMetricsClientAuth, "NoClientCert"},
		"LogLevel":          {p.LogLevel(), slog.LevelInfo},
		"InterfacePrefix":   {strings.Join(p.InterfacePrefix, ","), "cali"},
		"ReportingInterval": {p.ReportingInterval, 30 * time.Second},
		"Ipv6Support":       {p.IPv6Support, true},
		"excluded":          {p.Excluded("kube-ipvs0"), true},
		"not excluded":      {p.Excluded("kube-ipvs01"), false},
		"Endpoints":         {len(p.Endpoints()), 0},
		"origin":            {p.Origin("HealthPort").String(), "built-in default"},
		"text":              {p.Text("HealthPort"), "9099"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s = %v, want %v", name, pair[0], pair[1])
		}
	}
	tcp := func(port uint16) ruleset.Failsafe { return ruleset.Failsafe{Protocol: ruleset.TCP, Port: port} }
	udp := func(port uint16) ruleset.Failsafe { return ruleset.Failsafe{Protocol: ruleset.UDP, Port: port} }
	want := ruleset.Settings{
		FailsafeIngress: []ruleset.Failsafe{tcp(22), udp(68), tcp(179), tcp(2379), tcp(2380), tcp(5473), tcp(6443), tcp(6666), tcp(6667)},
		FailsafeEgress:  []ruleset.Failsafe{udp(53), udp(67), tcp(179), tcp(2379), tcp(2380), tcp(5473), tcp(6443), tcp(6666), tcp(6667)},
		LogPrefix:       "calico-packet", WorkloadPrefixes: []string{"cali"}, VXLANPort: 4789, ServiceNets: []netip.Prefix{},
	}
	if got := p.Settings(); !reflect.DeepEqual(got, want) {
		t.Errorf("settings %+v, want %+v", got, want)
	}
}

// TestPrecedence takes one place after the other away and looks which one wins.
func TestPrecedence(t *testing.T) {
	all := Sources{
		Host: "h1", NodeLabels: map[string]string{"a": "b"},
		Env:  []string{"felix_logprefix=env"},
		File: []byte("logprefix = file"),
		Resources: []*v3.FelixConfiguration{
			felix(t, "default", "logPrefix: cluster", 0),
			felix(t, "node.h1", "logPrefix: node", 0),
			felix(t, "node.h2", "logPrefix: other", 0),
			felix(t, "picked", `logPrefix: selector, nodeSelector: 'a == "b"'`, 0),
			felix(t, "missed", `logPrefix: missed, nodeSelector: '!has(a)'`, 0),
			felix(t, "nobody", `logPrefix: nobody`, 0),
		},
	}
	steps := []struct {
		want, origin string
		source       Source
		remove       func()
	}{
		{"env", "environment felix_logprefix", Environment, func() { all.Env = nil }},
		{"file", "file line 1", File, func() { all.File = nil }},
		{"node", "FelixConfiguration(node.h1) spec.logPrefix", Node, func() { all.Resources = slices.Delete(all.Resources, 1, 2) }},
		{"selector", "FelixConfiguration(picked) spec.logPrefix", Selector, func() { all.NodeLabels = nil }},
		{"cluster", "FelixConfiguration(default) spec.logPrefix", Cluster, func() { all.Resources = all.Resources[1:] }},
		{"calico-packet", "built-in default", Default, func() {}},
	}
	for _, s := range steps {
		p, problems := Resolve(all)
		if p.LogPrefix != s.want || p.Origin("LogPrefix").String() != s.origin || p.Origin("LogPrefix").Source != s.source || len(problems) > 0 {
			t.Errorf("%q from %v, want %q from %s; problems %v", p.LogPrefix, p.Origin("LogPrefix"), s.want, s.origin, problems)
		}
		s.remove()
	}
}

// TestHigherPlacesDecideOneByOne: each parameter is taken from the highest place that says something about it.
func TestHigherPlacesDecideOneByOne(t *testing.T) {
	p, problems := Resolve(Sources{Host: "h", Env: []string{"FELIX_HEALTHPORT=1", "FELIX_LOGPREFIX="}, Resources: []*v3.FelixConfiguration{
		felix(t, "node.h", "healthPort: 2, prometheusMetricsPort: 2", 0),
		felix(t, "default", "healthPort: 3, prometheusMetricsPort: 3, logPrefix: x", 0),
	}})
	if p.HealthPort != 1 || p.PrometheusMetricsPort != 2 || p.LogPrefix != "x" || len(problems) > 0 {
		t.Errorf("%d %d %s %v", p.HealthPort, p.PrometheusMetricsPort, p.LogPrefix, problems)
	}
}

func TestSelectorTakesTheOldest(t *testing.T) {
	resources := []*v3.FelixConfiguration{
		felix(t, "young", "logPrefix: young, nodeSelector: all()", 1),
		felix(t, "b", "logPrefix: b, nodeSelector: all()", 5),
		felix(t, "a", "logPrefix: a, nodeSelector: all()", 5),
	}
	p, problems := Resolve(Sources{Host: "h", NodeLabels: map[string]string{}, Resources: resources})
	if p.LogPrefix != "a" || len(problems) != 2 || problems[0].Kind != Conflict || problems[1].Kind != Conflict {
		t.Errorf("%s %v", p.LogPrefix, problems)
	}
	bad := felix(t, "c", "logPrefix: c, nodeSelector: 'a = b'", 9)
	p, problems = Resolve(Sources{Host: "h", NodeLabels: map[string]string{}, Resources: append(resources, bad)})
	if p.LogPrefix != "a" || problems[0].Kind != Syntax || !strings.Contains(problems[0].String(), "FelixConfiguration(c) spec.nodeSelector") {
		t.Errorf("%s %v", p.LogPrefix, problems)
	}
}

func TestAnnotation(t *testing.T) {
	f := felix(t, "default", "logPrefix: spec", 0)
	f.Annotations = map[string]string{"config.projectcalico.org/logprefix": "annotation", "config.projectcalico.org/HealthPort": "70000",
		"config.projectcalico.org/What": "x", "other": "y"}
	p, problems := Resolve(Sources{Host: "h", Resources: []*v3.FelixConfiguration{f}})
	if p.LogPrefix != "annotation" || p.HealthPort != 9099 || len(problems) != 2 || problems[0].Kind != Bad || problems[1].Kind != Unknown {
		t.Errorf("%s %d %v", p.LogPrefix, p.HealthPort, problems)
	}
	if got, want := p.Origin("LogPrefix").At, "FelixConfiguration(default) annotation config.projectcalico.org/logprefix"; got != want {
		t.Errorf("origin %s, want %s", got, want)
	}
}

func TestFile(t *testing.T) {
	const file = "\ufeff# comment\n; comment\nLogPrefix = \"before # x\"\r\nHealthPort: 1 # one\n[global]\nhealthport=2\n" +
		"EtcdEndpoints = http://a:1,http://b:2\nHealthEnabled=yes ; yes\n[ h1 ]\nHealthPort = 3\n[h2]\nHealthPort = 4\nLogSeverityScreen=none\n"
	for _, c := range []struct {
		host string
		port uint16
	}{{"h1", 3}, {"h2", 4}, {"h3", 2}} {
		p, problems := Resolve(Sources{Host: c.host, File: []byte(file)})
		if p.HealthPort != c.port || !p.HealthEnabled || !slices.Equal(p.Endpoints(), []string{"http://a:1", "http://b:2"}) || len(problems) > 0 {
			t.Errorf("%s: %d %v %v %v", c.host, p.HealthPort, p.HealthEnabled, p.Endpoints(), problems)
		}
	}
	p, _ := Resolve(Sources{Host: "h3", Env: []string{"NODENAME=h2"}, File: []byte(file)})
	if p.FelixHostname != "h2" || p.LogLevel() != LogOff {
		t.Errorf("%s %v", p.FelixHostname, p.LogLevel())
	}
	p, problems := Resolve(Sources{Host: "h", File: []byte("HealthPort 1\n[h\nHealthPort = 2\n[global]\n= x\nHealthHost = h")})
	if p.HealthPort != 9099 || p.HealthHost != "h" || len(problems) != 3 {
		t.Errorf("%d %s %v", p.HealthPort, p.HealthHost, problems)
	}
	if got, want := problems[0].String(), "file line 1: line is neither name = value nor [section]: it is not read"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestProblemsSayWhere: the file by its name, and the parameter that a misspelled one was to be.
func TestProblemsSayWhere(t *testing.T) {
	_, problems := Resolve(Sources{Host: "h", Env: []string{"FELIX_ETCDENDPOINT=http://a:1", "FELIX_XYZ=1"}, FileName: "/etc/felix.cfg", File: []byte("x\nLogSeverityScren = Info\nHealthPort = x")})
	var got []string
	for _, p := range problems {
		got = append(got, p.String())
	}
	slices.Sort(got)
	want := []string{
		"environment FELIX_ETCDENDPOINT: ETCDENDPOINT: no parameter has this name (EtcdEndpoints?)",
		"environment FELIX_XYZ: XYZ: no parameter has this name",
		"file /etc/felix.cfg line 1: line is neither name = value nor [section]: it is not read",
		"file /etc/felix.cfg line 2: LogSeverityScren: no parameter has this name (LogSeverityScreen?)",
		`file /etc/felix.cfg line 3: HealthPort = "x": must be a number from 0 to 65535; in force: 9099`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestValues(t *testing.T) {
	pick := func(name string, p *Params) string {
		for _, f := range fields() {
			if f.name == name {
				return fmt.Sprint(reflect.ValueOf(p).Elem().Field(f.index).Interface())
			}
		}
		return "no field " + name
	}
	const bad = "bad"
	for _, c := range []struct{ name, text, want string }{
		{"HealthEnabled", "TRUE", "true"}, {"HealthEnabled", "y", "true"}, {"HealthEnabled", "0", "false"}, {"HealthEnabled", "on", bad},
		{"PrometheusGoMetricsEnabled", "none", "false"},
		{"HealthPort", "0x10", "16"}, {"HealthPort", "0", "0"}, {"HealthPort", "65535", "65535"}, {"HealthPort", "65536", bad},
		{"HealthPort", "-1", bad}, {"HealthPort", "none", "0"}, {"HealthPort", "NONE", "0"},
		{"HealthHost", "::1", "::1"}, {"HealthHost", "a b", bad}, {"HealthHost", strings.Repeat("a", 65), bad},
		{"LogSeverityScreen", "Debug", "DEBUG"}, {"LogSeverityScreen", "warn", bad}, {"LogSeverityScreen", "none", ""},
		{"GoGCThreshold", "-1", "-1"}, {"GoGCThreshold", "0x10", "16"}, {"GoGCThreshold", "-2", bad}, {"GoGCThreshold", "none", bad},
		{"DefaultEndpointToHostAction", "Return", "RETURN"}, {"DefaultEndpointToHostAction", "none", bad},
		{"NftablesFilterDenyAction", "reject", "REJECT"}, {"NftablesFilterDenyAction", "Deny", bad},
		{"DatastoreType", "kubernetes", "kubernetes"}, {"DatastoreType", "file", bad},
		{"LogPrefix", "none", ""}, {"LogPrefix", "a %t: ", "a %t: "}, {"LogPrefix", "a\nb", bad}, {"LogPrefix", strings.Repeat("a", 128), bad},
		{"InterfacePrefix", "cali,tap", "[cali tap]"}, {"InterfacePrefix", "cali, tap", bad}, {"InterfacePrefix", "none", bad},
		{"InterfaceExclude", "/^veth.*/,eth0", "[^veth.* ^eth0$]"}, {"InterfaceExclude", "/(/", bad}, {"InterfaceExclude", "a b", bad},
		{"InterfaceExclude", "none", "[]"},
		{"ReportingIntervalSecs", "0", "0s"}, {"ReportingIntervalSecs", "1.5", "1.5s"}, {"ReportingIntervalSecs", "30s", bad},
		{"ReportingIntervalSecs", "-1", bad}, {"ReportingIntervalSecs", "NaN", bad}, {"ReportingIntervalSecs", "1e300", bad},
		{"EtcdAddr", "etcd:2379", "etcd:2379"}, {"EtcdAddr", "[::1]:2379", "[::1]:2379"}, {"EtcdAddr", "etcd", bad},
		{"EtcdEndpoints", "https://a:1/, https://b:2", "[https://a:1 https://b:2]"}, {"EtcdEndpoints", "unix:///run/margay/store.sock", "[unix:///run/margay/store.sock]"},
		{"EtcdEndpoints", "http://a:1,https://b:2", bad}, {"EtcdEndpoints", "a:1", bad}, {"EtcdEndpoints", "http://a:1/x", bad},
		{"EtcdEndpoints", "http://a:1?x=y", bad}, {"EtcdEndpoints", ",", bad}, {"EtcdEndpoints", "http://", bad}, {"EtcdEndpoints", "unix://x/y", bad},
		{"EtcdCaFile", "/etc/ca.pem", "/etc/ca.pem"},
		{"FelixHostname", "A_b.c", "A_b.c"}, {"FelixHostname", "a b", bad}, {"FelixHostname", "none", bad},
		{"PrometheusMetricsClientAuth", "requireanyclientcert", "RequireAnyClientCert"},
		{"Ipv6Support", "false", "false"},
	} {
		p, problems := Resolve(Sources{Host: "h", Env: []string{"FELIX_" + strings.ToUpper(c.name) + "=" + c.text}})
		if c.want == bad {
			fallback, _ := Resolve(Sources{Host: "h"})
			if len(problems) != 1 || problems[0].Kind != Bad || problems[0].Name != c.name || !equal(p, fallback) {
				t.Errorf("%s = %q: %v, %v", c.name, c.text, pick(c.name, p), problems)
			}
			continue
		}
		if got := pick(c.name, p); got != c.want || len(problems) > 0 || p.Origin(c.name).Source != Environment {
			t.Errorf("%s = %q: %s, want %s; %v", c.name, c.text, got, c.want, problems)
		}
	}
}

func TestFailsafes(t *testing.T) {
	one := func(protocol uint8, port uint16, prefix string) ruleset.Failsafe {
		f := ruleset.Failsafe{Protocol: protocol, Port: port}
		if prefix != "" {
			f.Net = netip.MustParsePrefix(prefix)
		}
		return f
	}
	defaults, _ := Resolve(Sources{})
	for _, c := range []struct {
		env, spec string
		want      []ruleset.Failsafe // nil with bad: the default list
		bad       bool
	}{
		{env: "22", want: []ruleset.Failsafe{one(ruleset.TCP, 22, "")}},
		{env: "udp:53, TCP:10.1.2.3/8:22", want: []ruleset.Failsafe{one(ruleset.UDP, 53, ""), one(ruleset.TCP, 22, "10.0.0.0/8")}},
		{env: "tcp:[fd00::/8]:22", want: []ruleset.Failsafe{one(ruleset.TCP, 22, "fd00::/8")}},
		{env: "tcp:10.1.2.3:22", want: []ruleset.Failsafe{one(ruleset.TCP, 22, "10.1.2.3/32")}},
		{env: "none"},
		{env: "None"},
		{env: "22,foo", bad: true},
		{env: "sctp:22", bad: true},
		{env: "tcp:0", bad: true},
		{env: ",", bad: true},
		{env: "", want: defaults.FailsafeInboundHostPorts},
		{spec: "[]"},
		{spec: "[{port: 22}]", want: []ruleset.Failsafe{one(ruleset.TCP, 22, "")}},
		{spec: "[{protocol: UDP, port: 53, net: 10.0.0.1}, {protocol: tcp, port: 22, net: 'fd00::/8'}]",
			want: []ruleset.Failsafe{one(ruleset.UDP, 53, "10.0.0.1/32"), one(ruleset.TCP, 22, "fd00::/8")}},
		{spec: "[{protocol: SCTP, port: 53}]", bad: true},
		{spec: "[{port: 0}]", bad: true},
		{spec: "[{port: 22, net: x}]", bad: true},
		{spec: "[{port: 22, net: '10.0.0.0/8:22,tcp:0.0.0.0/0'}]", bad: true}, // one entry must not become two
	} {
		s := Sources{Host: "h", Env: []string{"FELIX_FailsafeInboundHostPorts=" + c.env}}
		if c.spec != "" {
			s.Resources = []*v3.FelixConfiguration{felix(t, "default", "failsafeInboundHostPorts: "+c.spec, 0)}
		}
		if c.bad {
			c.want = defaults.FailsafeInboundHostPorts
		}
		p, problems := Resolve(s)
		if !slices.Equal(p.FailsafeInboundHostPorts, c.want) || (len(problems) > 0) != c.bad {
			t.Errorf("%q %q: %v, want %v; %v", c.env, c.spec, p.FailsafeInboundHostPorts, c.want, problems)
		}
		if !slices.Equal(p.FailsafeOutboundHostPorts, defaults.FailsafeOutboundHostPorts) {
			t.Errorf("%q %q: the other list changed", c.env, c.spec)
		}
	}
}

func TestBadValueKeepsThePrevious(t *testing.T) {
	good, _ := Resolve(Sources{Host: "h", Resources: []*v3.FelixConfiguration{
		felix(t, "default", "failsafeInboundHostPorts: [{port: 22, net: 10.0.0.0/8}], healthPort: 1", 0)}})
	bad := []*v3.FelixConfiguration{
		felix(t, "default", "failsafeInboundHostPorts: [{port: 22, net: 0.0.0.0/0}], healthPort: 2", 0),
		felix(t, "node.h", "failsafeInboundHostPorts: [{port: 22, net: nowhere}], healthPort: 70000", 0),
	}
	p, problems := Resolve(Sources{Host: "h", Resources: bad, Previous: good})
	if !equal(p, good) || len(problems) != 2 {
		t.Errorf("%v %v", Diff(p, good), problems)
	}
	if got, want := problems[0].String(), `FelixConfiguration(node.h) spec.failsafeInboundHostPorts: FailsafeInboundHostPorts = "tcp:nowhere:22": `; !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "; in force: tcp:10.0.0.0/8:22") {
		t.Errorf("problem %s", got)
	}
	again, _ := Resolve(Sources{Host: "h", Resources: bad, Previous: p})
	if !equal(again, good) {
		t.Error("the value is lost the second time")
	}
	fresh, _ := Resolve(Sources{Host: "h", Resources: bad})
	if fresh.HealthPort != 9099 || len(fresh.FailsafeInboundHostPorts) != 9 {
		t.Error("without a previous value the built-in default counts, not a lower place")
	}
	env, problems := Resolve(Sources{Host: "h", Resources: bad, Env: []string{"FELIX_HEALTHPORT=7"}})
	if env.HealthPort != 7 || len(problems) != 2 || problems[1].Instead != "7" {
		t.Errorf("a bad value below a good one: %d %v", env.HealthPort, problems)
	}
}

func TestNotUsed(t *testing.T) {
	p, problems := Resolve(Sources{
		Host: "h",
		Env:  []string{"FELIX_BPFENABLED=true", "FELIX_NoSuch=secret", "FELIX_=x", "OTHER=y", "FELIX_DEBUGPANICAFTER=a"},
		File: []byte("VXLANMTU = 1\n"),
		Resources: []*v3.FelixConfiguration{
			felix(t, "default", "wireguardMTU: 1400, iptablesLockProbeInterval: 50ms, kubeNodePortRanges: []", 0), // and what the schema fills in
		},
	})
	want := []string{"Unused BPFENABLED", "Unused DEBUGPANICAFTER", "Unknown NoSuch", "Unused VXLANMTU",
		"Unused IptablesLockProbeIntervalMillis", "Unused KubeNodePortRanges", "Unused WireguardMTU"}
	var got []string
	for _, problem := range problems {
		kind := map[ProblemKind]string{Unused: "Unused", Unknown: "Unknown"}[problem.Kind]
		got = append(got, kind+" "+problem.Name)
		if strings.Contains(problem.String(), "secret") {
			t.Errorf("value in %s", problem)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("problems %q, want %q", got, want)
	}
	if fallback, _ := Resolve(Sources{Host: "h"}); !equal(p, fallback) {
		t.Error("they changed something")
	}
}

func TestLocalParametersDoNotComeFromTheStore(t *testing.T) {
	f := felix(t, "default", "", 0)
	f.Annotations = map[string]string{"config.projectcalico.org/EtcdEndpoints": "http://evil:1", "config.projectcalico.org/FelixHostname": "other"}
	p, problems := Resolve(Sources{Host: "h", Resources: []*v3.FelixConfiguration{f}})
	if p.Endpoints() != nil || p.FelixHostname != "h" || len(problems) != 2 || problems[0].Kind != Misplaced {
		t.Errorf("%v %s %v", p.Endpoints(), p.FelixHostname, problems)
	}
}

func TestEndpoints(t *testing.T) {
	for _, c := range []struct {
		env  []string
		file string
		want string
	}{
		{env: []string{"ETCD_ENDPOINTS=http://c:1"}, want: "http://c:1"},
		{env: []string{"ETCD_ENDPOINTS=http://c:1", "CALICO_ETCD_ENDPOINTS=http://d:1"}, want: "http://d:1"},
		{env: []string{"ETCD_ENDPOINTS=http://c:1", "FELIX_ETCDADDR=b:2", "FELIX_ETCDSCHEME=https"}, want: "https://b:2"},
		{env: []string{"ETCD_ENDPOINTS=http://c:1", "FELIX_ETCDADDR=b:2", "FELIX_ETCDENDPOINTS=http://a:3"}, want: "http://a:3"},
		{env: []string{"ETCD_ENDPOINTS=http://c:1"}, file: "EtcdEndpoints = http://f:1", want: "http://f:1"},
		{file: "EtcdAddr = f:1", want: "http://f:1"},
	} {
		p, problems := Resolve(Sources{Host: "h", Env: c.env, File: []byte(c.file)})
		if got := strings.Join(p.Endpoints(), ","); got != c.want || len(problems) > 0 {
			t.Errorf("%q %q: %s, want %s; %v", c.env, c.file, got, c.want, problems)
		}
	}
	_, problems := Resolve(Sources{Host: "h", Env: []string{"ETCD_ENDPOINTS=http://root:pass@c:1"}})
	if len(problems) != 1 || strings.Contains(problems[0].String(), "pass") {
		t.Errorf("%v", problems)
	}
}

func TestReject(t *testing.T) {
	for _, c := range []struct {
		env  []string
		want bool
	}{
		{nil, false},
		{[]string{"FELIX_NFTABLESFILTERDENYACTION=REJECT"}, true},
		{[]string{"FELIX_IPTABLESFILTERDENYACTION=REJECT"}, true},
		{[]string{"FELIX_IPTABLESFILTERDENYACTION=REJECT", "FELIX_NFTABLESFILTERDENYACTION=DROP"}, false},
	} {
		if p, _ := Resolve(Sources{Host: "h", Env: c.env}); p.Settings().Reject != c.want {
			t.Errorf("%v: %v, want %v", c.env, !c.want, c.want)
		}
	}
}

func TestClientAuthFollowsTheCA(t *testing.T) {
	for _, c := range []struct{ spec, want string }{
		{`prometheusMetricsCertFile: /c`, "NoClientCert"},
		{`prometheusMetricsCAFile: /ca`, "RequireAndVerifyClientCert"},
		{`prometheusMetricsCAFile: /ca, prometheusMetricsClientAuth: NoClientCert`, "NoClientCert"},
	} {
		p, _ := Resolve(Sources{Host: "h", Resources: []*v3.FelixConfiguration{felix(t, "default", c.spec, 0)}})
		if p.PrometheusMetricsClientAuth != c.want {
			t.Errorf("{%s}: %s, want %s", c.spec, p.PrometheusMetricsClientAuth, c.want)
		}
	}
}

func TestDiff(t *testing.T) {
	a, _ := Resolve(Sources{Host: "h"})
	same, _ := Resolve(Sources{Host: "h", Env: []string{"FELIX_HEALTHPORT=0x238b", "FELIX_INTERFACEEXCLUDE=kube-ipvs0", "FELIX_LOGPREFIX=calico-packet"}})
	if !equal(a, same) {
		t.Errorf("equal values from other places differ: %v", Diff(a, same))
	}
	b, _ := Resolve(Sources{Host: "g", Env: []string{"FELIX_HEALTHPORT=1", "FELIX_FAILSAFEINBOUNDHOSTPORTS=none", "FELIX_INTERFACEEXCLUDE=/x/", "FELIX_ETCDCAFILE=/ca"}})
	want := []Change{{"EtcdCaFile", Restart}, {"FelixHostname", Restart}, {"HealthPort", Listener}, {"FailsafeInboundHostPorts", Live}, {"InterfaceExclude", Live}}
	if got := Diff(a, b); !slices.Equal(got, want) {
		t.Errorf("diff %v, want %v", got, want)
	}
	if got := fmt.Sprint(Live, Listener, Restart); got != "live listener restart" {
		t.Error(got)
	}
}

// TestTable: every name that is acted on is one that the incumbent knows, and has a spec field unless it is local.
func TestTable(t *testing.T) {
	known := knownNames()
	for _, f := range fields() {
		if _, ok := known[strings.ToLower(f.name)]; ok == f.local {
			t.Errorf("%s: in the FelixConfiguration %v, local %v", f.name, ok, f.local)
		}
		if f.kind == "" {
			t.Errorf("%s has no parser", f.name)
		}
	}
	if len(known) < 190 {
		t.Errorf("%d known names", len(known))
	}
}

// TestStoredParametersGoThroughTheSpec gives every acted parameter of the spec a value there and looks whether it arrives.
func TestStoredParametersGoThroughTheSpec(t *testing.T) {
	p, problems := Resolve(Sources{Host: "h", Resources: []*v3.FelixConfiguration{felix(t, "default", `
		healthEnabled: true, healthHost: h, healthPort: 1, prometheusMetricsEnabled: true, prometheusMetricsHost: m,
		prometheusMetricsPort: 2, prometheusMetricsCAFile: a, prometheusMetricsCertFile: b, prometheusMetricsKeyFile: c,
		prometheusMetricsClientAuth: RequireAnyClientCert, prometheusGoMetricsEnabled: false, prometheusProcessMetricsEnabled: false,
		logSeverityScreen: Trace, failsafeInboundHostPorts: [], failsafeOutboundHostPorts: [], nftablesFilterDenyAction: Reject,
		iptablesFilterDenyAction: Reject, defaultEndpointToHostAction: Accept, disableConntrackInvalidCheck: true, logPrefix: x,
		ipv6Support: false, interfacePrefix: w, interfaceExclude: z, reportingInterval: 1m30s, reportingTTL: 2500ms,
		logActionRateLimit: 1/hour, logActionRateLimitBurst: 1, workloadSourceSpoofing: Any, allowVXLANPacketsFromWorkloads: true,
		allowIPIPPacketsFromWorkloads: true, ipipEnabled: true, vxlanEnabled: true, vxlanPort: 1, wireguardEnabled: true,
		wireguardEnabledV6: true, wireguardListeningPort: 1, wireguardListeningPortV6: 1, externalNodesList: [192.0.2.0/24], endpointReportingEnabled: true, endpointReportingDelay: 2s,
		goGCThreshold: 50, serviceLoopPrevention: Reject`, 0)}})
	for _, f := range fields() {
		if origin := p.Origin(f.name); !f.local && origin.Source != Cluster {
			t.Errorf("%s is from %v", f.name, origin)
		}
	}
	if p.ReportingInterval != 90*time.Second || p.ReportingTTL != 2500*time.Millisecond || p.LogLevel() != -8 || len(problems) > 0 {
		t.Errorf("%v %v %v %v", p.ReportingInterval, p.ReportingTTL, p.LogLevel(), problems)
	}
}

// FuzzResolve: nothing that a file or the environment says makes Resolve fail, and what comes out is usable.
func FuzzResolve(f *testing.F) {
	f.Add("FELIX_HEALTHPORT=1", "[global]\nLogPrefix = x # y\n")
	f.Add("FELIX_FAILSAFEINBOUNDHOSTPORTS=tcp:[::]:1", "[h\n=\n:::\n\"")
	f.Add("FELIX_INTERFACEEXCLUDE=/(/,x", "a='b")
	f.Fuzz(func(t *testing.T, env, file string) {
		p, problems := Resolve(Sources{Host: "h", Env: []string{env}, File: []byte(file)})
		if p.FelixHostname == "" || len(p.InterfacePrefix) == 0 || !equal(p, p) {
			t.Fatalf("%+v", p)
		}
		for _, problem := range problems {
			if problem.Reason == "" || problem.String() == "" {
				t.Fatalf("%+v", problem)
			}
		}
		for _, failsafe := range slices.Concat(p.FailsafeInboundHostPorts, p.FailsafeOutboundHostPorts) {
			if failsafe.Port == 0 || failsafe.Net.IsValid() && failsafe.Net != failsafe.Net.Masked() {
				t.Fatalf("%+v", failsafe)
			}
		}
	})
}

// TestWorkloadSettings: what concerns workloads and Log rules reaches the settings of the rules.
func TestWorkloadSettings(t *testing.T) {
	base := func(change func(*ruleset.Settings)) ruleset.Settings {
		p, _ := Resolve(Sources{Host: "h"})
		s := p.Settings()
		change(&s)
		return s
	}
	tests := []struct {
		spec, env string // one of them
		want      ruleset.Settings
	}{
		{"", "", base(func(*ruleset.Settings) {})},
		{"defaultEndpointToHostAction: Accept", "", base(func(s *ruleset.Settings) { s.EndpointToHost = ruleset.HostAccept })},
		{"", "FELIX_DEFAULTENDPOINTTOHOSTACTION=return", base(func(s *ruleset.Settings) { s.EndpointToHost = ruleset.HostReturn })},
		{"workloadSourceSpoofing: Any", "", base(func(s *ruleset.Settings) { s.AllowSpoofing = true })},
		{"allowVXLANPacketsFromWorkloads: true", "", base(func(s *ruleset.Settings) { s.AllowVXLAN = true })},
		{"allowIPIPPacketsFromWorkloads: true", "", base(func(s *ruleset.Settings) { s.AllowIPIP = true })},
		{"ipipEnabled: true", "", base(func(s *ruleset.Settings) { s.Tunnels = []ruleset.Tunnel{{Protocol: 4, Family: ruleset.IPv4}} })},
		{"vxlanEnabled: true, vxlanPort: 8472", "", base(func(s *ruleset.Settings) {
			s.VXLANPort, s.Tunnels = 8472, []ruleset.Tunnel{{Protocol: ruleset.UDP, Port: 8472}}
		})},
		{"", "FELIX_WIREGUARDENABLED=true", base(func(s *ruleset.Settings) {
			s.Tunnels = []ruleset.Tunnel{{Protocol: ruleset.UDP, Port: 51820, Family: ruleset.IPv4, Proven: true}}
		})},
		{"wireguardEnabledV6: true, wireguardListeningPortV6: 7", "", base(func(s *ruleset.Settings) {
			s.Tunnels = []ruleset.Tunnel{{Protocol: ruleset.UDP, Port: 7, Family: ruleset.IPv6, Proven: true}}
		})},
		{"externalNodesList: [192.0.2.0/24, 198.51.100.7/32]", "", base(func(s *ruleset.Settings) {
			s.TunnelNets = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.7/32")}
		})},
		{"", "FELIX_EXTERNALNODESCIDRLIST=fd00::1, 10.0.0.7/8", base(func(s *ruleset.Settings) {
			s.TunnelNets = []netip.Prefix{netip.MustParsePrefix("fd00::1/128"), netip.MustParsePrefix("10.0.0.0/8")}
		})},
		{"", "FELIX_EXTERNALNODESCIDRLIST=bogus", base(func(*ruleset.Settings) {})},
		{"serviceLoopPrevention: Drop", "", base(func(*ruleset.Settings) {})},
		{"serviceLoopPrevention: Reject", "", base(func(s *ruleset.Settings) { s.RejectLoops = true })},
		{"serviceLoopPrevention: Disabled", "", base(func(s *ruleset.Settings) { s.ServiceNets = nil })},
		{"", "FELIX_SERVICELOOPPREVENTION=reject", base(func(s *ruleset.Settings) { s.RejectLoops = true })},
		{"", "FELIX_SERVICELOOPPREVENTION=none", base(func(s *ruleset.Settings) { s.ServiceNets = nil })},
		{"", "FELIX_SERVICELOOPPREVENTION=yes", base(func(*ruleset.Settings) {})},
		{"logActionRateLimit: 10/minute", "", base(func(s *ruleset.Settings) { s.LogRate = ruleset.LogRate{Packets: 10, Per: time.Minute, Burst: 5} })},
		{"logActionRateLimit: 9999/day, logActionRateLimitBurst: 0", "", base(func(s *ruleset.Settings) { s.LogRate = ruleset.LogRate{Packets: 9999, Per: 24 * time.Hour} })},
		{"logActionRateLimitBurst: 7", "", base(func(*ruleset.Settings) {})},
		{"", "FELIX_LOGACTIONRATELIMIT=0/second", base(func(*ruleset.Settings) {})},
		{"", "FELIX_LOGACTIONRATELIMIT=1/hour", base(func(s *ruleset.Settings) { s.LogRate = ruleset.LogRate{Packets: 1, Per: time.Hour, Burst: 5} })},
	}
	for _, test := range tests {
		s := Sources{Host: "h", Env: []string{test.env}}
		if test.spec != "" {
			s.Resources = []*v3.FelixConfiguration{felix(t, "default", test.spec, 0)}
		}
		p, _ := Resolve(s)
		if got := p.Settings(); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s%s: settings %+v, want %+v", test.spec, test.env, got, test.want)
		}
	}
}

func equal(a, b *Params) bool { return len(Diff(a, b)) == 0 }
