package v3

import (
	"fmt"
	"strings"
)

// The tables that a kernel has, and how many of them one agent may manage.
const (
	maxRouteTable  = 1<<32 - 1
	maxRouteTables = 1<<16 - 1
)

// defaultFelixConfiguration sets what is absent. A setting of old decides two newer ones, also where they are there, as in
// 3.32.
func defaultFelixConfiguration(s *FelixConfigurationSpec) {
	defaultTags(s)
	if s.BPFConnectTimeLoadBalancingEnabled == nil {
		return
	}
	balancing, translation := "Disabled", "Disabled"
	if *s.BPFConnectTimeLoadBalancingEnabled {
		balancing = "Enabled"
	}
	s.BPFConnectTimeLoadBalancing, s.BPFHostNetworkedNATWithoutCTLB = &balancing, &translation
}

// validateFelixConfiguration checks the tags of the fields and what concerns several fields. Ports and nets of
// failsafe ports are written without a check, as in 3.32: the warning says what the agent will not understand.
func validateFelixConfiguration(c *check, f *FelixConfiguration) {
	s := &f.Spec
	checkTags(c, "spec", s)
	if s.NodeSelector != nil && (f.Name == FelixConfigurationDefault || strings.HasPrefix(f.Name, FelixConfigurationNodePrefix)) {
		c.fail("spec.nodeSelector", *s.NodeSelector,
			"nodeSelector must not be set on the 'default' or per-node ('node.*') FelixConfiguration", "choose another name")
	}
	for i, p := range s.KubeNodePortRanges {
		if p.Name != "" {
			c.fail(index("spec.kubeNodePortRanges", i), p.Name, "node port ranges should not contain named ports", "")
		}
	}
	for i, o := range s.HealthTimeoutOverrides {
		if o.Timeout.Duration < 0 {
			c.fail(index("spec.healthTimeoutOverrides", i)+".timeout", o.Timeout.Duration, "Timeout should not be negative", "")
		}
	}
	checkRouteTables(c, s)
}

func checkRouteTables(c *check, s *FelixConfigurationSpec) {
	if r := s.RouteTableRange; r != nil {
		if r.Min < 1 || r.Max < r.Min || r.Max > 250 {
			c.fail("spec.routeTableRange", fmt.Sprintf("%d..%d", r.Min, r.Max), "must be a range of route table indices within 1..250", "")
		}
		if s.RouteTableRanges != nil {
			c.fail("spec.routeTableRange", nil, "routeTableRange and routeTableRanges cannot both be set", "remove one of them")
		}
	}
	total := 0
	for i, r := range s.RouteTableRanges {
		at := index("spec.routeTableRanges", i)
		switch {
		case r.Min > r.Max:
			c.fail(at, fmt.Sprintf("%d..%d", r.Min, r.Max), "min value cannot be greater than max value", "")
		case r.Min < 1:
			c.fail(at+".min", r.Min, "cannot target indices < 1", "")
		case r.Max > maxRouteTable:
			c.fail(at+".max", r.Max, "max index too high", "")
		default:
			total += r.Max - r.Min + 1
		}
	}
	if total > maxRouteTables {
		c.failf("spec.routeTableRanges", nil, "targets too many tables: %d, at most %d", total, maxRouteTables)
	}
}

// warnFelixConfiguration names what is stored but does not do what it says.
func warnFelixConfiguration(f *FelixConfiguration) []string {
	var warnings []string
	scoped := f.Name != FelixConfigurationDefault && !strings.HasPrefix(f.Name, FelixConfigurationNodePrefix)
	if scoped && (f.Spec.NodeSelector == nil || *f.Spec.NodeSelector == "") {
		warnings = append(warnings,
			"it applies to no host: call it default or node.<host>, or set spec.nodeSelector (all() selects every host)")
	}
	for _, list := range []struct {
		field string
		ports []ProtoPort
	}{{"failsafeInboundHostPorts", f.Spec.FailsafeInboundHostPorts}, {"failsafeOutboundHostPorts", f.Spec.FailsafeOutboundHostPorts}} {
		if list.ports != nil && len(list.ports) == 0 {
			warnings = append(warnings, "spec."+list.field+" is empty: a host endpoint without a fitting policy cuts this host off")
		}
		for i, p := range list.ports {
			if _, err := ParseProtoPort(p.String()); err != nil {
				warnings = append(warnings, fmt.Sprintf(
					"%s: %v; the agent will keep the failsafe ports that it had (write tcp or udp, a port from 1 to 65535 and a CIDR or nothing)",
					index("spec."+list.field, i), err))
			}
		}
	}
	return warnings
}
