package v3

import (
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What a staged policy would do to the enforced policy of its name. Learn and Ignore are accepted and mean
// nothing.
const (
	StagedSet    = "Set"    // put it there, or in its place; the default
	StagedDelete = "Delete" // take it away
	StagedLearn  = "Learn"
	StagedIgnore = "Ignore"
)

const stagedActions = "enum=" + StagedSet + "|" + StagedDelete + "|" + StagedLearn + "|" + StagedIgnore

// StagedGlobalNetworkPolicy is a GlobalNetworkPolicy that is never enforced: what would change if it were can be seen
// before.
type StagedGlobalNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              StagedGlobalNetworkPolicySpec `json:"spec"`
}

// StagedGlobalNetworkPolicySpec: with StagedDelete nothing but the tier is set, not even types.
type StagedGlobalNetworkPolicySpec struct {
	StagedAction            string `json:"stagedAction,omitempty" schema:"enum=Set|Delete|Learn|Ignore" default:"Set"`
	GlobalNetworkPolicySpec `json:",inline"`
}

// StagedNetworkPolicy is a NetworkPolicy that is never enforced.
type StagedNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              StagedNetworkPolicySpec `json:"spec"`
}

// StagedNetworkPolicySpec: with StagedDelete nothing but the tier is set, not even types.
type StagedNetworkPolicySpec struct {
	StagedAction string `json:"stagedAction,omitempty" schema:"enum=Set|Delete|Learn|Ignore" default:"Set"`
	PolicySpec   `json:",inline"`
}

// defaultStaged sets what defaultPolicy does, and the action. The deletion of a policy has no types.
func defaultStaged(r Resource, action *string, spec *PolicySpec) {
	defaultPolicy(r, spec)
	completeStaged(action, spec)
}

func completeStaged(action *string, spec *PolicySpec) {
	if *action == "" {
		*action = StagedSet
	}
	if *action == StagedDelete {
		spec.Types = nil
	}
}

func validateStagedGlobalNetworkPolicy(c *check, p *StagedGlobalNetworkPolicy) {
	spec := &p.Spec
	taggedText(c, "spec.stagedAction", spec.StagedAction, tagRules(stagedActions))
	if spec.StagedAction == StagedDelete {
		checkOptionalName(c, "spec.tier", spec.Tier)
		refuseFields(c, reflect.ValueOf(spec.GlobalNetworkPolicySpec), "tier")
		return
	}
	validateGlobalNetworkPolicy(c, &GlobalNetworkPolicy{ObjectMeta: p.ObjectMeta, Spec: spec.GlobalNetworkPolicySpec})
}

func validateStagedNetworkPolicy(c *check, p *StagedNetworkPolicy) {
	spec := &p.Spec
	taggedText(c, "spec.stagedAction", spec.StagedAction, tagRules(stagedActions))
	if spec.StagedAction == StagedDelete {
		checkOptionalName(c, "spec.tier", spec.Tier)
		refuseFields(c, reflect.ValueOf(spec.PolicySpec), "tier")
		return
	}
	validateNetworkPolicy(c, &NetworkPolicy{ObjectMeta: p.ObjectMeta, Spec: spec.PolicySpec})
}

// refuseFields refuses the fields of a spec that hold something, apart from one: the deletion of a policy says nothing
// about what the policy does.
func refuseFields(c *check, spec reflect.Value, apart string) {
	reason := "Spec fields should all be zero-value if stagedAction is Delete"
	if apart == "tier" {
		reason = "Spec fields, except Tier, should all be zero-value if stagedAction is Delete"
	}
	for i := range spec.NumField() {
		field, value := spec.Type().Field(i), spec.Field(i)
		name := jsonName(field)
		switch empty := value.IsZero() || value.Kind() == reflect.Slice && value.Len() == 0; {
		case field.Anonymous:
			refuseFields(c, value, apart)
		case !empty && name != apart:
			c.fail("spec."+name, nil, reason, "remove it")
		}
	}
}

// storedStaged completes and checks a staged policy as it was read from the store.
func storedStaged(c *check, r Resource, action *string, spec *PolicySpec) {
	given := spec.Types
	storedPolicy(c, r, spec)
	if completeStaged(action, spec); *action == StagedDelete {
		spec.Types = given
	}
}
