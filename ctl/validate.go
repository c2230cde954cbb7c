package ctl

import (
	"github.com/spf13/cobra"

	v3 "margay/api/v3"
)

func (c *cli) validateCommand() *cobra.Command {
	var f inputFlags
	var config string
	cmd := &cobra.Command{
		Use:     "validate -f FILE",
		Short:   "Check manifests without a datastore",
		Long:    "Check manifests against everything that can be known without a datastore, and print what is wrong and where.",
		Example: c.example("$ validate -f policy.yaml", "$ validate -R -f manifests/"),
		Args:    onlyFlags,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.required(cmd); err != nil {
				return err
			}
			return c.validate(f)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVarP(&config, "config", "c", c.env.ConfigFile, "not used: no datastore is asked")
	return cmd
}

func (c *cli) validate(f inputFlags) error {
	docs, err := c.load(f)
	if err != nil {
		return err
	}
	o := outcome{kind: kindOf(docs), total: len(docs)}
	for _, doc := range docs {
		if errs := prepare([]v3.Document{doc}, f); len(errs) > 0 {
			o.fail(errs[0])
		} else {
			o.ok(v3.KeyOf(doc.Object))
		}
	}
	c.warnAlone(docs)
	return o.report(c.env.Stdout, verbValidate)
}
