package main

import (
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// TestIntruder lets somebody else change the table in every way that nft offers and expects it to be right again within
// a second. Other tables stay as they are.
func TestIntruder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.startAgent()
	w.awaitReady()
	w.awaitEnforced(w.apply(scrapers))
	program := w.program()
	w.must(w.differs(program))
	theirs := &nftables.Table{Name: "theirs", Family: nftables.TableFamilyINet}
	w.nft(func(c *nftables.Conn) { c.AddTable(theirs) })
	ours := &nftables.Table{Name: "margay", Family: nftables.TableFamilyINet}
	for _, edit := range []struct {
		name string
		do   func(*nftables.Conn)
	}{
		{"delete the table", func(c *nftables.Conn) { c.DelTable(ours) }},
		{"flush the table", func(c *nftables.Conn) { c.FlushTable(ours) }},
		{"flush a chain", func(c *nftables.Conn) { c.FlushChain(w.chain("ingress")) }},
		{"insert a rule", func(c *nftables.Conn) {
			c.InsertRule(&nftables.Rule{Table: ours, Chain: w.chain("input"), Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}})
		}},
		{"delete a rule", func(c *nftables.Conn) {
			rules, err := c.GetRules(ours, w.chain("ingress"))
			w.must(err)
			w.must(c.DelRule(rules[0]))
		}},
		{"add a chain", func(c *nftables.Conn) { c.AddChain(&nftables.Chain{Name: "theirs", Table: ours}) }},
		{"add a set", func(c *nftables.Conn) {
			w.must(c.AddSet(&nftables.Set{Table: ours, Name: "theirs", KeyType: nftables.TypeIPAddr}, nil))
		}},
		{"empty a set", func(c *nftables.Conn) {
			sets, err := c.GetSets(ours)
			w.must(err)
			for _, s := range sets {
				if !s.Constant {
					c.FlushSet(s)
				}
			}
		}},
	} {
		w.nft(edit.do)
		start := time.Now()
		w.eventually(time.Second, edit.name+", repaired", func() error { return w.differs(program) })
		t.Logf("%s: right again after %v", edit.name, time.Since(start).Round(time.Millisecond))
		if w.scrapes(w.other) {
			t.Errorf("%s: equal to a fresh compile, and the port is open", edit.name)
		}
	}
	conn, err := nftables.New(nftables.WithNetNSFd(w.host.NetNS()))
	w.must(err)
	tables, err := conn.ListTables()
	w.must(err)
	if len(tables) != 2 {
		t.Errorf("tables: %d, want ours and theirs", len(tables))
	}
}

// nft changes the host's nftables as any other program would.
func (w *world) nft(do func(*nftables.Conn)) {
	w.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(w.host.NetNS()))
	w.must(err)
	do(conn)
	w.must(conn.Flush())
}

// chain returns the base chain of a hook or, for a direction, the first chain of the endpoint.
func (w *world) chain(name string) *nftables.Chain {
	w.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(w.host.NetNS()))
	w.must(err)
	chains, err := conn.ListChains()
	w.must(err)
	for _, c := range chains {
		if c.Table.Name == "margay" && (c.Name == name || c.Name == name+"/HostEndpoint/host-a.eth0") {
			return c
		}
	}
	w.Fatalf("no chain %s among %d", name, len(chains))
	return nil
}
