package v3

import (
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"margay/selector"
)

// The kinds of this file are about the assignment of addresses. Agents that assign none keep them for those that do.

// IPPool is a range of addresses that are given to workloads, tunnels or load balancers.
type IPPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              IPPoolSpec    `json:"spec"`
	Status            *IPPoolStatus `json:"status,omitempty"`
}

// What the addresses of a pool are for.
const (
	UseWorkload     = "Workload"
	UseTunnel       = "Tunnel"
	UseLoadBalancer = "LoadBalancer" // stands alone
)

const encapNever = "Never"

// IPPoolSpec: CIDR has no host bits, and like BlockSize it stays as it was created. BlockSize is a prefix length: 20 to 32
// (default 26) for IPv4, 116 to 128 (default 122) for IPv6. NodeSelector selects Nodes, NamespaceSelector namespaces.
type IPPoolSpec struct {
	CIDR              string   `json:"cidr" check:"required" schema:"maxlen=64,format=net"`
	VXLANMode         string   `json:"vxlanMode,omitempty" check:"enum=Never|Always|CrossSubnet" default:"Never"`
	IPIPMode          string   `json:"ipipMode,omitempty" check:"enum=Never|Always|CrossSubnet" default:"Never"`
	NATOutgoing       bool     `json:"natOutgoing,omitempty"`
	Disabled          bool     `json:"disabled,omitempty"`
	DisableBGPExport  bool     `json:"disableBGPExport,omitempty"`
	BlockSize         int      `json:"blockSize,omitempty"`
	NodeSelector      string   `json:"nodeSelector,omitempty" check:"format=longSelector" default:"all()"`
	NamespaceSelector string   `json:"namespaceSelector,omitempty" check:"format=longSelector"`
	AllowedUses       []string `json:"allowedUses,omitempty" check:"maxitems=10,enum=Workload|Tunnel|LoadBalancer"`
	AssignmentMode    *string  `json:"assignmentMode,omitempty" check:"enum=Automatic|Manual" default:"Automatic"`
}

// IPPoolStatus is written by controllers.
type IPPoolStatus struct {
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// IPReservation keeps addresses from being assigned; entries may have host bits.
type IPReservation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              IPReservationSpec `json:"spec"`
}

// IPReservationSpec holds CIDRs and addresses of both families.
type IPReservationSpec struct {
	ReservedCIDRs []string `json:"reservedCIDRs,omitempty" check:"format=cidr"`
}

// IPAMConfiguration says how blocks of addresses go to hosts. There is one, named default.
type IPAMConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              IPAMConfigurationSpec `json:"spec"`
}

// IPAMConfigurationName is the name of the one IPAMConfiguration.
const IPAMConfigurationName = "default"

// IPAMConfigurationSpec: StrictAffinity keeps a host from borrowing of another's block. MaxBlocksPerHost 0 is no limit.
// IPCooldownSeconds is how long a released address rests (3.33).
type IPAMConfigurationSpec struct {
	StrictAffinity               bool    `json:"strictAffinity"`
	MaxBlocksPerHost             int32   `json:"maxBlocksPerHost,omitempty" check:"min=0,max=1000000"`
	AutoAllocateBlocks           *bool   `json:"autoAllocateBlocks,omitempty" default:"true"`
	KubeVirtVMAddressPersistence *string `json:"kubeVirtVMAddressPersistence,omitempty" check:"enum=Enabled|Disabled"`
	IPCooldownSeconds            int32   `json:"ipCooldownSeconds,omitempty" check:"min=0,max=1200"`
}

// defaultIPPool sets what depends on other fields, too. The addresses of tunnels belong to no namespace, so a pool for
// some namespaces is for workloads only.
func defaultIPPool(p *IPPool) {
	spec := &p.Spec
	defaultTags(spec)
	if len(spec.AllowedUses) == 0 {
		spec.AllowedUses = []string{UseWorkload, UseTunnel}
		if spec.NamespaceSelector != "" {
			spec.AllowedUses = []string{UseWorkload}
		}
	}
	cidr, err := netip.ParsePrefix(spec.CIDR)
	if err != nil {
		return // for Validate to refuse
	}
	if cidr == cidr.Masked() {
		spec.CIDR = cidr.String()
	}
	if spec.BlockSize == 0 {
		_, _, spec.BlockSize = blockSizes(cidr.Addr())
	}
}

// blockSizes returns what BlockSize may be in the family of an address, and what it is by default.
func blockSizes(a netip.Addr) (least, most, preset int) {
	if a.Is4() {
		return 20, 32, 26
	}
	return 116, 128, 122
}

func validateIPPool(c *check, p *IPPool) {
	spec := &p.Spec
	checkTags(c, "spec", spec)
	if p.Status != nil {
		checkConditions(c, "status.conditions", p.Status.Conditions)
	}
	if cidr, err := netip.ParsePrefix(spec.CIDR); spec.CIDR != "" && (err != nil || cidr.Addr().Is4In6()) {
		c.fail("spec.cidr", spec.CIDR, "IPPool CIDR must be a valid subnet", "")
	} else if err == nil {
		checkPoolCIDR(c, spec, cidr)
	}
	if spec.IPIPMode != encapNever && spec.VXLANMode != encapNever {
		c.fail("spec.vxlanMode", spec.VXLANMode, "ipipMode and vxlanMode cannot both be enabled", "write Never for one of them")
	}
	checkPoolUses(c, spec)
	for _, s := range []struct{ path, text string }{
		{"spec.nodeSelector", spec.NodeSelector}, {"spec.namespaceSelector", spec.NamespaceSelector},
	} {
		if parsed, err := selector.Parse(s.text); err == nil && parsed.HasGlobal() {
			c.fail(s.path, s.text, "global() selector is not valid for an IPPool", "write all()")
		}
	}
}

// checkPoolCIDR checks what depends on the range.
func checkPoolCIDR(c *check, spec *IPPoolSpec, cidr netip.Prefix) {
	if cidr != cidr.Masked() {
		c.fail("spec.cidr", spec.CIDR, "IP pool CIDR is not strictly masked", "write "+cidr.Masked().String())
	}
	for _, reserved := range []struct{ name, cidr string }{
		{"IPv4 Link Local range", "169.254.0.0/16"}, {"IPv6 Link Local range", "fe80::/10"},
	} {
		if cidr.Overlaps(netip.MustParsePrefix(reserved.cidr)) {
			c.failf("spec.cidr", spec.CIDR, "IP pool range overlaps with %s %s", reserved.name, reserved.cidr)
		}
	}
	least, most, _ := blockSizes(cidr.Addr())
	switch {
	case spec.BlockSize < least || spec.BlockSize > most:
		c.failf("spec.blockSize", spec.BlockSize, "block size must be between %d and %d for a pool of this address family", least, most)
	case !spec.Disabled && cidr.Bits() > spec.BlockSize:
		c.fail("spec.cidr", spec.CIDR, fmt.Sprintf("IP pool size is too small for use with Calico IPAM: it is smaller than a block, a /%d", spec.BlockSize),
			"take a larger range or a larger blockSize")
	}
	if cidr.Addr().Is6() && spec.IPIPMode != encapNever {
		c.fail("spec.ipipMode", spec.IPIPMode, "IPIP is not supported on an IPv6 IP pool", "write Never")
	}
}

// checkPoolUses: LoadBalancer stands alone, and its addresses are announced as they are by every host.
func checkPoolUses(c *check, spec *IPPoolSpec) {
	if slices.Contains(spec.AllowedUses, UseTunnel) && spec.NamespaceSelector != "" {
		c.fail("spec.namespaceSelector", spec.NamespaceSelector, "tunnel addresses belong to no namespace", "write allowedUses: [Workload]")
	}
	if !slices.Contains(spec.AllowedUses, UseLoadBalancer) {
		return
	}
	for i, use := range spec.AllowedUses {
		if use == UseWorkload || use == UseTunnel {
			c.fail(index("spec.allowedUses", i), use, "LoadBalancer cannot be combined with Workload or Tunnel allowed uses", "make it two pools")
		}
	}
	if spec.IPIPMode != encapNever || spec.VXLANMode != encapNever {
		c.fail("spec.allowedUses", nil, "LoadBalancer IP pool cannot have IPIP or VXLAN enabled", "write ipipMode: Never and vxlanMode: Never")
	}
	if spec.DisableBGPExport {
		c.fail("spec.disableBGPExport", true, "LoadBalancer IP pools cannot disable BGP export", "remove it")
	}
	if spec.NodeSelector != "all()" {
		c.fail("spec.nodeSelector", spec.NodeSelector, "IP Pool with AllowedUse LoadBalancer must have node selector set to all()", "write all()")
	}
}

// checkPoolChange checks what may not change in a pool from which addresses may have been assigned.
func checkPoolChange(c *check, old, p *IPPool) {
	if old.Spec.CIDR != p.Spec.CIDR && !sameCIDR(old.Spec.CIDR, p.Spec.CIDR) {
		c.fail("spec.cidr", p.Spec.CIDR, "IPPool CIDR cannot be modified", "keep "+old.Spec.CIDR+", or make a new pool")
	}
	if old.Spec.BlockSize != p.Spec.BlockSize {
		c.fail("spec.blockSize", p.Spec.BlockSize, "IPPool BlockSize cannot be modified", fmt.Sprintf("keep %d, or make a new pool", old.Spec.BlockSize))
	}
	if slices.Contains(old.Spec.AllowedUses, UseLoadBalancer) && !slices.Contains(p.Spec.AllowedUses, UseLoadBalancer) {
		c.fail("spec.allowedUses", nil, "IPPool allowed use cannot be changed from LoadBalancer to Workload or Tunnel", "make a new pool")
	}
}

// sameCIDR reports whether two texts stand for the same range: others may have stored one that is not spelt as here.
func sameCIDR(a, b string) bool {
	p, ok1 := parseCIDR(a)
	q, ok2 := parseCIDR(b)
	return ok1 && ok2 && p == q
}

// Overlaps reports whether two pools have addresses in common. A range that cannot be read has none.
func (p *IPPool) Overlaps(other *IPPool) bool {
	a, ok1 := parseCIDR(p.Spec.CIDR)
	b, ok2 := parseCIDR(other.Spec.CIDR)
	return ok1 && ok2 && a.Overlaps(b)
}

func validateIPAMConfiguration(c *check, i *IPAMConfiguration) {
	if i.Name != IPAMConfigurationName {
		c.fail("metadata.name", i.Name, "there is one IPAMConfiguration, named default", "write "+IPAMConfigurationName)
	}
	checkTags(c, "spec", &i.Spec)
}
