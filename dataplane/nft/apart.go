package nft

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"margay/ruleset"
)

// apart reports whether nothing changes but elements of the maps of one group, and no packet can meet two of them that change.
// Then a packet meets what was or what is to be, whenever that is, and the elements may change at once: without rules, for
// which the kernel would look through all verdict maps for loops.
func (t *touch) apart() bool {
	if len(t.before.Chains)+len(t.before.Sets) > 0 {
		return false
	}
	var group *group
	var keys []mapKey
	for s := range t.record {
		gone, come := t.record.changed(s)
		if len(gone)+len(come) == 0 {
			continue
		}
		m, ok := s.derived.(*groupMap)
		if !ok || group != nil && group != m.group {
			return false
		}
		group = m.group
		for _, e := range slices.Concat(gone, come) {
			keys = append(keys, m.keyOf(e))
		}
	}
	return disjoint(keys)
}

// A mapKey is the key of an element of a group's map.
type mapKey struct {
	prefix netip.Prefix
	rest   string // protocol and port
}

func (m *groupMap) keyOf(e Element) mapKey {
	size := 4
	if m.length.family == ruleset.IPv6 {
		size = 16
	}
	a, _ := netip.AddrFromSlice([]byte(e.Key[:size]))
	return mapKey{netip.PrefixFrom(a, m.length.bits), e.Key[size:]}
}

// disjoint reports whether no packet matches two different keys. It sorts them.
func disjoint(keys []mapKey) bool {
	slices.SortFunc(keys, func(a, b mapKey) int {
		return cmp.Or(strings.Compare(a.rest, b.rest), a.prefix.Addr().Compare(b.prefix.Addr()), a.prefix.Bits()-b.prefix.Bits())
	})
	for i := 1; i < len(keys); i++ { // what covers a key is next to one that it covers
		if a, b := keys[i-1], keys[i]; a != b && a.rest == b.rest && a.prefix.Overlaps(b.prefix) {
			return false
		}
	}
	return true
}
