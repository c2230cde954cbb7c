package ctl

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	v3 "margay/api/v3"
	"margay/store"
)

// TestImportIntoKubernetes has a datastore in which Kubernetes shows its nodes and policies, and nobody else has written.
func TestImportIntoKubernetes(t *testing.T) {
	i := newIncumbent(t)
	node := "{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n1}, spec: {bgp: {ipv4Address: 10.0.0.1/24}}}\n"
	i.run(strings.Replace(node, "10.0.0.1", "10.0.0.9", 1), "apply", "-f", "-")
	r := decoded(t, "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: knp.default.p, namespace: x}}")[0]
	v3.Default(r)
	if _, err := i.store.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	export := node + "---\n{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: p}, spec: {order: 7}}\n" + separator + "{}\n" + separator + "{}\n"
	run := func(kind string) (string, int) {
		var b bytes.Buffer
		root := NewCommand(Env{
			Name: "margay", Stdin: strings.NewReader(export), Stdout: &b, Stderr: &b, ConfigFile: "none", Socket: "none",
			Getenv: func(name string) string {
				return map[string]string{"DATASTORE_TYPE": kind, "ETCD_ENDPOINTS": "http://127.0.0.1:1"}[name]
			},
			OpenStore: func(context.Context, StoreConfig) (store.Store, error) { return unclosed{i.store}, nil },
		})
		root.SetArgs([]string{"datastore", "migrate", "import", "-f", "-"})
		code := Execute(t.Context(), root)
		return b.String(), code
	}
	if out, code := run(TypeEtcd); code != 1 || !strings.HasPrefix(out, "datastore already has Calico resources: ") {
		t.Errorf("into etcd: exit %d: %s", code, out)
	}
	if out, code := run(TypeKubernetes); code != 0 || !strings.HasPrefix(out, "Successfully applied 2 resource(s)\n") {
		t.Errorf("exit %d: %s", code, out)
	}
	r, err := i.store.Get(t.Context(), v3.Key{Kind: v3.KindNode, Name: "n1"})
	if err != nil || r.(*v3.Node).Spec.BGP.IPv4Address != "10.0.0.1/24" {
		t.Errorf("the node is %+v, %v", r, err)
	}
	if out, code := run(TypeKubernetes); code != 1 || !strings.Contains(out, "found existing Calico GlobalNetworkPolicy(p) ") {
		t.Errorf("again: exit %d: %s", code, out)
	}
}

// TestTooLarge has an input of which a part would look like the whole.
func TestTooLarge(t *testing.T) {
	for _, args := range [][]string{{"datastore", "migrate", "import", "-f", "-"}, {"convert", "-f", "-"}} {
		var b bytes.Buffer
		root := NewCommand(Env{
			Name: "margay", Stdin: io.MultiReader(strings.NewReader("---\n"), io.LimitReader(newlines{}, v3.MaxFile)), Stdout: &b, Stderr: &b,
			Getenv: func(string) string { return "" }, ConfigFile: "none", Socket: "none",
			OpenStore: func(context.Context, StoreConfig) (store.Store, error) { return nil, errors.New("must not be asked") },
		})
		root.SetArgs(args)
		if code := Execute(t.Context(), root); code != 1 || !strings.Contains(b.String(), "standard input: file is too large, at most 67108864 bytes are read") {
			t.Errorf("%v: exit %d: %s", args, code, &b)
		}
	}
}

type newlines struct{}

func (newlines) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '\n'
	}
	return len(p), nil
}
