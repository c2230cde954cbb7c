package ctl

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	v3 "margay/api/v3"
)

// garbagePercent is how much garbage, in percent of what is in use, may gather in a command that reads manifests.
const garbagePercent = 800

// noObject is what Decode says of a file in which there is nothing.
const noObject = "file holds no object"

// inputFlags are the flags of every command that reads manifests.
type inputFlags struct {
	filename  string
	namespace string
	recursive bool
	skipEmpty bool
	// namesOnly: nothing but the names of the objects matters, so no other fault is told.
	namesOnly bool
}

func (f *inputFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.filename, "filename", "f", "", "manifest `FILE`, directory of them, or - for standard input")
	cmd.Flags().BoolVarP(&f.recursive, "recursive", "R", false, "with a directory: go through its subdirectories as well")
	cmd.Flags().BoolVar(&f.skipEmpty, "skip-empty", false, "files without resources are no error")
	f.addNamespace(cmd)
}

func (f *inputFlags) addNamespace(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.namespace, "namespace", "n", "", "`NAMESPACE` of what is named, and of resources in manifests that have none")
}

// required is the error of a command that needs a manifest and was given none.
func (f *inputFlags) required(cmd *cobra.Command) error {
	if f.filename == "" {
		return fmt.Errorf("%s needs a manifest: name a file, a directory or - with -f", cmd.CommandPath())
	}
	return nil
}

// An inputError says that the input cannot be read or understood.
type inputError struct{ errs []error }

func (e *inputError) Error() string {
	if len(e.errs) == 1 && !strings.Contains(e.errs[0].Error(), "\n") {
		return "failed to execute command: " + e.errs[0].Error()
	}
	lines := strings.ReplaceAll(errors.Join(e.errs...).Error(), "\n", "\n  ")
	return "failed to execute command: the input has faults, nothing was done:\n  " + lines
}

func (e *inputError) Unwrap() []error { return e.errs }

// load decodes all manifests. Every file is read before anything is done with any, and the faults of all are returned.
func (c *cli) load(f inputFlags) ([]v3.Document, error) {
	// A command lives briefly: what it would gain by collecting garbage often is less than what that costs.
	debug.SetGCPercent(garbagePercent)
	files, err := f.files()
	if err != nil {
		return nil, &inputError{[]error{err}}
	}
	var docs []v3.Document
	var faults []error
	for _, name := range files {
		more, err := c.loadFile(name)
		if err != nil {
			faults = append(faults, err)
		} else if len(more) == 0 && !f.skipEmpty {
			return nil, fmt.Errorf("no resources specified in file %s", name)
		}
		docs = append(docs, more...)
	}
	if len(faults) > 0 {
		if !f.namesOnly { // else what is wrong with the objects that could be read would come up one attempt later
			faults = append(faults, prepare(docs, f)...)
		}
		return nil, &inputError{faults}
	}
	if len(docs) == 0 && !f.skipEmpty {
		return nil, fmt.Errorf("no resources specified in directory %s", f.filename)
	}
	return docs, nil
}

// files returns the file itself, or the manifests in the directory in order.
func (f inputFlags) files() ([]string, error) {
	if info, err := os.Stat(f.filename); f.filename == "-" || err != nil || !info.IsDir() {
		return []string{f.filename}, nil
	}
	var files []string
	err := filepath.WalkDir(f.filename, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if path != f.filename && !f.recursive {
				return filepath.SkipDir
			}
			return nil
		}
		switch strings.ToLower(filepath.Ext(path)) {
		case ".yaml", ".yml", ".json":
			files = append(files, path)
		}
		return nil
	})
	return files, err
}

func (c *cli) loadFile(name string) ([]v3.Document, error) {
	var r io.Reader = c.env.Stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }()
		r = file
	} else {
		name = "standard input"
	}
	data, err := io.ReadAll(io.LimitReader(r, v3.MaxFile+1)) // Decode refuses more
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	docs, err := v3.DecodeEach(name, data)
	if holdsNothing(err) {
		return nil, nil
	}
	return docs, err
}

// holdsNothing reports whether an error of Decode says that a file has no object.
func holdsNothing(err error) bool {
	faults := v3.Errors(nil)
	return errors.As(err, &faults) && len(faults) == 1 && faults[0].Reason == noObject
}

// prepare gives all documents their namespaces and defaults, and checks them against the rules of their kinds. It returns
// an error per document at fault.
func prepare(docs []v3.Document, f inputFlags) []error {
	var errs []error
	for i := range docs {
		doc := &docs[i]
		err := setNamespace(doc, f.namespace)
		if err == nil {
			v3.Default(doc.Object)
			err = doc.Locate(v3.Validate(doc.Object))
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// setNamespace gives the resource of a manifest its namespace.
func setNamespace(doc *v3.Document, namespace string) error {
	key := v3.KeyOf(doc.Object)
	out, err := namespaceOf(key, namespace)
	if err != nil {
		at := doc.Locate(&v3.FieldError{Key: key, Path: "metadata.namespace", Value: key.Namespace, Reason: err.Error()})
		return &namespaceError{at.Error()}
	}
	doc.Object.SetNamespace(out)
	return nil
}

// kindOf returns the kind that all documents have, or "".
func kindOf(docs []v3.Document) string {
	kind := ""
	for i, doc := range docs {
		this := string(v3.KeyOf(doc.Object).Kind)
		if i > 0 && this != kind {
			return ""
		}
		kind = this
	}
	return kind
}

// A namespaceError says that a resource cannot be in the namespace that is asked for.
type namespaceError struct{ text string }

func (e *namespaceError) Error() string { return e.text }

func notNamespaced(kind v3.Kind) error { return &namespaceError{string(kind) + " is not namespaced"} }

// namespaceOf returns the namespace of a resource: its own, or that of -n, or default.
func namespaceOf(key v3.Key, flag string) (string, error) {
	namespaced := mustLookup(key.Kind).Namespaced
	switch {
	case !namespaced && key.Namespace != "":
		return "", &namespaceError{fmt.Sprintf("namespace should not be specified for a non-namespaced resource. "+
			"%s is not a namespaced resource", key.Kind)}
	case !namespaced && flag != "":
		return "", notNamespaced(key.Kind)
	case !namespaced:
		return "", nil
	case key.Namespace == "" && flag == "":
		return "default", nil
	case key.Namespace == "":
		return flag, nil
	case flag != "" && key.Namespace != flag:
		return "", &namespaceError{fmt.Sprintf("resource namespace does not match client namespace. %s != %s", key.Namespace, flag)}
	}
	return key.Namespace, nil
}
