package v3

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// rulesOf returns the rules of an object by the key of spec that they are below; nil: its kind has none.
func rulesOf(r Resource) map[string][]Rule {
	if spec := policySpecOf(r); spec != nil {
		return map[string][]Rule{"ingress": spec.Ingress, "egress": spec.Egress}
	}
	if p, ok := r.(*Profile); ok {
		return map[string][]Rule{"ingress": p.Spec.Ingress, "egress": p.Spec.Egress}
	}
	return nil
}

// Bounds of what is named of one rule: one field is enough for it to be in doubt.
const (
	maxUnknown     = 5
	maxUnknownName = 100 // bytes
)

// MarkUnknown sets the field Unknown of the rules of r, which was decoded from the stored value. Without it an Allow rule
// that says more than this package knows would allow more than it says. What a rule has below metadata, and below http,
// which the kernel does not enforce, is no matter.
func MarkUnknown(r Resource, stored []byte) error {
	lists := rulesOf(r)
	if lists == nil {
		return nil
	}
	value, err := parseNumbers(stored)
	if err != nil {
		return fmt.Errorf("find unknown fields in rules of %s: %w", KeyOf(r), err)
	}
	f := finder{converter: newConverter("")}
	f.find(value, reflect.TypeOf(r), nil)
	for _, u := range f.found {
		if len(u.Path) < 4 || u.Path[0] != "spec" || u.Path[3] == "metadata" || u.Path[3] == "http" {
			continue
		}
		list := lists[u.Path[1]]
		if i, err := strconv.Atoi(u.Path[2]); err == nil && i < len(list) && len(list[i].Unknown) < maxUnknown {
			name := strings.Join(u.Path[3:], ".")
			list[i].Unknown = append(list[i].Unknown, strings.ToValidUTF8(name[:min(len(name), maxUnknownName)], ""))
			slices.Sort(list[i].Unknown)
		}
	}
	return f.err
}

// UnknownInRules returns what stands for the fields Unknown of the rules of r, without their values: who passes an encoded
// object on to an agent grafts it, so that the agent, too, knows that the rules are in doubt.
func UnknownInRules(r Resource) Unknown {
	var out Unknown
	lists := rulesOf(r)
	for _, direction := range []string{"ingress", "egress"} {
		for i := range lists[direction] {
			for _, name := range lists[direction][i].Unknown {
				out = append(out, UnknownField{[]string{"spec", direction, strconv.Itoa(i), name}, []byte("true")})
			}
		}
	}
	return out
}
