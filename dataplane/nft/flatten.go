package nft

import (
	"strings"

	"margay/ruleset"
)

// An outcome is what a line does with a packet that matches. What the first three are at a place, its exits say.
type outcome uint8

const (
	deny   outcome = iota
	accept         // the stages after this one are not asked
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

// flatten returns what Eval walks in one of its stages after the failsafes: a stage for each tier that decides anything.
// Lines behind one that matches everything are left out. How the stages become chains is decided elsewhere.
func (u *builder) flatten(s ruleset.Stage, w *ruleset.Walk, dir ruleset.Direction) []stage {
	var stages []stage
	for _, tier := range w.Tiers(dir) {
		if s == ruleset.PreDNAT || s == ruleset.Untracked {
			tier.EndPass = true
		}
		if s, ok := u.tier(&tier, dir); ok {
			s.lines = reachable(s.lines)
			stages = append(stages, s)
		}
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
				l.outcome, l.prefix = report, u.logPrefix(tier.Name, id)
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

// profiles returns the stage after the last tier of Normal.
func (u *builder) profiles(names []string, dir ruleset.Direction) stage {
	s := stage{name: []string{"profiles"}}
	for _, name := range names {
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
				l.outcome, l.prefix = report, u.logPrefix("", profileID(name))
			default: // Pass means nothing in a profile
				continue
			}
			s.lines = append(s.lines, l)
		}
	}
	s.lines = append(s.lines, line{comment: noProfileRemark})
	s.lines = reachable(s.lines)
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

// logPrefix returns the prefix of the reports of a policy's or profile's Log rules (spec 2.11). If the configured one has
// no specifiers, tier and policy are appended: without them a report says nothing.
func (u *builder) logPrefix(tier string, id ruleset.PolicyID) string {
	text := u.settings.LogText(tier, id)
	if text == u.settings.LogPrefix {
		text = strings.TrimLeft(text+" "+tier+" "+id.String(), " ")
	}
	text = remark(text)
	return text[:min(len(text), maxLogPrefix-2)] + ": "
}
