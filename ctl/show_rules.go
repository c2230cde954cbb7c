package ctl

import (
	"context"
	"fmt"
	"strings"
	"time"

	"margay/ruleset"
)

// agentTimeout bounds how long an agent on the same host is waited for.
const agentTimeout = 10 * time.Second

// askForRules returns what the agent of this host enforces.
func askForRules(ctx context.Context, socket string) (*ruleset.Program, error) {
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	state, err := askLive(ctx, socket)
	if err != nil {
		return nil, fmt.Errorf("%w; without --rules the agent is not asked", err)
	}
	return state.Program, nil
}

// wordsOf says what is counted, as the agent has it; "" if that is not known to it. The kernel may be a moment ahead of it, or behind.
func wordsOf(p *ruleset.Program, c *ruleset.Counter) string {
	var rules []ruleset.Rule
	switch policy, profile := p.Policies[c.Policy], p.Profiles[c.Policy.Name]; {
	case c.Note != "":
	case c.Reason == ruleset.PolicyRule && policy != nil:
		rules = policy.Rules(c.Direction)
	case c.Reason == ruleset.ProfileRule && profile != nil:
		rules = profile.Rules(c.Direction)
	case c.Reason == ruleset.FailsafePort:
		var ports []string
		list := p.Settings.Failsafes(c.Direction)
		for i := range list {
			ports = append(ports, failsafeWords(&list[i]))
		}
		return strings.Join(ports, ", ")
	case c.Reason == ruleset.ServiceLoop && len(p.Settings.ServiceNets) > 0:
		var nets []string
		for _, net := range p.Settings.ServiceNets {
			nets = append(nets, net.String())
		}
		return "to " + strings.Join(nets, ", ")
	}
	if c.Rule < len(rules) {
		return p.RuleText(&rules[c.Rule])
	}
	return ""
}
