package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
)

// texts are the comments of types ("Tier") and of their fields ("TierSpec.Order").
type texts map[string]string

// readTexts reads the comments of a package.
func readTexts(dir string) (texts, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("read comments: no Go file in %s: %w", dir, fs.ErrNotExist)
	}
	found := texts{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("read comments: %w", err)
		}
		for _, d := range file.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.TYPE {
				found.types(g)
			}
		}
	}
	return found, nil
}

func (t texts) types(g *ast.GenDecl) {
	for _, s := range g.Specs {
		spec := s.(*ast.TypeSpec)
		doc := spec.Doc
		if doc == nil {
			doc = g.Doc
		}
		t.add(spec.Name.Name, doc.Text())
		structure, ok := spec.Type.(*ast.StructType)
		if !ok {
			continue
		}
		for _, f := range structure.Fields.List {
			for _, name := range f.Names {
				t.add(spec.Name.Name+"."+name.Name, f.Doc.Text()+" "+f.Comment.Text())
			}
		}
	}
}

// reference is what is for developers alone.
var reference = regexp.MustCompile(` See tags\.go for the tags\.`)

// absent is what a field that is not there is to developers.
var absent = regexp.MustCompile(`\bnil\b`)

// add keeps a comment as one paragraph of plain text. What follows an empty line is for developers.
func (t texts) add(name, comment string) {
	first, _, _ := strings.Cut(strings.TrimSpace(comment), "\n\n")
	text := reference.ReplaceAllString(strings.Join(strings.Fields(first), " "), "")
	text = absent.ReplaceAllString(text, "absent")
	if text != "" {
		t[name] = strings.ToUpper(text[:1]) + text[1:]
	}
}

// of returns the comment of a type, or of one of its fields.
func (t texts) of(typ reflect.Type, field string) string {
	if field == "" {
		return t[typ.Name()]
	}
	return t[typ.Name()+"."+field]
}
