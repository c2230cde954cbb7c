package ctl

import (
	"fmt"
	"slices"
	"strings"

	v3 "margay/api/v3"
)

// A column is one column of a table.
type column struct {
	heading string
	cell    func(v3.Resource) string
}

// A kindView says how people name and see a kind.
type kindView struct {
	kind v3.Kind
	// names are what KIND may be, beside the kind itself and its plural; in lower case.
	names    []string
	ps, wide []string // headings
	columns  []column // all that custom-columns may name
}

func (k kindView) column(heading string) (column, bool) {
	i := slices.IndexFunc(k.columns, func(c column) bool { return c.heading == heading })
	if i < 0 {
		return column{}, false
	}
	return k.columns[i], true
}

func (k kindView) headings() []string {
	out := make([]string, len(k.columns))
	for i, c := range k.columns {
		out[i] = c.heading
	}
	return out
}

// allNames returns everything KIND may be, in lower case.
func (k kindView) allNames() []string {
	info, _ := v3.Lookup(k.kind)
	return append([]string{strings.ToLower(string(k.kind)), info.Plural}, k.names...)
}

// lookupKind returns the kind that an argument names.
func lookupKind(arg string) (kindView, error) {
	lower := strings.ToLower(arg)
	for _, k := range kindViews() {
		if slices.Contains(k.allNames(), lower) {
			return k, nil
		}
	}
	text := fmt.Sprintf("resource type '%s' is not supported", arg)
	if near := v3.Nearest(lower, kindNames); near != "" {
		text += fmt.Sprintf(" (did you mean %s?)", near)
	}
	return kindView{}, fmt.Errorf("%s", text)
}

// kindNames yields everything that a KIND may be.
func kindNames(yield func(string) bool) {
	for _, k := range kindViews() {
		for _, name := range k.allNames() {
			if !yield(name) {
				return
			}
		}
	}
}

// viewOf returns the view of a kind of package v3.
func viewOf(kind v3.Kind) kindView {
	for _, k := range kindViews() {
		if k.kind == kind {
			return k
		}
	}
	panic("ctl: no table for kind " + kind)
}

// cell makes a column of one kind.
func cell[T v3.Resource](heading string, text func(T) string) column {
	return column{heading, func(r v3.Resource) string { return text(r.(T)) }}
}

var (
	nameColumn      = column{"NAME", func(r v3.Resource) string { return r.GetName() }}
	namespaceColumn = column{"NAMESPACE", func(r v3.Resource) string { return r.GetNamespace() }}
)

// kindViews returns all kinds of package v3, those without a type last. Kinds without a table of their own show their
// names.
func kindViews() []kindView {
	views := tables()
	for _, info := range append(v3.Kinds(), v3.UntypedKinds()...) {
		if slices.ContainsFunc(views, func(k kindView) bool { return k.kind == info.Kind }) {
			continue
		}
		view := kindView{info.Kind, nil, []string{"NAME"}, []string{"NAME"}, []column{nameColumn}}
		if info.Namespaced {
			view.columns = append(view.columns, namespaceColumn)
		}
		views = append(views, view)
	}
	return views
}

// tables returns the kinds that have a table of their own, or names beside the kind and its plural.
func tables() []kindView {
	only := []string{"NAME"}
	used := []kindView{
		{v3.KindTier, nil, []string{"NAME", "ORDER"}, []string{"NAME", "ORDER"}, []column{
			nameColumn, cell("ORDER", func(t *v3.Tier) string { return value(t.Spec.Order) })}},
		globalNetworkPolicyView(),
		networkPolicyView(),
		hostEndpointView(),
		workloadEndpointView(),
		{v3.KindGlobalNetworkSet, []string{"gnetsets", "gns"}, only, []string{"NAME", "NETS"}, []column{
			nameColumn, cell("NETS", func(s *v3.GlobalNetworkSet) string { return joinAndTruncate(s.Spec.Nets, ",", maxNets) })}},
		{v3.KindNetworkSet, []string{"netsets"}, only, []string{"NAME", "NETS"}, []column{
			nameColumn, namespaceColumn,
			cell("NETS", func(s *v3.NetworkSet) string { return joinAndTruncate(s.Spec.Nets, ",", maxNets) })}},
		{v3.KindProfile, []string{"pro", "pros"}, only, []string{"NAME", "LABELS"}, []column{
			nameColumn, cell("LABELS", func(p *v3.Profile) string { return join(p.Spec.LabelsToApply, ",") })}},
		nodeView(),
		{v3.KindFelixConfiguration, []string{"felixconfig", "felixconfigs"}, only, only, []column{nameColumn}},
		clusterInformationView(),
	}
	return slices.Concat(used, stagedViews(), controllerViews(), addressViews(), routeViews())
}

func globalNetworkPolicyView() kindView {
	return kindView{v3.KindGlobalNetworkPolicy, []string{"gnp", "gnps"},
		[]string{"NAME", "TIER"}, []string{"NAME", "TIER", "ORDER", "SELECTOR"}, []column{
			nameColumn,
			cell("TIER", func(p *v3.GlobalNetworkPolicy) string { return p.Spec.Tier }),
			cell("ORDER", func(p *v3.GlobalNetworkPolicy) string { return value(p.Spec.Order) }),
			cell("SELECTOR", func(p *v3.GlobalNetworkPolicy) string { return p.Spec.Selector }),
		}}
}

func networkPolicyView() kindView {
	return kindView{v3.KindNetworkPolicy, []string{"policy", "np", "policies", "pol", "pols"},
		[]string{"NAME", "TIER"}, []string{"NAME", "TIER", "ORDER", "SELECTOR"}, []column{
			nameColumn, namespaceColumn,
			cell("TIER", func(p *v3.NetworkPolicy) string { return p.Spec.Tier }),
			cell("ORDER", func(p *v3.NetworkPolicy) string { return value(p.Spec.Order) }),
			cell("SELECTOR", func(p *v3.NetworkPolicy) string { return p.Spec.Selector }),
		}}
}

func hostEndpointView() kindView {
	return kindView{v3.KindHostEndpoint, []string{"hep", "heps"},
		[]string{"NAME", "NODE"}, []string{"NAME", "NODE", "INTERFACE", "IPS", "PROFILES"}, []column{
			nameColumn,
			cell("NODE", func(h *v3.HostEndpoint) string { return h.Spec.Node }),
			cell("INTERFACE", func(h *v3.HostEndpoint) string { return h.Spec.InterfaceName }),
			cell("IPS", func(h *v3.HostEndpoint) string { return join(h.Spec.ExpectedIPs, ",") }),
			cell("PROFILES", func(h *v3.HostEndpoint) string { return join(h.Spec.Profiles, ",") }),
		}}
}

func workloadEndpointView() kindView {
	return kindView{v3.KindWorkloadEndpoint, []string{"wep", "weps"},
		[]string{"WORKLOAD", "NODE", "NETWORKS", "INTERFACE"},
		[]string{"NAME", "WORKLOAD", "NODE", "NETWORKS", "INTERFACE", "PROFILES", "NATS"}, []column{
			nameColumn, namespaceColumn,
			cell("WORKLOAD", func(w *v3.WorkloadEndpoint) string {
				if w.Spec.Workload != "" {
					return w.Spec.Workload
				}
				return w.Spec.Pod
			}),
			cell("NODE", func(w *v3.WorkloadEndpoint) string { return w.Spec.Node }),
			cell("ORCHESTRATOR", func(w *v3.WorkloadEndpoint) string { return w.Spec.Orchestrator }),
			cell("NETWORKS", func(w *v3.WorkloadEndpoint) string { return join(w.Spec.IPNetworks, ",") }),
			cell("INTERFACE", func(w *v3.WorkloadEndpoint) string { return w.Spec.InterfaceName }),
			cell("PROFILES", func(w *v3.WorkloadEndpoint) string { return join(w.Spec.Profiles, ",") }),
			cell("NATS", func(w *v3.WorkloadEndpoint) string { return join(w.Spec.IPNATs, ",") }),
		}}
}

func nodeView() kindView {
	bgp := func(text func(*v3.NodeBGPSpec) string) func(*v3.Node) string {
		return func(n *v3.Node) string {
			if n.Spec.BGP == nil {
				return ""
			}
			return text(n.Spec.BGP)
		}
	}
	return kindView{v3.KindNode, []string{"no", "nos"},
		[]string{"NAME"}, []string{"NAME", "ASN", "IPV4", "IPV6"}, []column{
			nameColumn,
			cell("ASN", bgp(func(b *v3.NodeBGPSpec) string { return value(b.ASNumber) })),
			cell("IPV4", bgp(func(b *v3.NodeBGPSpec) string { return b.IPv4Address })),
			cell("IPV6", bgp(func(b *v3.NodeBGPSpec) string { return b.IPv6Address })),
		}}
}

func clusterInformationView() kindView {
	headings := []string{"NAME", "CLUSTERGUID", "CLUSTERTYPE", "CALICOVERSION", "DATASTOREREADY"}
	return kindView{v3.KindClusterInformation, []string{"clusterinfo", "clusterinfos"}, headings, headings, []column{
		nameColumn,
		cell("CLUSTERGUID", func(i *v3.ClusterInformation) string { return i.Spec.ClusterGUID }),
		cell("CLUSTERTYPE", func(i *v3.ClusterInformation) string { return i.Spec.ClusterType }),
		cell("CALICOVERSION", func(i *v3.ClusterInformation) string { return i.Spec.CalicoVersion }),
		cell("DATASTOREREADY", func(i *v3.ClusterInformation) string { return value(i.Spec.DatastoreReady) }),
	}}
}

// kindHelp lists the kinds for a person who named none.
func kindHelp() string {
	var b strings.Builder
	for _, k := range kindViews() {
		fmt.Fprintf(&b, "\n  %-29s  %s", k.kind, strings.Join(k.allNames()[1:], ", "))
	}
	return b.String()
}
