package main

import (
	"fmt"
	"reflect"
	"strings"

	"sigs.k8s.io/yaml"

	v3 "margay/api/v3"
)

const group = "projectcalico.org"

// A column is what kubectl get shows beside the name.
type column struct {
	Name        string `json:"name"`
	Type        string `json:"type"`
	Description string `json:"description,omitempty"`
	JSONPath    string `json:"jsonPath"`
}

// A kind is what the definition of a kind has beside its schema.
type kind struct {
	kind       v3.Kind
	shortNames []string
	columns    []column
	// status is set where controllers write the status on its own.
	status bool
	// byTier makes spec.tier a field that lists and watches can select by.
	byTier bool
}

var age = column{Name: "Age", Type: "date", JSONPath: ".metadata.creationTimestamp"}

var policyColumns = []column{
	{Name: "Tier", Type: "string", JSONPath: ".spec.tier"},
	{Name: "Order", Type: "number", JSONPath: ".spec.order", Description: "Lower first; none is last"},
	age,
}

// kinds returns the kinds that are stored in Kubernetes as custom resources. The others are views of
// objects that Kubernetes has of its own: Node, Profile and WorkloadEndpoint.
func kinds() []kind {
	return []kind{
		{kind: v3.KindTier, status: true, columns: []column{
			{Name: "Order", Type: "number", JSONPath: ".spec.order", Description: "Lower first"},
			{Name: "DefaultAction", Type: "string", JSONPath: ".spec.defaultAction", Description: "What happens to traffic that no rule decided"},
			{Name: "Status", Type: "string", JSONPath: ".status.conditions[?(@.type=='Ready')].reason"},
		}},
		{kind: v3.KindGlobalNetworkPolicy, shortNames: []string{"gnp", "cgnp"}, columns: policyColumns, byTier: true},
		{kind: v3.KindNetworkPolicy, shortNames: []string{"cnp", "caliconetworkpolicy"}, columns: policyColumns, byTier: true},
		{kind: v3.KindStagedGlobalNetworkPolicy, shortNames: []string{"sgnp"}, columns: policyColumns, byTier: true},
		{kind: v3.KindStagedNetworkPolicy, shortNames: []string{"scnp", "snp"}, columns: policyColumns, byTier: true},
		{kind: v3.KindStagedKubernetesNetworkPolicy, shortNames: []string{"sknp"}, columns: []column{age}},
		{kind: v3.KindGlobalNetworkSet, shortNames: []string{"gns"}, columns: []column{age}},
		{kind: v3.KindNetworkSet, shortNames: []string{"netset", "netsets"}, columns: []column{age}},
		{kind: v3.KindHostEndpoint, shortNames: []string{"hep", "heps"}, columns: []column{
			{Name: "Node", Type: "string", JSONPath: ".spec.node", Description: "The host"},
			{Name: "Interface", Type: "string", JSONPath: ".spec.interfaceName", Description: "Its interface; * for all"},
			age,
		}},
		{kind: v3.KindFelixConfiguration, shortNames: []string{"felixconfig", "felixconfigs"}, columns: []column{age}},
		{kind: v3.KindClusterInformation, shortNames: []string{"clusterinfo", "clusterinfos"}, columns: []column{
			{Name: "Version", Type: "string", JSONPath: ".spec.calicoVersion"},
			{Name: "Ready", Type: "boolean", JSONPath: ".spec.datastoreReady"},
			{Name: "Types", Type: "string", JSONPath: ".spec.clusterType"},
		}},
		{kind: v3.KindKubeControllersConfiguration, shortNames: []string{"kcc", "kccs"}, columns: []column{age}, status: true},
		{kind: v3.KindCalicoNodeStatus, columns: []column{
			{Name: "Node", Type: "string", JSONPath: ".spec.node"},
			{Name: "Classes", Type: "string", JSONPath: ".spec.classes"},
		}},
		{kind: v3.KindIPPool, shortNames: []string{"ipp", "ipps", "pool", "pools"}, status: true, columns: []column{
			{Name: "CIDR", Type: "string", JSONPath: ".spec.cidr"},
			{Name: "VXLAN", Type: "string", JSONPath: ".spec.vxlanMode"},
			{Name: "IPIP", Type: "string", JSONPath: ".spec.ipipMode"},
			{Name: "NAT", Type: "boolean", JSONPath: ".spec.natOutgoing"},
			age,
		}},
		{kind: v3.KindIPReservation, columns: []column{age}},
		{kind: v3.KindIPAMConfiguration, shortNames: []string{"ipamconfig", "ipamconfigs"}, columns: []column{age}},
		{kind: v3.KindBGPConfiguration, shortNames: []string{"bgpconfig", "bgpconfigs"}, columns: []column{age}},
		{kind: v3.KindBGPFilter, columns: []column{age}},
		{kind: v3.KindBlockAffinity, columns: []column{age}},
		{kind: v3.KindLiveMigration, columns: []column{age}},
		{kind: v3.KindBGPPeer, columns: []column{
			{Name: "Peer IP", Type: "string", JSONPath: ".spec.peerIP"},
			{Name: "Peer ASN", Type: "string", JSONPath: ".spec.asNumber"},
			{Name: "Node", Type: "string", JSONPath: ".spec.node"},
			age,
		}},
	}
}

// generate returns the files of all kinds by name. source is the directory of api/v3, for its comments.
func generate(source string) (map[string][]byte, error) {
	texts, err := readTexts(source)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, k := range kinds() {
		info, ok := v3.Lookup(k.kind)
		if !ok {
			return nil, fmt.Errorf("describe %s: kind is not known", k.kind)
		}
		data, err := yaml.Marshal(k.definition(info, texts))
		if err != nil {
			return nil, fmt.Errorf("describe %s: %w", k.kind, err)
		}
		header := "# Written by api/crdgen (go generate ./api/v3): change the types of api/v3 instead.\n"
		files[group+"_"+info.Plural+".yaml"] = append([]byte(header), data...)
	}
	return files, nil
}

// definition returns the CustomResourceDefinition.
func (k kind) definition(info v3.Info, texts texts) any {
	schema := newBuilder(texts).root(reflect.TypeOf(info.New()).Elem())
	version := map[string]any{
		"name": "v3", "served": true, "storage": true,
		"schema":                   map[string]any{"openAPIV3Schema": schema},
		"additionalPrinterColumns": k.columns,
	}
	if k.status {
		version["subresources"] = map[string]any{"status": map[string]any{}}
	}
	if k.byTier {
		version["selectableFields"] = []any{map[string]any{"jsonPath": ".spec.tier"}}
	}
	scope := "Cluster"
	if info.Namespaced {
		scope = "Namespaced"
	}
	names := map[string]any{"kind": k.kind, "listKind": k.kind + "List", "plural": info.Plural, "singular": strings.ToLower(string(k.kind))}
	if len(k.shortNames) > 0 {
		names["shortNames"] = k.shortNames
	}
	return map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": info.Plural + "." + group},
		"spec":     map[string]any{"group": group, "names": names, "scope": scope, "versions": []any{version}},
	}
}
