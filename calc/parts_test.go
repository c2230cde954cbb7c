package calc

import (
	"net/netip"
	"slices"
	"testing"

	"margay/ruleset"

	v3 "margay/api/v3"
)

// TestPartsOfServices lets the parts of a service come, move to another service and go, and looks at the set of a rule that names it.
func TestPartsOfServices(t *testing.T) {
	info, _ := v3.Lookup(v3.KindServiceEndpoints)
	part := func(name, service string, addrs ...string) *v3.ServiceEndpoints {
		r := info.New().(*v3.ServiceEndpoints)
		r.Name, r.Namespace, r.Spec.Service = name, "ns", service
		for _, a := range addrs {
			r.Spec.Endpoints = append(r.Spec.Endpoints, v3.ServiceEndpoint{Addr: a, Protocol: 6, Port: 80})
		}
		return r
	}
	key := func(name string) v3.Key { return v3.Key{Kind: v3.KindServiceEndpoints, Namespace: "ns", Name: name} }
	c := New("n")
	for _, text := range []string{
		`{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"default"},"spec":{"order":1000000,"defaultAction":"Deny"}}`,
		`{"apiVersion":"projectcalico.org/v3","kind":"HostEndpoint","metadata":{"name":"h"},"spec":{"node":"n","interfaceName":"eth0"}}`,
		`{"apiVersion":"projectcalico.org/v3","kind":"GlobalNetworkPolicy","metadata":{"name":"p"},"spec":{"selector":"all()","types":["Egress"],` +
			`"egress":[{"action":"Allow","destination":{"services":{"name":"web","namespace":"ns"}}}]}}`,
	} {
		docs, err := v3.Decode("-", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		c.Update(v3.KeyOf(docs[0].Object), docs[0].Object)
	}
	c.SetInterface("eth0", []netip.Addr{netip.MustParseAddr("10.0.0.1")})
	program := ruleset.NewProgram()
	for _, step := range []struct {
		key  string
		part v3.Resource
		want []string
	}{
		{"a", part("a", "web", "10.0.0.2"), []string{"10.0.0.2"}},
		{"b", part("b", "web", "10.0.0.2", "10.0.0.3"), []string{"10.0.0.2", "10.0.0.3"}},
		{"a", part("a", "other", "10.0.0.9"), []string{"10.0.0.2", "10.0.0.3"}},
		{"b", part("b", "web", "10.0.0.4"), []string{"10.0.0.4"}},
		{"a", part("a", "web", "10.0.0.5", "no address"), []string{"10.0.0.4", "10.0.0.5"}},
		{"b", nil, []string{"10.0.0.5"}},
		{"a", nil, nil},
		{"a", nil, nil},
	} {
		c.Update(key(step.key), step.part)
		program.Apply(c.Flush())
		var got []string
		for _, set := range program.Sets {
			for _, m := range set.Members() {
				got = append(got, m.Prefix.Addr().String())
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, step.want) {
			t.Errorf("after %s: %v, want %v", step.key, got, step.want)
		}
	}
	if len(c.parts.of)+len(c.parts.service) != 0 {
		t.Errorf("left over: %+v", c.parts)
	}
}
