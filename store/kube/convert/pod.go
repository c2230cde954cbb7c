package convert

import (
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	v3 "margay/api/v3"
)

// DefaultInterfacePrefix begins the names of the host sides of pods' interfaces (FELIX_INTERFACEPREFIX).
const DefaultInterfacePrefix = "cali"

// Annotations of pods, written by the CNI plugin or people.
const (
	annotationIP            = "cni.projectcalico.org/podIP"
	annotationIPs           = "cni.projectcalico.org/podIPs"
	annotationAWS           = "vpc.amazonaws.com/pod-ips"
	annotationContainerID   = "cni.projectcalico.org/containerID"
	annotationFloatingIPs   = "cni.projectcalico.org/floatingIPs"
	annotationSources       = "cni.projectcalico.org/allowedSourcePrefixes"
	annotationNetworkStatus = "k8s.v1.cni.cncf.io/network-status"
)

// maxAccountLabel: longer names of service accounts are in no label.
const maxAccountLabel = 62

// IsEndpoint reports whether a pod is a workload endpoint: one that runs on a node and has a network of its own. Once it
// is, it stays one.
func IsEndpoint(pod *corev1.Pod) bool { return pod.Spec.NodeName != "" && !pod.Spec.HostNetwork }

// Pod returns the workload endpoint of a pod, nil if it is none. Without addresses (it has none yet, or no longer) it is
// in no set. prefix begins the name of its interface on the host, which is a hint: CNI plugins other than Calico's choose
// names of their own.
//
// The error is an *Error: an address or annotation that does not parse. Annotations that only concern the quality of
// service are left out instead, as policy does not depend on them.
func Pod(pod *corev1.Pod, prefix string) (*v3.WorkloadEndpoint, error) {
	if !IsEndpoint(pod) {
		return nil, nil
	}
	w := &v3.WorkloadEndpoint{TypeMeta: typeMeta(v3.KindWorkloadEndpoint)}
	account := pod.Spec.ServiceAccountName
	w.Spec = v3.WorkloadEndpointSpec{
		Orchestrator: v3.OrchestratorKubernetes, Node: pod.Spec.NodeName, Pod: pod.Name, Endpoint: "eth0",
		ContainerID: pod.Annotations[annotationContainerID], ServiceAccountName: account,
		InterfaceName: Interface(prefix, pod.Namespace, pod.Name),
		Profiles:      []string{v3.PrefixNamespaceProfile + pod.Namespace},
		Ports:         portsOf(pod), QoSControls: qosControls(pod.Annotations),
	}
	if account != "" {
		w.Spec.Profiles = append(w.Spec.Profiles, accountProfile(pod.Namespace, account))
	}
	name, err := w.Spec.Name()
	if err != nil {
		return nil, &Error{"metadata.name", pod.Name, err}
	}
	w.ObjectMeta = derived(name, &pod.ObjectMeta)
	w.UID, w.Labels = pod.UID, podLabels(pod)
	if status, ok := pod.Annotations[annotationNetworkStatus]; ok {
		w.Annotations = map[string]string{annotationNetworkStatus: status}
	}
	return w, setAddresses(w, pod)
}

// setAddresses sets what depends on the addresses of a pod.
func setAddresses(w *v3.WorkloadEndpoint, pod *corev1.Pod) error {
	addrs, err := podAddrs(pod)
	if err != nil {
		return err
	}
	if finished(pod) {
		addrs = nil
	}
	for _, addr := range addrs {
		w.Spec.IPNetworks = append(w.Spec.IPNetworks, netip.PrefixFrom(addr, addr.BitLen()).String())
	}
	if w.Spec.IPNATs, err = floatingAddrs(pod, addrs); err != nil {
		return err
	}
	w.Spec.AllowSpoofedSourcePrefixes, err = sourcePrefixes(pod)
	return err
}

// Interface returns the name that Calico's CNI plugin gives the host side of a pod's interface.
func Interface(prefix, namespace, pod string) string {
	prefix, _, _ = strings.Cut(prefix, ",")
	sum := sha1.Sum([]byte(namespace + "." + pod))
	return prefix + hex.EncodeToString(sum[:])[:11]
}

func podLabels(pod *corev1.Pod) map[string]string {
	labels := make(map[string]string, len(pod.Labels)+3)
	maps.Copy(labels, pod.Labels)
	// What a pod says itself of its namespace and service account, or of their labels, would let it into sets that it does
	// not belong to: an endpoint's own labels beat inherited ones.
	maps.DeleteFunc(labels, func(key, _ string) bool {
		return key == v3.LabelServiceAccount || strings.HasPrefix(key, v3.PrefixNamespaceLabel) || strings.HasPrefix(key, v3.PrefixServiceAccountLabel)
	})
	if account := pod.Spec.ServiceAccountName; account != "" && len(account) <= maxAccountLabel {
		labels[v3.LabelServiceAccount] = account
	}
	labels[v3.LabelNamespace] = pod.Namespace
	labels[v3.LabelOrchestrator] = v3.OrchestratorKubernetes
	return labels
}

// podAddrs returns the addresses of a pod as the kubelet has told them, or before that the CNI plugin.
func podAddrs(pod *corev1.Pod) ([]netip.Addr, error) {
	path, texts := "status.podIPs", make([]string, 0, 2)
	for _, ip := range pod.Status.PodIPs {
		texts = append(texts, ip.IP)
	}
	if len(texts) == 0 && pod.Status.PodIP != "" {
		path, texts = "status.podIP", []string{pod.Status.PodIP}
	}
	for _, key := range []string{annotationIPs, annotationIP, annotationAWS} {
		if value := pod.Annotations[key]; len(texts) == 0 && value != "" {
			path, texts = "metadata.annotations["+key+"]", strings.Split(value, ",")
		}
	}
	var addrs []netip.Addr
	for _, text := range texts {
		prefix, err := v3.ParseNet(strings.TrimSpace(text))
		if err == nil && !prefix.IsSingleIP() {
			err = errors.New("it is more than one address")
		}
		if err != nil {
			return nil, &Error{path, text, err}
		}
		addrs = append(addrs, prefix.Addr())
	}
	return addrs, nil
}

// finished reports whether a pod has lost its addresses: another may have them already. While a pod is being deleted the
// CNI plugin tells so by an annotation that is there and empty.
func finished(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp != nil {
		for _, key := range []string{annotationIP, annotationIPs, annotationAWS} {
			if value, ok := pod.Annotations[key]; ok && value == "" {
				return true
			}
		}
	}
	switch pod.Status.Phase {
	case corev1.PodSucceeded, corev1.PodFailed, "Completed":
		return true
	}
	return false
}

// portsOf returns the ports that have a name or a port of the host, of all containers.
func portsOf(pod *corev1.Pod) []v3.WorkloadEndpointPort {
	var ports []v3.WorkloadEndpointPort
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for _, c := range containers {
			for _, p := range c.Ports {
				if port, ok := portOf(p); ok {
					ports = append(ports, port)
				}
			}
		}
	}
	return ports
}

func portOf(p corev1.ContainerPort) (v3.WorkloadEndpointPort, bool) {
	protocol := v3.Protocol(p.Protocol)
	if protocol == "" {
		protocol = v3.ProtocolTCP
	}
	port, ok := portNumber(p.ContainerPort)
	hostPort, _ := portNumber(p.HostPort)
	if !ok || !protocol.HasPorts() || p.Name == "" && hostPort == 0 {
		return v3.WorkloadEndpointPort{}, false
	}
	return v3.WorkloadEndpointPort{Name: p.Name, Protocol: protocol, Port: port, HostPort: hostPort, HostIP: p.HostIP}, true
}

func portNumber(n int32) (uint16, bool) {
	if n < 1 || n > 65535 {
		return 0, false
	}
	return uint16(n), true
}

// floatingAddrs returns the external addresses of a pod, each with the pod's own address of its family.
func floatingAddrs(pod *corev1.Pod, addrs []netip.Addr) ([]v3.IPNAT, error) {
	texts, err := listIn(pod, annotationFloatingIPs)
	if err != nil || len(addrs) == 0 {
		return nil, err
	}
	var nats []v3.IPNAT
	for _, text := range texts {
		external, err := v3.ParseAddr(text)
		if err != nil {
			return nil, &Error{"metadata.annotations[" + annotationFloatingIPs + "]", text, err}
		}
		for _, internal := range addrs {
			if internal.Is4() == external.Is4() {
				nats = append(nats, v3.IPNAT{InternalIP: internal.String(), ExternalIP: external.String()})
				break
			}
		}
	}
	return nats, nil
}

// sourcePrefixes returns the prefixes that a pod asks to send from. Whether it may is the agent's setting.
func sourcePrefixes(pod *corev1.Pod) ([]string, error) {
	texts, err := listIn(pod, annotationSources)
	var prefixes []string
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, &Error{"metadata.annotations[" + annotationSources + "]", text, err}
		}
		prefixes = append(prefixes, p.Masked().String())
	}
	return prefixes, err
}

// listIn returns the texts of an annotation that holds a JSON list of them.
func listIn(pod *corev1.Pod, key string) ([]string, error) {
	value := pod.Annotations[key]
	if value == "" {
		return nil, nil
	}
	var texts []string
	if err := json.Unmarshal([]byte(value), &texts); err != nil {
		return nil, &Error{"metadata.annotations[" + key + "]", value, fmt.Errorf("it is no JSON list of texts: %w", err)}
	}
	return texts, nil
}
