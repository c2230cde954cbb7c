package controllers

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	v3 "margay/api/v3"
	"margay/store"
)

func parse[T any](t testing.TB, text string) *T {
	t.Helper()
	out := new(T)
	if err := yaml.UnmarshalStrict([]byte(text), out); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return out
}

// resource reads one object.
func resource(t testing.TB, text string) v3.Resource {
	t.Helper()
	var meta struct {
		Kind v3.Kind `json:"kind"`
	}
	if err := yaml.Unmarshal([]byte(text), &meta); err != nil {
		t.Fatal(err)
	}
	info, ok := v3.Lookup(meta.Kind)
	if !ok {
		t.Fatalf("kind %q", meta.Kind)
	}
	r := info.New()
	if err := yaml.UnmarshalStrict([]byte(text), r); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	r.GetObjectKind().SetGroupVersionKind(info.New().GetObjectKind().GroupVersionKind())
	return r
}

const hostNode = `
kind: Node
metadata: {name: n1, labels: {zone: a, shared: node}}
spec:
  bgp: {ipv4Address: 10.0.0.1/24, ipv6Address: "fd00::1/64", ipv4IPIPTunnelAddr: 192.168.0.1}
  ipv4VXLANTunnelAddr: 192.168.0.2
  wireguard: {interfaceIPv4Address: 192.168.0.3}
  addresses: [{address: 10.0.0.1/24, type: CalicoNodeIP}, {address: 10.0.0.1, type: InternalIP}, {address: 10.9.0.1, type: InternalIP}, {address: 1.2.3.4, type: ExternalIP}, {address: bogus, type: InternalIP}]
  interfaces: [{name: eth0, addresses: [10.0.0.1, "fe80::1"]}, {name: eth1, addresses: [172.16.0.1]}, {name: Wlan_0, addresses: [172.17.0.1]}]`

// TestHostEndpoints: each case is a configuration and what it makes of the node.
func TestHostEndpoints(t *testing.T) {
	const all = "10.0.0.1 fd00::1 192.168.0.1 192.168.0.2 192.168.0.3 10.9.0.1 fe80::1 172.16.0.1 172.17.0.1"
	const labels = "projectcalico.org/created-by=calico-kube-controllers shared=node zone=a"
	tests := []struct {
		name, config string
		want         []string // name, interface, addresses, labels
	}{
		{"off", `{autoCreate: Disabled}`, nil},
		{"default", `{autoCreate: Enabled}`, []string{"n1-auto-hep|*|" + all + "|" + labels}},
		{"no default", `{autoCreate: Enabled, createDefaultHostEndpoint: Disabled}`, nil},
		{"by CIDR", `{autoCreate: Enabled, createDefaultHostEndpoint: Disabled, templates: [{generateName: lan, interfaceCIDRs: [10.0.0.0/8, 172.16.0.0/12], labels: {shared: template, more: m}}]}`,
			[]string{"n1-lan-auto-hep||10.0.0.1 10.9.0.1 172.16.0.1 172.17.0.1|more=m projectcalico.org/created-by=calico-kube-controllers shared=template zone=a"}},
		{"no address in the CIDR", `{autoCreate: Enabled, createDefaultHostEndpoint: Disabled, templates: [{generateName: lan, interfaceCIDRs: [11.0.0.0/8]}]}`, nil},
		{"by interface", `{autoCreate: Enabled, createDefaultHostEndpoint: Disabled, templates: [{generateName: e, interfacePattern: "eth[0-9]"}]}`,
			[]string{"n1-e-eth0-auto-hep|eth0|10.0.0.1 fe80::1|" + labels, "n1-e-eth1-auto-hep|eth1|172.16.0.1|" + labels}},
		{"by interface and CIDR", `{autoCreate: Enabled, createDefaultHostEndpoint: Disabled, templates: [{generateName: e, interfacePattern: "^eth1$", interfaceCIDRs: [10.9.0.0/16]}]}`,
			[]string{"n1-e-eth1-auto-hep|eth1|10.9.0.1 172.16.0.1|" + labels}},
		{"an interface whose name is no name", `{autoCreate: Enabled, createDefaultHostEndpoint: Disabled, templates: [{generateName: w, interfacePattern: Wlan}]}`,
			[]string{hostName([]string{"n1", "w", "Wlan_0"}) + "|Wlan_0|172.17.0.1|" + labels}},
		{"another node", `{autoCreate: Enabled, templates: [{generateName: e, interfacePattern: eth, nodeSelector: zone == "b"}]}`, []string{"n1-auto-hep|*|" + all + "|" + labels}},
		{"this node", `{autoCreate: Enabled, createDefaultHostEndpoint: Disabled, templates: [{generateName: e, interfacePattern: eth1, nodeSelector: zone == "a"}]}`, []string{"n1-e-eth1-auto-hep|eth1|172.16.0.1|" + labels}},
		{"a template that makes nothing", `{autoCreate: Enabled, createDefaultHostEndpoint: Disabled, templates: [{generateName: e}]}`, nil},
	}
	node := resource(t, hostNode).(*v3.Node)
	for _, test := range tests {
		c, err := newHostController(parse[v3.AutoHostEndpointConfig](t, test.config))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		v := newView()
		v[target].deliver(store.Event{Key: v3.KeyOf(node), Resource: node})
		steps, err := c.plan(v, v3.KeyOf(node))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		var got []string
		for _, s := range steps {
			h := s.Resource.(*v3.HostEndpoint)
			got = append(got, fmt.Sprintf("%s|%s|%s|%s", h.Name, h.Spec.InterfaceName, strings.Join(h.Spec.ExpectedIPs, " "), sortedLabels(h.Labels)))
			if h.Spec.Node != "n1" || !slices.Equal(h.Spec.Profiles, []string{"projectcalico-default-allow"}) {
				t.Errorf("%s: spec %+v", test.name, h.Spec)
			}
			if err := v3.Validate(h); err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s:\n%s\nwant\n%s", test.name, strings.Join(got, "\n"), strings.Join(test.want, "\n"))
		}
	}
}

func sortedLabels(labels map[string]string) string {
	var list []string
	for k, v := range labels {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func TestHostNames(t *testing.T) {
	for _, test := range []struct {
		parts []string
		want  string // "" for a hash
	}{
		{[]string{"node-1"}, "node-1-auto-hep"},
		{[]string{"a.b", "t", "eth0.100"}, "a.b-t-eth0.100-auto-hep"},
		{[]string{strings.Repeat("x", 244)}, strings.Repeat("x", 244) + "-auto-hep"},
		{[]string{strings.Repeat("x", 245)}, ""},
		{[]string{"n", "t", "eth@1"}, ""},
	} {
		got := hostName(test.parts)
		if test.want != "" && got != test.want || test.want == "" && (len(got) != 64+len(autoSuffix) || !strings.HasSuffix(got, autoSuffix)) {
			t.Errorf("%q: %s", test.parts, got)
		}
	}
}

// TestBadTemplates: what a template would make is not known, so nothing is.
func TestBadTemplates(t *testing.T) {
	for config, want := range map[string]string{
		`{templates: [{generateName: a, interfacePattern: "("}]}`:                            "interfacePattern",
		`{templates: [{generateName: a, interfacePattern: x, nodeSelector: "a = b"}]}`:       "nodeSelector",
		`{templates: [{generateName: a, interfaceCIDRs: [x]}]}`:                              "interfaceCIDRs",
		`{templates: [{generateName: a, interfacePattern: x}, {interfaceCIDRs: ["1.2.3"]}]}`: "template 1",
	} {
		if c, err := newHostController(parse[v3.AutoHostEndpointConfig](t, config)); err == nil || c != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", config, err, want)
		}
	}
}

// TestForeignHostEndpoints: names that are taken are left alone, and told.
func TestForeignHostEndpoints(t *testing.T) {
	config := parse[v3.AutoHostEndpointConfig](t, `{autoCreate: Enabled, templates: [{generateName: e, interfacePattern: eth0}]}`)
	auto := "labels: {projectcalico.org/created-by: calico-kube-controllers}"
	for _, test := range []struct {
		name    string
		objects []string
		want    string // operations and names
		told    string
	}{
		{"somebody's", []string{`{kind: HostEndpoint, metadata: {name: n1-auto-hep}, spec: {node: n1, interfaceName: eth0}}`}, "create n1-e-eth0-auto-hep", "is there without label"},
		{"another node's", []string{`{kind: Node, metadata: {name: n2}}`, `{kind: HostEndpoint, metadata: {name: n1-auto-hep, ` + auto + `}, spec: {node: n2, interfaceName: "*"}}`}, "create n1-e-eth0-auto-hep", "is that of node n2"},
		{"of a node that is gone", []string{`{kind: HostEndpoint, metadata: {name: n1-auto-hep, ` + auto + `}, spec: {node: n2, interfaceName: "*"}}`}, "update n1-auto-hep, create n1-e-eth0-auto-hep", ""},
		{"edited", []string{`{kind: HostEndpoint, metadata: {name: n1-auto-hep, ` + auto + `}, spec: {node: n1, interfaceName: "*", profiles: [mine]}}`}, "update n1-auto-hep, create n1-e-eth0-auto-hep", ""},
		{"left over", []string{`{kind: HostEndpoint, metadata: {name: other, ` + auto + `}, spec: {node: n1, interfaceName: "*"}}`, `{kind: HostEndpoint, metadata: {name: mine}, spec: {node: n1, interfaceName: eth7}}`}, "create n1-auto-hep, create n1-e-eth0-auto-hep, delete other", ""},
		{"unreadable", []string{`{kind: HostEndpoint, metadata: {name: n1-auto-hep, resourceVersion: bad}}`}, "create n1-e-eth0-auto-hep", "cannot be read"},
	} {
		c, err := newHostController(config)
		if err != nil {
			t.Fatal(err)
		}
		v := newView()
		for _, text := range append(test.objects, hostNode) {
			r := resource(t, text)
			e := store.Event{Key: v3.KeyOf(r), Resource: r}
			if r.GetResourceVersion() == "bad" {
				e = store.Event{Key: e.Key, Fault: &store.Fault{}}
			}
			v[target].deliver(e)
			c.touched(target, e.Key, nil, e.Resource)
		}
		steps, err := c.plan(v, v3.Key{Kind: v3.KindNode, Name: "n1"})
		var got []string
		for _, s := range steps {
			got = append(got, op(s.Op)+" "+s.Resource.GetName())
		}
		if strings.Join(got, ", ") != test.want {
			t.Errorf("%s: %s, want %s", test.name, strings.Join(got, ", "), test.want)
		}
		if (err != nil) != (test.told != "") || err != nil && !strings.Contains(err.Error(), test.told) {
			t.Errorf("%s: told %v, want %q", test.name, err, test.told)
		}
	}
}

// TestRunning: each case is a stored configuration and an environment, and what runs.
func TestRunning(t *testing.T) {
	const defaults = `{"logSeverityScreen":"Info","healthChecks":"Enabled","etcdV3CompactionPeriod":"10m0s","prometheusMetricsPort":9094,"controllers":{"node":{"syncLabels":"Enabled","hostEndpoint":{"autoCreate":"Disabled","createDefaultHostEndpoint":"Enabled"},"leakGracePeriod":"15m0s"},"policy":{"reconcilerPeriod":"5m0s"},"workloadEndpoint":{"reconcilerPeriod":"5m0s"},"serviceAccount":{"reconcilerPeriod":"5m0s"},"namespace":{"reconcilerPeriod":"5m0s"}}}`
	preset, _ := json.Marshal(defaultSpec())
	tests := []struct {
		name, spec string
		env        []string
		want       string // JSON of runningConfig, or path=value
		vars       string
	}{
		{"defaults", string(preset), nil, defaults, `{}`},
		{"Kubernetes", string(preset), []string{"DATASTORE_TYPE=kubernetes"}, `"controllers":{"node":{"syncLabels":"Disabled","hostEndpoint":{"autoCreate":"Disabled","createDefaultHostEndpoint":"Enabled"},"leakGracePeriod":"15m0s"}}`, `{"DATASTORE_TYPE":"kubernetes"}`},
		{"what is left out does not run", `{controllers: {policy: {}}}`, nil, `"controllers":{"policy":{"reconcilerPeriod":"5m0s"}}}`, `{}`},
		{"the environment chooses", `{controllers: {policy: {}}}`, []string{"ENABLED_CONTROLLERS=node,profile"}, `"controllers":{"node":{"syncLabels":"Enabled","hostEndpoint":{"autoCreate":"Disabled","createDefaultHostEndpoint":"Enabled"}},"namespace":{"reconcilerPeriod":"5m0s"}}}`, `{"ENABLED_CONTROLLERS":"node,profile"}`},
		{"periods", `{controllers: {policy: {reconcilerPeriod: 1m}, namespace: {reconcilerPeriod: 2m}}}`, nil, `"policy":{"reconcilerPeriod":"1m0s"},"namespace":{"reconcilerPeriod":"2m0s"}`, `{}`},
		{"period of the environment", `{controllers: {policy: {reconcilerPeriod: 1m}}}`, []string{"RECONCILER_PERIOD=3m"}, `"policy":{"reconcilerPeriod":"3m0s"}`, `{"RECONCILER_PERIOD":"3m"}`},
		{"level", `{logSeverityScreen: Debug, controllers: {}}`, nil, `"logSeverityScreen":"Debug"`, `{}`},
		{"level of the environment", `{logSeverityScreen: Debug, controllers: {}}`, []string{"LOG_LEVEL=warn"}, `"logSeverityScreen":"Warning"`, `{"LOG_LEVEL":"warn"}`},
		{"health", `{healthChecks: Enabled, controllers: {}}`, []string{"HEALTH_ENABLED=false"}, `"healthChecks":"Disabled"`, `{"HEALTH_ENABLED":"false"}`},
		{"compaction", `{controllers: {}}`, []string{"COMPACTION_PERIOD=0"}, `"etcdV3CompactionPeriod":"0s"`, `{"COMPACTION_PERIOD":"0"}`},
		{"labels", `{controllers: {node: {syncLabels: Enabled}}}`, []string{"SYNC_NODE_LABELS=false"}, `"syncLabels":"Disabled"`, `{"SYNC_NODE_LABELS":"false"}`},
		{"labels are off", `{controllers: {node: {syncLabels: Disabled}}}`, nil, `"syncLabels":"Disabled"`, `{}`},
		{"host endpoints", `{controllers: {node: {hostEndpoint: {autoCreate: Enabled, createDefaultHostEndpoint: Disabled, templates: [{generateName: a, interfacePattern: e}]}}}}`, nil, `"hostEndpoint":{"autoCreate":"Enabled","createDefaultHostEndpoint":"Disabled","templates":[{"generateName":"a","interfacePattern":"e"}]}`, `{}`},
		{"host endpoints of the environment", `{controllers: {node: {hostEndpoint: {autoCreate: Disabled, createDefaultHostEndpoint: Disabled, templates: [{generateName: a, interfacePattern: e}]}}}}`, []string{"AUTO_HOST_ENDPOINTS=enabled"}, `"hostEndpoint":{"autoCreate":"Enabled","createDefaultHostEndpoint":"Enabled"}`, `{"AUTO_HOST_ENDPOINTS":"enabled"}`},
		{"no metrics", `{prometheusMetricsPort: 0, controllers: {}}`, nil, `"prometheusMetricsPort":0`, `{}`},
	}
	for _, test := range tests {
		env := newEnvironment(test.env)
		if err := env.check(); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		s := running(parse[v3.KubeControllersConfigurationSpec](t, test.spec), env)
		got, _ := json.Marshal(s.RunningConfig)
		vars, _ := json.Marshal(s.EnvironmentVars)
		if !strings.Contains(string(got), test.want) || string(vars) != test.vars {
			t.Errorf("%s: %s with %s, want %s with %s", test.name, got, vars, test.want, test.vars)
		}
	}
}

func TestBadEnvironment(t *testing.T) {
	for env, want := range map[string]string{
		"RECONCILER_PERIOD=5":                  "no duration",
		"COMPACTION_PERIOD=-1m":                "no duration",
		"HEALTH_ENABLED=perhaps":               "true or false",
		"SYNC_NODE_LABELS=":                    "true or false",
		"AUTO_HOST_ENDPOINTS=on":               "enabled or disabled",
		"LOG_LEVEL=loud":                       "one of",
		"ENABLED_CONTROLLERS=node,pods":        `"pods" is no controller`,
		"ENABLED_CONTROLLERS=flannelmigration": "is no controller",
		"DATASTORE_TYPE=files":                 "must be",
	} {
		if err := Run(t.Context(), Options{Environ: []string{env}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", env, err, want)
		}
	}
}
