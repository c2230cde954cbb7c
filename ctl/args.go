package ctl

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	v3 "margay/api/v3"
)

// errNoName is calicoctl's answer to an empty NAME.
var errNoName = errors.New("resource name may not be empty")

// onlyFlags refuses arguments where manifests are named with -f.
func onlyFlags(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument %q (a manifest is named with -f)", cmd.CommandPath(), args[0])
	}
	return nil
}

// exactly refuses any other number of arguments than the usage line names.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			plural := "s"
			if len(args) == 1 {
				plural = ""
			}
			return fmt.Errorf("%d argument%s given, want: %s", len(args), plural, cmd.UseLine())
		}
		return nil
	}
}

// A group is a command that only has others below it.
func group(cmd *cobra.Command, below ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return fmt.Errorf("unknown command %q for %q (see %s --help)", args[0], cmd.CommandPath(), cmd.CommandPath())
	}
	cmd.AddCommand(below...)
	return cmd
}

// absent is a command of calicoctl that is not here, whatever its flags are: a script must not take it for done.
func absent(name, why string) *cobra.Command {
	return &cobra.Command{
		Use: name, Hidden: true, DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return fmt.Errorf("%s is not there: %s", cmd.CommandPath(), why)
		},
	}
}

// keysOf returns the keys of KIND NAME..., in the namespace that is given or default. Without names it returns one key
// without a name; with a namespaceError, one of the kind.
func keysOf(args []string, namespace string) ([]v3.Key, error) {
	view, err := lookupKind(args[0])
	if err != nil {
		return nil, err
	}
	key := v3.Key{Kind: view.kind}
	if key.Namespace, err = namespaceOf(key, namespace); err != nil {
		return []v3.Key{key}, err
	}
	if len(args) == 1 {
		return []v3.Key{key}, nil
	}
	keys := make([]v3.Key, 0, len(args)-1)
	for _, name := range args[1:] {
		if name == "" {
			return nil, errNoName
		}
		key.Name = name
		keys = append(keys, key)
	}
	return keys, nil
}

// mustLookup is for kinds that have a view.
func mustLookup(kind v3.Kind) v3.Info {
	info, ok := v3.Lookup(kind)
	if !ok {
		panic("ctl: no kind " + kind)
	}
	return info
}
