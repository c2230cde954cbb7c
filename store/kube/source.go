package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
	"margay/store"
)

// A source is a resource type of the API server whose objects are resources of a kind, or are made into them.
type source struct {
	id         string // in revisions
	kind       v3.Kind
	group      string // "" is the core group: group/version otherwise
	plural     string
	namespaced bool
	query      url.Values // of lists and watches
	form       form
	served     bool
}

// form says what the objects are.
type form int

const (
	formV3      form = iota // a custom resource as projectcalico.org/v3 has it
	formV1                  // as crd.projectcalico.org/v1 has it
	formDerived             // an object of Kubernetes
)

const (
	groupCore       = "v1"
	groupNetworking = "networking.k8s.io/v1"
	groupDiscovery  = "discovery.k8s.io/v1"
	groupCluster    = "policy.networking.k8s.io/v1alpha2"
)

// The ids of what Kubernetes has.
const (
	idPods            = "pods"
	idNamespaces      = "namespaces"
	idAccounts        = "serviceaccounts"
	idNodes           = "nodes"
	idSlices          = "endpointslices"
	idPolicies        = "networkpolicies.networking.k8s.io"
	idClusterPolicies = "clusternetworkpolicies.policy.networking.k8s.io"
)

// derivedSources returns what Kubernetes has of a kind.
func derivedSources(kind v3.Kind) []*source {
	one := func(id, group, plural string, namespaced bool) *source {
		return &source{id: id, kind: kind, group: group, plural: plural, namespaced: namespaced, form: formDerived, served: true}
	}
	switch kind {
	case v3.KindWorkloadEndpoint:
		pods := one(idPods, groupCore, "pods", true)
		pods.query = url.Values{"fieldSelector": {"spec.nodeName!="}} // what is on no node yet is no endpoint
		return []*source{pods}
	case v3.KindProfile:
		return []*source{one(idNamespaces, groupCore, "namespaces", false), one(idAccounts, groupCore, "serviceaccounts", true)}
	case v3.KindNode:
		return []*source{one(idNodes, groupCore, "nodes", false)}
	case v3.KindServiceEndpoints:
		return []*source{one(idSlices, groupDiscovery, "endpointslices", true)}
	case v3.KindNetworkPolicy:
		return []*source{one(idPolicies, groupNetworking, "networkpolicies", true)}
	case v3.KindGlobalNetworkPolicy:
		return []*source{one(idClusterPolicies, groupCluster, "clusternetworkpolicies", false)}
	}
	return nil
}

// custom reports whether objects of a kind are custom resources: the others are Kubernetes' own.
func custom(kind v3.Kind) bool {
	switch kind {
	case v3.KindWorkloadEndpoint, v3.KindProfile, v3.KindNode, v3.KindServiceEndpoints:
		return false
	}
	return true
}

// path returns where the objects of a namespace are, of all if that is "", or one object.
func (s *source) path(namespace, name string) string {
	path := "/api/"
	if strings.Contains(s.group, "/") {
		path = "/apis/"
	}
	path += s.group
	if s.namespaced && namespace != "" {
		path += "/namespaces/" + namespace
	}
	path += "/" + s.plural
	if name != "" {
		path += "/" + name
	}
	return path
}

func (s *source) String() string { return s.plural + "." + s.group }

// A catalog is what the server serves.
type catalog struct {
	group  string // of custom resources
	served map[string]bool
	empty  bool // no custom resources at all: the cluster is not set up, or is of a program that keeps them elsewhere
	asked  time.Time
}

// staleCatalog is after what time a resource type that was not served is asked for again.
const staleCatalog = 20 * time.Second

// sources returns the sources of kinds, in the order of the kinds. A resource type that the server does not serve is one
// without objects; where it serves no custom resources at all, a kind that is nothing else is an error.
func (s *Store) sources(ctx context.Context, kinds []v3.Kind) ([]*source, error) {
	c, err := s.discover(ctx)
	if err != nil {
		return nil, err
	}
	var all []*source
	for _, kind := range kinds {
		info, ok := v3.Lookup(kind)
		if !ok {
			return nil, fmt.Errorf("resource type %q is not supported", kind)
		}
		derived := derivedSources(kind)
		if custom(kind) && c.empty && len(derived) == 0 {
			return nil, &store.Error{Err: store.ErrUnavailable, Cause: &noCRDs{c.group, s.client.base.Host}}
		}
		if custom(kind) {
			all = append(all, c.custom(info))
		}
		for _, d := range derived {
			if d.id == idClusterPolicies {
				d.served = c.served[idClusterPolicies]
			}
			all = append(all, d)
		}
	}
	return all, nil
}

// custom returns the source of the custom resources of a kind.
func (c *catalog) custom(info v3.Info) *source {
	src := &source{
		id: info.Plural, kind: info.Kind, group: c.group, plural: info.Plural, namespaced: info.Namespaced,
		served: c.served[info.Plural],
	}
	if c.group == GroupV1 {
		src.form = formV1
	}
	return src
}

// discover returns what the server serves, asked again when something was missing some time ago.
func (s *Store) discover(ctx context.Context) (*catalog, error) {
	s.mu.Lock()
	c := s.catalog
	s.mu.Unlock()
	if c != nil && (c.complete() || time.Since(c.asked) < staleCatalog) {
		return c, nil
	}
	c, err := s.ask(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.catalog = c
	s.mu.Unlock()
	return c, nil
}

// forget makes the next operation ask what the server serves.
func (s *Store) forget() {
	s.mu.Lock()
	s.catalog = nil
	s.mu.Unlock()
}

func (c *catalog) complete() bool {
	for _, info := range v3.Kinds() {
		if custom(info.Kind) && !c.served[info.Plural] {
			return false
		}
	}
	return c.served[idClusterPolicies]
}

// ask asks the server for its groups. Where it has both forms of the resources, those of v1 are what counts, as for
// every other program of the cluster.
func (s *Store) ask(ctx context.Context) (*catalog, error) {
	c := &catalog{group: s.cfg.Group, asked: time.Now()}
	plurals := map[string][]string{}
	for _, group := range []string{GroupV1, GroupV3, groupCluster} {
		if group != groupCluster && c.group != "" && group != c.group {
			continue
		}
		list, err := s.resources(ctx, group)
		if err != nil {
			return nil, s.fail(ctx, "find out about "+group+", needed for", v3.Key{}, err)
		}
		plurals[group] = list
	}
	if c.group == "" {
		c.group = GroupV3
		if len(plurals[GroupV1]) > 0 {
			c.group = GroupV1
		}
	}
	c.served = map[string]bool{}
	for _, plural := range plurals[c.group] {
		c.served[plural] = true
	}
	c.served[idClusterPolicies] = slices.Contains(plurals[groupCluster], "clusternetworkpolicies")
	c.empty = len(plurals[c.group]) == 0
	return c, nil
}

// noCRDs says that the cluster is not set up.
type noCRDs struct{ group, server string }

func (e *noCRDs) Error() string {
	return fmt.Sprintf("the cluster at %s has no resources of %s (install their CustomResourceDefinitions: kubectl apply --server-side -f install/crds)",
		e.server, e.group)
}

// resources returns the resource types of a group; none if the server does not have it.
func (s *Store) resources(ctx context.Context, group string) ([]string, error) {
	body, err := s.client.do(ctx, request{path: "/apis/" + group})
	if notFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("read the resource types of %s: %w", group, err)
	}
	var plurals []string
	for _, r := range list.APIResources {
		if !strings.Contains(r.Name, "/") {
			plurals = append(plurals, r.Name)
		}
	}
	return plurals, nil
}
