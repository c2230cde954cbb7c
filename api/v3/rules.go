package v3

// The functions of this file are the one place that knows which rules belong to which kind.

// Default completes an object that is to be created, as the store will hold it: policy types by the rules that are
// there, the tier, labels that follow from other fields; and it drops the metadata that no store of
// our own keeps. It is idempotent. The annotation with the name of a policy is not its business but Encode's.
func Default(r Resource) {
	dropMeta(r)
	switch r := r.(type) {
	case *Tier:
		defaultTier(r)
	case *GlobalNetworkPolicy:
		defaultPolicy(r, &r.Spec.PolicySpec)
	case *NetworkPolicy:
		defaultPolicy(r, &r.Spec)
	case *WorkloadEndpoint:
		defaultWorkloadEndpoint(r)
	case *FelixConfiguration:
		defaultFelixConfiguration(&r.Spec)
	case *StagedGlobalNetworkPolicy:
		defaultStaged(r, &r.Spec.StagedAction, &r.Spec.PolicySpec)
	case *StagedNetworkPolicy:
		defaultStaged(r, &r.Spec.StagedAction, &r.Spec.PolicySpec)
	case *StagedKubernetesNetworkPolicy:
		defaultStagedKubernetes(r)
	case *KubeControllersConfiguration:
		defaultTags(&r.Spec)
		defaultRunning(r.Status.RunningConfig)
	case *IPPool:
		defaultIPPool(r)
	case *IPAMConfiguration:
		defaultTags(&r.Spec)
	case *BGPConfiguration:
		defaultTags(&r.Spec)
	}
}

// DefaultUpdate completes an object that replaces a stored one. It does what Default does: policy types that are there,
// because the object was read or patched, stay as they were computed at create, whatever its rules are now; a manifest
// without types gets them by its rules, and never those of the object that it replaces.
func DefaultUpdate(r Resource) { Default(r) }

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
	case *Node:
		validateNode(c, r)
	case *FelixConfiguration:
		validateFelixConfiguration(c, r)
	default:
		validateUnused(c, r)
	}
	return c.errs.orNil()
}

// validateUnused checks the kinds that no agent of ours acts on.
func validateUnused(c *check, r Resource) {
	switch r := r.(type) {
	case *StagedGlobalNetworkPolicy:
		validateStagedGlobalNetworkPolicy(c, r)
	case *StagedNetworkPolicy:
		validateStagedNetworkPolicy(c, r)
	case *StagedKubernetesNetworkPolicy:
		validateStagedKubernetes(c, r)
	case *KubeControllersConfiguration:
		validateKubeControllersConfiguration(c, r)
	case *CalicoNodeStatus:
		validateCalicoNodeStatus(c, r)
	case *IPPool:
		validateIPPool(c, r)
	case *IPReservation:
		checkTags(c, "spec", &r.Spec)
	case *IPAMConfiguration:
		validateIPAMConfiguration(c, r)
	case *BGPConfiguration:
		validateBGPConfiguration(c, r)
	case *BGPFilter:
		validateBGPFilter(c, r)
	case *BGPPeer:
		validateBGPPeer(c, r)
	}
}

// ValidateChange checks what may not differ between an object and the stored one that it replaces, beside what Validate
// checks. The error is of type [Errors].
func ValidateChange(stored, r Resource) error {
	c := &check{key: KeyOf(r)}
	if old, ok := stored.(*IPPool); ok {
		checkPoolChange(c, old, r.(*IPPool))
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
		storedPolicy(c, r, &r.Spec.PolicySpec)
		checkStoredSelector(c, "spec.namespaceSelector", r.Spec.NamespaceSelector)
	case *NetworkPolicy:
		storedPolicy(c, r, &r.Spec)
	case *HostEndpoint:
		storedHostEndpoint(c, r)
	case *WorkloadEndpoint:
		storedWorkloadEndpoint(c, r)
	case *GlobalNetworkSet:
		checkNets(c, "spec.nets", r.Spec.Nets)
	case *NetworkSet:
		checkNets(c, "spec.nets", r.Spec.Nets)
	case *Profile:
		storedRules(c, r.Spec.Ingress, r.Spec.Egress)
	case *StagedGlobalNetworkPolicy:
		storedStaged(c, r, &r.Spec.StagedAction, &r.Spec.PolicySpec)
		checkStoredSelector(c, "spec.namespaceSelector", r.Spec.NamespaceSelector)
	case *StagedNetworkPolicy:
		storedStaged(c, r, &r.Spec.StagedAction, &r.Spec.PolicySpec)
	case *IPPool:
		defaultIPPool(r)
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
	case *FelixConfiguration:
		return warnFelixConfiguration(r)
	case *KubeControllersConfiguration:
		return warnKubeControllersConfiguration(r)
	}
	return nil
}
