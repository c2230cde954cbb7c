package demo

import (
	"context"
	"sync"
)

// A cell is one field of the table: an attempt, how it should end and how it did.
type cell struct {
	probe      probe
	want, seen outcome
}

// A row is a line of the table: the same attempts at, or from, the guide's two hosts.
type row struct {
	label string
	cells [2][]cell // kubeadm-master, kubeadm-node-0
}

// A table is all that a step looks at.
type table struct {
	in  []row // what reaches the hosts, with a cell for each of inPorts
	out []row // what the hosts reach, and the agents' own word: one cell
}

// inPorts are the ports of the hosts that everybody tries.
func inPorts() []uint16 { return []uint16{portSSH, portHTTP, portHTTPAlt, portMetrics} }

// table returns what there is to see, with what is wanted.
func (s *stage) table(w want) *table {
	t := &table{}
	for _, client := range everyone() {
		t.in = append(t.in, s.incoming(client, w))
	}
	other, store := s.stations[stranger], s.stations[storeHost]
	t.out = []row{
		s.outgoing("stranger 80", wanted(w.ordinary), func(from station) probe { return probeTCP(from, other, portHTTP) }),
		s.outgoing("stranger 53 by UDP", answered, func(from station) probe { return probeUDP(from, other, portDNS) }),
		s.outgoing("store 2379", answered, func(from station) probe { return probeConnect(from, store, portStore) }),
		s.outgoing("(agent in sync)", answered, probeAgent),
	}
	return t
}

func (s *stage) incoming(client string, w want) row {
	r := row{label: client}
	for i, target := range []string{master, node0} {
		from, to := s.stations[client], s.stations[target]
		for _, port := range inPorts() {
			c := cell{probe: probeTCP(from, to, port), want: wanted(w.in(client, port))}
			if port == portMetrics {
				c.probe = probeMetrics(from, to)
			}
			r.cells[i] = append(r.cells[i], c)
		}
	}
	return r
}

func (s *stage) outgoing(label string, want outcome, probe func(station) probe) row {
	r := row{label: label}
	for i, name := range []string{master, node0} {
		r.cells[i] = []cell{{probe: probe(s.stations[name]), want: want}}
	}
	return r
}

func wanted(open bool) outcome {
	if open {
		return answered
	}
	return silence
}

// cells returns every cell of the table.
func (t *table) cells() []*cell {
	var cells []*cell
	for _, rows := range [][]row{t.in, t.out} {
		for _, r := range rows {
			for _, block := range r.cells {
				for i := range block {
					cells = append(cells, &block[i])
				}
			}
		}
	}
	return cells
}

// look makes all attempts at once and fills in what was seen.
func (t *table) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var wg sync.WaitGroup
	for _, c := range t.cells() {
		wg.Go(func() { c.seen = c.probe(ctx) })
	}
	wg.Wait()
}

// wrong counts the cells that are not as they should be.
func (t *table) wrong() int {
	n := 0
	for _, c := range t.cells() {
		if c.seen != c.want {
			n++
		}
	}
	return n
}
