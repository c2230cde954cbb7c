package v3

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The forms of the texts of a condition, and their limits (the schema of Kubernetes' own type).
var (
	conditionType   = lazily(`^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$`)
	conditionReason = lazily(`^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$`)
)

const (
	maxConditionType    = 316
	maxConditionReason  = 1024
	maxConditionMessage = 32768
)

// checkConditions checks the conditions of a status, which controllers write and manifests may carry along.
func checkConditions(c *check, path string, conditions []metav1.Condition) {
	for i, cond := range conditions {
		at := index(path, i)
		if !conditionType.MatchString(cond.Type) || len(cond.Type) > maxConditionType {
			c.fail(at+".type", cond.Type, "type of a condition must be a word like Ready", "")
		}
		switch cond.Status {
		case metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionUnknown:
		default:
			c.fail(at+".status", string(cond.Status), "must be one of True, False, Unknown", "")
		}
		if cond.LastTransitionTime.IsZero() {
			c.fail(at+".lastTransitionTime", nil, "field should be assigned", "")
		}
		if !conditionReason.MatchString(cond.Reason) || len(cond.Reason) > maxConditionReason {
			c.fail(at+".reason", cond.Reason, "reason of a condition must be a word like NotReady", "")
		}
		if len(cond.Message) > maxConditionMessage {
			c.fail(at+".message", nil, fmt.Sprintf("message has more than %d characters", maxConditionMessage), "")
		}
		if cond.ObservedGeneration < 0 {
			c.fail(at+".observedGeneration", cond.ObservedGeneration, "number must not be negative", "")
		}
	}
}
