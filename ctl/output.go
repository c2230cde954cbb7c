package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/template"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	v3 "margay/api/v3"
	"margay/store"
)

// firstASNumber is the AS number of nodes when nothing sets one: the first private one (RFC 6996).
func firstASNumber() string { return "64512" }

// A list is what get prints for a kind without names. Templates see it as the Go value it is.
type list struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []v3.Resource `json:"items"`
}

// A format prints the results of get. Each result is a v3.Resource or a *list.
type format interface {
	print(w io.Writer, results []any) error
}

// parseFormat reads the value of --output.
func parseFormat(output string, namespace bool) (format, error) {
	switch output {
	case "ps":
		return tableFormat{namespace: namespace, asNumber: firstASNumber}, nil
	case "wide":
		return tableFormat{wide: true, namespace: namespace, asNumber: firstASNumber}, nil
	case "yaml", "yml":
		return yamlFormat{}, nil
	case "json":
		return jsonFormat{}, nil
	case "name":
		return nameFormat{}, nil
	}
	key, value, _ := strings.Cut(output, "=")
	switch key {
	case "custom-columns":
		if value == "" {
			return nil, errors.New("need to specify at least one column")
		}
		return tableFormat{headings: strings.Split(value, ","), asNumber: firstASNumber}, nil
	case "go-template":
		if value == "" {
			return nil, errors.New("need to specify a template")
		}
		return templateFormat{value, firstASNumber}, nil
	case "go-template-file":
		if value == "" {
			return nil, errors.New("need to specify a template file")
		}
		text, err := os.ReadFile(value)
		return templateFormat{string(text), firstASNumber}, err
	}
	return nil, fmt.Errorf("unrecognized output format '%s'", output)
}

// single returns the only result itself, and several as a list.
func single(results []any) any {
	if len(results) == 1 {
		return results[0]
	}
	return results
}

// document returns the JSON of what get prints. As with calicoctl 3.32 rules lack the empty source and destination that they
// have in the store: nothing else has such a key with an object for a value, and within a text quotes are escaped.
func document(printed any) ([]byte, error) {
	text, err := json.Marshal(printed)
	if err != nil {
		return nil, err
	}
	text = bytes.ReplaceAll(text, []byte(`,"source":{}`), nil)
	return bytes.ReplaceAll(text, []byte(`,"destination":{}`), nil), nil
}

type yamlFormat struct{}

func (yamlFormat) print(w io.Writer, results []any) error {
	text, err := yamlDocument(single(results))
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

func yamlDocument(printed any) ([]byte, error) {
	text, err := document(printed)
	if err != nil {
		return nil, err
	}
	return yaml.JSONToYAML(text)
}

// jsonFormat ends without a newline, as calicoctl's does; on a terminal the caller adds one.
type jsonFormat struct{}

func (jsonFormat) print(w io.Writer, results []any) error {
	text, err := document(single(results))
	if err != nil {
		return err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, text, "", "  "); err != nil {
		return err
	}
	_, err = indented.WriteTo(w)
	return err
}

type templateFormat struct {
	text     string
	asNumber func() string
}

func (f templateFormat) print(w io.Writer, results []any) error {
	functions := template.FuncMap{"join": join, "joinAndTruncate": joinAndTruncate, "config": f.config}
	parsed, err := template.New("get").Funcs(functions).Parse(f.text)
	if err != nil {
		return err
	}
	if p, ok := w.(*printable); ok {
		w = p.to // whoever writes a template may want a terminal to obey it
	}
	return parsed.Execute(w, results)
}

// config is the function config of templates.
func (f templateFormat) config(name string) (string, error) {
	if strings.EqualFold(name, "asnumber") {
		return f.asNumber(), nil
	}
	return "", fmt.Errorf("unknown config %q (asnumber is the only one)", name)
}

// inherit has a format ask the datastore for the AS number of nodes that set none, when it needs it.
func (s *session) inherit(ctx context.Context, f format) format {
	asNumber := sync.OnceValue(func() string {
		r, err := s.get(ctx, v3.Key{Kind: v3.KindBGPConfiguration, Name: "default"})
		switch {
		case errors.Is(err, store.ErrNotFound):
			return firstASNumber()
		case err != nil:
			return "unknown"
		}
		if n := r.(*v3.BGPConfiguration).Spec.ASNumber; n != nil {
			return value(n)
		}
		return firstASNumber()
	})
	switch f := f.(type) {
	case tableFormat:
		f.asNumber = asNumber
		return f
	case templateFormat:
		f.asNumber = asNumber
		return f
	}
	return f
}
