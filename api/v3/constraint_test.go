package v3

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// probes are valid objects that hold something of every structure that has schema tags.
func probes() []Resource {
	number := 8
	tcp, icmp := ProtocolTCP, ProtocolICMP
	policy := &GlobalNetworkPolicy{Spec: GlobalNetworkPolicySpec{PolicySpec: PolicySpec{
		Ingress: []Rule{{Action: ActionAllow, Protocol: &tcp, HTTP: &HTTPMatch{Paths: []HTTPPath{{Exact: "/a"}}},
			Source: EntityRule{ServiceAccounts: &ServiceAccountMatch{Selector: "all()"}}}},
		Egress: []Rule{{Action: ActionAllow, Protocol: &icmp, ICMP: &ICMPFields{Type: &number}, NotICMP: &ICMPFields{Type: &number}}},
	}}}
	services := &GlobalNetworkPolicy{Spec: GlobalNetworkPolicySpec{PolicySpec: PolicySpec{
		Ingress: []Rule{{Action: ActionAllow, Source: EntityRule{Services: &ServiceMatch{Name: "a", Namespace: "b"}}}},
	}}}
	staged := &StagedNetworkPolicy{Spec: StagedNetworkPolicySpec{StagedAction: StagedSet}}
	kubernetes := &StagedKubernetesNetworkPolicy{Spec: StagedKubernetesNetworkPolicySpec{StagedAction: StagedSet}}
	host := &HostEndpoint{Spec: HostEndpointSpec{Node: "n", InterfaceName: "eth0", Ports: []EndpointPort{{"a", ProtocolTCP, 1}}}}
	all := []Resource{policy, services, staged, kubernetes, host, &Tier{}}
	kinds := []Kind{KindGlobalNetworkPolicy, KindGlobalNetworkPolicy, KindStagedNetworkPolicy, KindStagedKubernetesNetworkPolicy, KindHostEndpoint, KindTier}
	for i, kind := range kinds {
		info, _ := Lookup(kind)
		all[i].GetObjectKind().SetGroupVersionKind(info.New().GetObjectKind().GroupVersionKind())
		all[i].SetName("a")
		if info.Namespaced {
			all[i].SetNamespace("a")
		}
		Default(all[i])
	}
	return all
}

// TestSchemaTags holds what schema tags say against the code that does it: a value at a bound is not refused for it, and
// one beyond it is.
func TestSchemaTags(t *testing.T) {
	p := prober{t: t}
	for _, r := range probes() {
		p.r = r
		p.structure(reflect.ValueOf(r).Elem().FieldByName("Spec"), "spec")
	}
	if p.probed < 100 {
		t.Errorf("%d values probed only", p.probed)
	}
}

type prober struct {
	t      *testing.T
	r      Resource
	probed int
}

func (p *prober) structure(v reflect.Value, path string) {
	for i := range v.NumField() {
		f, value := v.Type().Field(i), v.Field(i)
		at := path + "." + jsonName(f)
		if f.Anonymous {
			at = path
		}
		for _, c := range tagRules(f.Tag.Get("schema")) {
			p.constraint(value, at, c, tagRules(f.Tag.Get("schema")))
		}
		for value.Kind() == reflect.Pointer && !value.IsNil() {
			value = value.Elem()
		}
		switch {
		case value.Kind() == reflect.Struct && value.Type().PkgPath() == reflect.TypeFor[Rule]().PkgPath() && value.Type() != reflect.TypeFor[Port]():
			p.structure(value, at)
		case value.Kind() == reflect.Slice && value.Len() == 1 && value.Index(0).Kind() == reflect.Struct:
			p.structure(value.Index(0), index(at, 0))
		}
	}
}

// constraint sets a field to values within and beyond a rule.
func (p *prober) constraint(v reflect.Value, path string, c Constraint, all []Constraint) {
	old := reflect.New(v.Type()).Elem()
	old.Set(v)
	defer v.Set(old)
	format, enum := "", ""
	for _, other := range all {
		switch other.Name {
		case "format":
			format = other.Arg
		case "enum":
			enum, _, _ = strings.Cut(other.Arg, "|")
		}
	}
	switch c.Name {
	case "maxitems":
		if n := int(c.number()); enum == "" {
			p.try(v, many(v.Type(), n, format), path, true)
			p.try(v, many(v.Type(), n+1, format), path, false)
		}
	case "minitems":
		p.try(v, reflect.MakeSlice(v.Type(), 0, 0), path, false)
	case "distinct":
		two := many(v.Type(), 1, format)
		if enum != "" {
			two.Index(0).SetString(enum)
		}
		p.try(v, reflect.Append(two, two.Index(0)), index(path, 1), false)
	case "maxlen":
		if n := int(c.number()); format != "net" && format != "notNet" && format != "address" && format != "cidr" {
			p.try(v, text(v.Type(), n, format), path, true)
			p.try(v, text(v.Type(), n+1, format), path, false)
		}
	case "min", "max":
		beyond := c.number() + 1
		if c.Name == "min" {
			beyond = c.number() - 1
		}
		p.try(v, whole(v.Type(), c.number()), path, true)
		p.try(v, whole(v.Type(), beyond), path, false)
	case "enum":
		for _, o := range strings.Split(c.Arg, "|") {
			p.try(v, option(v.Type(), o), path, true)
		}
		p.try(v, option(v.Type(), "5"), path, false)
	case "required":
		p.try(v, reflect.Zero(v.Type()), path, false)
	case "format":
		p.try(v, text(v.Type(), 0, "none"), path, false)
	default:
		p.t.Errorf("%s: rule %s is not probed", path, c.Name)
	}
}

// try sets a value and looks whether Validate says something about that field.
func (p *prober) try(v, value reflect.Value, path string, ok bool) {
	p.t.Helper()
	p.probed++
	v.Set(value)
	faults, _ := Validate(p.r).(Errors)
	found := false
	for _, f := range faults {
		switch {
		case strings.Contains(f.Reason, "on the same rule"), strings.Contains(f.Reason, "must set protocol"),
			strings.Contains(f.Reason, "requires ipVersion"): // another rule's
		case strings.HasPrefix(f.Path, path), !ok && strings.HasPrefix(path, f.Path+"."):
			found = true
		}
	}
	if found == ok {
		p.t.Errorf("%s %s = %s: fault %v, want %v (%v)", KeyOf(p.r).Kind, path, bounded(fmt.Sprint(value)), found, !ok, faults)
	}
}

// many returns a list of n entries that are valid and different.
func many(t reflect.Type, n int, format string) reflect.Value {
	list := reflect.MakeSlice(t, n, n)
	for i := range n {
		switch e := list.Index(i).Addr().Interface().(type) {
		case *string:
			*e = fmt.Sprintf("a%d", i)
			switch format {
			case "net", "notNet":
				*e = fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)
			case "address":
				*e = fmt.Sprintf("10.0.%d.%d", i/256, i%256)
			}
		case *Rule:
			e.Action = ActionAllow
		case *Port:
			e.First, e.Last = uint16(i+1), uint16(i+1)
		case *HTTPPath:
			e.Exact = fmt.Sprintf("/%d", i)
		}
	}
	return list
}

// text returns a text of n bytes that is valid but for its length, in a list if the field is one.
func text(t reflect.Type, n int, format string) reflect.Value {
	s := strings.Repeat("a", n)
	switch format {
	case "":
		s = `a == "` + strings.Repeat("a", max(n-7, 0)) + `"`
	case "httpPath":
		s = "/" + strings.Repeat("a", n-1)
	case "none":
		s = "? ?"
	}
	if t.Kind() == reflect.Slice {
		return reflect.ValueOf([]string{s})
	}
	return reflect.ValueOf(s)
}

func whole(t reflect.Type, n int64) reflect.Value {
	if t.Kind() == reflect.Pointer {
		v := reflect.New(t.Elem())
		v.Elem().SetInt(n)
		return v
	}
	return reflect.ValueOf(n).Convert(t)
}

func option(t reflect.Type, text string) reflect.Value {
	if t == reflect.TypeFor[*int]() {
		return whole(t, int64(text[0]-'0'))
	}
	if t.Kind() == reflect.Slice {
		return reflect.ValueOf([]string{text})
	}
	return reflect.ValueOf(text)
}
