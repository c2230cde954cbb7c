package v3

import (
	"encoding/json"
	"strings"
	"testing"
)

// Numbers that calicoctl reads alike however they are spelled are accepted, and stored as it stores them; what it would
// respell where a text is wanted is refused.
func TestNumbers(t *testing.T) {
	const rule = `{"kind":"GlobalNetworkPolicy","metadata":{"name":"p"},"spec":{"types":["Ingress"],"ingress":[%]}}`
	const felix = `{"kind":"FelixConfiguration","metadata":{"name":"default"},"spec":{%}}`
	const endpoint = `{"kind":"HostEndpoint","metadata":{"name":"h","labels":{"v":%}},"spec":{"node":"n","interfaceName":"eth0"}}`
	for _, c := range []struct{ in, field, want string }{ // want is a part of what is stored; "": refused
		{rule, `{"action":"Allow","protocol":"TCP","destination":{"ports":[80.0,8e1]}}`, `"ports":[80,80]`},
		{rule, `{"action":"Allow","protocol":6.0}`, `"protocol":6`},
		{rule, `{"action":"Allow","ipVersion":4.0}`, `"ipVersion":4`},
		{rule, `{"action":"Allow","protocol":"ICMP","icmp":{"type":8.00}}`, `"type":8`},
		{rule, `{"action":"Allow","protocol":"TCP","destination":{"ports":[80.5]}}`, ``},
		{rule, `{"action":"Allow","protocol":"ICMP","icmp":{"type":8.5}}`, ``},
		{felix, `"prometheusMetricsPort":9091.0`, `"prometheusMetricsPort":9091`},
		{felix, `"prometheusMetricsPort":1e20`, ``},
		{endpoint, `1.5`, `"v":"1.5"`},
		{endpoint, `1.50`, ``},
		{endpoint, `1e3`, ``},
	} {
		text := `{"apiVersion":"projectcalico.org/v3",` + strings.Replace(c.in, "%", c.field, 1)[1:]
		r, err := prepare([]byte(text))
		if (err == nil) != (c.want != "") {
			t.Errorf("%s: %v", c.field, err)
			continue
		}
		if err != nil {
			continue
		}
		if got, err := json.Marshal(r); err != nil || !strings.Contains(string(got), c.want) {
			t.Errorf("%s is %s, %v", c.field, got, err)
		}
	}
}

func TestConditions(t *testing.T) {
	const good = `"type":"Ready","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"AllWell","message":""`
	for _, c := range []struct {
		old, new string
		valid    bool
	}{
		{"", "", true}, {`"Ready"`, `"projectcalico.org/Ready"`, true}, {`"Ready"`, `""`, false}, {`"Ready"`, `"not ready"`, false},
		{`"True"`, `"true"`, false}, {`"2026-01-01T00:00:00Z"`, `null`, false}, {`"AllWell"`, `""`, false}, {`"AllWell"`, `"1"`, false},
		{`"message":""`, `"message":"` + strings.Repeat("x", 32769) + `"`, false}, {`"message":""`, `"message":"","observedGeneration":-1`, false},
	} {
		condition := strings.Replace(good, c.old, c.new, 1)
		for _, head := range []string{
			`"kind":"Tier","metadata":{"name":"t"},"spec":{"order":10}`, `"kind":"IPPool","metadata":{"name":"p"},"spec":{"cidr":"10.0.0.0/16"}`,
		} {
			_, err := prepare([]byte(`{"apiVersion":"projectcalico.org/v3",` + head + `,"status":{"conditions":[{` + condition + `}]}}`))
			if (err == nil) != c.valid {
				t.Errorf("%s: %.300s: %v", head, condition, err)
			}
		}
	}
}
