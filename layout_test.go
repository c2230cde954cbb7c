// Package margay_test holds the rules about the tree as a whole: what its root lists and which package may import which.
package margay_test

import (
	"bytes"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// root is the glossary: every name that a newcomer meets first. A new entry is a decision, made here.
var root = []string{
	".ci", ".git", ".gitignore", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md",
	"api", "bin", "calc", "cmd", "controllers", "ctl", "dataplane", "docs", "examples", "go.mod", "go.sum", "install", "lab",
	"layout_test.go", "node", "ruleset", "selector", "serve", "store", "test", "typha",
}

func TestRootListing(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(root, e.Name()) {
			t.Errorf("%s is not part of the root listing", e.Name())
		}
	}
}

// A layer may import packages of this module only from itself and the layers named.
var layers = []struct{ dir, reason string }{
	{"cmd", "wiring: may import everything"},
	{"lab", "hosts made of namespaces"},
	{"ctl", "the CLI"},
	{"node", "the agent"},
	{"typha", "fan-out between the store and many agents"},
	{"controllers", "what keeps the store in step with Kubernetes"},
	{"serve", "HTTP for probes and scrapers"},
	{"store", "where resources are kept"},
	{"dataplane", "what enforces"},
	{"calc", "resources to rules"},
	{"ruleset", "the rule model"},
	{"api", "resources on the wire"},
	{"selector", "label expressions"},
}

// allowed names, for each layer, the layers below it that it may use.
var allowed = map[string][]string{
	"cmd":         {"lab", "ctl", "node", "typha", "controllers", "serve", "store", "dataplane", "calc", "ruleset", "api", "selector"},
	"lab":         {"store", "ruleset", "api", "selector"},
	"ctl":         {"store", "calc", "ruleset", "api", "selector"},
	"node":        {"serve", "store", "dataplane", "calc", "ruleset", "api", "selector"},
	"typha":       {"serve", "store", "api", "selector"},
	"controllers": {"serve", "store", "api", "selector"},
	"serve":       {},
	"store":       {"api", "selector"},
	"dataplane":   {"ruleset"},
	"calc":        {"ruleset", "api", "selector"},
	"ruleset":     {},
	"api":         {"selector"},
	"selector":    {},
}

// forbidden edges inside and beyond the layers, each with its reason.
var forbidden = []struct{ from, to, except, reason string }{
	{"", "go.etcd.io/etcd/server", "store/embed", "the etcd server is large: only the embedded store may link it"},
	{"", "k8s.io/client-go", "store/kube", "the Kubernetes client is large: only its store may link it"},
	{"", "k8s.io/api", "store/kube", "other layers see Kubernetes objects as resources of api/v3"},
	{"ctl", "margay/store/", "", "the CLI knows the interface; cmd/margay wires the implementation"},
	{"node", "margay/store/", "", "the agent knows the interface; cmd/margay wires the implementation"},
	{"controllers", "margay/store/", "", "the controllers know the interface; cmd/margay wires the implementation"},
	{"typha", "margay/store/", "", "the fan-out knows the interface; cmd/margay wires the implementation"},
	{"node", "margay/dataplane/nft", "", "the agent knows the interface; cmd/margay wires the implementation"},
	{"", "os/exec", "lab", "the product runs no other program: hosts have no nft, ip or iptables"},
	{"", "log", "", "log/slog, passed in, at the edges only"},
	{"", "unsafe", "", "nothing here needs it"},
}

func TestImportDirection(t *testing.T) {
	for dir, imports := range packages(t) {
		layer, _, _ := strings.Cut(dir, "/")
		for _, imp := range imports {
			checkEdge(t, dir, layer, imp)
		}
	}
}

func checkEdge(t *testing.T, dir, layer, imp string) {
	t.Helper()
	if own, ok := strings.CutPrefix(imp, "margay/"); ok {
		target, _, _ := strings.Cut(own, "/")
		if target != layer && !slices.Contains(allowed[layer], target) {
			t.Errorf("%s imports %s: imports point downwards only (layer %s)", dir, imp, layer)
		}
	} else if layer == "ruleset" && strings.Contains(imp, ".") {
		t.Errorf("%s imports %s: ruleset uses the standard library only", dir, imp)
	}
	for _, f := range forbidden {
		hit := imp == f.to || strings.HasPrefix(imp, strings.TrimSuffix(f.to, "/")+"/") && f.to != "log"
		if hit && within(dir, f.from) && (f.except == "" || !within(dir, f.except)) {
			t.Errorf("%s imports %s: %s", dir, imp, f.reason)
		}
	}
}

// within reports whether dir is tree or lies below it; "" is the whole module.
func within(dir, tree string) bool {
	return tree == "" || dir == tree || strings.HasPrefix(dir, tree+"/")
}

// packages returns the non-test imports of every package, by its directory, and fails on one without a package comment.
func packages(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || path == "." {
			return err
		}
		if strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin" || path == "test" {
			return filepath.SkipDir
		}
		pkg, err := build.ImportDir(path, build.ImportComment)
		if _, none := err.(*build.NoGoError); none {
			return nil
		}
		if err != nil {
			return err
		}
		if pkg.Doc == "" && len(pkg.GoFiles) > 0 {
			t.Errorf("%s has no package comment", path)
		}
		all[filepath.ToSlash(path)] = pkg.Imports
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < len(layers) {
		t.Fatalf("found %d packages only", len(all))
	}
	return all
}

// Bounds of what a reader has to hold in mind at once.
const (
	maxLines      = 600 // of a file
	maxFunction   = 100 // lines of a function; tests may be tables
	maxParameters = 4
)

// TestHabits holds what CONTRIBUTING.md says of the form of the code, as far as a parser sees it.
func TestHabits(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if n := bytes.Count(text, []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines, more than %d", path, n, maxLines)
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok {
				checkFunction(t, path+": "+f.Name.Name, f)
				if n := files.Position(f.End()).Line - files.Position(f.Pos()).Line + 1; n > maxFunction {
					t.Errorf("%s: %s has %d lines, more than %d", path, f.Name.Name, n, maxFunction)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkFunction(t *testing.T, name string, f *ast.FuncDecl) {
	t.Helper()
	if f.Recv == nil && f.Name.Name == "init" {
		t.Errorf("%s: no package has one", name)
	}
	if n := f.Type.Params.NumFields(); n > maxParameters {
		t.Errorf("%s has %d parameters, more than %d", name, n, maxParameters)
	}
	for _, p := range f.Type.Params.List {
		if kind, ok := p.Type.(*ast.Ident); ok && kind.Name == "bool" && f.Name.IsExported() {
			t.Errorf("%s is exported and has a bool parameter: its caller does not say what it means", name)
		}
	}
}
