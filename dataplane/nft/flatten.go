package nft

import (
	"strings"

	"margay/ruleset"
)

// An outcome is what a line does with a packet that matches.
type outcome uint8

const (
	deny   outcome = iota
	accept         // leaves the table
	next           // on to the next stage
	report         // tell the log group, then on to the next line
)

// A line is one rule of an endpoint in one direction.
type line struct {
	rule    *ruleset.Rule // nil: every packet
	outcome outcome
	comment string
	prefix  string // of the report
}

// A stage is a list of lines that decides: its last line matches every packet. The stages of an endpoint follow each
// other as Eval walks: tiers, then profiles.
type stage struct {
	name  []string // appended to the endpoint's chain name
	lines []line
}

// flatten returns what Eval walks for an endpoint and a direction after the failsafes: a stage for each tier that
// decides anything, and one for the profiles. Lines behind one that matches everything are left out. How the stages
// become chains is decided elsewhere.
func (u *builder) flatten(ep *ruleset.Endpoint, dir ruleset.Direction) []stage {
	var stages []stage
	for _, tier := range ep.Normal.Tiers(dir) {
		if s, ok := u.tier(&tier, dir); ok {
			stages = append(stages, s)
		}
	}
	stages = append(stages, u.profiles(ep, dir))
	for i := range stages {
		stages[i].lines = reachable(stages[i].lines)
	}
	return stages
}

// tier reports ok false when no policy of the tier is enforced: then it decides nothing.
func (u *builder) tier(tier *ruleset.Tier, dir ruleset.Direction) (s stage, ok bool) {
	s.name = []string{"tier", tier.Name}
	for _, id := range tier.Policies {
		policy := u.policy(id)
		if policy == nil || policy.Staged {
			continue
		}
		ok = true
		rules := policy.Rules(dir)
		for i := range rules {
			l := line{rule: &rules[i], comment: ruleRemark(id, i, rules[i].Action)}
			switch rules[i].Action {
			case ruleset.Allow:
				l.outcome = accept
			case ruleset.Pass:
				l.outcome = next
			case ruleset.Log:
				l.outcome, l.prefix = report, logPrefix(u.settings.LogPrefix, tier.Name, id)
			}
			s.lines = append(s.lines, l)
		}
	}
	end := line{comment: tierRemark(tier.Name)}
	if tier.EndPass {
		end.outcome = next
	}
	s.lines = append(s.lines, end)
	return s, ok
}

func (u *builder) profiles(ep *ruleset.Endpoint, dir ruleset.Direction) stage {
	s := stage{name: []string{"profiles"}}
	for _, name := range ep.Profiles {
		profile := u.profile(name)
		if profile == nil {
			s.lines = append(s.lines, line{comment: "profile " + name + " is missing"})
			continue
		}
		rules := profile.Rules(dir)
		for i := range rules {
			l := line{rule: &rules[i], comment: ruleRemark(profileID(name), i, rules[i].Action)}
			switch rules[i].Action {
			case ruleset.Allow:
				l.outcome = accept
			case ruleset.Deny:
			case ruleset.Log:
				id := ruleset.PolicyID{Kind: "Profile", Name: name}
				l.outcome, l.prefix = report, logPrefix(u.settings.LogPrefix, "", id)
			default: // Pass means nothing in a profile
				continue
			}
			s.lines = append(s.lines, l)
		}
	}
	s.lines = append(s.lines, line{comment: "no profile allows"})
	return s
}

// reachable cuts the lines behind the first one that always decides.
func reachable(lines []line) []line {
	for i, l := range lines {
		if l.rule == nil {
			return lines[:i+1]
		}
	}
	return lines
}

// maxLogPrefix is the length of the longest prefix of a report (NF_LOG_PREFIXLEN less the final zero).
const maxLogPrefix = 127

// logPrefix returns the prefix of the reports of a policy's Log rules. In the configured prefix %t stands for the tier, %k
// for the kind, %p for namespace/name and %n for the name of the policy (spec 2.11); with none of them tier and policy
// are appended.
func logPrefix(configured, tier string, id ruleset.PolicyID) string {
	full := id.Name
	if id.Namespace != "" {
		full = id.Namespace + "/" + id.Name
	}
	expanded := strings.NewReplacer("%t", tier, "%k", id.Kind, "%p", full, "%n", id.Name).Replace(configured)
	if expanded == configured {
		expanded = strings.TrimLeft(configured+" "+tier+" "+id.String(), " ")
	}
	expanded = remark(expanded)
	return expanded[:min(len(expanded), maxLogPrefix-2)] + ": "
}
