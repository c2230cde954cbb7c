package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindServiceEndpoints is the kind of [ServiceEndpoints].
const KindServiceEndpoints Kind = "ServiceEndpoints"

// ServiceEndpoints are some of the endpoints of a service, as one EndpointSlice of Kubernetes has them. They are made by the
// Kubernetes store, for agents: nobody writes them, and they are not among [Kinds]; [Lookup] knows them.
type ServiceEndpoints struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              ServiceEndpointsSpec `json:"spec"`
}

// ServiceEndpointsSpec: Service is the name of a service in the same namespace, "" for none.
type ServiceEndpointsSpec struct {
	Service   string            `json:"service,omitempty"`
	Endpoints []ServiceEndpoint `json:"endpoints,omitempty"`
}

// A ServiceEndpoint is an address that answers for a service, ready or not. Protocol is the IP protocol number. Port 0: the
// address has no port, so that it is a source that rules match, and no destination.
type ServiceEndpoint struct {
	Addr     string `json:"addr"`
	Protocol uint8  `json:"protocol,omitempty"`
	Port     uint16 `json:"port,omitempty"`
}

// internalKinds are kinds that no manifest has.
func internalKinds() []Info {
	return []Info{{KindServiceEndpoints, "serviceendpoints", true, func() Resource {
		return &ServiceEndpoints{TypeMeta: metav1.TypeMeta{Kind: string(KindServiceEndpoints), APIVersion: APIVersion}}
	}}}
}
