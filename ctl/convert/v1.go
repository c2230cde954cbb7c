package convert

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
)

// The kinds of the v1 API, as far as they are about policy. Fields have the names that manifests give them.
type (
	policyV1 struct {
		metav1.TypeMeta
		Metadata struct {
			Name        string            `json:"name"`
			Tier        string            `json:"tier"`
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
		Spec struct {
			Order          *float64 `json:"order"`
			Ingress        []ruleV1 `json:"ingress"`
			Egress         []ruleV1 `json:"egress"`
			Selector       string   `json:"selector"`
			DoNotTrack     bool     `json:"doNotTrack"`
			PreDNAT        bool     `json:"preDNAT"`
			ApplyOnForward bool     `json:"applyOnForward"`
			Types          []string `json:"types"`
		} `json:"spec"`
	}
	profileV1 struct {
		metav1.TypeMeta
		Metadata struct {
			Name   string            `json:"name"`
			Tags   []string          `json:"tags"`
			Labels map[string]string `json:"labels"`
		} `json:"metadata"`
		Spec struct {
			Ingress []ruleV1 `json:"ingress"`
			Egress  []ruleV1 `json:"egress"`
		} `json:"spec"`
	}
	hostEndpointV1 struct {
		metav1.TypeMeta
		Metadata struct {
			Name   string            `json:"name"`
			Node   string            `json:"node"`
			Labels map[string]string `json:"labels"`
		} `json:"metadata"`
		Spec struct {
			InterfaceName string   `json:"interfaceName"`
			ExpectedIPs   []string `json:"expectedIPs"`
			Profiles      []string `json:"profiles"`
			Ports         []portV1 `json:"ports"`
		} `json:"spec"`
	}
	tierV1 struct {
		metav1.TypeMeta
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Spec struct {
			Order *float64 `json:"order"`
		} `json:"spec"`
	}
	nodeV1 struct {
		metav1.TypeMeta
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Spec v3.NodeSpec `json:"spec"`
	}
	portV1 struct {
		Name     string      `json:"name"`
		Protocol v3.Protocol `json:"protocol"`
		Port     uint16      `json:"port"`
	}
	ruleV1 struct {
		Action      string         `json:"action"`
		IPVersion   *int           `json:"ipVersion"`
		Protocol    *v3.Protocol   `json:"protocol"`
		ICMP        *v3.ICMPFields `json:"icmp"`
		NotProtocol *v3.Protocol   `json:"notProtocol"`
		NotICMP     *v3.ICMPFields `json:"notICMP"`
		Source      entityV1       `json:"source"`
		Destination entityV1       `json:"destination"`
	}
	entityV1 struct {
		Tag         string    `json:"tag"`
		Net         string    `json:"net"`
		Nets        []string  `json:"nets"`
		Selector    string    `json:"selector"`
		Ports       []v3.Port `json:"ports"`
		NotTag      string    `json:"notTag"`
		NotNet      string    `json:"notNet"`
		NotNets     []string  `json:"notNets"`
		NotSelector string    `json:"notSelector"`
		NotPorts    []v3.Port `json:"notPorts"`
	}
)

// fromV1 converts an object of the v1 API.
func fromV1(kind string, text []byte) (r v3.Resource, err error) {
	switch strings.ToLower(kind) {
	case "policy":
		r, err = convert(text, (*policyV1).convert)
	case "profile":
		r, err = convert(text, (*profileV1).convert)
	case "hostendpoint":
		r, err = convert(text, (*hostEndpointV1).convert)
	case "tier":
		r, err = convert(text, (*tierV1).convert)
	case "node":
		r, err = convert(text, (*nodeV1).convert)
	default:
		return nil, fmt.Errorf("conversion for the resource type '%s' is not supported", kind)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	return r, nil
}

func convert[T any](text []byte, to func(*T) (v3.Resource, error)) (v3.Resource, error) {
	var in T
	if err := strictly(text, &in); err != nil {
		return nil, err
	}
	return to(&in)
}

// convert makes a GlobalNetworkPolicy. One of the tier default keeps its name, others get the name of their tier in front,
// because names are no longer by tier.
func (p *policyV1) convert() (v3.Resource, error) {
	out := &v3.GlobalNetworkPolicy{}
	name := nameWithoutDots(p.Metadata.Name)
	tier := nameWithoutDots(p.Metadata.Tier)
	if tier == "" {
		tier = v3.DefaultTier
	}
	if tier != v3.DefaultTier {
		name = tier + "." + name
	}
	out.TypeMeta, out.ObjectMeta = meta(v3.KindGlobalNetworkPolicy, name)
	out.Annotations = p.Metadata.Annotations
	out.Spec.Tier, out.Spec.Order, out.Spec.Selector = tier, p.Spec.Order, selector(p.Spec.Selector)
	out.Spec.DoNotTrack, out.Spec.PreDNAT = p.Spec.DoNotTrack, p.Spec.PreDNAT
	// In the v1 API these were about forwarded traffic without saying so.
	out.Spec.ApplyOnForward = p.Spec.ApplyOnForward || p.Spec.DoNotTrack || p.Spec.PreDNAT
	for _, t := range p.Spec.Types {
		switch strings.ToLower(t) {
		case "ingress":
			out.Spec.Types = append(out.Spec.Types, v3.TypeIngress)
		case "egress":
			out.Spec.Types = append(out.Spec.Types, v3.TypeEgress)
		default:
			return nil, fmt.Errorf("%s: invalid policy type: '%s'", p.Metadata.Name, t)
		}
	}
	var err error
	if out.Spec.Ingress, err = rules("ingress", p.Spec.Ingress); err != nil {
		return nil, fmt.Errorf("%s: %w", p.Metadata.Name, err)
	}
	if out.Spec.Egress, err = rules("egress", p.Spec.Egress); err != nil {
		return nil, fmt.Errorf("%s: %w", p.Metadata.Name, err)
	}
	v3.Default(out) // the types, by the rules that are there
	return out, nil
}

// convert makes a Profile: tags are labels without value.
func (p *profileV1) convert() (v3.Resource, error) {
	out := &v3.Profile{}
	out.TypeMeta, out.ObjectMeta = meta(v3.KindProfile, profileName(p.Metadata.Name))
	if len(p.Metadata.Labels)+len(p.Metadata.Tags) > 0 {
		out.Spec.LabelsToApply = map[string]string{}
	}
	maps.Copy(out.Spec.LabelsToApply, p.Metadata.Labels)
	for _, tag := range p.Metadata.Tags {
		if value, ok := out.Spec.LabelsToApply[tag]; ok {
			return nil, fmt.Errorf("%s: tag '%s' and label '%s == %s' have the same name (change the label's name before)",
				p.Metadata.Name, tag, tag, value)
		}
		out.Spec.LabelsToApply[tag] = ""
	}
	var err error
	if out.Spec.Ingress, err = rules("ingress", p.Spec.Ingress); err != nil {
		return nil, fmt.Errorf("%s: %w", p.Metadata.Name, err)
	}
	out.Spec.Egress, err = rules("egress", p.Spec.Egress)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Metadata.Name, err)
	}
	return out, nil
}

// convert makes a HostEndpoint. Names were by node.
func (h *hostEndpointV1) convert() (v3.Resource, error) {
	out := &v3.HostEndpoint{}
	node := normal(h.Metadata.Node)
	out.TypeMeta, out.ObjectMeta = meta(v3.KindHostEndpoint, qualified(node+"."+h.Metadata.Name, normal(node+"."+h.Metadata.Name)))
	out.Labels = h.Metadata.Labels
	out.Spec = v3.HostEndpointSpec{Node: node, InterfaceName: h.Spec.InterfaceName, ExpectedIPs: slices.Clone(h.Spec.ExpectedIPs)}
	slices.SortStableFunc(out.Spec.ExpectedIPs, func(a, b string) int { return family(a) - family(b) })
	for _, profile := range h.Spec.Profiles {
		out.Spec.Profiles = append(out.Spec.Profiles, profileName(profile))
	}
	for _, p := range h.Spec.Ports {
		out.Spec.Ports = append(out.Spec.Ports, v3.EndpointPort{Name: p.Name, Protocol: protocol(p.Protocol), Port: p.Port})
	}
	return out, nil
}

// family sorts IPv4 before IPv6, as the v1 API stored them.
func family(text string) int {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Is6() {
		return 6
	}
	return 4
}

func (t *tierV1) convert() (v3.Resource, error) {
	out := &v3.Tier{}
	out.TypeMeta, out.ObjectMeta = meta(v3.KindTier, qualified(t.Metadata.Name, normal(t.Metadata.Name)))
	out.Spec.Order = t.Spec.Order
	return out, nil
}

func (n *nodeV1) convert() (v3.Resource, error) {
	out := &v3.Node{Spec: n.Spec}
	out.TypeMeta, out.ObjectMeta = meta(v3.KindNode, normal(n.Metadata.Name))
	return out, nil
}

func rules(field string, in []ruleV1) ([]v3.Rule, error) {
	var out []v3.Rule
	for i, r := range in {
		rule, err := r.convert()
		if err != nil {
			return nil, fmt.Errorf("spec.%s[%d]: %w", field, i, err)
		}
		out = append(out, rule)
	}
	return out, nil
}

func (r *ruleV1) convert() (v3.Rule, error) {
	out := v3.Rule{IPVersion: r.IPVersion, ICMP: r.ICMP, NotICMP: r.NotICMP}
	switch action := strings.ToLower(r.Action); action {
	case "", "allow":
		out.Action = v3.ActionAllow
	case "deny":
		out.Action = v3.ActionDeny
	case "log":
		out.Action = v3.ActionLog
	case "pass", "next-tier":
		out.Action = v3.ActionPass
	default:
		return out, fmt.Errorf("action '%s' is not known", r.Action)
	}
	if r.Protocol != nil {
		p := protocol(*r.Protocol)
		out.Protocol = &p
	}
	if r.NotProtocol != nil {
		p := protocol(*r.NotProtocol)
		out.NotProtocol = &p
	}
	var errs [2]error
	out.Source, errs[0] = r.Source.convert("source")
	out.Destination, errs[1] = r.Destination.convert("destination")
	return out, errors.Join(errs[:]...)
}

func (e *entityV1) convert(field string) (out v3.EntityRule, err error) {
	out.Selector = withTag(selector(e.Selector), e.Tag)
	out.NotSelector = withTag(selector(e.NotSelector), e.NotTag)
	out.Ports, out.NotPorts = e.Ports, e.NotPorts
	if out.Nets, err = nets(e.Net, e.Nets); err != nil {
		return out, fmt.Errorf("%s.nets: %w", field, err)
	}
	if out.NotNets, err = nets(e.NotNet, e.NotNets); err != nil {
		return out, fmt.Errorf("%s.notNets: %w", field, err)
	}
	return out, nil
}

// withTag adds the condition that an endpoint has a tag, which now is a label.
func withTag(selector, tag string) string {
	switch {
	case tag == "":
		return selector
	case selector == "":
		return tag + " == ''"
	}
	return "(" + selector + ") && " + tag + " == ''"
}

// nets returns the net and the nets without host bits, which the v1 API let stand. nil stays nil: any address.
func nets(one string, more []string) ([]string, error) {
	if one != "" {
		more = append([]string{one}, more...)
	}
	if more == nil {
		return nil, nil
	}
	out := make([]string, len(more))
	for i, text := range more {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			addr, errAddr := netip.ParseAddr(text)
			if errAddr != nil {
				return nil, fmt.Errorf("'%s' is no CIDR and no address", text)
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		out[i] = prefix.Masked().String()
	}
	return out, nil
}

// selector gives the label of the namespace its new name.
func selector(text string) string {
	return strings.ReplaceAll(text, "calico/k8s_ns", v3.LabelNamespace)
}

// protocol spells a protocol as v3 does.
func protocol(p v3.Protocol) v3.Protocol {
	for _, name := range []v3.Protocol{v3.ProtocolTCP, "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite"} {
		if strings.EqualFold(string(p), string(name)) {
			return name
		}
	}
	return p
}
