package ctl

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v3 "margay/api/v3"
)

// manifests are one or two objects of every kind, with what calicoctl's tables treat in their own way.
const manifests = `
{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: default}, spec: {order: 1000000}}
---
{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: late}, spec: {}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: allow}, spec: {tier: default, order: 100.5, selector: running-calico == "true"}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: last}, spec: {tier: default}}
---
{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: web, namespace: shop}, spec: {tier: default, order: 500, selector: all()}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: master.eth0}, spec: {node: master, interfaceName: eth0, expectedIPs: [10.0.0.1, "fe80::1"], profiles: [a, b]}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: m}, spec: {node: k, expectedIPs: [10.0.0.2]}}
---
{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: k-k8s-pod-eth0, namespace: shop}, spec: {orchestrator: k8s, node: k, pod: pod, endpoint: eth0, interfaceName: cali1, ipNetworks: [10.1.0.1/32, 10.1.0.2/32], ipNATs: [{internalIP: 10.1.0.1, externalIP: 192.0.2.1}], profiles: [kns.shop]}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: many}, spec: {nets: [10.100.100.1/32, 10.100.100.2/32, 10.100.100.3/32, 10.100.100.4/32, 10.100.100.5/32, 10.100.100.6/32]}}
---
{apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: few, namespace: shop}, spec: {nets: [10.0.0.0/8, "2001:db8::/32"]}}
---
{apiVersion: projectcalico.org/v3, kind: Profile, metadata: {name: p}, spec: {labelsToApply: {b: "2", a: "1"}}}
---
{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: kubeadm-master}, spec: {}}
---
{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n1}, spec: {bgp: {ipv4Address: 10.0.0.1/24}}}
---
{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n2}, spec: {bgp: {asNumber: 65000, ipv6Address: "2001:db8::1/64"}}}
---
{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {name: default}, spec: {}}
---
{apiVersion: projectcalico.org/v3, kind: ClusterInformation, metadata: {name: default}, spec: {clusterGUID: 0123456789abcdef0123456789abcdef, clusterType: "k8s,kdd", calicoVersion: v3.32.1, datastoreReady: true}}
`

// TestTables compares with tables written by hand after calicoctl's; a bar marks the end of each line.
func TestTables(t *testing.T) {
	for _, tc := range []struct {
		kind   v3.Kind
		format string
		want   string
	}{
		{v3.KindTier, "ps", `
NAME      ORDER   |
default   1e+06   |
late      <nil>   |
|`},
		{v3.KindGlobalNetworkPolicy, "ps", `
NAME    TIER      |
allow   default   |
last    default   |
|`},
		{v3.KindGlobalNetworkPolicy, "wide", `
NAME    TIER      ORDER   SELECTOR                   |
allow   default   100.5   running-calico == "true"   |
last    default   <nil>                              |
|`},
		{v3.KindNetworkPolicy, "wide", `
NAMESPACE   NAME   TIER      ORDER   SELECTOR   |
shop        web    default   500     all()      |
|`},
		{v3.KindHostEndpoint, "ps", `
NAME          NODE     |
master.eth0   master   |
m             k        |
|`},
		{v3.KindHostEndpoint, "wide", `
NAME          NODE     INTERFACE   IPS                PROFILES   |
master.eth0   master   eth0        10.0.0.1,fe80::1   a,b        |
m             k                    10.0.0.2                      |
|`},
		{v3.KindWorkloadEndpoint, "ps", `
NAMESPACE   WORKLOAD   NODE   NETWORKS                  INTERFACE   |
shop        pod        k      10.1.0.1/32,10.1.0.2/32   cali1       |
|`},
		{v3.KindWorkloadEndpoint, "wide", `
NAMESPACE   NAME             WORKLOAD   NODE   NETWORKS                  INTERFACE   PROFILES   NATS                   |
shop        k-k8s-pod-eth0   pod        k      10.1.0.1/32,10.1.0.2/32   cali1       kns.shop   {10.1.0.1 192.0.2.1}   |
|`},
		{v3.KindWorkloadEndpoint, "custom-columns=ORCHESTRATOR,NAMESPACE", `
ORCHESTRATOR   NAMESPACE   |
k8s            shop        |
|`},
		{v3.KindGlobalNetworkSet, "wide", `
NAME   NETS                                                                               |
many   10.100.100.1/32,10.100.100.2/32,10.100.100.3/32,10.100.100.4/32,10.100.100.5/...   |
|`},
		{v3.KindNetworkSet, "wide", `
NAMESPACE   NAME   NETS                       |
shop        few    10.0.0.0/8,2001:db8::/32   |
|`},
		{v3.KindProfile, "wide", `
NAME   LABELS    |
p      a=1,b=2   |
|`},
		{v3.KindNode, "ps", `
NAME             |
kubeadm-master   |
n1               |
n2               |
|`},
		{v3.KindNode, "wide", `
NAME             ASN       IPV4          IPV6             |
kubeadm-master                                            |
n1               (64512)   10.0.0.1/24                    |
n2               65000                   2001:db8::1/64   |
|`},
		{v3.KindFelixConfiguration, "wide", `
NAME      |
default   |
|`},
		{v3.KindClusterInformation, "ps", `
NAME      CLUSTERGUID                        CLUSTERTYPE   CALICOVERSION   DATASTOREREADY   |
default   0123456789abcdef0123456789abcdef   k8s,kdd       v3.32.1         true             |
|`},
	} {
		t.Run(string(tc.kind)+" "+tc.format, func(t *testing.T) {
			got := strings.ReplaceAll("\n"+printed(t, tc.kind, tc.format), "\n", "|\n")
			if diff := cmp.Diff("|"+tc.want+"\n", got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// printed returns what get prints for the manifests of a kind.
func printed(t *testing.T, kind v3.Kind, output string) string {
	t.Helper()
	out, err := parseFormat(output, true)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := out.print(&text, []any{listing(t, kind)}); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func listing(t *testing.T, kind v3.Kind) *list {
	t.Helper()
	l := &list{}
	l.Kind, l.APIVersion, l.ResourceVersion = string(kind)+"List", v3.APIVersion, "7"
	for _, r := range decoded(t, manifests) {
		if v3.KeyOf(r).Kind == kind {
			l.Items = append(l.Items, r)
		}
	}
	return l
}

func decoded(t *testing.T, text string) []v3.Resource {
	t.Helper()
	docs, err := v3.Decode("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var out []v3.Resource
	for _, doc := range docs {
		out = append(out, doc.Object)
	}
	return out
}

func TestOutputs(t *testing.T) {
	for _, tc := range []struct{ kind, output, want string }{
		{"Node", "go-template={{range .}}{{range .Items}}{{.ObjectMeta.Name}} {{end}}{{end}}", "kubeadm-master n1 n2 "},
		{"HostEndpoint", `go-template={{range .}}{{range .Items}}{{join .Spec.ExpectedIPs "+"}};{{end}}{{end}}`, "10.0.0.1+fe80::1;10.0.0.2;"},
		{"GlobalNetworkSet", `go-template={{range .}}{{range .Items}}{{joinAndTruncate .Spec.Nets "," 20}}{{end}}{{end}}`, "10.100.100.1/32,1..."},
		{"Profile", `go-template={{range .}}{{range .Items}}{{join .Spec.LabelsToApply " "}}{{end}}{{end}}`, "a=1 b=2"},
		{"Node", `go-template={{config "asnumber"}}`, "64512"},
		{"NetworkSet", "json", `{
  "kind": "NetworkSetList",
  "apiVersion": "projectcalico.org/v3",
  "metadata": {
    "resourceVersion": "7"
  },
  "items": [
    {
      "kind": "NetworkSet",
      "apiVersion": "projectcalico.org/v3",
      "metadata": {
        "name": "few",
        "namespace": "shop"
      },
      "spec": {
        "nets": [
          "10.0.0.0/8",
          "2001:db8::/32"
        ]
      }
    }
  ]
}`},
		{"NetworkSet", "yaml", `apiVersion: projectcalico.org/v3
items:
- apiVersion: projectcalico.org/v3
  kind: NetworkSet
  metadata:
    name: few
    namespace: shop
  spec:
    nets:
    - 10.0.0.0/8
    - 2001:db8::/32
kind: NetworkSetList
metadata:
  resourceVersion: "7"
`},
	} {
		if diff := cmp.Diff(tc.want, printed(t, v3.Kind(tc.kind), tc.output)); diff != "" {
			t.Errorf("%s %s: -want +got:\n%s", tc.kind, tc.output, diff)
		}
	}
}

func TestOutputErrors(t *testing.T) {
	for output, want := range map[string]string{
		"xml":               "unrecognized output format 'xml'",
		"go-template":       "need to specify a template",
		"go-template=":      "need to specify a template",
		"go-template-file=": "need to specify a template file",
		"custom-columns=":   "need to specify at least one column",
		"custom-columns=NAME,COLOUR": "unknown heading COLOUR, valid values are: " +
			"NAME, NODE, INTERFACE, IPS, PROFILES",
		`go-template={{config "x"}}`: `template: get:1:2: executing "get" at <config "x">: error calling config: ` +
			`unknown config "x" (asnumber is the only one)`,
	} {
		out, err := parseFormat(output, false)
		if err == nil {
			err = out.print(&bytes.Buffer{}, []any{listing(t, v3.KindHostEndpoint)})
		}
		if errorText(err) != want {
			t.Errorf("%s: error %q, want %q", output, errorText(err), want)
		}
	}
}

// TestKindViews checks that every kind has a table whose headings it knows, and that no name means two kinds.
func TestKindViews(t *testing.T) {
	seen := map[string]v3.Kind{}
	for _, info := range v3.Kinds() {
		view := viewOf(info.Kind)
		for _, name := range view.allNames() {
			if other, ok := seen[name]; ok || name != strings.ToLower(name) {
				t.Errorf("%s: name %q, of %s as well", info.Kind, name, other)
			}
			seen[name] = info.Kind
		}
		for _, heading := range slices.Concat(view.ps, view.wide) {
			if _, ok := view.column(heading); !ok {
				t.Errorf("%s: no column %s", info.Kind, heading)
			}
		}
		if _, ok := view.column("NAMESPACE"); ok != info.Namespaced {
			t.Errorf("%s: namespaced %v, column NAMESPACE %v", info.Kind, info.Namespaced, ok)
		}
	}
	if kinds := len(v3.Kinds()) + len(v3.UntypedKinds()); len(kindViews()) != kinds {
		t.Errorf("%d views of %d kinds", len(kindViews()), kinds)
	}
}

func TestLookupKind(t *testing.T) {
	for arg, want := range map[string]string{
		"nodes": "Node", "NODE": "Node", "no": "Node", "GlobalNetworkPolicy": "GlobalNetworkPolicy", "gnps": "GlobalNetworkPolicy",
		"pol": "NetworkPolicy", "hep": "HostEndpoint", "weps": "WorkloadEndpoint", "gnetsets": "GlobalNetworkSet", "pros": "Profile",
		"felixconfig": "FelixConfiguration", "clusterinfos": "ClusterInformation", "tiers": "Tier",
		"hostendpiont": "resource type 'hostendpiont' is not supported (did you mean hostendpoint?)",
		"widget":       "resource type 'widget' is not supported",
		"x":            "resource type 'x' is not supported",
	} {
		view, err := lookupKind(arg)
		if got := string(view.kind) + errorText(err); got != want {
			t.Errorf("%s: %s, want %s", arg, got, want)
		}
	}
}
