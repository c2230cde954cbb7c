package ruleset

// A StepKind says what a Step is about.
type StepKind uint8

// The kinds of steps, in the order in which they nest.
const (
	AtEndpoint StepKind = iota // a stage of an endpoint begins; Endpoint is zero where none is concerned
	AtPolicy                   // a policy of Tier begins
	AtProfile                  // a profile begins
	AtRule                     // a rule of the policy or profile was looked at
	AtTierEnd                  // a rule of Tier passed, or none decided and the tier lets that pass: on to the next
	AtDecision                 // Verdict: the stage decided, or let the packet pass
)

// A Step is one thing that was looked at on the way to a verdict.
type Step struct {
	Kind      StepKind
	Stage     Stage
	Direction Direction
	Endpoint  EndpointID

	Tier   string
	Policy PolicyID
	// Staged policies are looked at where they stand and decide nothing: a rule of one that matched, and is no Log rule,
	// is what it would have decided.
	Staged  bool
	Profile string
	Rule    int // index in the rule list of the direction
	Action  Action
	Matched bool

	Verdict Verdict
}

// Trace is [Eval] that tells step, in order, what it looks at; a nil step is not told. Policies and rules behind the one
// that decided are not looked at.
func Trace(p *Program, pkt *Packet, step func(Step)) Verdict {
	e := evaluation{program: p, packet: *pkt, original: pkt.beforeDNAT(), step: step}
	return e.run()
}

func (e *evaluation) tell(s *Step) {
	if e.step == nil {
		return
	}
	s.Stage, s.Direction, s.Endpoint = e.stage, e.direction, e.endpoint
	e.step(*s)
}
