package node

import (
	"slices"
	"strings"
	"testing"

	v3 "margay/api/v3"
	"margay/store"
)

// TestStatusNamesUnused checks that the status says which parameters have no effect, and no longer when they are gone.
func TestStatusNamesUnused(t *testing.T) {
	r := newRig(t)
	r.options.Environ = append(r.options.Environ, "FELIX_BPFENABLED=true")
	r.start()
	names := func(s store.NodeStatus, name string) bool {
		return slices.ContainsFunc(s.Unused, func(text string) bool { return strings.Contains(text, name) })
	}
	r.untilStatus("unused variable", func(s store.NodeStatus) bool { return names(s, "BPFENABLED") })
	r.put(v3.KindFelixConfiguration, `{"metadata":{"name":"default"},"spec":{"wireguardEnabled":true}}`)
	r.untilStatus("unused field", func(s store.NodeStatus) bool { return names(s, "WireguardEnabled") })
	r.put(v3.KindFelixConfiguration, `{"metadata":{"name":"default"},"spec":{}}`)
	r.untilStatus("no unused field", func(s store.NodeStatus) bool { return !names(s, "WireguardEnabled") && names(s, "BPFENABLED") })
}
