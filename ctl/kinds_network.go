package ctl

import (
	"cmp"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
)

// stagedViews are the kinds of policy that nothing enforces.
func stagedViews() []kindView {
	ps, wide := []string{"NAME", "TIER"}, []string{"NAME", "TIER", "ORDER", "SELECTOR"}
	return []kindView{
		{v3.KindStagedGlobalNetworkPolicy, []string{"sgnp", "sgnps"}, ps, wide, []column{
			nameColumn,
			cell("TIER", func(p *v3.StagedGlobalNetworkPolicy) string { return p.Spec.Tier }),
			cell("ORDER", func(p *v3.StagedGlobalNetworkPolicy) string { return value(p.Spec.Order) }),
			cell("SELECTOR", func(p *v3.StagedGlobalNetworkPolicy) string { return p.Spec.Selector }),
		}},
		{v3.KindStagedNetworkPolicy, []string{"stagedpolicy", "stagedpolicies", "snp", "spol", "spols"}, ps, wide, []column{
			nameColumn, namespaceColumn,
			cell("TIER", func(p *v3.StagedNetworkPolicy) string { return p.Spec.Tier }),
			cell("ORDER", func(p *v3.StagedNetworkPolicy) string { return value(p.Spec.Order) }),
			cell("SELECTOR", func(p *v3.StagedNetworkPolicy) string { return p.Spec.Selector }),
		}},
		{v3.KindStagedKubernetesNetworkPolicy,
			[]string{"stagedkubernetespolicy", "stagedkubernetespolicies", "sknp", "skpol", "skpols"},
			[]string{"NAME"}, []string{"NAME", "PODSELECTOR"}, []column{
				nameColumn, namespaceColumn,
				// As kubectl prints it; calicoctl prints a Go value.
				cell("PODSELECTOR", func(p *v3.StagedKubernetesNetworkPolicy) string {
					return metav1.FormatLabelSelector(&p.Spec.PodSelector)
				}),
			}},
	}
}

// controllerViews are the kinds that Kubernetes controllers and node status reports have.
func controllerViews() []kindView {
	only := []string{"NAME"}
	return []kindView{
		{v3.KindKubeControllersConfiguration, []string{"kubecontrollersconfig", "kubecontrollersconfigs"}, only, only, []column{nameColumn}},
		{v3.KindCalicoNodeStatus, []string{"nodestatus", "nodestatuses"}, []string{"NAME", "NODE"}, []string{"NAME", "NODE", "CLASSES"}, []column{
			nameColumn,
			cell("NODE", func(s *v3.CalicoNodeStatus) string { return s.Spec.Node }),
			cell("CLASSES", func(s *v3.CalicoNodeStatus) string { return join(s.Spec.Classes, ",") }),
		}},
	}
}

// addressViews are the kinds of address assignment.
func addressViews() []kindView {
	return []kindView{
		{v3.KindIPPool, []string{"ipp", "ipps", "pool", "pools"}, []string{"NAME", "CIDR", "SELECTOR"},
			[]string{"NAME", "CIDR", "NAT", "IPIPMODE", "VXLANMODE", "DISABLED", "DISABLEBGPEXPORT", "SELECTOR", "ASSIGNMENTMODE"}, []column{
				nameColumn,
				cell("CIDR", func(p *v3.IPPool) string { return p.Spec.CIDR }),
				cell("NAT", func(p *v3.IPPool) string { return fmt.Sprint(p.Spec.NATOutgoing) }),
				cell("IPIPMODE", func(p *v3.IPPool) string { return orNever(p.Spec.IPIPMode) }),
				cell("VXLANMODE", func(p *v3.IPPool) string { return orNever(p.Spec.VXLANMode) }),
				cell("DISABLED", func(p *v3.IPPool) string { return fmt.Sprint(p.Spec.Disabled) }),
				cell("DISABLEBGPEXPORT", func(p *v3.IPPool) string { return fmt.Sprint(p.Spec.DisableBGPExport) }),
				cell("SELECTOR", func(p *v3.IPPool) string { return p.Spec.NodeSelector }),
				cell("ASSIGNMENTMODE", func(p *v3.IPPool) string { return value(p.Spec.AssignmentMode) }),
			}},
		{v3.KindIPReservation, []string{"reservation", "reservations"}, []string{"NAME"}, []string{"NAME", "CIDRS"}, []column{
			nameColumn,
			cell("CIDRS", func(r *v3.IPReservation) string { return joinAndTruncate(r.Spec.ReservedCIDRs, ",", maxNets) }),
		}},
		{v3.KindIPAMConfiguration, []string{"ipamconfig", "ipamconfigs"},
			[]string{"NAME", "STRICTAFFINITY", "AUTOALLOCATEBLOCKS"},
			[]string{"NAME", "STRICTAFFINITY", "AUTOALLOCATEBLOCKS", "MAXBLOCKSPERHOST"}, []column{
				nameColumn,
				cell("STRICTAFFINITY", func(i *v3.IPAMConfiguration) string { return fmt.Sprint(i.Spec.StrictAffinity) }),
				cell("AUTOALLOCATEBLOCKS", func(i *v3.IPAMConfiguration) string { return value(i.Spec.AutoAllocateBlocks) }),
				cell("MAXBLOCKSPERHOST", func(i *v3.IPAMConfiguration) string { return fmt.Sprint(i.Spec.MaxBlocksPerHost) }),
			}},
	}
}

// orNever is the mode of encapsulation of a pool that sets none.
func orNever[T ~string](mode T) string { return cmp.Or(string(mode), "Never") }

// routeViews are the kinds of BGP.
func routeViews() []kindView {
	config := []string{"NAME", "LOGSEVERITY", "MESHENABLED", "ASNUMBER"}
	filter := []string{"NAME", "NUMEXPORTV4", "NUMIMPORTV4", "NUMEXPORTV6", "NUMIMPORTV6"}
	peer := []string{"NAME", "PEERIP", "NODE", "ASN"}
	return []kindView{
		{v3.KindBGPConfiguration, []string{"bgpconfig", "bgpconfigs"}, config, config, []column{
			nameColumn,
			cell("LOGSEVERITY", func(b *v3.BGPConfiguration) string { return b.Spec.LogSeverityScreen }),
			cell("MESHENABLED", func(b *v3.BGPConfiguration) string { return valueOrDash(b.Spec.NodeToNodeMeshEnabled) }),
			cell("ASNUMBER", func(b *v3.BGPConfiguration) string { return valueOrDash(b.Spec.ASNumber) }),
		}},
		{v3.KindBGPFilter, []string{"bgpf", "bgpfs", "bf", "bfs"}, filter, filter, []column{
			nameColumn,
			cell("NUMEXPORTV4", func(f *v3.BGPFilter) string { return fmt.Sprint(len(f.Spec.ExportV4)) }),
			cell("NUMIMPORTV4", func(f *v3.BGPFilter) string { return fmt.Sprint(len(f.Spec.ImportV4)) }),
			cell("NUMEXPORTV6", func(f *v3.BGPFilter) string { return fmt.Sprint(len(f.Spec.ExportV6)) }),
			cell("NUMIMPORTV6", func(f *v3.BGPFilter) string { return fmt.Sprint(len(f.Spec.ImportV6)) }),
		}},
		{v3.KindBGPPeer, []string{"bgpp", "bgpps", "bp", "bps"}, peer, peer, []column{
			nameColumn,
			cell("PEERIP", func(p *v3.BGPPeer) string { return p.Spec.PeerIP }),
			cell("NODE", peeringNodes),
			cell("ASN", func(p *v3.BGPPeer) string { return fmt.Sprint(p.Spec.ASNumber) }),
		}},
	}
}

// valueOrDash is value with a dash for nil.
func valueOrDash[T any](p *T) string {
	if p == nil {
		return "-"
	}
	return value(p)
}

// peeringNodes says which hosts have a session.
func peeringNodes(p *v3.BGPPeer) string {
	switch {
	case p.Spec.Node != "":
		return p.Spec.Node
	case p.Spec.NodeSelector != "":
		return p.Spec.NodeSelector
	}
	return "(global)"
}
