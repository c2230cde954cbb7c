// Package convert says what objects of Kubernetes are as resources of projectcalico.org/v3. It is pure:
// no client, no clock, no log. Objects that come in are not changed, and results share nothing with them that anybody
// changes.
//
//	Pod            --> WorkloadEndpoint   Namespace      --> Profile kns.NS
//	ServiceAccount --> Profile ksa.NS.SA  Node          <--> Node
//	NetworkPolicy  --> NetworkPolicy knp.default.NAME
//	ClusterNetworkPolicy --> GlobalNetworkPolicy kcnp.TIER.NAME
//	EndpointSlices --> endpoints of a service
//
// What cannot be converted allows nothing: a rule that is left out if it allows, one that denies everything if it denies.
package convert

import (
	"fmt"
	"math/bits"

	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v3 "margay/api/v3"
)

// UID returns the uid of what is made from an object with the uid given: the same for the same, never equal to it, and
// turned back by UID. Kubernetes' garbage collection takes two objects with one uid for the same. What is no UUID stays.
func UID(uid types.UID) types.UID {
	parsed, err := uuid.Parse(string(uid))
	if err != nil {
		return uid
	}
	for i := range parsed {
		if i != 6 && i != 8 { // version and variant (RFC 9562)
			parsed[i] = bits.Reverse8(parsed[i])
		}
	}
	return types.UID(parsed.String())
}

func typeMeta(kind v3.Kind) metav1.TypeMeta {
	return metav1.TypeMeta{Kind: string(kind), APIVersion: v3.APIVersion}
}

// derived returns the metadata of what is made from an object, without labels and annotations.
func derived(name string, from *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: name, Namespace: from.Namespace, UID: UID(from.UID),
		CreationTimestamp: from.CreationTimestamp, ResourceVersion: from.ResourceVersion,
	}
}

// An Error says which part of an object cannot be used.
type Error struct {
	Path, Value string
	Err         error
}

// Error names path, value and reason.
func (e *Error) Error() string { return fmt.Sprintf("%s: %.200q: %v", e.Path, e.Value, e.Err) }

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }
