package controllers

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	v3 "margay/api/v3"
	"margay/store"
)

// A nodeController, for etcd, gives the Nodes of the datastore the labels and addresses that Kubernetes has for them, and
// deletes a Node, and with it all that the store deletes with a Node, when Kubernetes has deleted its own. A Node is
// Kubernetes' when it says so (orchRefs). One that does not, but has the name of one of Kubernetes', is from then on;
// nothing is done about others.
type nodeController struct {
	syncLabels bool
	// known has, by the name of a node of Kubernetes, the Nodes that say they are it.
	known map[string]map[string]bool
}

func newNodeController(syncLabels bool) *nodeController {
	return &nodeController{syncLabels: syncLabels, known: map[string]map[string]bool{}}
}

func (c *nodeController) name() string { return "node" }

func (c *nodeController) kinds(side) []v3.Kind { return []v3.Kind{v3.KindNode} }

func (c *nodeController) touched(s side, key v3.Key, before, after v3.Resource) []v3.Key {
	if key.Kind != v3.KindNode {
		return nil
	}
	units := []v3.Key{key}
	if s == source {
		for name := range c.known[key.Name] {
			if name != key.Name {
				units = append(units, v3.Key{Kind: v3.KindNode, Name: name})
			}
		}
		return units
	}
	if old, ok := before.(*v3.Node); ok {
		delete(c.known[kubernetesName(old)], key.Name)
	}
	if now, ok := after.(*v3.Node); ok {
		name := kubernetesName(now)
		if c.known[name] == nil {
			c.known[name] = map[string]bool{}
		}
		c.known[name][key.Name] = true
	}
	return units
}

// kubernetesName returns what Kubernetes calls the node, "" if it is not Kubernetes'.
func kubernetesName(n *v3.Node) string {
	for _, ref := range n.Spec.OrchRefs {
		if ref.Orchestrator == v3.OrchestratorKubernetes {
			return ref.NodeName
		}
	}
	return ""
}

func (c *nodeController) plan(v *view, key v3.Key) ([]step, error) {
	have, _ := v.get(target, key).(*v3.Node)
	if have == nil {
		return nil, nil // agents register themselves
	}
	name := kubernetesName(have)
	from := v3.Key{Kind: v3.KindNode, Name: name}
	if name == "" {
		from.Name = have.Name
	}
	if v.unreadable(source, from) {
		return nil, nil
	}
	node, _ := v.get(source, from).(*v3.Node)
	switch {
	case node == nil && name == "":
		return nil, nil
	case node == nil:
		return sinceGone([]step{remove(key, have.ResourceVersion)}, source, from), nil
	}
	want, err := c.merged(have, node)
	if err != nil || same(content(want), content(have)) {
		return nil, err
	}
	return []step{{Write: store.Write{Op: store.Update, Resource: want}}}, nil
}

// merged returns the Node with what Kubernetes has for it.
func (c *nodeController) merged(have, node *v3.Node) (*v3.Node, error) {
	want := *have
	if kubernetesName(have) == "" {
		want.Spec.OrchRefs = append(slices.Clone(have.Spec.OrchRefs), v3.OrchRef{NodeName: node.Name, Orchestrator: v3.OrchestratorKubernetes})
	}
	want.Spec.Addresses = slices.DeleteFunc(slices.Clone(have.Spec.Addresses), fromKubernetes)
	for _, a := range node.Spec.Addresses {
		if fromKubernetes(a) {
			want.Spec.Addresses = append(want.Spec.Addresses, a)
		}
	}
	if !c.syncLabels {
		return &want, nil
	}
	before, err := kubeLabels(have)
	if err != nil {
		return nil, err
	}
	now, err := kubeLabels(node)
	if err != nil {
		return nil, err
	}
	want.Labels = maps.Clone(have.Labels)
	maps.DeleteFunc(want.Labels, func(label, _ string) bool { _, was := before[label]; return was })
	if want.Labels == nil {
		want.Labels = map[string]string{}
	}
	maps.Copy(want.Labels, now)
	want.Annotations = maps.Clone(have.Annotations)
	if want.Annotations == nil {
		want.Annotations = map[string]string{}
	}
	text, err := json.Marshal(now)
	want.Annotations[v3.AnnotationKubeLabels] = string(text)
	return &want, err
}

// fromKubernetes reports whether an address is one that Kubernetes tells, as agents tell CalicoNodeIP.
func fromKubernetes(a v3.NodeAddress) bool { return a.Type == "InternalIP" || a.Type == "ExternalIP" }

// kubeLabels returns which labels of a Node came from Kubernetes.
func kubeLabels(n *v3.Node) (map[string]string, error) {
	labels := map[string]string{}
	text := n.Annotations[v3.AnnotationKubeLabels]
	if text == "" {
		return labels, nil
	}
	if err := json.Unmarshal([]byte(text), &labels); err != nil {
		return nil, fmt.Errorf("read annotation %s of Node %s: %w (remove it: the labels it names are then the Node's own)", v3.AnnotationKubeLabels, n.Name, err)
	}
	return labels, nil
}
