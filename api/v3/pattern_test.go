package v3

import "testing"

// TestPatterns compiles every pattern: a wrong one would come up only when it is asked.
func TestPatterns(t *testing.T) {
	for _, p := range []*pattern{
		dnsLabel, dnsSubdomain, oneOrTwoLabels, reservedPolicy, labelNamePart, endpointPortName, leadingZero, bgpInterfaceFormat, interfaceName,
		containerID, portRange, portName, decimal, yamlLine, durationFormat, timeoutFormat, logPrefixFormat, logRateFormat, hostFormat, ifaceFormat,
		ifaceStarFormat, ifaceFilter, featureFormat, keyValueFormat, reporterFormat,
	} {
		if p.compiled().String() != p.String() {
			t.Errorf("%s is compiled as %s", p, p.compiled())
		}
	}
}
