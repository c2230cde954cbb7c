package convert

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	v3 "margay/api/v3"
)

// Annotations of a Kubernetes Node in which the fields of Calico's Node live.
const (
	annotationIPv4          = "projectcalico.org/IPv4Address"
	annotationIPv6          = "projectcalico.org/IPv6Address"
	annotationASN           = "projectcalico.org/ASNumber"
	annotationReflector     = "projectcalico.org/RouteReflectorClusterID"
	annotationIPIP          = "projectcalico.org/IPv4IPIPTunnelAddr"
	annotationVXLAN4        = "projectcalico.org/IPv4VXLANTunnelAddr"
	annotationVXLAN6        = "projectcalico.org/IPv6VXLANTunnelAddr"
	annotationVXLANMAC      = "projectcalico.org/VXLANTunnelMACAddr"
	annotationVXLANMAC6     = "projectcalico.org/VXLANTunnelMACAddrV6"
	annotationWireguard4    = "projectcalico.org/IPv4WireguardInterfaceAddr"
	annotationWireguard6    = "projectcalico.org/IPv6WireguardInterfaceAddr"
	annotationWireguardKey  = "projectcalico.org/WireguardPublicKey"
	annotationWireguardKey6 = "projectcalico.org/WireguardPublicKeyV6"
	annotationInterfaces    = "projectcalico.org/Interfaces"
	annotationLabels        = "projectcalico.org/labels"      // the labels that only Calico has, as JSON
	annotationAnnotations   = "projectcalico.org/annotations" // likewise
)

// Types of a node's address.
const (
	calicoNodeIP = "CalicoNodeIP"
	internalIP   = "InternalIP"
	externalIP   = "ExternalIP"
)

// Node returns the Node that a Kubernetes Node stands for. A label that both have is Kubernetes'; which are Kubernetes' is
// in the annotation kube-labels. Annotations that do not parse are left out.
func Node(n *corev1.Node) *v3.Node {
	out := &v3.Node{TypeMeta: typeMeta(v3.KindNode)}
	out.Name, out.UID, out.CreationTimestamp, out.ResourceVersion = n.Name, n.UID, n.CreationTimestamp, n.ResourceVersion
	out.Labels, out.Annotations = mapIn(n, annotationLabels), mapIn(n, annotationAnnotations)
	maps.Copy(out.Labels, n.Labels)
	out.Annotations[v3.AnnotationKubeLabels] = jsonOf(n.Labels)
	out.Spec.OrchRefs = []v3.OrchRef{{NodeName: n.Name, Orchestrator: v3.OrchestratorKubernetes}}
	for _, f := range fieldsOf(out) {
		if text := n.Annotations[f.annotation]; text != "" && f.valid(text) {
			*f.to = text
		}
	}
	bgp, wireguard := out.Spec.BGP, out.Spec.Wireguard
	if asn, err := v3.ParseASNumber(n.Annotations[annotationASN]); err == nil {
		bgp.ASNumber = &asn
	}
	if *bgp == (v3.NodeBGPSpec{}) {
		out.Spec.BGP = nil
	}
	if *wireguard == (v3.NodeWireguardSpec{}) {
		out.Spec.Wireguard = nil
	}
	out.Status.PodCIDRs = slices.Clone(n.Spec.PodCIDRs)
	out.Spec.Addresses = addressesOf(n, bgp)
	out.Spec.Interfaces = interfacesOf(n)
	return out
}

// SetNode writes what a Node has of its own into the annotations of a Kubernetes Node, whose labels stay what they are: a
// label that Kubernetes has cannot be changed here, nor can addresses, podCIDRs and orchRefs.
func SetNode(n *v3.Node, into *corev1.Node) {
	a := maps.Clone(into.Annotations)
	if a == nil {
		a = map[string]string{}
	}
	set := func(key, value string) {
		if value == "" {
			delete(a, key)
		} else {
			a[key] = value
		}
	}
	c := *n // fieldsOf fills in what is nil
	c.Spec.BGP, c.Spec.Wireguard = clone(n.Spec.BGP), clone(n.Spec.Wireguard)
	for _, f := range fieldsOf(&c) {
		set(f.annotation, *f.to)
	}
	set(annotationASN, "")
	if c.Spec.BGP.ASNumber != nil {
		set(annotationASN, strconv.FormatUint(uint64(*c.Spec.BGP.ASNumber), 10))
	}
	set(annotationInterfaces, "")
	if len(n.Spec.Interfaces) > 0 {
		set(annotationInterfaces, jsonOf(n.Spec.Interfaces))
	}
	setMap := func(key string, m map[string]string) {
		set(key, "")
		if len(m) > 0 {
			set(key, jsonOf(m))
		}
	}
	own := maps.Clone(n.Labels)
	maps.DeleteFunc(own, func(key, _ string) bool { return into.Labels[key] != "" || hasKey(n, key) })
	setMap(annotationLabels, own)
	annotations := maps.Clone(n.Annotations)
	delete(annotations, v3.AnnotationKubeLabels)
	setMap(annotationAnnotations, annotations)
	into.Annotations = a
}

// hasKey reports whether a label of a Node came from Kubernetes when the Node was read.
func hasKey(n *v3.Node, label string) bool {
	var labels map[string]string
	if json.Unmarshal([]byte(n.Annotations[v3.AnnotationKubeLabels]), &labels) != nil {
		return false
	}
	_, ok := labels[label]
	return ok
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

// A nodeField is a text of a Node with the annotation it lives in.
type nodeField struct {
	annotation string
	to         *string
	valid      func(string) bool
}

// fieldsOf returns the texts of a node, whose parts it makes where they are nil.
func fieldsOf(n *v3.Node) []nodeField {
	if n.Spec.BGP == nil {
		n.Spec.BGP = &v3.NodeBGPSpec{}
	}
	if n.Spec.Wireguard == nil {
		n.Spec.Wireguard = &v3.NodeWireguardSpec{}
	}
	spec, bgp, wireguard := &n.Spec, n.Spec.BGP, n.Spec.Wireguard
	return []nodeField{
		{annotationIPv4, &bgp.IPv4Address, isNet4},
		{annotationIPv6, &bgp.IPv6Address, isNet6},
		{annotationReflector, &bgp.RouteReflectorClusterID, isAddr4},
		{annotationIPIP, &bgp.IPv4IPIPTunnelAddr, isAddr4},
		{annotationVXLAN4, &spec.IPv4VXLANTunnelAddr, isAddr4},
		{annotationVXLAN6, &spec.IPv6VXLANTunnelAddr, isAddr6},
		{annotationVXLANMAC, &spec.VXLANTunnelMACAddr, isAny},
		{annotationVXLANMAC6, &spec.VXLANTunnelMACAddrV6, isAny},
		{annotationWireguard4, &wireguard.InterfaceIPv4Address, isAddr4},
		{annotationWireguard6, &wireguard.InterfaceIPv6Address, isAddr6},
		{annotationWireguardKey, &n.Status.WireguardPublicKey, isAny},
		{annotationWireguardKey6, &n.Status.WireguardPublicKeyV6, isAny},
	}
}

func isAny(string) bool { return true }

func isAddr4(text string) bool {
	addr, err := v3.ParseAddr(text)
	return err == nil && addr.Is4()
}

func isAddr6(text string) bool {
	addr, err := v3.ParseAddr(text)
	return err == nil && !addr.Is4()
}

func isNet4(text string) bool {
	prefix, err := v3.ParseNet(text)
	return err == nil && prefix.Addr().Is4()
}

func isNet6(text string) bool {
	prefix, err := v3.ParseNet(text)
	return err == nil && !prefix.Addr().Is4()
}

// addressesOf returns the addresses of a node: those that Calico's agent told, then those that Kubernetes knows.
func addressesOf(n *corev1.Node, bgp *v3.NodeBGPSpec) []v3.NodeAddress {
	var list []v3.NodeAddress
	for _, text := range []string{bgp.IPv4Address, bgp.IPv6Address} {
		if text != "" {
			list = append(list, v3.NodeAddress{Address: text, Type: calicoNodeIP})
		}
	}
	for _, a := range n.Status.Addresses {
		switch a.Type {
		case corev1.NodeInternalIP:
			list = append(list, v3.NodeAddress{Address: a.Address, Type: internalIP})
		case corev1.NodeExternalIP:
			list = append(list, v3.NodeAddress{Address: a.Address, Type: externalIP})
		}
	}
	return list
}

func interfacesOf(n *corev1.Node) []v3.NodeInterface {
	var list []v3.NodeInterface
	if json.Unmarshal([]byte(n.Annotations[annotationInterfaces]), &list) != nil {
		return nil
	}
	for i := range list {
		list[i].Addresses = slices.DeleteFunc(list[i].Addresses, func(text string) bool {
			_, err := netip.ParseAddr(text)
			return err != nil
		})
	}
	return list
}

// mapIn returns the texts by name that an annotation holds as JSON, an empty map if it holds none.
func mapIn(n *corev1.Node, key string) map[string]string {
	m := map[string]string{}
	if json.Unmarshal([]byte(n.Annotations[key]), &m) != nil || m == nil {
		return map[string]string{}
	}
	return m
}

// jsonOf is for values that have a JSON form whatever they hold.
func jsonOf(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic("store/kube/convert: " + err.Error())
	}
	return string(data)
}
