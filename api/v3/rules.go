package v3

// The functions of this file are the one place that knows which rules belong to which kind.

// Default completes an object as it is done when it is created: policy types by the rules that are there, the tier, the
// labels and annotations that the store adds (spec 1.3, 1.7, 1.9). It is idempotent.
func Default(r Resource) {
	defaultSpec(r)
	switch r := r.(type) {
	case *GlobalNetworkPolicy:
		defaultTypes(&r.Spec.PolicySpec)
	case *NetworkPolicy:
		defaultTypes(&r.Spec)
	}
}

// DefaultUpdate completes an object that replaces a stored one. Policy types are computed at create and never again: an
// update without types is stored without.
func DefaultUpdate(r Resource) { defaultSpec(r) }

// defaultSpec is what create and update have in common.
func defaultSpec(r Resource) {
	switch r := r.(type) {
	case *Tier:
		defaultTier(r)
	case *GlobalNetworkPolicy:
		defaultPolicy(r, &r.Spec.PolicySpec)
	case *NetworkPolicy:
		defaultPolicy(r, &r.Spec)
	case *WorkloadEndpoint:
		defaultWorkloadEndpoint(r)
	}
}

// Validate checks an object that is to be created or updated, after Default. The error is of type [Errors] and names
// all faults, with paths but without positions: see [Document.Locate].
func Validate(r Resource) error {
	c := &check{key: KeyOf(r)}
	validateMeta(c, r)
	switch r := r.(type) {
	case *Tier:
		validateTier(c, r)
	case *GlobalNetworkPolicy:
		validateGlobalNetworkPolicy(c, r)
	case *NetworkPolicy:
		validateNetworkPolicy(c, r)
	case *HostEndpoint:
		validateHostEndpoint(c, r)
	case *WorkloadEndpoint:
		validateWorkloadEndpoint(c, r)
	case *GlobalNetworkSet:
		validateNetworkSet(c, r.Labels, &r.Spec)
	case *NetworkSet:
		validateNetworkSet(c, r.Labels, &r.Spec)
	case *Profile:
		validateProfile(c, r)
	}
	return c.errs.orNil()
}

// validateStored checks of a stored object what calc needs in order to compile it: nothing else, because older and newer
// releases wrote and will write what Validate refuses.
func validateStored(c *check, r Resource) {
	switch r := r.(type) {
	case *Tier:
		storedTier(c, r)
	case *GlobalNetworkPolicy:
		storedPolicy(c, &r.Spec.PolicySpec)
		checkSelector(c, "spec.namespaceSelector", r.Spec.NamespaceSelector)
	case *NetworkPolicy:
		storedPolicy(c, &r.Spec)
	case *HostEndpoint:
		storedHostEndpoint(c, r)
	case *WorkloadEndpoint:
		storedWorkloadEndpoint(c, r)
	case *GlobalNetworkSet:
		checkSetNets(c, &r.Spec)
	case *NetworkSet:
		checkSetNets(c, &r.Spec)
	case *Profile:
		storedRules(c, r.Spec.Ingress, r.Spec.Egress)
	}
}

// Warnings tells what a valid object does that its author may not expect, each in one sentence with a remedy.
func Warnings(r Resource) []string {
	switch r := r.(type) {
	case *GlobalNetworkPolicy:
		return warnGlobalNetworkPolicy(r)
	case *NetworkPolicy:
		return warnNetworkPolicy(r)
	case *HostEndpoint:
		return warnHostEndpoint(r)
	}
	return nil
}
