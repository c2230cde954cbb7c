package node

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

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

// TestCut: a text of a status is short and valid UTF-8, whatever a stored value holds.
func TestCut(t *testing.T) {
	for _, text := range []string{"", "short", strings.Repeat("x", maxText), strings.Repeat("x", maxText+1), "x" + strings.Repeat("ä", maxText)} {
		got := cut(text)
		if len(text) <= maxText && got != text || len(got) > maxText+len("...") || !utf8.ValidString(got) {
			t.Errorf("%d bytes became %d: %.20q", len(text), len(got), got)
		}
	}
}
