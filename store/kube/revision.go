package kube

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"margay/store"
)

// A vector is a state of several sources: by the id of each its resourceVersion, up to which everything is contained. Under
// "" is the version of all the others, if there is one. 0: the server does not serve the source.
//
// As a Revision it is the number of the others and then every source with another, each as id=number:
//
//	1234;pods=1230;tiers=1187       a list, or a watch: 1234 is the highest
//	tiers=1187                      a write
//	1187                            resourceVersion of an object: its source is not said
type vector map[string]uint64

func (v vector) revision() store.Revision {
	var b strings.Builder
	if all, ok := v[""]; ok {
		b.WriteString(strconv.FormatUint(all, 10))
	}
	for _, id := range slices.Sorted(maps.Keys(v)) {
		if id == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(';')
		}
		fmt.Fprintf(&b, "%s=%d", id, v[id])
	}
	return store.Revision(b.String())
}

// state returns the revision at which sources are where v says: the highest number stands for all that have it.
func (v vector) state() store.Revision {
	highest := uint64(0)
	for _, n := range v {
		highest = max(highest, n)
	}
	short := vector{"": highest}
	for id, n := range v {
		if n != highest {
			short[id] = n
		}
	}
	return short.revision()
}

func parseRevision(revision store.Revision) (vector, error) {
	v := vector{}
	for i, part := range strings.Split(string(revision), ";") {
		id, number, tagged := strings.Cut(part, "=")
		if !tagged {
			id, number = "", part
		}
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil || !tagged && i > 0 || tagged && id == "" {
			return nil, fmt.Errorf("revision %q is not one of a Kubernetes datastore", revision)
		}
		v[id] = n
	}
	return v, nil
}

// at returns the version of a source.
func (v vector) at(id string) (uint64, bool) {
	n, ok := v[id]
	if !ok {
		n, ok = v[""]
	}
	return n, ok
}

// Reached implements store.Store: every source that the goal names is as far. A goal that names none is reached when all
// sources are as far.
func (s *Store) Reached(r, goal store.Revision) bool {
	if goal == "" || r == goal {
		return true
	}
	now, err := parseRevision(r)
	if err != nil {
		return false
	}
	want, err := parseRevision(goal)
	if err != nil {
		return false
	}
	for id, n := range want {
		if id == "" {
			if now.lowest(want) < n {
				return false
			}
			continue
		}
		if m, ok := now.at(id); !ok || m < n {
			return false
		}
	}
	return true
}

// lowest returns the lowest version of the sources that goal does not name.
func (v vector) lowest(goal vector) uint64 {
	lowest, found := uint64(0), false
	for id, n := range v {
		if _, named := goal[id]; named && id != "" || n == 0 {
			continue
		}
		if !found || n < lowest {
			lowest, found = n, true
		}
	}
	return lowest
}
