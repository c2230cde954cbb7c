package ruleset

// A Counter says how many packets met one thing that decides, on one host. Only packets that policy was asked about count:
// of a flow that is allowed, the first until it is established.
type Counter struct {
	// Endpoint at whose stage it stands; zero when several share it.
	Endpoint  EndpointID
	Stage     Stage
	Direction Direction
	// Reason says what it is: PolicyRule, EndOfTier, ProfileRule, ProfileMissing, NoProfile, FailsafePort, FlowInvalid or
	// another one of those that no rule has a part in.
	Reason Reason
	Tier   string   // of a policy's rule, and of the end of a tier
	Policy PolicyID // of a rule; Kind is Profile for one of a profile, or for a profile that is missing
	Rule   int      // index in the rule list of the direction
	// Action is what was done with the packets; Log rules count what they saw, not only what was reported.
	Action Action
	// Staged: a staged policy, or the end of a tier that has one, would have done that, see [Pending]. Nothing was done.
	Staged bool
	// Note says what it is when none of the reasons does; Reason means nothing then.
	Note           string
	Packets, Bytes uint64
}

// Subject returns c without its counts: what is counted.
func (c Counter) Subject() Counter {
	c.Packets, c.Bytes = 0, 0
	return c
}
