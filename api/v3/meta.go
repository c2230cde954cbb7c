package v3

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Labels and annotations that this package sets or refuses.
const (
	LabelTier         = "projectcalico.org/tier"
	LabelNamespace    = "projectcalico.org/namespace"
	LabelOrchestrator = "projectcalico.org/orchestrator"

	// annotationMetadata holds the real name of a policy in the store, as {"name": ...}.
	annotationMetadata = "projectcalico.org/metadata"
)

// The built-in tiers and the built-in profile.
const (
	TierKubeAdmin       = "kube-admin"
	TierKubeBaseline    = "kube-baseline"
	ProfileDefaultAllow = "projectcalico-default-allow"
)

// Sizes in bytes.
const (
	maxName        = 253
	maxLabelName   = 63
	maxAnnotations = 256 << 10
)

const (
	labelFormat     = `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
	subdomainFormat = labelFormat + `(\.` + labelFormat + `)*`
)

var (
	dnsLabel     = lazily(`^` + labelFormat + `$`)
	dnsSubdomain = lazily(`^` + subdomainFormat + `$`)
	// oneOrTwoLabels is the name of a global policy; namespaced ones may also be a Kubernetes or OpenStack policy.
	oneOrTwoLabels = lazily(`^` + labelFormat + `(\.` + labelFormat + `)?$`)
	reservedPolicy = lazily(`^(knp|ossg)\.default\.` + subdomainFormat + `$`)
	// labelNamePart is the name part of a label key, and a label's value if that is not empty.
	labelNamePart = lazily(`^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$`)
)

// dropMeta removes the metadata that only Kubernetes has a use for.
func dropMeta(r Resource) {
	if r.GetName() != "" { // else it is part of what is wrong
		r.SetGenerateName("")
	}
	r.SetSelfLink("")
	r.SetGeneration(0)
	r.SetDeletionTimestamp(nil)
	r.SetDeletionGracePeriodSeconds(nil)
	r.SetOwnerReferences(nil)
	r.SetFinalizers(nil)
	r.SetManagedFields(nil)
}

// validateMeta checks what all kinds have in common.
func validateMeta(c *check, r Resource) {
	info, known := Lookup(c.key.Kind)
	if !known || c.key.Kind == KindServiceEndpoints { // nobody writes those
		c.fail("kind", string(c.key.Kind), "kind is not known", "")
		return
	}
	validateName(c, r)
	switch namespace := r.GetNamespace(); {
	case info.Namespaced && namespace == "":
		c.fail("metadata.namespace", nil, "namespace is not specified on namespaced resource", "add metadata.namespace")
	case !info.Namespaced && namespace != "":
		c.fail("metadata.namespace", namespace, "namespace is specified on a resource of the whole cluster", "remove metadata.namespace")
	case info.Namespaced:
		checkName(c, "metadata.namespace", namespace)
	}
	validateAnnotations(c, "metadata.annotations", r.GetAnnotations())
	validateLabels(c, "metadata.labels", r.GetLabels())
}

func validateName(c *check, r Resource) {
	name := r.GetName()
	if name == "" {
		remedy := "add metadata.name"
		if r.GetGenerateName() != "" {
			remedy = "generateName is not supported, " + remedy
		}
		c.fail("metadata.name", nil, "name is not specified", remedy)
		return
	}
	limit := maxName
	if c.key.Kind == KindTier {
		limit = maxLabelName
	}
	if len(name) > limit {
		c.fail("metadata.name", name, fmt.Sprintf("name is too long by %d bytes", len(name)-limit), "")
	}
	format, what := nameFormat(c.key.Kind, name)
	if !format.MatchString(name) {
		c.fail("metadata.name", name, "name must consist of lower case alphanumeric characters"+what, nameRemedy(name, format))
	}
}

// nameFormat returns the form that the name of a kind has, and the end of the message that says so.
func nameFormat(kind Kind, name string) (*pattern, string) {
	switch kind {
	case KindTier:
		return dnsLabel, " or '-' (regex: " + labelFormat + ")"
	case KindGlobalNetworkPolicy, KindNetworkPolicy, KindStagedGlobalNetworkPolicy, KindStagedNetworkPolicy:
		if (kind == KindNetworkPolicy || kind == KindStagedNetworkPolicy) && reservedPolicy.MatchString(name) {
			return reservedPolicy, ""
		}
		return oneOrTwoLabels, " or '-' (regex: " + labelFormat + ")"
	}
	return dnsSubdomain, ", '-' or '.' (regex: " + subdomainFormat + ")"
}

// nameRemedy proposes the lower case form of a name, if that is all there is to do.
func nameRemedy(name string, format *pattern) string {
	if lower := strings.ToLower(strings.ReplaceAll(name, "_", "-")); format.MatchString(lower) {
		return "write " + lower
	}
	return ""
}

// checkName checks the name of another object: a node, a profile, a service account.
func checkName(c *check, path, name string) {
	switch {
	case len(name) > maxName:
		c.fail(path, name, fmt.Sprintf("name is too long by %d bytes", len(name)-maxName), "")
	case !dnsSubdomain.MatchString(name):
		c.fail(path, name, "name must consist of lower case alphanumeric characters, '-' or '.' (regex: "+subdomainFormat+")",
			nameRemedy(name, dnsSubdomain))
	}
}

func checkOptionalName(c *check, path, name string) {
	if name != "" {
		checkName(c, path, name)
	}
}

func validateAnnotations(c *check, path string, annotations map[string]string) {
	total := 0
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		checkLabelKey(c, path, strings.ToLower(key))
		total += len(key) + len(annotations[key])
	}
	if total > maxAnnotations {
		c.failf(path, nil, "total size of annotations is too large by %d bytes", total-maxAnnotations)
	}
}

// validateLabels checks labels as Kubernetes does.
func validateLabels(c *check, path string, labels map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		checkLabelKey(c, path, key)
		value, at := labels[key], path+"["+key+"]"
		switch {
		case len(value) > maxLabelName:
			c.failf(at, value, "label value is too long by %d bytes", len(value)-maxLabelName)
		case value != "" && !labelNamePart.MatchString(value):
			c.fail(at, value, "label value must consist of alphanumeric characters, '-', '_' or '.', and begin and end with an alphanumeric character", "")
		}
	}
}

// checkLabelKey checks a qualified name: an optional DNS name and "/", then the name part.
func checkLabelKey(c *check, path, key string) {
	prefix, name, slash := strings.Cut(key, "/")
	if !slash {
		prefix, name = "", key
	}
	at := path + "[" + key + "]"
	switch {
	case slash && (len(prefix) > maxName || !dnsSubdomain.MatchString(prefix)):
		c.fail(at, nil, "prefix part of the key must be a DNS name: lower case alphanumeric characters, '-' or '.'", "")
	case len(name) > maxLabelName:
		c.failf(at, nil, "name part of the key is too long by %d bytes", len(name)-maxLabelName)
	case !labelNamePart.MatchString(name):
		c.fail(at, nil, "name part of the key must consist of alphanumeric characters, '-', '_' or '.', and begin and end with an alphanumeric character", "")
	}
}
