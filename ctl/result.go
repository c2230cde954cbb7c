package ctl

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v3 "margay/api/v3"
	"margay/store"
)

// The values of --dry-run.
const (
	dryRunNone   = "none"
	dryRunClient = "client"
	dryRunServer = "server"
)

// resultFlags say whether anything is written at all, and how the result is printed. calicoctl has neither; names, values
// and sentences are kubectl's.
type resultFlags struct{ dryRun, output string }

func (f *resultFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.dryRun, "dry-run", dryRunNone, "`MODE`: client checks without a datastore, server lets the "+
		"datastore check everything; nothing is written")
	cmd.Flags().StringVarP(&f.output, "output", "o", "", "print what was written, as `FORMAT` name, yaml or json, instead of a sentence")
}

func (f *resultFlags) check(wait waitFlags) error {
	switch {
	case !slices.Contains([]string{dryRunNone, dryRunClient, dryRunServer}, f.dryRun):
		return fmt.Errorf("invalid dry-run value '%s', must be none, client or server", f.dryRun)
	case !slices.Contains([]string{"", "name", "yaml", "yml", "json"}, f.output):
		return fmt.Errorf("unrecognized output format '%s', expected one of: name, yaml, json", f.output)
	case wait.wait && f.dryRun != dryRunNone:
		return fmt.Errorf("both --wait and --dry-run=%s are given (nothing is written that could be waited for)", f.dryRun)
	}
	return nil
}

func (f *resultFlags) mode() store.Mode {
	if f.dryRun == dryRunNone {
		return store.Commit
	}
	return store.DryRun
}

// print prints the objects of the changes that were carried out.
func (f *resultFlags) print(w io.Writer, changes []*change) error {
	out, err := parseFormat(f.output, false)
	if err != nil {
		return err
	}
	var results []any
	for _, c := range changes {
		if c.err == nil && c.result != nil {
			results = append(results, c.result)
		}
	}
	if len(results) == 0 {
		return nil
	}
	return out.print(w, results)
}

// nameFormat prints kind.group/name, as kubectl does.
type nameFormat struct{}

func (nameFormat) print(w io.Writer, results []any) error {
	for _, result := range results {
		rows := []v3.Resource{}
		if _, ok := result.(*list); ok {
			_, rows = rowsOf(result)
		} else {
			rows = append(rows, result.(v3.Resource))
		}
		for _, r := range rows {
			if _, err := fmt.Fprintln(w, nameOf(v3.KeyOf(r))); err != nil {
				return err
			}
		}
	}
	return nil
}

func nameOf(key v3.Key) string {
	group, _, _ := strings.Cut(v3.APIVersion, "/")
	return strings.ToLower(string(key.Kind)) + "." + group + "/" + key.Name
}
