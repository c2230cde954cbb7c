package v3

import (
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// BGPFilter says which routes go to a peer and come from it, by ordered rules. A BGPPeer names its filters.
type BGPFilter struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              BGPFilterSpec `json:"spec"`
}

// BGPFilterSpec has a list of rules for each direction and address family.
type BGPFilterSpec struct {
	ExportV4 []BGPFilterRule `json:"exportV4,omitempty"`
	ImportV4 []BGPFilterRule `json:"importV4,omitempty"`
	ExportV6 []BGPFilterRule `json:"exportV6,omitempty"`
	ImportV6 []BGPFilterRule `json:"importV6,omitempty"`
}

// BGPFilterRule matches routes by all fields that are set. CIDR and MatchOperator go together; PrefixLength needs them.
// Operations are for routes that are accepted.
type BGPFilterRule struct {
	CIDR          string                    `json:"cidr,omitempty" schema:"maxlen=64,format=net"`
	PrefixLength  *BGPFilterPrefixLength    `json:"prefixLength,omitempty"`
	Source        string                    `json:"source,omitempty" check:"enum=RemotePeers"`
	Interface     string                    `json:"interface,omitempty" check:"format=bgpInterface"`
	MatchOperator string                    `json:"matchOperator,omitempty" check:"enum=Equal|NotEqual|In|NotIn"`
	PeerType      string                    `json:"peerType,omitempty" check:"enum=eBGP|iBGP"`
	Communities   *BGPFilterCommunityMatch  `json:"communities,omitempty"`
	ASPathPrefix  []ASNumber                `json:"asPathPrefix,omitempty"`
	Priority      *int                      `json:"priority,omitempty" check:"min=1,max=2147483646"`
	Action        string                    `json:"action" check:"required,enum=Accept|Reject"`
	Operations    []BGPFilterRouteOperation `json:"operations,omitempty" check:"maxitems=10"`
}

// BGPFilterPrefixLength bounds the prefix length of a route, both ends inclusive; nil is that of the CIDR and the longest.
type BGPFilterPrefixLength struct {
	Min *int32 `json:"min,omitempty" schema:"min=0"`
	Max *int32 `json:"max,omitempty" schema:"min=0"`
}

// BGPFilterCommunityMatch holds exactly one community.
type BGPFilterCommunityMatch struct {
	Values []string `json:"values" check:"minitems=1,maxitems=1,format=plainCommunity"`
}

// BGPFilterRouteOperation changes a route; exactly one field is set.
type BGPFilterRouteOperation struct {
	AddCommunity  *BGPFilterAddCommunity  `json:"addCommunity,omitempty"`
	PrependASPath *BGPFilterPrependASPath `json:"prependASPath,omitempty"`
	SetPriority   *BGPFilterSetPriority   `json:"setPriority,omitempty"`
}

// BGPFilterAddCommunity adds a community.
type BGPFilterAddCommunity struct {
	Value string `json:"value" check:"required,format=plainCommunity"`
}

// BGPFilterPrependASPath puts AS numbers before the path, the first one foremost.
type BGPFilterPrependASPath struct {
	Prefix []ASNumber `json:"prefix" check:"minitems=1,maxitems=10"`
}

// BGPFilterSetPriority sets the metric of the route.
type BGPFilterSetPriority struct {
	Value int `json:"value" check:"min=1,max=2147483646"`
}

func validateBGPFilter(c *check, f *BGPFilter) {
	checkTags(c, "spec", &f.Spec)
	for _, list := range []struct {
		path  string
		rules []BGPFilterRule
		bits  int // of an address
	}{
		{"spec.exportV4", f.Spec.ExportV4, 32}, {"spec.importV4", f.Spec.ImportV4, 32},
		{"spec.exportV6", f.Spec.ExportV6, 128}, {"spec.importV6", f.Spec.ImportV6, 128},
	} {
		for i := range list.rules {
			checkFilterRule(c, index(list.path, i), &list.rules[i], list.bits)
		}
	}
}

// checkFilterRule checks what depends on several fields or on the address family, whose addresses have that many bits.
func checkFilterRule(c *check, path string, r *BGPFilterRule, bits int) {
	switch {
	case r.CIDR == "" && r.MatchOperator != "":
		c.fail(path+".cidr", nil, "cidr and matchOperator must both be set or both be empty", "add cidr")
	case r.CIDR != "" && r.MatchOperator == "":
		c.fail(path+".matchOperator", nil, "cidr and matchOperator must both be set or both be empty", "add matchOperator")
	}
	if r.CIDR != "" {
		checkRouteCIDR(c, path+".cidr", r.CIDR, bits)
	}
	if l := r.PrefixLength; l != nil {
		if r.CIDR == "" {
			c.fail(path+".prefixLength", nil, "cidr is required when prefixLength is set", "")
		}
		checkPrefixLength(c, path+".prefixLength.min", l.Min, bits)
		checkPrefixLength(c, path+".prefixLength.max", l.Max, bits)
	}
	if len(r.Operations) > 0 && r.Action != "Accept" {
		c.fail(path+".operations", nil, "operations may only be used with action Accept", "")
	}
	for i, o := range r.Operations {
		set := 0
		for _, is := range []bool{o.AddCommunity != nil, o.PrependASPath != nil, o.SetPriority != nil} {
			if is {
				set++
			}
		}
		if set != 1 {
			c.fail(index(path+".operations", i), nil, "exactly one operation must be set", "")
		}
	}
}

func checkRouteCIDR(c *check, path, text string, bits int) {
	cidr, err := netip.ParsePrefix(text)
	switch {
	case err != nil || cidr.Addr().Is4In6():
		c.fail(path, text, "invalid CIDR", "")
	case cidr.Addr().BitLen() != bits:
		c.fail(path, text, "CIDR is of the other address family", "")
	case cidr != cidr.Masked():
		c.fail(path, text, "CIDR is not strictly masked", "write "+cidr.Masked().String())
	}
}

func checkPrefixLength(c *check, path string, n *int32, bits int) {
	if n != nil && (*n < 0 || int(*n) > bits) {
		c.failf(path, *n, "prefix length must be between 0 and %d", bits)
	}
}
