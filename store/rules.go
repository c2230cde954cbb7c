package store

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v3 "margay/api/v3"
)

// The functions of this file are the rules about writing that every implementation keeps, apart from how it stores.

// PrepareCreate returns what Create stores for r: a copy with defaults, a fresh uid and now as creationTimestamp. It
// refuses what does not validate and what nobody may create.
func PrepareCreate(r v3.Resource, now time.Time) (v3.Resource, error) {
	key := v3.KeyOf(r)
	if err := checkBuiltIn("create", key); err != nil {
		return nil, err
	}
	if r.GetResourceVersion() != "" {
		return nil, badField(r, "resourceVersion", r.GetResourceVersion(), "field must not be set for a Create request")
	}
	c, err := clone(r)
	if err != nil {
		return nil, err
	}
	v3.Default(c)
	return identified(c, identity{}, now)
}

// PrepareUpdate returns what Update stores for r in place of the stored value: a copy with defaults that keeps uid and
// creationTimestamp of the old one. It refuses what does not validate and what nobody may update.
func PrepareUpdate(r v3.Resource, stored []byte, now time.Time) (v3.Resource, error) {
	if err := checkBuiltIn("update", v3.KeyOf(r)); err != nil {
		return nil, err
	}
	c, err := clone(r)
	if err != nil {
		return nil, err
	}
	v3.DefaultUpdate(c)
	if c, err = identified(c, identityOf(stored), now); err != nil {
		return nil, err
	}
	// What cannot be read is replaced by whatever is valid.
	if old, err := v3.DecodeStored(v3.KeyOf(r).Kind, stored); err == nil {
		if err := v3.ValidateChange(old, c); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// CheckUpdate refuses an update that names no revision, or an object that nobody may update.
func CheckUpdate(r v3.Resource) error {
	if r.GetResourceVersion() == "" {
		return badField(r, "resourceVersion", "", "field must be set for an Update request")
	}
	return checkBuiltIn("update", v3.KeyOf(r))
}

// CheckDelete refuses to delete what is built in.
func CheckDelete(key v3.Key) error {
	if key.Kind == v3.KindTier && isBuiltInTier(key.Name) {
		return &UnsupportedError{"delete", key, fmt.Sprintf("Cannot delete %s tier", key.Name)}
	}
	return checkBuiltIn("delete", key)
}

// TierKey returns the tier that a policy needs; false for other kinds.
func TierKey(r v3.Resource) (v3.Key, bool) {
	tier := ""
	switch r := r.(type) {
	case *v3.GlobalNetworkPolicy:
		tier = r.Spec.Tier
	case *v3.NetworkPolicy:
		tier = r.Spec.Tier
	case *v3.StagedGlobalNetworkPolicy:
		tier = r.Spec.Tier
	case *v3.StagedNetworkPolicy:
		tier = r.Spec.Tier
	default:
		return v3.Key{}, false
	}
	if tier == "" {
		tier = v3.DefaultTier
	}
	return v3.Key{Kind: v3.KindTier, Name: tier}, true
}

// Needs returns what must exist for r to be written: the tier of a policy, the filters of a BGPPeer.
func Needs(r v3.Resource) []v3.Key {
	if tier, ok := TierKey(r); ok {
		return []v3.Key{tier}
	}
	var needs []v3.Key
	if peer, ok := r.(*v3.BGPPeer); ok {
		for _, name := range peer.Spec.Filters {
			needs = append(needs, v3.Key{Kind: v3.KindBGPFilter, Name: name})
		}
	}
	return needs
}

// PoolOverlap is the refusal to create an IPPool that has addresses in common with another.
func PoolOverlap(pool, other *v3.IPPool) error {
	return v3.Errors{{
		Key: v3.KeyOf(pool), Path: "spec.cidr", Value: fmt.Sprintf("%q", pool.Spec.CIDR),
		Reason: fmt.Sprintf("IPPool(%s) CIDR overlaps with IPPool(%s) CIDR %s", pool.Name, other.Name, other.Spec.CIDR),
	}}
}

// PolicyPlurals are the kinds, by their plural, that keep a tier from being deleted.
func PolicyPlurals() []string {
	return []string{"globalnetworkpolicies", "networkpolicies", "stagedglobalnetworkpolicies", "stagednetworkpolicies"}
}

// TierNotEmpty is the refusal to delete a tier that has policies. policy is one of them, as people know it.
func TierNotEmpty(tier v3.Key, policy string) error {
	return &UnsupportedError{"delete", tier, fmt.Sprintf("Cannot delete a non-empty tier (%s is in it)", policy)}
}

// NodeKinds are the kinds of which a Node's objects go with it.
func NodeKinds() []v3.Kind {
	return []v3.Kind{
		v3.KindWorkloadEndpoint, v3.KindHostEndpoint, v3.KindFelixConfiguration, v3.KindBGPConfiguration, v3.KindBGPPeer,
	}
}

// OfNode reports whether an object of NodeKinds goes with the node.
func OfNode(node string, key v3.Key, stored []byte) bool {
	if key.Kind == v3.KindFelixConfiguration || key.Kind == v3.KindBGPConfiguration {
		return key.Name == "node."+node
	}
	spec, ok := readSpec(stored)
	return ok && spec.Node == node
}

// InTier reports whether a stored policy is in the tier. A value that cannot be read may be in any: the last version
// that could be read stays in force.
func InTier(tier string, stored []byte) bool {
	spec, ok := readSpec(stored)
	return !ok || spec.Tier == tier || spec.Tier == "" && tier == v3.DefaultTier
}

// refs are the references in a spec that rules of deletion need.
type refs struct {
	Tier string `json:"tier"`
	Node string `json:"node"`
}

func readSpec(stored []byte) (spec refs, ok bool) {
	var object struct {
		Spec refs `json:"spec"`
	}
	err := json.Unmarshal(stored, &object)
	return object.Spec, err == nil
}

// Initial returns what Initialise creates, in this order: the tiers before the object that says the store is ready.
func Initial() ([]v3.Resource, error) {
	guid := make([]byte, 16)
	if _, err := rand.Read(guid); err != nil {
		return nil, fmt.Errorf("make a cluster GUID: %w", err)
	}
	ready := true
	info := &v3.ClusterInformation{
		TypeMeta:   metav1.TypeMeta{Kind: string(v3.KindClusterInformation), APIVersion: v3.APIVersion},
		ObjectMeta: metav1.ObjectMeta{Name: v3.ClusterInformationName},
	}
	info.Spec.ClusterGUID = hex.EncodeToString(guid)
	info.Spec.DatastoreReady = &ready
	return []v3.Resource{
		tier(v3.DefaultTier, v3.OrderDefaultTier, v3.ActionDeny),
		tier(v3.TierKubeAdmin, v3.OrderKubeAdmin, v3.ActionPass),
		tier(v3.TierKubeBaseline, v3.OrderKubeBaseline, v3.ActionPass),
		info,
	}, nil
}

func tier(name string, order float64, action string) *v3.Tier {
	return &v3.Tier{
		TypeMeta:   metav1.TypeMeta{Kind: string(v3.KindTier), APIVersion: v3.APIVersion},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v3.TierSpec{Order: &order, DefaultAction: action},
	}
}

// DefaultAllowProfile returns the profile that exists without being stored: Get and List return it, it cannot be
// written, and it has no revision.
func DefaultAllowProfile() *v3.Profile {
	return &v3.Profile{
		TypeMeta:   metav1.TypeMeta{Kind: string(v3.KindProfile), APIVersion: v3.APIVersion},
		ObjectMeta: metav1.ObjectMeta{Name: v3.ProfileDefaultAllow},
		Spec:       v3.ProfileSpec{Ingress: []v3.Rule{{Action: v3.ActionAllow}}, Egress: []v3.Rule{{Action: v3.ActionAllow}}},
	}
}

func isBuiltInTier(name string) bool {
	return name == v3.DefaultTier || name == v3.TierKubeAdmin || name == v3.TierKubeBaseline
}

// checkBuiltIn refuses to write the profile that exists without being stored.
func checkBuiltIn(op string, key v3.Key) error {
	if key.Kind == v3.KindProfile && key.Name == v3.ProfileDefaultAllow {
		return &UnsupportedError{op, key, "the profile is built in"}
	}
	return nil
}

// An identity is the part of metadata that outlives updates.
type identity struct {
	UID     types.UID
	Created metav1.Time
}

// identityOf reads the identity from a stored value, as much as can be read.
func identityOf(stored []byte) identity {
	var object struct {
		Metadata struct {
			UID     types.UID       `json:"uid"`
			Created json.RawMessage `json:"creationTimestamp"`
		} `json:"metadata"`
	}
	var id identity
	if json.Unmarshal(stored, &object) == nil {
		id.UID = object.Metadata.UID
		if json.Unmarshal(object.Metadata.Created, &id.Created) != nil {
			id.Created = metav1.Time{}
		}
	}
	return id
}

// identified sets the identity, new where there is none, and validates.
func identified(r v3.Resource, id identity, now time.Time) (v3.Resource, error) {
	if id.UID == "" {
		id.UID = types.UID(uuid.NewString())
	}
	if id.Created.IsZero() {
		id.Created = metav1.NewTime(now.UTC().Truncate(time.Second))
	}
	r.SetUID(id.UID)
	r.SetCreationTimestamp(id.Created)
	r.SetResourceVersion("")
	if err := v3.Validate(r); err != nil {
		return nil, err
	}
	return r, nil
}

// clone returns a copy that shares nothing with r.
func clone(r v3.Resource) (v3.Resource, error) {
	key := v3.KeyOf(r)
	info, ok := v3.Lookup(key.Kind)
	if !ok {
		return nil, fmt.Errorf("copy %s: resource type %q is not supported", key, key.Kind)
	}
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("copy %s: %w", key, err)
	}
	c := info.New()
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("copy %s: %w", key, err)
	}
	return c, nil
}

// badField is the error of a field of metadata that must (not) be there.
func badField(r v3.Resource, field, value, reason string) error {
	if value != "" {
		value = fmt.Sprintf("%q", value)
	}
	return v3.Errors{{Key: v3.KeyOf(r), Path: "metadata." + field, Value: value, Reason: reason}}
}
