package node

import (
	"time"

	v3 "margay/api/v3"
	"margay/calc"
)

// slipMemory is how long a policy that took the place of another one is warned of: long enough to be seen, not so long that
// a change that was meant stands in every status.
const slipMemory = time.Hour

// slips remember what policies were before they became something else: nobody sees it in what is stored, and kubectl says
// no more than "configured" (guide defect G1). A new agent knows of none.
type slips struct {
	now map[v3.Key]v3.Resource // the policies
	was map[v3.Key]slip
}

type slip struct {
	policy v3.Resource
	since  time.Time
}

func newSlips() *slips { return &slips{map[v3.Key]v3.Resource{}, map[v3.Key]slip{}} }

// take notes a version of an object; nil: it is gone. What it was an hour ago counts, not what it was a moment ago: who
// corrects the mistake is not warned of the correction.
func (s *slips) take(key v3.Key, r v3.Resource, at time.Time) {
	if key.Kind != v3.KindGlobalNetworkPolicy && key.Kind != v3.KindNetworkPolicy {
		return
	}
	before := s.now[key]
	if r == nil {
		delete(s.now, key)
		delete(s.was, key)
		return
	}
	s.now[key] = r
	if old, known := s.was[key]; before != nil && (!known || at.Sub(old.since) > slipMemory) {
		s.was[key] = slip{before, at}
	}
}

// warned reports whether there is anything left to warn of.
func (s *slips) warned() bool { return len(s.was) > 0 }

// warnings returns what calc says of them.
func (s *slips) warnings(c *calc.Calc, at time.Time) []calc.Warning {
	var list []calc.Warning
	for key, was := range s.was {
		if at.Sub(was.since) > slipMemory {
			delete(s.was, key)
		} else if text := c.Slipped(key, was.policy); text != "" {
			list = append(list, calc.Warning{Key: key, Text: text})
		}
	}
	return list
}
