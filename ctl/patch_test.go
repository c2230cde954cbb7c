package ctl

import (
	"encoding/json"
	"testing"
)

// TestPatch has the examples of RFC 6902 appendix A and RFC 7386 appendix A, and what goes beyond them.
func TestPatch(t *testing.T) {
	for _, tc := range []struct{ name, form, doc, patch, want string }{
		{"A.1 add a member", "json", `{"foo":"bar"}`, `[{"op":"add","path":"/baz","value":"qux"}]`, `{"baz":"qux","foo":"bar"}`},
		{"A.2 add an element", "json", `{"foo":["bar","baz"]}`, `[{"op":"add","path":"/foo/1","value":"qux"}]`, `{"foo":["bar","qux","baz"]}`},
		{"A.3 remove a member", "json", `{"baz":"qux","foo":"bar"}`, `[{"op":"remove","path":"/baz"}]`, `{"foo":"bar"}`},
		{"A.4 remove an element", "json", `{"foo":["bar","qux","baz"]}`, `[{"op":"remove","path":"/foo/1"}]`, `{"foo":["bar","baz"]}`},
		{"A.5 replace", "json", `{"baz":"qux","foo":"bar"}`, `[{"op":"replace","path":"/baz","value":"boo"}]`, `{"baz":"boo","foo":"bar"}`},
		{"A.6 move a value", "json", `{"foo":{"bar":"baz","waldo":"fred"},"qux":{"corge":"grault"}}`, `[{"op":"move","from":"/foo/waldo","path":"/qux/thud"}]`, `{"foo":{"bar":"baz"},"qux":{"corge":"grault","thud":"fred"}}`},
		{"A.7 move an element", "json", `{"foo":["all","grass","cows","eat"]}`, `[{"op":"move","from":"/foo/1","path":"/foo/3"}]`, `{"foo":["all","cows","eat","grass"]}`},
		{"A.8 test", "json", `{"baz":"qux","foo":["a",2,"c"]}`, `[{"op":"test","path":"/baz","value":"qux"},{"op":"test","path":"/foo/1","value":2}]`, `{"baz":"qux","foo":["a",2,"c"]}`},
		{"A.9 test fails", "json", `{"baz":"qux"}`, `[{"op":"test","path":"/baz","value":"bar"}]`, ``},
		{"A.10 add a nested object", "json", `{"foo":"bar"}`, `[{"op":"add","path":"/child","value":{"grandchild":{}}}]`, `{"child":{"grandchild":{}},"foo":"bar"}`},
		{"A.11 ignore unknown members", "json", `{"foo":"bar"}`, `[{"op":"add","path":"/baz","value":"qux","xyz":123}]`, `{"baz":"qux","foo":"bar"}`},
		{"A.12 add to nothing", "json", `{"foo":"bar"}`, `[{"op":"add","path":"/baz/bat","value":"qux"}]`, ``},
		{"A.14 escapes", "json", `{"/":9,"~1":10}`, `[{"op":"test","path":"/~01","value":10}]`, `{"/":9,"~1":10}`},
		{"A.15 text is no number", "json", `{"/":9,"~1":10}`, `[{"op":"test","path":"/~01","value":"10"}]`, ``},
		{"A.16 add a list", "json", `{"foo":["bar"]}`, `[{"op":"add","path":"/foo/-","value":["abc","def"]}]`, `{"foo":["bar",["abc","def"]]}`},
		{"copy is a copy", "json", `{"a":{"x":1}}`, `[{"op":"copy","from":"/a","path":"/b"},{"op":"add","path":"/b/x","value":2}]`, `{"a":{"x":1},"b":{"x":2}}`},
		{"value is a copy", "json", `{}`, `[{"op":"add","path":"/a","value":{}},{"op":"add","path":"/a/x","value":1},{"op":"test","path":"/a","value":{"x":1.0}}]`, `{"a":{"x":1}}`},
		{"numbers keep their form", "json", `{"n":1e3,"m":12345678901234567890}`, `[{"op":"test","path":"/n","value":1000}]`, `{"m":12345678901234567890,"n":1e3}`},
		{"replace the whole", "json", `{"a":1}`, `[{"op":"replace","path":"","value":{"b":2}}]`, `{"b":2}`},
		{"remove the whole", "json", `{"a":1}`, `[{"op":"remove","path":""}]`, ``},
		{"into itself", "json", `{"a":{"b":1}}`, `[{"op":"move","from":"/a","path":"/a/b"}]`, ``},
		{"index beyond", "json", `{"a":[1]}`, `[{"op":"add","path":"/a/2","value":1}]`, ``},
		{"index with a zero", "json", `{"a":[1,2]}`, `[{"op":"remove","path":"/a/01"}]`, ``},
		{"index of nothing", "json", `{"a":[1]}`, `[{"op":"remove","path":"/a/-"}]`, ``},
		{"no index", "json", `{"a":[1]}`, `[{"op":"replace","path":"/a/x","value":1}]`, ``},
		{"replace what is not there", "json", `{}`, `[{"op":"replace","path":"/a","value":1}]`, ``},
		{"remove what is not there", "json", `{}`, `[{"op":"remove","path":"/a"}]`, ``},
		{"through a text", "json", `{"a":"b"}`, `[{"op":"add","path":"/a/b","value":1}]`, ``},
		{"no slash", "json", `{}`, `[{"op":"add","path":"a","value":1}]`, ``},
		{"no value", "json", `{}`, `[{"op":"add","path":"/a"}]`, ``},
		{"unknown op", "json", `{}`, `[{"op":"set","path":"/a","value":1}]`, ``},
		{"no list", "json", `{}`, `{"op":"add","path":"/a","value":1}`, ``},
		{"YAML", "json", `{"a":1}`, "- op: replace\n  path: /a\n  value: 2\n", `{"a":2}`},

		{"merge: replace", "merge", `{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{"merge: add", "merge", `{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{"merge: null removes", "merge", `{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{"merge: list replaces", "merge", `{"a":["b"]}`, `{"a":["c","d"]}`, `{"a":["c","d"]}`},
		{"merge: nested", "merge", `{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{"merge: object over list", "merge", `{"a":[1,2]}`, `{"a":{"b":"c"}}`, `{"a":{"b":"c"}}`},
		{"merge: nulls in new objects go", "merge", `{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{"merge: a list is no patch", "merge", `{}`, `[1]`, ``},
		{"merge: YAML", "merge", `{"a":{"b":1}}`, "a:\n  c: 2\n", `{"a":{"b":1,"c":2}}`},

		{"strategic: as merge", "strategic", `{"a":{"b":1,"c":2},"l":[1]}`, `{"a":{"c":null,"d":3},"l":[2]}`, `{"a":{"b":1,"d":3},"l":[2]}`},
		{"strategic: replace", "strategic", `{"a":{"b":1}}`, `{"a":{"$patch":"replace","c":2}}`, `{"a":{"c":2}}`},
		{"strategic: delete", "strategic", `{"a":{"b":1}}`, `{"a":{"$patch":"delete"}}`, `{"a":{}}`},
		{"strategic: unknown directive", "strategic", `{}`, `{"$retainKeys":["a"]}`, ``},
		{"strategic: unknown $patch", "strategic", `{}`, `{"$patch":"drop"}`, ``},

		{"empty", "merge", `{}`, ``, ``},
		{"unknown type", "weird", `{}`, `{}`, ``},
		{"duplicate key", "merge", `{}`, `{"a":1,"a":2}`, ``},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := patchText(tc.form, tc.doc, tc.patch)
			if (err != nil) != (tc.want == "") || got != tc.want {
				t.Errorf("got %s, %v; want %s", got, err, tc.want)
			}
		})
	}
}

func patchText(form, doc, text string) (string, error) {
	patch, err := parsePatch(form, text)
	if err != nil {
		return "", err
	}
	value, err := parseJSON([]byte(doc))
	if err != nil {
		return "", err
	}
	if value, err = patch(value); err != nil {
		return "", err
	}
	out, err := json.Marshal(value)
	return string(out), err
}

func FuzzPatch(f *testing.F) {
	f.Add("json", `{"a":[1,{"b":2}]}`, `[{"op":"move","from":"/a/1","path":"/a/0/b"},{"op":"add","path":"/a/-","value":null}]`)
	f.Add("strategic", `{"a":{"b":1}}`, `{"a":{"$patch":"replace"},"c":null}`)
	f.Add("merge", `[]`, `{"a":{"b":{}}}`)
	f.Fuzz(func(t *testing.T, form, doc, text string) {
		first, err := patchText(form, doc, text)
		again, err2 := patchText(form, doc, text)
		if first != again || (err == nil) != (err2 == nil) {
			t.Errorf("%q, %v and then %q, %v", first, err, again, err2)
		}
		if err == nil && form == "merge" {
			// A merge patch is idempotent.
			if twice, err := patchText(form, first, text); err != nil || twice != first {
				t.Errorf("applied twice: %s, %v; once: %s", twice, err, first)
			}
		}
	})
}
