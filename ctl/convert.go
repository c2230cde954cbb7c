package ctl

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	v3 "margay/api/v3"
	"margay/ctl/convert"
)

// convertCommand is a command of calicoctl up to 3.31.
func (c *cli) convertCommand() *cobra.Command {
	var filename, output string
	var unchecked bool
	cmd := &cobra.Command{
		Use:   "convert -f FILE",
		Short: "Turn manifests of Calico v1 or Kubernetes NetworkPolicies into those of v3",
		Long: "Turn manifests of the Calico v1 API (policy, profile, hostEndpoint, tier, node) and NetworkPolicies of Kubernetes\n" +
			"into manifests of projectcalico.org/v3, and print them. No datastore is asked.",
		Example: c.example("$ convert -f policy.yaml -o yaml", "cat policy.json | $ convert -f -"),
		Args:    onlyFlags,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if filename == "" {
				return fmt.Errorf("%s needs a manifest: name a file or - with -f", cmd.CommandPath())
			}
			return c.convert(filename, output, unchecked)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&filename, "filename", "f", "", "manifest file, or - for standard input")
	flags.StringVarP(&output, "output", "o", "yaml", "yaml or json")
	flags.BoolVar(&unchecked, "ignore-validation", false, "print what came of it even if it is not valid")
	return cmd
}

func (c *cli) convert(filename, output string, unchecked bool) error {
	if output != "yaml" && output != "yml" && output != "json" {
		return fmt.Errorf("unrecognized output format '%s'", output)
	}
	data, err := c.readAll(filename)
	if err != nil {
		return fmt.Errorf("failed to create resources from file: %w", err)
	}
	resources, err := convert.Resources(filename, data)
	if err != nil {
		return fmt.Errorf("failed to convert resource: %w", err)
	}
	if !unchecked {
		if err := checkConverted(resources); err != nil {
			return err
		}
	}
	return writeConverted(c.env.Stdout, resources, output)
}

// checkConverted checks what apply would check. A namespace may still be missing: apply gives it one.
func checkConverted(resources []v3.Resource) error {
	for _, r := range resources {
		namespace, err := namespaceOf(v3.KeyOf(r), "")
		if err == nil {
			given := r.GetNamespace()
			r.SetNamespace(namespace)
			err = v3.Validate(r)
			r.SetNamespace(given)
		}
		if err != nil {
			return fmt.Errorf("converted manifest resource(s) failed validation: %w\n"+
				"Re-run the command with '--ignore-validation' flag to see the converted output", err)
		}
	}
	return nil
}

// writeConverted prints one resource as it is and several as a List.
func writeConverted(w io.Writer, resources []v3.Resource, output string) error {
	var value any = resources[0]
	if len(resources) > 1 {
		value = struct {
			Kind       string        `json:"kind"`
			APIVersion string        `json:"apiVersion"`
			Metadata   struct{}      `json:"metadata"`
			Items      []v3.Resource `json:"items"`
		}{Kind: "List", APIVersion: "v1", Items: resources}
	}
	var text []byte
	var err error
	if output == "json" {
		text, err = json.MarshalIndent(value, "", "  ")
		text = append(text, '\n')
	} else {
		text, err = yaml.Marshal(value)
	}
	if err == nil {
		_, err = w.Write(text)
	}
	return err
}
