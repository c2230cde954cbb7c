package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"

	v3 "margay/api/v3"
	"margay/store"
)

// TestPrintable: what is written arrives in whatever pieces, and no control character but newline and tab does.
func TestPrintable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text") + rapid.SampledFrom([]string{"", "\x1b[2J", "\u009b2J", "\a\r\n\t", "Ä€"}).Draw(t, "more")
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		p := printableOf(&out)
		for rest := quoted; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			if written, err := p.Write(rest[:n]); written != n || err != nil {
				t.Fatal(written, err)
			}
			rest = rest[n:]
		}
		if strings.ContainsFunc(out.String(), unprintable) {
			t.Errorf("%q", out.String())
		}
		var got string
		if err := json.Unmarshal(out.Bytes(), &got); err != nil || got != text {
			t.Errorf("%q became %q: %v", text, got, err)
		}
	})
	var out bytes.Buffer
	p := printableOf(&out)
	_, _ = p.Write([]byte("a\xc2"))
	_, _ = p.Write([]byte("\x9b1m\x1b[0m\r\n\tb\x7f"))
	if got, want := out.String(), `a\u009b1m\u001b[0m\u000d`+"\n\t"+`b\u007f`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if printableOf(p) != p {
		t.Error("a printable is made one again")
	}
}

// telling is a store with reports of nodes and objects that are not written by this program.
type telling struct{ store.Store }

const evil = "x\x1b[2J\u009b31m\nn2   yes   yes\tforged\r\v\f"

func (telling) Statuses(context.Context) ([]store.NodeStatus, error) {
	return []store.NodeStatus{{
		Node: "n1" + evil, Detail: evil, Version: evil, Time: evil, Faults: []string{evil}, Warnings: []string{evil}, Unused: []string{evil},
		Endpoints: map[string]store.EndpointState{evil: "error"},
	}}, nil
}

func (telling) List(_ context.Context, _ string, kinds ...v3.Kind) (*store.List, error) {
	set := &v3.GlobalNetworkSet{}
	set.Name, set.Spec.Nets = "s"+evil, []string{evil}
	set.Kind, set.APIVersion = string(v3.KindGlobalNetworkSet), v3.APIVersion
	return &store.List{Items: []v3.Resource{set}, Revision: "1"}, nil
}

func (telling) LastChange(context.Context, ...v3.Kind) (store.Revision, error) { return "1", nil }
func (telling) Reached(store.Revision, store.Revision) bool                    { return true }
func (telling) Get(context.Context, v3.Key) (v3.Resource, error)               { return nil, store.ErrNotFound }
func (telling) Inspect(context.Context, v3.Key) (v3.Resource, v3.Unknown, error) {
	return nil, nil, nil
}

// TestOthersTexts: what others wrote into the datastore reaches the terminal as text, and one object is one line.
func TestOthersTexts(t *testing.T) {
	for _, args := range []string{"status", "status -o json", "status -o yaml", "get gns", "get gns -o wide", "get gns -o json", "get gns -o yaml", "get gns -o name"} {
		out, _ := on(t.Context(), telling{}, strings.Fields(args)...)
		if !strings.Contains(out, "forged") && !strings.Contains(out, "control characters are not allowed") { // which YAML says
			t.Errorf("%s: %q", args, out)
		}
		if strings.ContainsFunc(out, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
			t.Errorf("%s: %q", args, out)
		}
		table := args == "status" || args == "get gns" || args == "get gns -o wide"
		if table && strings.Contains(out, "\nn2 ") {
			t.Errorf("%s shows a node that does not exist:\n%s", args, out)
		}
	}
}
