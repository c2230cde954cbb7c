package convert

import (
	"crypto/sha1"
	"encoding/hex"
	"regexp"
	"strings"
)

var (
	notInNames = regexp.MustCompile(`[^-.a-z0-9]+`)
	dots       = regexp.MustCompile(`[.-]*[.][.-]*`)
)

// normal returns a name of the v1 API as a name of v3: in lower case, with dots for slashes and dashes for what else is
// not allowed.
func normal(name string) string {
	name = strings.ReplaceAll(strings.ToLower(name), "/", ".")
	name = notInNames.ReplaceAllString(name, "-")
	name = dots.ReplaceAllString(name, ".")
	return strings.Trim(name, ".-")
}

// qualified returns a normal name, with a part that tells it from other names of which the same became if it was changed.
func qualified(original, name string) string {
	if name == original {
		return name
	}
	sum := sha1.Sum([]byte(original))
	return name + "-" + hex.EncodeToString(sum[:])[:8]
}

// nameWithoutDots is for policies, in whose names a dot meant the tier.
func nameWithoutDots(name string) string {
	return qualified(name, strings.ReplaceAll(normal(name), ".", "-"))
}

// profileName returns the name of a profile. Those of namespaces have another prefix now.
func profileName(name string) string {
	if namespace, ok := strings.CutPrefix(name, "k8s_ns."); ok {
		name = "kns." + namespace
	}
	return qualified(name, normal(name))
}
