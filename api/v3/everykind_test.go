package v3

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
)

// TestEveryKindKeepsAll stores random objects of every kind, with any of their fields, reads them back and stores them
// again: nothing is lost, and nothing becomes another value.
func TestEveryKindKeepsAll(t *testing.T) {
	for _, info := range Kinds() {
		t.Run(string(info.Kind), func(t *testing.T) { rapid.Check(t, func(t *rapid.T) { keepsAll(t, info) }) })
	}
}

func keepsAll(t *rapid.T, info Info) {
	r := info.New()
	r.SetName(someName.Draw(t, "name"))
	r.SetLabels(someLabels.Draw(t, "labels"))
	r.SetAnnotations(someLabels.Draw(t, "annotations"))
	r.SetUID("u")
	r.SetCreationTimestamp(metav1.NewTime(time.Unix(1e9, 0).UTC()))
	if info.Namespaced {
		r.SetNamespace(someName.Draw(t, "namespace"))
	}
	for _, part := range []string{"Spec", "Status"} {
		if v := reflect.ValueOf(r).Elem().FieldByName(part); v.IsValid() {
			fillAny(t, v, part, nil)
		}
	}
	data, err := Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeStored(info.Kind, data)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	again, err := Encode(back)
	if err != nil {
		t.Fatal(err)
	}
	var before, after any
	if json.Unmarshal(data, &before) != nil || json.Unmarshal(again, &after) != nil {
		t.Fatal("no JSON")
	}
	if lost := missing(before, after, ""); lost != "" {
		t.Fatalf("%s is lost:\n%s\n%s", lost, data, again)
	}
}

// missing returns the path of something that is in before and not in after. More may be there: what the store completes.
func missing(before, after any, path string) string {
	switch b := before.(type) {
	case map[string]any:
		a, ok := after.(map[string]any)
		for key, value := range b {
			if other, there := a[key]; !ok || !there {
				return path + "." + key
			} else if lost := missing(value, other, path+"."+key); lost != "" {
				return lost
			}
		}
	case []any:
		a, ok := after.([]any)
		if !ok || len(a) != len(b) {
			return path
		}
		for i := range b {
			if lost := missing(b[i], a[i], index(path, i)); lost != "" {
				return lost
			}
		}
	default:
		if !reflect.DeepEqual(before, after) {
			return path
		}
	}
	return ""
}

// samples are texts of the formats that stored objects are checked for.
var samples = map[string][]string{
	"selector": {"all()", `a == "b"`, "has(x)"}, "longSelector": {"all()", `a == "b"`, "has(x)"},
	"net": {"10.0.0.0/8", "feed::/16"}, "notNet": {"10.0.0.0/8", "feed::/16"}, "cidr": {"10.0.0.1", "10.0.0.1/8", "feed::1/16"},
	"address": {"10.0.0.1", "feed::1"}, "interface": {"eth0", "*"}, "": {"", "a", "A b", "x/y", `"`, "ä", "{}", "null", "010"},
}

// sampleOf returns the samples for a field: by the format in its tags, or by its name where stored objects are checked in code.
func sampleOf(name string, rules []Constraint) []string {
	for _, c := range rules {
		switch {
		case c.Name == "enum":
			return strings.Split(c.Arg, "|")
		case c.Name == "format" && samples[c.Arg] != nil:
			return samples[c.Arg]
		}
	}
	switch {
	case strings.HasSuffix(name, "Selector"):
		return samples["selector"]
	case slices.Contains([]string{"IPNetworks", "AllowSpoofedSourcePrefixes", "Nets"}, name):
		return samples["cidr"]
	case name == "InternalIP", name == "ExternalIP":
		return samples["address"]
	case name == "InterfaceName":
		return samples["interface"]
	}
	return samples[""]
}

// complete gives a structure that means nothing, or everything, without a field that field.
func complete(v reflect.Value) {
	switch p := v.Addr().Interface().(type) {
	case *ServiceMatch:
		p.Name = "a"
	case *ServiceAccountMatch:
		p.Selector = "all()"
	case *ICMPFields:
		p.Type = new(8)
	case *PolicySpec:
		p.Types = []string{TypeIngress} // entries are different
	}
}

// fillAny gives a value any content that its type and tags allow.
func fillAny(t *rapid.T, v reflect.Value, name string, rules []Constraint) {
	switch p := v.Addr().Interface().(type) {
	case *Protocol:
		*p = someProtocol.Draw(t, name)
		return
	case *Port:
		*p = somePort.Draw(t, name)
		return
	case *DSCP:
		*p = rapid.SampledFrom([]DSCP{{Value: 5}, {Name: "EF", Value: 46}}).Draw(t, name)
		return
	case *metav1.Duration:
		p.Duration = time.Duration(rapid.Int64Range(0, 1e6).Draw(t, name)) * time.Millisecond
		return
	case *metav1.Time:
		*p = metav1.NewTime(time.Unix(rapid.Int64Range(1, 2e9).Draw(t, name), 0).UTC())
		return
	case *intstr.IntOrString:
		*p = rapid.SampledFrom([]intstr.IntOrString{intstr.FromInt32(80), intstr.FromString("http")}).Draw(t, name)
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(rapid.SampledFrom(sampleOf(name, rules)).Draw(t, name))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, name))
	case reflect.Float64:
		v.SetFloat(rapid.Float64Range(-1e9, 1e9).Draw(t, name))
	case reflect.Pointer:
		if rapid.Bool().Draw(t, name+" there") {
			v.Set(reflect.New(v.Type().Elem()))
			fillAny(t, v.Elem(), name, rules)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fillAny(t, v.Field(i), v.Type().Field(i).Name, Constraints(v.Type().Field(i)))
		}
		complete(v)
	case reflect.Slice:
		if n := rapid.IntRange(0, 2).Draw(t, name+" entries"); n > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
		}
		for i := range v.Len() {
			fillAny(t, v.Index(i), name, rules)
		}
	case reflect.Map:
		for i := range rapid.IntRange(0, 2).Draw(t, name+" entries") {
			if v.IsNil() {
				v.Set(reflect.MakeMap(v.Type()))
			}
			v.SetMapIndex(reflect.ValueOf(fmt.Sprint(name, i)), reflect.ValueOf(rapid.SampledFrom(samples[""]).Draw(t, name)))
		}
	default:
		low, high := int64(0), int64(1)
		for _, c := range rules {
			switch {
			case c.Name == "min":
				low = c.number()
			case c.Name == "max":
				high = c.number()
			case c.Name == "enum":
				low, high = 4, 4
			}
		}
		n := rapid.Int64Range(low, max(low, min(high, 255))).Draw(t, name)
		v.Set(reflect.ValueOf(n).Convert(v.Type()))
	}
}
