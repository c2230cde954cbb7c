package controllers

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
	"margay/selector"
)

// A hostController keeps automatic host endpoints: those with the label created-by are as the configuration and
// the Nodes have them, whatever people do to them; no other host endpoint is touched. Switched off, or without their Node,
// they go.
type hostController struct {
	on, preset bool // host endpoints are made; the one of all interfaces is among them
	templates  []hostTemplate
	// made has, by node, the names of the host endpoints with the label.
	made map[string]map[string]bool
}

// A hostTemplate makes host endpoints for some nodes.
type hostTemplate struct {
	*v3.HostEndpointTemplate
	nodes      *selector.Selector
	interfaces *regexp.Regexp // nil: one host endpoint, by addresses
	nets       []netip.Prefix
}

// newHostController returns an error when a template cannot be used: nothing is known then of what it would make.
func newHostController(cfg *v3.AutoHostEndpointConfig) (*hostController, error) {
	c := &hostController{on: cfg.AutoCreate == enabled, preset: cfg.CreateDefaultHostEndpoint != disabled, made: map[string]map[string]bool{}}
	for i := range cfg.Templates {
		t, err := compile(&cfg.Templates[i])
		if err != nil {
			return nil, fmt.Errorf("use template %d (%s) of host endpoints: %w", i, cfg.Templates[i].GenerateName, err)
		}
		if t.GenerateName != "" && (t.interfaces != nil || len(t.nets) > 0) { // others make nothing, as Validate warns
			c.templates = append(c.templates, t)
		}
	}
	return c, nil
}

func compile(from *v3.HostEndpointTemplate) (hostTemplate, error) {
	t := hostTemplate{HostEndpointTemplate: from}
	var err error
	if t.nodes, err = selector.Parse(from.NodeSelector); err != nil {
		return t, fmt.Errorf("nodeSelector: %w", err)
	}
	if from.InterfacePattern != "" {
		if t.interfaces, err = regexp.Compile(from.InterfacePattern); err != nil {
			return t, fmt.Errorf("interfacePattern: %w", err)
		}
	}
	for _, text := range from.InterfaceCIDRs {
		p, err := v3.ParseNet(text)
		if err != nil {
			return t, fmt.Errorf("interfaceCIDRs: %w", err)
		}
		t.nets = append(t.nets, p)
	}
	return t, nil
}

func (c *hostController) name() string { return "hostendpoint" }

func (c *hostController) kinds(s side) []v3.Kind {
	if s == source {
		return nil
	}
	return []v3.Kind{v3.KindNode, v3.KindHostEndpoint}
}

// touched: a unit is a Node.
func (c *hostController) touched(s side, key v3.Key, before, after v3.Resource) []v3.Key {
	if s == source {
		return nil
	}
	if key.Kind == v3.KindNode {
		return []v3.Key{key}
	}
	if key.Kind != v3.KindHostEndpoint {
		return nil
	}
	nodes := map[string]bool{}
	if h, ok := before.(*v3.HostEndpoint); ok {
		nodes[h.Spec.Node] = true
		delete(c.made[h.Spec.Node], h.Name)
	}
	if h, ok := after.(*v3.HostEndpoint); ok {
		nodes[h.Spec.Node] = true
		if automatic(h) {
			if c.made[h.Spec.Node] == nil {
				c.made[h.Spec.Node] = map[string]bool{}
			}
			c.made[h.Spec.Node][h.Name] = true
		}
	}
	var units []v3.Key
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		units = append(units, v3.Key{Kind: v3.KindNode, Name: name})
	}
	return units
}

func automatic(h *v3.HostEndpoint) bool {
	return h.Labels[v3.LabelCreatedBy] == v3.CreatedByKubeControllers
}

func (c *hostController) plan(v *view, unit v3.Key) ([]step, error) {
	if v.unreadable(target, unit) {
		return nil, nil
	}
	var wanted []*v3.HostEndpoint
	node, _ := v.get(target, unit).(*v3.Node)
	if node != nil && c.on {
		wanted = c.wanted(node)
	}
	var steps []step
	var errs []error
	keep := map[string]bool{}
	for _, want := range wanted {
		key := v3.KeyOf(want)
		switch have, _ := v.get(target, key).(*v3.HostEndpoint); {
		case keep[want.Name]:
			errs = append(errs, fmt.Errorf("two templates make %s (change a generateName)", key))
		case v.unreadable(target, key):
			errs = append(errs, fmt.Errorf("%s cannot be read (repair or delete it)", key))
		case have != nil && !automatic(have):
			errs = append(errs, fmt.Errorf("%s is there without label %s: it is left alone", key, v3.LabelCreatedBy))
		case have != nil && have.Spec.Node != want.Spec.Node && v.get(target, v3.Key{Kind: v3.KindNode, Name: have.Spec.Node}) != nil:
			errs = append(errs, fmt.Errorf("%s is that of node %s (change a generateName)", key, have.Spec.Node))
		default:
			steps = append(steps, bring(v, key, want)...)
		}
		keep[want.Name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(c.made[unit.Name])) {
		if keep[name] {
			continue
		}
		gone := bring(v, v3.Key{Kind: v3.KindHostEndpoint, Name: name}, nil)
		if node == nil { // without its host endpoint a node is open
			gone = sinceGone(gone, target, unit)
		}
		steps = append(steps, gone...)
	}
	return steps, errors.Join(errs...)
}

// wanted returns the host endpoints of a node.
func (c *hostController) wanted(node *v3.Node) []*v3.HostEndpoint {
	var list []*v3.HostEndpoint
	addrs := nodeAddrs(node)
	if c.preset {
		list = append(list, hostEndpoint(node, nil, v3.HostEndpointSpec{InterfaceName: "*", ExpectedIPs: texts(addrs)}))
	}
	for i := range c.templates {
		if t := &c.templates[i]; t.nodes.Matches(selector.Map(node.Labels)) {
			list = append(list, t.endpoints(node, addrs)...)
		}
	}
	return list
}

// endpoints returns what a template makes for a node that has the addresses.
func (t *hostTemplate) endpoints(node *v3.Node, addrs []netip.Addr) []*v3.HostEndpoint {
	var inNets []netip.Addr
	for _, a := range addrs {
		if slices.ContainsFunc(t.nets, func(p netip.Prefix) bool { return p.Contains(a) }) {
			inNets = append(inNets, a)
		}
	}
	if t.interfaces == nil {
		if len(inNets) == 0 {
			return nil
		}
		return []*v3.HostEndpoint{hostEndpoint(node, t, v3.HostEndpointSpec{ExpectedIPs: texts(inNets)})}
	}
	var list []*v3.HostEndpoint
	for _, i := range node.Spec.Interfaces {
		if t.interfaces.MatchString(i.Name) {
			all := slices.Clone(inNets)
			for _, text := range i.Addresses {
				all = appendAddr(all, text)
			}
			list = append(list, hostEndpoint(node, t, v3.HostEndpointSpec{InterfaceName: i.Name, ExpectedIPs: texts(all)}))
		}
	}
	return list
}

// hostEndpoint returns a host endpoint of the node; t nil: the one of all interfaces.
func hostEndpoint(node *v3.Node, t *hostTemplate, spec v3.HostEndpointSpec) *v3.HostEndpoint {
	info, _ := v3.Lookup(v3.KindHostEndpoint)
	h := info.New().(*v3.HostEndpoint)
	parts := []string{node.Name}
	h.ObjectMeta = metav1.ObjectMeta{Labels: maps.Clone(node.Labels)}
	if h.Labels == nil {
		h.Labels = map[string]string{}
	}
	if t != nil {
		parts = append(parts, t.GenerateName)
		if spec.InterfaceName != "" {
			parts = append(parts, spec.InterfaceName)
		}
		maps.Copy(h.Labels, t.Labels)
		h.Annotations = maps.Clone(t.Annotations)
	}
	h.Name = hostName(parts)
	h.Labels[v3.LabelCreatedBy] = v3.CreatedByKubeControllers
	h.Spec = spec
	h.Spec.Node, h.Spec.Profiles = node.Name, []string{v3.ProfileDefaultAllow}
	return h
}

// maxName is how long the name of an object may be.
const maxName = 253

const autoSuffix = "-auto-hep"

// objectName is the form of a name.
var objectName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// hostName joins the parts of a name. What is too long for a name, or is none, as interfaces may have capital letters,
// becomes a hash.
func hostName(parts []string) string {
	name := strings.Join(parts, "-") + autoSuffix
	if len(name) <= maxName && objectName.MatchString(name) {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:]) + autoSuffix
}

// nodeAddrs returns all addresses that are known of a node, each once: those of its agent, of tunnels, of Kubernetes and of
// interfaces. What does not parse is left out.
func nodeAddrs(n *v3.Node) []netip.Addr {
	var list []netip.Addr
	if bgp := n.Spec.BGP; bgp != nil {
		for _, text := range []string{bgp.IPv4Address, bgp.IPv6Address, bgp.IPv4IPIPTunnelAddr} {
			list = appendAddr(list, text)
		}
	}
	list = appendAddr(appendAddr(list, n.Spec.IPv4VXLANTunnelAddr), n.Spec.IPv6VXLANTunnelAddr)
	if w := n.Spec.Wireguard; w != nil {
		list = appendAddr(appendAddr(list, w.InterfaceIPv4Address), w.InterfaceIPv6Address)
	}
	for _, a := range n.Spec.Addresses {
		if a.Type == "InternalIP" {
			list = appendAddr(list, a.Address)
		}
	}
	for _, i := range n.Spec.Interfaces {
		for _, text := range i.Addresses {
			list = appendAddr(list, text)
		}
	}
	return list
}

// appendAddr appends the address that a text holds, which may have a mask.
func appendAddr(list []netip.Addr, text string) []netip.Addr {
	text, _, _ = strings.Cut(text, "/")
	if addr, err := v3.ParseAddr(text); err == nil && !slices.Contains(list, addr) {
		return append(list, addr)
	}
	return list
}

func texts(addrs []netip.Addr) []string {
	var list []string
	for _, a := range addrs {
		list = append(list, a.String())
	}
	return list
}

// compareKeys orders objects by kind and name.
func compareKeys(a, b v3.Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
