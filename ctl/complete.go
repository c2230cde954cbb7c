package ctl

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v3 "margay/api/v3"
)

// completionTime is how long a shell waits for names: who presses the tab key does not want to know that nobody answers.
const completionTime = 2 * time.Second

// completeArgs completes KIND NAME...: kinds from the program, names from the datastore.
func (c *cli) completeArgs(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return completeKind(start), cobra.ShellCompDirectiveNoFileComp
	}
	view, err := lookupKind(args[0])
	if err != nil || (len(args) > 1 && strings.Contains(cmd.Use, " NAME ")) {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	key := v3.Key{Kind: view.kind}
	namespace, _ := cmd.Flags().GetString("namespace")
	if key.Namespace, err = namespaceOf(key, namespace); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, k := range c.stored(cmd, key.Namespace, key.Kind) {
		if strings.HasPrefix(k.Name, start) && !slices.Contains(args[1:], k.Name) {
			out = append(out, k.Name)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func completeKind(start string) []string {
	var names []string
	for _, info := range v3.Kinds() {
		if strings.HasPrefix(info.Plural, strings.ToLower(start)) {
			names = append(names, info.Plural)
		}
	}
	slices.Sort(names)
	return names
}

// completeEndpoint completes a flag that takes the name of an endpoint; those of workloads go with their namespace.
func (c *cli) completeEndpoint(cmd *cobra.Command, _ []string, start string) ([]string, cobra.ShellCompDirective) {
	var out []string
	for _, k := range c.stored(cmd, "", v3.KindHostEndpoint, v3.KindWorkloadEndpoint) {
		name := k.Name
		if k.Namespace != "" {
			name = k.Namespace + "/" + name
		}
		if strings.HasPrefix(name, start) {
			out = append(out, name)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// stored returns the keys of what is stored; none if there is no answer soon.
func (c *cli) stored(cmd *cobra.Command, namespace string, kinds ...v3.Kind) []v3.Key {
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	config, err := cmd.Flags().GetString("config")
	if err != nil {
		return nil
	}
	c.timeout = completionTime
	s, err := c.open(ctx, storeFlags{config})
	if err != nil {
		return nil
	}
	defer s.close()
	list, err := s.list(ctx, namespace, kinds...)
	if err != nil {
		return nil
	}
	keys := make([]v3.Key, len(list.Items))
	for i, r := range list.Items {
		keys[i] = v3.KeyOf(r)
	}
	return keys
}
