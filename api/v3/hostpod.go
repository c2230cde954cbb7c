package v3

// A HostPod is a pod on its node's own network. It is no endpoint, so that neither selectors nor policies see its labels; it
// is known only for people to be warned of that.
type HostPod struct {
	Namespace, Name, Node, ServiceAccount string
	Labels                                map[string]string
}

// String returns namespace/name.
func (p HostPod) String() string { return p.Namespace + "/" + p.Name }
