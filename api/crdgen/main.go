// Package main writes the CustomResourceDefinitions of the kinds of api/v3, one YAML file each, so that the API server of
// Kubernetes knows the same fields, bounds and rules as the decoder and Validate: they are read from the same types and
// tags. Run it with go generate ./api/v3.
//
//	api/v3 types, tags ---reflect---> schema --+
//	api/v3 comments ----go/parser---> texts ---+--> install/crds/*.yaml
//	rules.go: CEL of what concerns several fields, kinds.go: names and columns
//
// It must not decide what is valid: a rule that only the API server knew would make a manifest depend on the datastore.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: crdgen DIRECTORY-OF-API-V3 DIRECTORY-OF-CRDS")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "crdgen:", err)
		os.Exit(1)
	}
}

// write replaces the files of all kinds in a directory.
func write(source, target string) error {
	files, err := generate(source)
	if err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(target, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
