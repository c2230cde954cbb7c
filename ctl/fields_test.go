package ctl

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestDifferences(t *testing.T) {
	const head = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: p, uid: u, resourceVersion: '1'}\n"
	for _, tc := range []struct{ name, was, is, want string }{
		{"nothing", "spec: {order: 1}", "spec: {order: 1}", ""},
		{"a value", "spec: {order: 1}", "spec: {order: 2.5}", "~ spec.order: 1 -> 2.5"},
		{"added", "spec: {}", "spec: {selector: a == 'b'}", `+ spec.selector: "a == 'b'"`},
		{"removed", "spec: {order: 7, types: [Ingress]}", "spec: {types: [Ingress]}", "- spec.order: 7"},
		{"one of several", "spec: {types: [Ingress]}", "spec: {types: [Ingress, Egress]}", `+ spec.types[1]: "Egress"`},
		{"an entry in front", "spec: {ingress: [{action: Deny}]}", "spec: {ingress: [{action: Log}, {action: Deny}]}",
			`+ spec.ingress[0]: {"action":"Log","destination":{},"source":{}}`},
		{"an entry gone", "spec: {ingress: [{action: Log}, {action: Deny}, {action: Allow}]}", "spec: {ingress: [{action: Log}, {action: Allow}]}",
			`- spec.ingress[1]: {"action":"Deny","destination":{},"source":{}}`},
		{"in an entry", "spec: {ingress: [{action: Log}, {action: Deny, protocol: TCP, destination: {ports: [1, 2]}}]}",
			"spec: {ingress: [{action: Log}, {action: Deny, protocol: TCP, destination: {ports: [1, 3]}}]}",
			"~ spec.ingress[1].destination.ports[1]: 2 -> 3"},
		{"order", "spec: {types: [Ingress, Egress]}", "spec: {types: [Egress, Ingress]}", `- spec.types[0]: "Ingress"` + "\n" + `+ spec.types[1]: "Ingress"`},
		{"a list where none was", "spec: {}", "spec: {egress: [{action: Pass}]}", `+ spec.egress: [{"action":"Pass","destination":{},"source":{}}]`},
		{"an empty object", "spec: {ingress: [{action: Pass, notICMP: {}}]}", "spec: {ingress: [{action: Pass}]}", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			all, err := differences(decoded(t, head+tc.was)[0], decoded(t, head+tc.is)[0])
			if err != nil {
				t.Fatal(err)
			}
			lines := []string{}
			for _, d := range all {
				lines = append(lines, d.String())
			}
			if diff := cmp.Diff(tc.want, strings.Join(lines, "\n")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	r := decoded(t, head+"spec: {order: 1, ingress: [{action: Allow}]}")[0]
	all, err := differences(nil, r)
	if got := sentence(all); err != nil || got != `+ spec.ingress: [{"action":"Allow","destination":{},"source":{}}]; + spec.order: 1` {
		t.Errorf("created: %s, %v", got, err)
	}
}

// TestLongest compares with every common subsequence of short lists.
func TestLongest(t *testing.T) {
	words := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 7)
	rapid.Check(t, func(t *rapid.T) {
		x, y := words.Draw(t, "x"), words.Draw(t, "y")
		got := longest(x, y)
		if !isSubsequence(got, x) || !isSubsequence(got, y) {
			t.Fatalf("%v is not in both %v and %v", got, x, y)
		}
		for mask := range 1 << len(x) {
			var part []string
			for i, word := range x {
				if mask&(1<<i) != 0 {
					part = append(part, word)
				}
			}
			if len(part) > len(got) && isSubsequence(part, y) {
				t.Fatalf("%v is common to %v and %v and longer than %v", part, x, y, got)
			}
		}
	})
}

func isSubsequence(part, whole []string) bool {
	for _, word := range whole {
		if len(part) > 0 && part[0] == word {
			part = part[1:]
		}
	}
	return len(part) == 0
}

// TestCompareListsRebuilds applies what compareLists says to the first list and gets the second.
func TestCompareListsRebuilds(t *testing.T) {
	numbers := rapid.SliceOfN(rapid.IntRange(0, 4), 0, 8)
	rapid.Check(t, func(t *rapid.T) {
		x, y := numbers.Draw(t, "x"), numbers.Draw(t, "y")
		was, is := anys(x), anys(y)
		gone, came := map[string]string{}, map[string]string{}
		for _, d := range compareLists("", was, is) {
			switch {
			case d.was == "":
				came[d.path] = d.is
			case d.is == "":
				gone[d.path] = d.was
			default: // stands where another was
				came[d.path] = d.is
			}
		}
		for i, value := range is {
			if d, ok := came[at("", i)]; ok && d != text(value) {
				t.Fatalf("%v -> %v: entry %d is said to be %s", x, y, i, d)
			}
		}
		if len(is)-len(came) > len(was)-len(gone) {
			t.Fatalf("%v -> %v: %d entries of the second are left, %d of the first", x, y, len(is)-len(came), len(was)-len(gone))
		}
	})
}

func anys(list []int) []any {
	out := make([]any, len(list))
	for i, n := range list {
		out[i] = n
	}
	return out
}
