// Package calc computes what one host must enforce from the stored resources and the host's interfaces, incrementally.
//
// It is a value machine: no I/O, no clock, no goroutine, no logging. What it has told by Flush adds up to a Program that
// depends on the current resources, interfaces and settings only, never on the order in which they came. Update,
// SetInterface and their like only take note; Flush does the work, in the order of the graph:
//
//	Tier, policies ────────────► policies ──selectors──► policy index ◄──labels── endpoints of this node, hosts' and
//	(staged ones: staged.go)        │                        │                    workloads'
//	                                │                        ▼                        │ ◄── interfaces, settings
//	                                │              which policy on which endpoint     ▼
//	                                │                        │                  which interface (interfaces.go, ways.go)
//	                                │                        ├───────────► Delta.Endpoints, Delta.Workloads: tiers and
//	                                │                        │             policies in order, by stage (walks.go)
//	                                ▼                        ▼
//	Profile ──► profiles ──► active policies and profiles ──► rules (rules.go) ──► Delta.Policies, Delta.Profiles
//	                │                                           │
//	                │ labels                                    │ selectors, named ports
//	                ▼                                           ▼
//	WorkloadEndpoint, HostEndpoint, NetworkSet ──labels──► set index ──► members by owner (sets.go) ──► Delta.Sets
//	ServiceEndpoints ──► services (parts.go) ────────────────────────► members (services.go) ──┘
//
// The set index leads from an object whose labels changed to the selectors that can match it (labels.go); for a selector
// that is new, holders and givers lead to the objects that it can match (candidates.go).
//
// An object that is marked is looked at again; what it compiles to is compared with what was told last, so that a Delta
// holds only what is different.
package calc

import (
	"net/netip"
	"reflect"
	"slices"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// A Calc holds the state. It is not safe for concurrent use.
type Calc struct {
	node string

	settings, toldSettings ruleset.Settings

	profiles map[string]*profile
	items    map[v3.Key]*item
	tiers    map[string]*v3.TierSpec
	policies map[ruleset.PolicyID]*policy
	locals   map[v3.Key]*endpoint // endpoints of this node
	// endpoints counts those of all nodes.
	endpoints int
	sets      map[ruleset.SetID]*set
	ifaces    map[string][]netip.Addr
	ways      map[netip.Addr]Way
	hosts     map[string][]netip.Addr // addresses of Nodes
	services  map[serviceKey][]ServiceEndpoint
	parts     parts
	// hidden are the interfaces of this host that are not in ifaces.
	hidden      []string
	serviceNets []netip.Prefix // of BGPConfiguration default
	// What only warnings need: see warnings_guide.go and warnings_kube.go.
	hostPods    []v3.HostPod
	natPools    map[string]netip.Prefix // IPPools with natOutgoing
	sparesHosts bool                    // natOutgoingExclusions is IPPoolsAndHostIPs

	toldEndpoints map[v3.Key]*ruleset.Endpoint
	toldWorkloads map[v3.Key]*ruleset.Workload

	policyIndex *index[*policy]
	setIndex    *index[*set]
	holders     holders
	givers      givers
	marks       uint64 // the last mark of markGivers
	parsed      parsed // selectors of rules, during a Flush

	// What Flush has to look at again.
	touched         map[v3.Key]*item // what items were when last matched against the set index; nil: new
	changedProfiles map[*profile]struct{}
	changedPolicies map[*policy]struct{} // the resource changed
	stalePolicies   map[*policy]struct{} // the resource or the endpoints that it matches changed
	relabelled      map[*endpoint]struct{}
	staleEndpoints  map[v3.Key]struct{}              // by key: they come and go
	unresolved      bool                             // interfaces may belong to other endpoints than before
	changedServices map[serviceKey][]ServiceEndpoint // what they were at the last Flush
	newSets         map[*set]struct{}
	unusedSets      map[*set]struct{}
	changedSets     map[*set]struct{}
}

// New returns a Calc for the node with this name, which filters nothing yet.
func New(node string) *Calc {
	c := &Calc{
		node: node, profiles: map[string]*profile{}, items: map[v3.Key]*item{}, tiers: map[string]*v3.TierSpec{},
		policies: map[ruleset.PolicyID]*policy{}, locals: map[v3.Key]*endpoint{}, sets: map[ruleset.SetID]*set{},
		ifaces: map[string][]netip.Addr{}, hosts: map[string][]netip.Addr{},
		policyIndex: newIndex[*policy](), setIndex: newIndex[*set](), holders: holders{}, givers: givers{},
		touched: map[v3.Key]*item{}, toldEndpoints: map[v3.Key]*ruleset.Endpoint{}, toldWorkloads: map[v3.Key]*ruleset.Workload{},
		services: map[serviceKey][]ServiceEndpoint{}, changedServices: map[serviceKey][]ServiceEndpoint{},
		natPools: map[string]netip.Prefix{},
	}
	c.parts = parts{map[serviceKey]map[v3.Key]*v3.ServiceEndpoints{}, map[v3.Key]serviceKey{}}
	c.changedProfiles, c.changedPolicies = map[*profile]struct{}{}, map[*policy]struct{}{}
	c.stalePolicies, c.relabelled = map[*policy]struct{}{}, map[*endpoint]struct{}{}
	c.staleEndpoints, c.newSets = map[v3.Key]struct{}{}, map[*set]struct{}{}
	c.unusedSets, c.changedSets = map[*set]struct{}{}, map[*set]struct{}{}
	return c
}

// Update takes note of the current value of a resource; nil: it was deleted. Kinds that this package does not know are
// ignored. The resource must not be changed afterwards.
func (c *Calc) Update(key v3.Key, r v3.Resource) {
	switch key.Kind {
	case v3.KindTier:
		c.updateTier(key.Name, r)
	case v3.KindGlobalNetworkPolicy, v3.KindNetworkPolicy, v3.KindStagedGlobalNetworkPolicy, v3.KindStagedNetworkPolicy,
		v3.KindStagedKubernetesNetworkPolicy:
		c.updatePolicy(key, r)
	case v3.KindProfile:
		c.updateProfile(key.Name, r)
	case v3.KindHostEndpoint, v3.KindWorkloadEndpoint:
		if c.items[key] != nil {
			c.endpoints--
		}
		if r != nil {
			c.endpoints++
		}
		c.updateItem(key, r)
		c.updateEndpoint(key, r)
	case v3.KindGlobalNetworkSet, v3.KindNetworkSet:
		c.updateItem(key, r)
	case v3.KindNode:
		c.updateHost(key.Name, r)
	case v3.KindServiceEndpoints:
		c.updatePart(key, r)
	case v3.KindIPPool:
		c.updatePool(key.Name, r)
	case v3.KindFelixConfiguration:
		c.updateExclusions(key.Name, r)
	case v3.KindBGPConfiguration:
		c.updateServiceNets(key.Name, r)
	}
}

// SetInterface takes note that an interface exists and has these addresses.
func (c *Calc) SetInterface(name string, addrs []netip.Addr) {
	plain := make([]netip.Addr, len(addrs))
	for i, a := range addrs {
		plain[i] = a.Unmap().WithZone("")
	}
	c.ifaces[name] = plain
	c.unresolved = true
}

// RemoveInterface takes note that an interface is gone.
func (c *Calc) RemoveInterface(name string) {
	delete(c.ifaces, name)
	c.unresolved = true
}

// SetSettings takes note of the host's settings. The slices in s must not be changed afterwards. What is not known to who has the
// parameters is added: IPVS, and ServiceNets, unless they are nil.
func (c *Calc) SetSettings(s ruleset.Settings) {
	c.unresolved = c.unresolved || !slices.Equal(s.WorkloadPrefixes, c.settings.WorkloadPrefixes)
	c.settings = s
}

// Flush returns what changed since the last Flush: applied to the Program of then, it gives the one of now. It never
// returns nil. New sets in it belong to the caller, everything else is shared and must not be changed.
func (c *Calc) Flush() *ruleset.Delta {
	d := &ruleset.Delta{
		Endpoints: map[ruleset.EndpointID]*ruleset.Endpoint{}, Workloads: map[ruleset.EndpointID]*ruleset.Workload{}, Policies: map[ruleset.PolicyID]*ruleset.Policy{},
		Profiles: map[string]*ruleset.Profile{}, Sets: map[ruleset.SetID]*ruleset.SetDelta{},
	}
	c.parsed = parsed{}
	defer func() { c.parsed = nil }()
	c.flushSettings(d)
	c.inheritLabels()
	c.matchChangedPolicies()
	c.matchRelabelledEndpoints()
	c.resolveInterfaces()
	c.flushEndpoints(d)
	c.flushPolicies(d)
	c.flushProfiles(d)
	c.flushSets(d)
	return d
}

// flushSettings tells the settings. As long as the datastore has no endpoint at all, no interface counts as an unknown
// workload's, nothing as a tunnel and no address as a service's: whoever starts Margay beside something that owns such interfaces
// loses nothing by it.
func (c *Calc) flushSettings(d *ruleset.Delta) {
	told := c.settings
	if c.endpoints == 0 {
		told.WorkloadPrefixes, told.Tunnels, told.ClosePorts, told.ServiceNets = nil, nil, false, nil
	}
	if told.ServiceNets != nil {
		told.ServiceNets = c.serviceNets
	}
	told.RejectLoops = told.RejectLoops && told.ServiceNets != nil
	told.IPVS = c.endpoints > 0 && c.balances()
	c.keepHosts(len(told.Tunnels) > 0)
	if !reflect.DeepEqual(told, c.toldSettings) {
		d.Settings, c.toldSettings = &told, told
	}
}

// drain calls f with every element of a set of marks and empties it.
func drain[T comparable](marks map[T]struct{}, f func(T)) {
	for m := range marks {
		f(m)
	}
	clear(marks)
}
