package nft

import (
	"strconv"
	"strings"

	"margay/ruleset"
)

// The comments of rules and chains say in the user's terms where they come from, and are how Counters knows. What counts for
// it comes first: a comment that is too long is cut at its end.

// ruleRemark is the comment of a rule that a policy has, or a profile under the kind Profile.
func ruleRemark(id ruleset.PolicyID, index int, a ruleset.Action) string {
	return a.String() + " by rule " + strconv.Itoa(index) + " of " + id.String()
}

// tierRemark is the comment of the end of a tier.
func tierRemark(tier string) string { return "end of tier " + tier }

// noProfileRemark is the comment of the rule behind all profiles.
const noProfileRemark = "no profile allows"

// againRemark is in the comments of chains in which packets meet a stage a second time, which does not count.
const againRemark = "untracked again"

// stagedRemark is in the comments of chains that count for staged policies, and decide nothing.
const stagedRemark = "staged"

// profileID is how a profile is named where policies are.
func profileID(name string) ruleset.PolicyID { return ruleset.PolicyID{Kind: "Profile", Name: name} }

// readRemark reads what ruleRemark wrote.
func readRemark(text string) (id ruleset.PolicyID, index int, a ruleset.Action, ok bool) {
	action, rest, found := strings.Cut(text, " by rule ")
	number, name, named := strings.Cut(rest, " of ")
	index, err := strconv.Atoi(number)
	if !found || !named || err != nil {
		return id, 0, 0, false
	}
	for _, a = range []ruleset.Action{ruleset.Deny, ruleset.Allow, ruleset.Pass, ruleset.Log} {
		if a.String() == action {
			id, ok = readID(name)
			return id, index, a, ok
		}
	}
	return id, 0, 0, false
}

// readID reads Kind(namespace/name), whose end may be cut.
func readID(text string) (ruleset.PolicyID, bool) {
	kind, rest, found := strings.Cut(text, "(")
	if !found || kind == "" || strings.Contains(kind, " ") {
		return ruleset.PolicyID{}, false
	}
	id := ruleset.PolicyID{Kind: kind, Name: strings.TrimSuffix(rest, ")")}
	if namespace, name, has := strings.Cut(id.Name, "/"); has {
		id.Namespace, id.Name = namespace, name
	}
	return id, true
}
