package v3

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// in puts a manifest into a namespace.
func in(namespace, manifest string) string {
	return strings.Replace(manifest, "metadata: {", "metadata: {namespace: "+namespace+", ", 1)
}

func TestStagedRules(t *testing.T) {
	for _, c := range []struct{ name, spec, fault string }{
		{"a", ``, ""},
		{"a.b", `stagedAction: Learn`, ""},
		{"a.b.c", ``, "metadata.name"},
		{"a", `stagedAction: set`, "spec.stagedAction"},
		{"a", `selector: a = 'b'`, "spec.selector"},
		{"a", `preDNAT: true`, "spec.applyOnForward"},
		{"a", `preDNAT: true, applyOnForward: true, egress: [{action: Deny}]`, "spec.egress"},
		{"a", `ingress: [{action: Deny, destination: {ports: [1]}}]`, "spec.ingress[0].destination.ports"},
		{"a", `stagedAction: Delete, tier: t, types: [Egress], ingress: []`, ""},
		{"a", `stagedAction: Delete, order: 1`, "spec.order"},
		{"a", `stagedAction: Delete, doNotTrack: true`, "spec.doNotTrack"},
		{"a", `stagedAction: Delete, egress: [{action: Deny}]`, "spec.egress"},
		{"a", `stagedAction: Delete, tier: A`, "spec.tier"},
		{"a", `stagedAction: Ignore, order: 1, namespaceSelector: global()`, "spec.namespaceSelector"},
	} {
		if got := verdict(t, object(KindStagedGlobalNetworkPolicy, c.name, c.spec)); got != c.fault {
			t.Errorf("%s {%s}: fault at %q, want %q", c.name, c.spec, got, c.fault)
		}
	}
	for _, c := range []struct{ name, spec, fault string }{
		{"knp.default.a.b.c", ``, ""},
		{"knp.other.a.b.c", ``, "metadata.name"},
		{"a", `stagedAction: Delete, selector: x`, "spec.selector"},
		{"a", `egress: [{action: Allow, source: {services: {name: x}}}]`, "spec.egress[0].source.services"},
	} {
		if got := verdict(t, in("ns", object(KindStagedNetworkPolicy, c.name, c.spec))); got != c.fault {
			t.Errorf("%s {%s}: fault at %q, want %q", c.name, c.spec, got, c.fault)
		}
	}
	if got := verdict(t, object(KindStagedNetworkPolicy, "a", ``)); got != "metadata.namespace" {
		t.Errorf("without a namespace: fault at %q", got)
	}
}

func TestStagedStored(t *testing.T) {
	for in, want := range map[string]string{
		`{}`:                                   `{"stagedAction":"Set","tier":"default","types":["Ingress","Egress"]}`,
		`{"stagedAction":"Delete","tier":"t"}`: `{"stagedAction":"Delete","tier":"t"}`,
	} {
		r, err := DecodeStored(KindStagedGlobalNetworkPolicy, []byte(`{"metadata":{"name":"default.p"},"spec":`+in+`}`))
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := json.Marshal(r.(*StagedGlobalNetworkPolicy).Spec); string(got) != want {
			t.Errorf("%s is read as %s, want %s", in, got, want)
		}
		if name := r.GetName(); (name == "p") != strings.Contains(want, "default") {
			t.Errorf("%s: name is %s", in, name)
		}
	}
	if r, err := DecodeStored(KindStagedNetworkPolicy, []byte(`{"metadata":{"name":"p"},"spec":{"selector":"("}}`)); err == nil {
		t.Errorf("a bad selector is usable: %v", r)
	}
}

func TestStagedKubernetesRules(t *testing.T) {
	peer := func(text string) string { return `ingress: [{from: [` + text + `]}]` }
	port := func(text string) string { return `egress: [{ports: [` + text + `]}]` }
	for _, c := range []struct{ spec, fault string }{
		{``, ""},
		{`policyTypes: [Ingress, Egress]`, ""},
		{`policyTypes: [ingress]`, "spec.policyTypes[0]"},
		{`policyTypes: [Egress, Egress]`, "spec.policyTypes[1]"},
		{`podSelector: {matchLabels: {"a b": c}}`, "spec.podSelector.matchLabels"},
		{`podSelector: {matchExpressions: [{key: a, operator: NotIn, values: [b]}]}`, ""},
		{`podSelector: {matchExpressions: [{key: a, operator: Equals, values: [b]}]}`, "spec.podSelector.matchExpressions[0].operator"},
		{`podSelector: {matchExpressions: [{key: a, operator: In}]}`, "spec.podSelector.matchExpressions[0].values"},
		{`ingress: [{}]`, ""},
		{peer(`{}`), "spec.ingress[0].from[0]"},
		{peer(`{podSelector: {}}, {namespaceSelector: {}}`), ""},
		{peer(`{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}`), "spec.ingress[0].from[0].ipBlock"},
		{peer(`{ipBlock: {cidr: 10.0.0.1/8, except: [10.1.0.0/16]}}`), ""},
		{peer(`{ipBlock: {cidr: 10.0.0.1}}`), "spec.ingress[0].from[0].ipBlock.cidr"},
		{peer(`{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}`), "spec.ingress[0].from[0].ipBlock.except[0]"},
		{peer(`{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}`), "spec.ingress[0].from[0].ipBlock.except[0]"},
		{peer(`{ipBlock: {cidr: 10.0.0.0/8, except: [x]}}`), "spec.ingress[0].from[0].ipBlock.except[0]"},
		{port(`{}`), ""},
		{port(`{port: http}`), ""},
		{port(`{port: HTTP}`), "spec.egress[0].ports[0].port"},
		{port(`{port: 0}`), "spec.egress[0].ports[0].port"},
		{port(`{port: 80, endPort: 90, protocol: SCTP}`), ""},
		{port(`{port: 80, endPort: 79}`), "spec.egress[0].ports[0].endPort"},
		{port(`{port: http, endPort: 90}`), "spec.egress[0].ports[0].endPort"},
		{port(`{endPort: 90}`), "spec.egress[0].ports[0].endPort"},
		{port(`{port: 80, protocol: tcp}`), "spec.egress[0].ports[0].protocol"},
		{`stagedAction: Delete`, ""},
		{`stagedAction: Delete, podSelector: {matchLabels: {a: b}}`, "spec.podSelector"},
		{`stagedAction: Remove`, "spec.stagedAction"},
	} {
		if got := verdict(t, in("ns", object(KindStagedKubernetesNetworkPolicy, "a", c.spec))); got != c.fault {
			t.Errorf("{%s}: fault at %q, want %q", c.spec, got, c.fault)
		}
	}
	if _, err := Decode("x", []byte(in("ns", object(KindStagedKubernetesNetworkPolicy, "a", `ingress: [{from: }]`)))); err == nil {
		t.Error("from without a value is everybody")
	}
}

func TestNetworkRules(t *testing.T) {
	template := func(text string) string { return `controllers: {node: {hostEndpoint: {templates: [` + text + `]}}}` }
	filter := func(rule string) string { return `importV6: [{` + rule + `}]` }
	for _, c := range []struct {
		kind              Kind
		name, spec, fault string
	}{
		{KindKubeControllersConfiguration, "default", ``, ""},
		{KindKubeControllersConfiguration, "other", ``, "metadata.name"},
		{KindKubeControllersConfiguration, "default", `logSeverityScreen: Trace`, "spec.logSeverityScreen"},
		{KindKubeControllersConfiguration, "default", `prometheusMetricsPort: 65536`, "spec.prometheusMetricsPort"},
		{KindKubeControllersConfiguration, "default", `debugProfilePort: -1`, "spec.debugProfilePort"},
		{KindKubeControllersConfiguration, "default", `controllers: {node: {syncLabels: "on"}}`, "spec.controllers.node.syncLabels"},
		{KindKubeControllersConfiguration, "default", `controllers: {policyMigration: {enabled: Disabled}, migration: {policyNameMigrator: Enabled}}`, ""},
		{KindKubeControllersConfiguration, "default", `controllers: {policyMigration: {enabled: "yes"}}`, "spec.controllers.policyMigration.enabled"},
		{KindKubeControllersConfiguration, "default", template(`{generateName: a, interfacePattern: "eth.*", labels: {x: z}}`), ""},
		{KindKubeControllersConfiguration, "default", template(`{interfacePattern: "eth("}`), templatesPath + "[0].interfacePattern"},
		{KindKubeControllersConfiguration, "default", template(`{labels: {"x y": z}}`), templatesPath + "[0].labels[x y]"},
		{KindKubeControllersConfiguration, "default", template(`{generateName: a}, {generateName: a}`), templatesPath + "[1].generateName"},

		{KindCalicoNodeStatus, "a", `node: h, classes: [Agent, BGP, Routes], updatePeriodSeconds: 0`, ""},
		{KindCalicoNodeStatus, "a", `classes: [Agent], updatePeriodSeconds: 10`, "spec.node"},
		{KindCalicoNodeStatus, "a", `node: h, updatePeriodSeconds: 10`, "spec.classes"},
		{KindCalicoNodeStatus, "a", `node: h, classes: [Agent]`, "spec.updatePeriodSeconds"},
		{KindCalicoNodeStatus, "a", `node: h, classes: [Agent], updatePeriodSeconds: 86401`, "spec.updatePeriodSeconds"},
		{KindCalicoNodeStatus, "a", `node: h, classes: [Agent, Agent], updatePeriodSeconds: 1`, "spec.classes[1]"},
		{KindCalicoNodeStatus, "a", `node: h, classes: [All], updatePeriodSeconds: 1`, "spec.classes[0]"},

		{KindIPPool, "a", `cidr: ""`, "spec.cidr"},
		{KindIPPool, "a", `cidr: 10.0.0.1/24`, "spec.cidr"},
		{KindIPPool, "a", `cidr: 10.0.0.1`, "spec.cidr"},
		{KindIPPool, "a", `cidr: "::ffff:10.0.0.0/120"`, "spec.cidr"},
		{KindIPPool, "a", `cidr: 169.0.0.0/8`, "spec.cidr"},
		{KindIPPool, "a", `cidr: "fe80::/64"`, "spec.cidr"},
		{KindIPPool, "a", `cidr: "fd00::/64"`, ""},
		{KindIPPool, "a", `cidr: 10.0.0.0/24, blockSize: 19`, "spec.blockSize"},
		{KindIPPool, "a", `cidr: 10.0.0.0/24, blockSize: 33`, "spec.blockSize"},
		{KindIPPool, "a", `cidr: "fd00::/64", blockSize: 26`, "spec.blockSize"},
		{KindIPPool, "a", `cidr: 10.0.0.0/27`, "spec.cidr"},
		{KindIPPool, "a", `cidr: 10.0.0.0/27, blockSize: 27`, ""},
		{KindIPPool, "a", `cidr: 10.0.0.0/32, disabled: true`, ""},
		{KindIPPool, "a", `cidr: 10.0.0.0/24, allowedUses: [Pods]`, "spec.allowedUses[0]"},
		{KindIPPool, "a", `cidr: 10.0.0.0/24, allowedUses: [LoadBalancer], vxlanMode: Always`, "spec.allowedUses"},
		{KindIPPool, "a", `cidr: 10.0.0.0/24, namespaceSelector: has(`, "spec.namespaceSelector"},

		{KindIPReservation, "a", `reservedCIDRs: [10.0.0.1/8, "::1"]`, ""},
		{KindIPReservation, "a", `reservedCIDRs: [10.0.0.0/8, ten]`, "spec.reservedCIDRs[1]"},

		{KindIPAMConfiguration, "default", `strictAffinity: true, maxBlocksPerHost: 4, ipCooldownSeconds: 60`, ""},
		{KindIPAMConfiguration, "other", `strictAffinity: true`, "metadata.name"},
		{KindIPAMConfiguration, "default", `maxBlocksPerHost: -1`, "spec.maxBlocksPerHost"},
		{KindIPAMConfiguration, "default", `maxBlocksPerHost: 1000001`, "spec.maxBlocksPerHost"},
		{KindIPAMConfiguration, "default", `kubeVirtVMAddressPersistence: "on"`, "spec.kubeVirtVMAddressPersistence"},

		{KindBGPConfiguration, "default", `nodeToNodeMeshEnabled: true, asNumber: "1.10", serviceClusterIPs: [{cidr: 10.96.0.0/12}]`, ""},
		{KindBGPConfiguration, "node.n", `logSeverityScreen: Debug, listenPort: 1179, bindMode: NodeIP`, ""},
		{KindBGPConfiguration, "node.n", `asNumber: 64512`, "spec.asNumber"},
		{KindBGPConfiguration, "node.n", `serviceExternalIPs: [{cidr: 10.96.0.0/12}]`, "spec.serviceExternalIPs"},
		{KindBGPConfiguration, "default", `serviceLoadBalancerIPs: [{cidr: 10.96.0.1/12}]`, "spec.serviceLoadBalancerIPs[0].cidr"},
		{KindBGPConfiguration, "default", `serviceLoadBalancerIPs: [{cidr: 10.96.0.1}]`, "spec.serviceLoadBalancerIPs[0].cidr"},
		{KindBGPConfiguration, "default", `serviceLoadBalancerAggregation: "off"`, "spec.serviceLoadBalancerAggregation"},
		{KindBGPConfiguration, "default", `bindMode: All`, "spec.bindMode"},
		{KindBGPConfiguration, "default", `ignoredInterfaces: [eth0, "a b"]`, "spec.ignoredInterfaces[1]"},
		{KindBGPConfiguration, "default", `ipv4NormalRoutePriority: 0`, "spec.ipv4NormalRoutePriority"},
		{KindBGPConfiguration, "default", `programClusterRoutes: EnabledIPIPOnly`, ""},
		{KindBGPConfiguration, "default", `nodeMeshPassword: {secretKeyRef: {name: a}}`, "spec.nodeMeshPassword.secretKeyRef.key"},
		{KindBGPConfiguration, "default", `localWorkloadPeeringIPV6: 1.2.3.4`, "spec.localWorkloadPeeringIPV6"},

		{KindBGPPeer, "a", `peerIP: 1.2.3.4, asNumber: 4200000000`, ""},
		{KindBGPPeer, "a", `peerIP: "fe80::1%eth0"`, "spec.peerIP"},
		{KindBGPPeer, "a", `peerIP: "::1", reachableBy: 10.0.0.1`, "spec.reachableBy"},
		{KindBGPPeer, "a", `peerIP: "::1", reachableBy: ten`, "spec.reachableBy"},
		{KindBGPPeer, "a", `node: H`, "spec.node"},
		{KindBGPPeer, "a", `nodeSelector: "` + strings.Repeat("a", 4097) + `"`, "spec.nodeSelector"},
		{KindBGPPeer, "a", `nodeSelector: "has(` + strings.Repeat("a/", 250) + `) && has(` + strings.Repeat("b/", 250) + `) && has(` + strings.Repeat("c/", 250) + `)"`, ""},
		{KindBGPPeer, "a", `localWorkloadSelector: all()`, "spec.asNumber"},
		{KindBGPPeer, "a", `filters: [a, B]`, "spec.filters[1]"},
		{KindBGPPeer, "a", `reversePeering: Never`, "spec.reversePeering"},
		{KindBGPPeer, "a", `keepOriginalNextHop: false, nextHopMode: Keep`, ""},

		{KindBGPFilter, "a", filter(`action: Accept, cidr: "fd00::/8", matchOperator: In, prefixLength: {min: 0, max: 128}`), ""},
		{KindBGPFilter, "a", filter(`action: Accept, cidr: "fd00::1/8", matchOperator: In`), "spec.importV6[0].cidr"},
		{KindBGPFilter, "a", filter(`action: Accept, cidr: 10.0.0.0/8, matchOperator: In`), "spec.importV6[0].cidr"},
		{KindBGPFilter, "a", filter(`action: Accept, cidr: "fd00::/8", matchOperator: In, prefixLength: {max: 129}`), "spec.importV6[0].prefixLength.max"},
		{KindBGPFilter, "a", filter(`action: Accept, peerType: ebgp`), "spec.importV6[0].peerType"},
		{KindBGPFilter, "a", filter(`action: Accept, priority: 0`), "spec.importV6[0].priority"},
		{KindBGPFilter, "a", filter(`action: Accept, communities: {values: ["65535:0"]}`), ""},
		{KindBGPFilter, "a", filter(`action: Accept, communities: {values: ["65536:0"]}`), "spec.importV6[0].communities.values[0]"},
		{KindBGPFilter, "a", filter(`action: Accept, communities: {values: ["65535:00"]}`), "spec.importV6[0].communities.values[0]"},
		{KindBGPFilter, "a", filter(`action: Accept, communities: {values: ["4294967295:0:65536"]}`), ""},
		{KindBGPFilter, "a", filter(`action: Accept, communities: {}`), "spec.importV6[0].communities.values"},
		{KindBGPFilter, "a", filter(`action: Accept, communities: {values: ["1:1", "1:2"]}`), "spec.importV6[0].communities.values"},
		{KindBGPFilter, "a", filter(`action: Accept, operations: [{prependASPath: {}}]`), "spec.importV6[0].operations[0].prependASPath.prefix"},
		{KindBGPFilter, "a", filter(`action: Accept, operations: [{setPriority: {}}]`), "spec.importV6[0].operations[0].setPriority.value"},
		{KindBGPFilter, "a", filter(`action: Accept, operations: [{addCommunity: {}}]`), "spec.importV6[0].operations[0].addCommunity.value"},
		{KindBGPFilter, "a", filter(`action: Reject, operations: [{setPriority: {value: 1}}]`), "spec.importV6[0].operations"},
		{KindBGPFilter, "a", filter(`cidr: "fd00::/8", matchOperator: In`), "spec.importV6[0].action"},
	} {
		if got := verdict(t, object(c.kind, c.name, c.spec)); got != c.fault {
			t.Errorf("%s %s {%s}: fault at %q, want %q", c.kind, c.name, c.spec, got, c.fault)
		}
	}
}

func TestNetworkDefaults(t *testing.T) {
	for _, c := range []struct {
		kind       Kind
		spec, want string
	}{
		{KindIPAMConfiguration, ``, `{"strictAffinity":false,"autoAllocateBlocks":true}`},
		{KindIPAMConfiguration, `autoAllocateBlocks: false`, `{"strictAffinity":false,"autoAllocateBlocks":false}`},
		{KindKubeControllersConfiguration, `prometheusMetricsPort: 0, controllers: {node: {leakGracePeriod: 0s}, policyMigration: {}}`,
			`{"healthChecks":"Enabled","prometheusMetricsPort":0,"controllers":{"node":{"leakGracePeriod":"0s"},"policyMigration":{"enabled":"Enabled"}}}`},
		{KindIPPool, `cidr: "fd00:0::/64"`, `{"cidr":"fd00::/64","vxlanMode":"Never","ipipMode":"Never","blockSize":122,"nodeSelector":"all()","allowedUses":["Workload","Tunnel"],"assignmentMode":"Automatic"}`},
		{KindIPPool, `cidr: 10.0.0.0/8, namespaceSelector: has(x)`, `{"cidr":"10.0.0.0/8","vxlanMode":"Never","ipipMode":"Never","blockSize":26,"nodeSelector":"all()","namespaceSelector":"has(x)","allowedUses":["Workload"],"assignmentMode":"Automatic"}`},
	} {
		r := mustDecode(t, object(c.kind, "default", c.spec))
		for range 2 { // it is idempotent
			Default(r)
			got, _ := json.Marshal(reflect.ValueOf(r).Elem().FieldByName("Spec").Interface())
			if string(got) != c.want {
				t.Errorf("%s {%s} becomes\n%s, want\n%s", c.kind, c.spec, got, c.want)
			}
		}
	}
}

func TestRunningDefaults(t *testing.T) {
	for status, want := range map[string]string{
		`{}`: `{}`,
		`{runningConfig: {controllers: {node: {}, loadBalancer: {}, policyMigration: {}}}}`: `{"runningConfig":{"healthChecks":"Enabled",` +
			`"controllers":{"node":{},"loadBalancer":{"assignIPs":"AllServices"},"policyMigration":{"enabled":"Enabled"}}}}`,
		`{runningConfig: {healthChecks: Disabled, prometheusMetricsPort: 1}}`: `{"runningConfig":{"healthChecks":"Disabled","prometheusMetricsPort":1,"controllers":{}}}`,
	} {
		r := mustDecode(t, object(KindKubeControllersConfiguration, "default", ``)+"\nstatus: "+status+"\n")
		Default(r)
		if got, _ := json.Marshal(r.(*KubeControllersConfiguration).Status); string(got) != want {
			t.Errorf("status %s becomes\n%s, want\n%s", status, got, want)
		}
	}
}

func TestValidateChange(t *testing.T) {
	pool := func(spec string) Resource {
		r := mustDecode(t, object(KindIPPool, "a", spec))
		Default(r)
		return r
	}
	for _, c := range []struct{ old, now, fault string }{
		{`cidr: 10.0.0.0/8`, `cidr: 10.0.0.0/8, disabled: true`, ""},
		{`cidr: 10.0.0.0/8`, `cidr: 10.0.0.0/9`, "spec.cidr"},
		{`cidr: 10.0.0.0/8`, `cidr: 10.0.0.0/8, blockSize: 27`, "spec.blockSize"},
		{`cidr: 10.0.0.1/8`, `cidr: 10.0.0.0/8`, ""},
		{`cidr: 10.0.0.0/8, allowedUses: [LoadBalancer]`, `cidr: 10.0.0.0/8`, "spec.allowedUses"},
		{`cidr: 10.0.0.0/8`, `cidr: 10.0.0.0/8, allowedUses: [LoadBalancer]`, ""},
	} {
		got, err := "", ValidateChange(pool(c.old), pool(c.now))
		if err != nil {
			got = err.(Errors)[0].Path
		}
		if got != c.fault {
			t.Errorf("{%s} to {%s}: fault at %q, want %q", c.old, c.now, got, c.fault)
		}
	}
}

func TestKubeControllersWarnings(t *testing.T) {
	r := mustDecode(t, object(KindKubeControllersConfiguration, "default",
		`controllers: {node: {hostEndpoint: {templates: [{}, {generateName: a, interfaceCIDRs: [10.0.0.0/8]}]}}}`))
	if w := Warnings(r); len(w) != 2 || !strings.Contains(w[0], "[0] has no name") || !strings.Contains(w[1], "[0] selects no interface") {
		t.Errorf("warnings %q", w)
	}
}

func mustDecode(t *testing.T, manifest string) Resource {
	t.Helper()
	docs, err := Decode("test.yaml", []byte(manifest))
	if err != nil {
		t.Fatalf("%v\n%s", err, manifest)
	}
	return docs[0].Object
}

// TestEveryFieldSurvives fills every field of every kind, and reads back what is written of it, as YAML and as JSON.
// Validate reads every tag on the way; what it says of such values does not matter.
func TestEveryFieldSurvives(t *testing.T) {
	for _, info := range Kinds() {
		r := info.New()
		fill(reflect.ValueOf(r).Elem())
		_ = Validate(r)
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := yaml.JSONToYAML(data)
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range [][]byte{data, text} {
			docs, err := Decode("x", in)
			if err != nil {
				t.Errorf("%v in\n%s", err, in)
				continue
			}
			if diff := cmp.Diff(r, docs[0].Object); diff != "" {
				t.Errorf("%s: another object after reading (-written +read):\n%s", info.Kind, diff)
			}
		}
	}
}

// fill sets v and all that is in it to something that is not empty; metadata and kind stay as they are.
func fill(v reflect.Value) {
	switch p := v.Addr().Interface().(type) {
	case *metav1.TypeMeta:
		return
	case *metav1.ObjectMeta:
		p.Name = "a"
		return
	case *metav1.Time:
		*p = metav1.NewTime(time.Unix(1700000000, 0))
		return
	case *metav1.Duration:
		p.Duration = 90 * time.Second
		return
	case *intstr.IntOrString:
		*p = intstr.FromInt32(80)
		return
	case *Protocol:
		*p = ProtocolUDP
		return
	case *Port:
		*p = Port{First: 1, Last: 9}
		return
	case *DSCP:
		*p = DSCP{Name: "EF", Value: 46}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("json") != "-" {
				fill(v.Field(i))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0))
		fill(v.Index(1))
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"k": "v"}))
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(7)
	default:
		panic("no value for a field of type " + v.Type().String())
	}
}
