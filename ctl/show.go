package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"margay/ruleset"
)

// NewShowCommand returns the command that prints what the kernel of this host enforces and counts, which read returns;
// nil says that nothing is enforced.
func NewShowCommand(read func(context.Context) ([]ruleset.Counter, error)) *cobra.Command {
	var output, socket string
	var rules bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print what the kernel of this host enforces, with packet counters",
		Long: "Print by endpoint and direction what is asked about a packet, in this order, and how many packets each rule\n" +
			"decided. It is read from the kernel; the agent need not run. Counted are packets that policy was asked about: of a\n" +
			"flow that is allowed the first ones only, for the rest of it belongs to a known flow. Counters begin at 0 when the\n" +
			"agent puts a rule into the kernel. What staged policies would decide is in tables of its own. It needs root.\n" +
			"With --rules the agent is asked what the rules say.",
		Example: "  margay node show\n  margay node show --rules\n  margay node show -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			counters, err := read(cmd.Context())
			if err != nil {
				return err
			}
			var p *ruleset.Program
			if rules {
				if p, err = askForRules(cmd.Context(), socket); err != nil {
					return err
				}
			}
			return show(printableOf(cmd.OutOrStdout()), shownAll(counters, p), output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text, yaml or json")
	cmd.Flags().BoolVar(&rules, "rules", false, "say what each rule matches, as the agent of this host has it")
	cmd.Flags().StringVar(&socket, "agent-socket", DefaultAgentSocket, "with --rules: the agent's socket")
	return cmd
}

// A shownCounter is a line of the output.
type shownCounter struct {
	Endpoint  string `json:"endpoint,omitempty"` // "" when several share the rule
	Direction string `json:"direction"`
	Stage     string `json:"stage"`
	Tier      string `json:"tier,omitempty"`
	Policy    string `json:"policy,omitempty"`
	Rule      *int   `json:"rule,omitempty"`
	Reason    string `json:"reason"` // policy rule, end of tier, failsafe ...
	Action    string `json:"action"`
	Staged    bool   `json:"staged,omitempty"` // would have been, nothing was done
	Packets   uint64 `json:"packets"`
	Bytes     uint64 `json:"bytes"`
	Text      string `json:"text,omitempty"` // what the rule says; with --rules
}

func shown(c *ruleset.Counter) shownCounter {
	s := shownCounter{Direction: c.Direction.String(), Stage: c.Stage.String(), Tier: c.Tier, Reason: c.Reason.String(),
		Action: c.Action.String(), Staged: c.Staged, Packets: c.Packets, Bytes: c.Bytes}
	if c.Endpoint != (ruleset.EndpointID{}) {
		s.Endpoint = c.Endpoint.String()
	}
	if c.Note != "" {
		s.Reason = c.Note
	}
	if c.Policy != (ruleset.PolicyID{}) {
		s.Policy = c.Policy.String()
	}
	if c.Reason == ruleset.PolicyRule || c.Reason == ruleset.ProfileRule {
		s.Rule = &c.Rule
	}
	return s
}

// shownAll returns the lines of the output, with what the rules of p say; nil: without that.
func shownAll(counters []ruleset.Counter, p *ruleset.Program) []shownCounter {
	list := make([]shownCounter, len(counters))
	for i := range counters {
		if list[i] = shown(&counters[i]); p != nil {
			list[i].Text = wordsOf(p, &counters[i])
		}
	}
	return list
}

func show(w io.Writer, list []shownCounter, output string) error {
	switch output {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(list)
	case "yaml", "yml":
		text, err := yaml.Marshal(list)
		if err == nil {
			_, err = w.Write(text)
		}
		return err
	case "text":
		return showText(w, list)
	}
	return fmt.Errorf("unrecognized output format '%s' (text, yaml or json)", output)
}

// showText prints a table for each stage of each endpoint.
func showText(w io.Writer, list []shownCounter) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "No packet of this host is filtered: its kernel has no rules of Margay, or no endpoint is on this host.")
		return err
	}
	tw := tabwriter.NewWriter(w, 5, 1, 3, ' ', 0)
	last, says := "", ""
	if slices.ContainsFunc(list, func(s shownCounter) bool { return s.Text != "" }) {
		says = "\tSAYS"
	}
	for i := range list {
		s := &list[i]
		title := stageText(s.Stage, s.Direction, s.Endpoint)
		if s.Endpoint == "" {
			title += ", of no single endpoint"
		}
		if s.Staged {
			title += ", if staged policies were enforced"
		}
		if title != last {
			if last != "" {
				fmt.Fprintln(tw)
			}
			fmt.Fprintf(tw, "%s\n", title)
			action := "ACTION"
			if s.Staged {
				action = "WOULD BE"
			}
			fmt.Fprintf(tw, "TIER\tPOLICY\tRULE\t%s\tPACKETS\tBYTES%s\n", action, says)
			last = title
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\t%d", orDash(s.Tier), s.what(), s.ruleText(), s.Action, s.Packets, s.Bytes)
		if s.Text != "" {
			fmt.Fprintf(tw, "\t%s", s.Text)
		}
		fmt.Fprintln(tw)
	}
	return tw.Flush()
}

// what is the policy, or in brackets what is no policy.
func (s *shownCounter) what() string {
	if s.Policy != "" && s.Rule != nil {
		return s.Policy
	}
	if s.Policy != "" {
		return "(" + s.Reason + ": " + s.Policy + ")"
	}
	return "(" + s.Reason + ")"
}

func (s *shownCounter) ruleText() string {
	if s.Rule == nil {
		return "-"
	}
	return strconv.Itoa(*s.Rule)
}
