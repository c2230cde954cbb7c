package nft

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// sample returns a Program that uses every kind of object.
func sample() *ruleset.Program {
	p := ruleset.NewProgram()
	open := ruleset.PolicyID{Kind: "GlobalNetworkPolicy", Name: "open"}
	p.Sets["addrs"] = ruleset.NewSet(ruleset.Addrs, `role == "scraper"`,
		ruleset.Member{Prefix: netip.MustParsePrefix("10.1.0.0/24")}, ruleset.Member{Prefix: netip.MustParsePrefix("fd01::/64")})
	p.Sets["ports"] = ruleset.NewSet(ruleset.AddrPorts, "port metrics",
		ruleset.Member{Prefix: netip.MustParsePrefix("10.2.0.1/32"), Protocol: ruleset.TCP, Port: 9091})
	p.Policies[open] = &ruleset.Policy{ID: open, Ingress: []ruleset.Rule{
		{Action: ruleset.Log, Protocol: ruleset.UDP},
		{Action: ruleset.Pass, Protocol: ruleset.UDP},
		{Action: ruleset.Allow, Source: ruleset.Entity{Sets: []ruleset.SetID{"addrs"}}, Destination: ruleset.Entity{
			Ports: &ruleset.Ports{Ranges: []ruleset.PortRange{{First: 80, Last: 80}, {First: 443, Last: 444}}, Named: []ruleset.SetID{"ports"}}}},
		{Action: ruleset.Deny, NotICMP: ruleset.ICMPMatch{HasType: true, Type: 8}},
	}}
	all := ruleset.EndpointID{Kind: "HostEndpoint", Name: "all"}
	one := ruleset.EndpointID{Kind: "HostEndpoint", Name: "one"}
	walk := ruleset.Walk{Ingress: []ruleset.Tier{{Name: "default", Policies: []ruleset.PolicyID{open}}}}
	p.Endpoints[all] = &ruleset.Endpoint{ID: all, Interfaces: []string{"*"}, Normal: walk}
	p.Endpoints[one] = &ruleset.Endpoint{ID: one, Interfaces: []string{"t0", "t1"}, Normal: walk}
	p.Settings = ruleset.Settings{
		Reject: true, WorkloadPrefixes: []string{"cali"}, LogPrefix: "calico-packet",
		FailsafeIngress: []ruleset.Failsafe{{Protocol: ruleset.TCP, Port: 22}},
	}
	return p
}

// sampleAddrs returns the name of the sample's set of addresses of IPv4.
func sampleAddrs() string { return setName("v4", "addrs", `role == "scraper"`) }

// checkKernel fails when the kernel holds something else than p's table.
func checkKernel(t testing.TB, d *Dataplane, p *ruleset.Program) {
	t.Helper()
	have, err := d.conn.dump()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range Diff(have.table, Compile(p)) {
		t.Errorf("not done: %s", &c)
	}
}

// disturbedWithin reports whether Disturbed says something in time.
func disturbedWithin(d *Dataplane) bool {
	select {
	case <-d.Disturbed():
		return true
	case <-time.After(20 * time.Second):
		return false
	}
}

// A stranger edits the table with another library.
type stranger struct {
	*nftables.Conn
	table *nftables.Table
	netns int
	t     *testing.T
}

func (s *stranger) chain(name string) *nftables.Chain {
	return &nftables.Chain{Table: s.table, Name: name}
}

func (s *stranger) rule(chain string, i int) *nftables.Rule {
	rules, err := s.GetRules(s.table, s.chain(chain))
	if err != nil || i >= len(rules) {
		s.t.Fatalf("rule %d of chain %s: %v", i, chain, err)
	}
	return rules[i]
}

func (s *stranger) set(name string) *nftables.Set {
	set, err := s.GetSetByName(s.table, name)
	if err != nil {
		s.t.Fatalf("set %s: %v", name, err)
	}
	return set
}

func accepting() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

const entryOfOne = "ingress/HostEndpoint/one"

var foreignEdits = map[string]func(s *stranger){
	"delete table": func(s *stranger) { s.DelTable(s.table) },
	"flush table":  func(s *stranger) { s.FlushTable(s.table) },
	"flush chain":  func(s *stranger) { s.FlushChain(s.chain(entryOfOne)) },
	"delete rule": func(s *stranger) {
		if err := s.DelRule(s.rule(entryOfOne, 0)); err != nil {
			s.t.Fatal(err)
		}
	},
	"insert rule": func(s *stranger) {
		s.InsertRule(&nftables.Rule{Table: s.table, Chain: s.chain("input"), Exprs: accepting()})
	},
	"append rule": func(s *stranger) {
		s.AddRule(&nftables.Rule{Table: s.table, Chain: s.chain("input"), Exprs: accepting()})
	},
	"replace rule": func(s *stranger) {
		r := s.rule(entryOfOne+"/tier/default", 2)
		r.Exprs = accepting()
		s.ReplaceRule(r)
	},
	"same rule, no comment": func(s *stranger) {
		r := s.rule(entryOfOne, 0)
		r.UserData = nil
		s.ReplaceRule(r)
	},
	"add element": func(s *stranger) {
		err := s.SetAddElements(s.set(sampleAddrs()), []nftables.SetElement{
			{Key: []byte{10, 9, 0, 0}}, {Key: []byte{10, 9, 1, 0}, IntervalEnd: true}})
		if err != nil {
			s.t.Fatal(err)
		}
	},
	"add end without beginning": func(s *stranger) {
		err := s.SetAddElements(s.set(sampleAddrs()), []nftables.SetElement{{Key: []byte{0, 0, 0, 0}, IntervalEnd: true}})
		if err != nil {
			s.t.Fatal(err)
		}
	},
	"widen element": func(s *stranger) {
		set := s.set(sampleAddrs())
		end := []nftables.SetElement{{Key: []byte{10, 1, 1, 0}, IntervalEnd: true}}
		if err := errors.Join(s.SetDeleteElements(set, end), s.Flush()); err != nil {
			s.t.Fatal(err)
		}
	},
	"delete element": func(s *stranger) {
		err := s.SetDeleteElements(s.set(sampleAddrs()), []nftables.SetElement{
			{Key: []byte{10, 1, 0, 0}}, {Key: []byte{10, 1, 1, 0}, IntervalEnd: true}})
		if err != nil {
			s.t.Fatal(err)
		}
	},
	"redirect interface": func(s *stranger) {
		set, key := s.set("endpoints-in"), []byte(ifaceKey("t0"))
		err := errors.Join(s.SetDeleteElements(set, []nftables.SetElement{{Key: key, VerdictData: &expr.Verdict{
			Kind: expr.VerdictJump, Chain: "in/t0"}}}),
			s.SetAddElements(set, []nftables.SetElement{{Key: key, VerdictData: &expr.Verdict{Kind: expr.VerdictAccept}}}))
		if err != nil {
			s.t.Fatal(err)
		}
	},
	"add interface": func(s *stranger) {
		err := s.SetAddElements(s.set("endpoints-in"), []nftables.SetElement{
			{Key: []byte(ifaceKey("t9")), VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: "in/t0"}}})
		if err != nil {
			s.t.Fatal(err)
		}
	},
	"add chain": func(s *stranger) {
		s.AddChain(&nftables.Chain{Table: s.table, Name: "extra"})
	},
	"add base chain": func(s *stranger) {
		s.AddChain(&nftables.Chain{Table: s.table, Name: "extra", Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
	},
	"add set": func(s *stranger) {
		if err := s.AddSet(&nftables.Set{Table: s.table, Name: "extra", KeyType: nftables.TypeMark}, nil); err != nil {
			s.t.Fatal(err)
		}
	},
	"add object": func(s *stranger) { s.AddObj(&nftables.CounterObj{Table: s.table, Name: "extra"}) },
	"base chain policy": func(s *stranger) {
		drop := nftables.ChainPolicyDrop
		c := s.chain("input")
		c.Policy = &drop
		c.Type, c.Hooknum, c.Priority = nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityRef(-10)
		s.AddChain(c)
	},
	"base chain elsewhere": func(s *stranger) {
		s.FlushChain(s.chain("input"))
		s.DelChain(s.chain("input"))
		s.AddChain(&nftables.Chain{Table: s.table, Name: "input", Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityRef(-10)})
	},
	"dormant": func(s *stranger) { // which the library cannot say
		c, err := dial(s.netns)
		if err != nil {
			s.t.Fatal(err)
		}
		defer c.close()
		b := newBatch(0)
		b.add("make dormant", unix.NFT_MSG_NEWTABLE, 0, attrU32(attrString(nil, unix.NFTA_TABLE_NAME, TableName),
			unix.NFTA_TABLE_FLAGS, unix.NFT_TABLE_F_DORMANT))
		if err := c.transact(s.t.Context(), b); err != nil {
			s.t.Fatal(err)
		}
	},
}

// edit has a stranger change the table.
func (n *namespace) edit(t *testing.T, how func(s *stranger)) {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(n.fd))
	if err != nil {
		t.Fatal(err)
	}
	how(&stranger{Conn: c, table: &nftables.Table{Name: TableName, Family: nftables.TableFamilyINet}, netns: n.fd, t: t})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestForeignEditsAreRepaired(t *testing.T) {
	n := newNamespace(t)
	d := n.open(t)
	p := sample()
	resync(t, d, p)
	for name, edit := range foreignEdits {
		t.Run(name, func(t *testing.T) {
			n.edit(t, edit)
			if !disturbedWithin(d) {
				t.Error("not noticed")
			}
			if diff, err := Compare(t.Context(), Options{NetNS: n.fd}, p); err != nil || diff == "" {
				t.Errorf("compare: %q, %v", diff, err)
			}
			if resync(t, d, p) == 0 {
				t.Error("nothing to repair was found")
			}
			if diff, err := Compare(t.Context(), Options{NetNS: n.fd}, p); err != nil || diff != "" {
				t.Errorf("compare: %q, %v", diff, err)
			}
			if resync(t, d, p) != 0 {
				t.Error("the second resync changed something")
			}
		})
	}
}

// TestResyncListens: a large transaction that could not listen again does not leave the dataplane deaf.
func TestResyncListens(t *testing.T) {
	n := newNamespace(t)
	d := n.open(t)
	p := sample()
	resync(t, d, p)
	if err := d.monitor.conn.nl.LeaveGroup(unix.NFNLGRP_NFTABLES); err != nil {
		t.Fatal(err)
	}
	resync(t, d, p)
	if err := Cleanup(t.Context(), Options{NetNS: n.fd}); err != nil {
		t.Fatal(err)
	}
	if !disturbedWithin(d) {
		t.Error("not noticed")
	}
}

// drain waits until the monitor has seen all that was done so far: it makes a change elsewhere and waits for its
// announcement.
func drain(t *testing.T, n *namespace, d *Dataplane) {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(n.fd))
	if err != nil {
		t.Fatal(err)
	}
	other := c.AddTable(&nftables.Table{Name: "other", Family: nftables.TableFamilyINet})
	c.AddChain(&nftables.Chain{Table: other, Name: TableName})
	c.AddTable(&nftables.Table{Name: TableName, Family: nftables.TableFamilyIPv4})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	generation, err := d.conn.generation()
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for d.monitor.generation.Load() < generation {
		if time.Now().After(deadline) {
			t.Fatalf("generation %d was not announced", generation)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestOwnChangesAndOtherTablesAreNoDisturbance(t *testing.T) {
	n := newNamespace(t)
	d := n.open(t)
	p := sample()
	resync(t, d, p)
	for range 20 {
		delta := &ruleset.Delta{Sets: map[ruleset.SetID]*ruleset.SetDelta{"addrs": {Add: []ruleset.Member{{Prefix: netip.MustParsePrefix("10.7.0.0/24")}}}}}
		if err := d.Apply(t.Context(), delta); err != nil {
			t.Fatal(err)
		}
		resync(t, d, p)
	}
	drain(t, n, d)
	select {
	case <-d.Disturbed():
		t.Error("disturbed")
	default:
	}
	if got := d.Stats().Disturbances; got != 0 {
		t.Errorf("%d disturbances", got)
	}
}

func TestPrepareAndCleanup(t *testing.T) {
	n := newNamespace(t)
	d := n.open(t)
	ctx := context.Background()
	if err := Cleanup(ctx, Options{NetNS: n.fd}); err != nil {
		t.Fatalf("without a table: %v", err)
	}
	if err := d.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	checkKernel(t, d, ruleset.NewProgram())
	p := sample()
	resync(t, d, p)
	if err := d.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	checkKernel(t, d, p)
	if err := Cleanup(ctx, Options{NetNS: n.fd}); err != nil {
		t.Fatal(err)
	}
	if have, err := d.conn.dump(); err != nil || have.table != nil {
		t.Errorf("after cleanup: %v, %v", have.table, err)
	}
	if !disturbedWithin(d) {
		t.Error("cleanup by another connection was not noticed")
	}
}

// After an error only Resync is accepted, and what failed is named.
func TestErrors(t *testing.T) {
	n := newNamespace(t)
	d := n.open(t)
	ctx := context.Background()
	p := sample()
	remove := &ruleset.Delta{Sets: map[ruleset.SetID]*ruleset.SetDelta{"addrs": {Remove: []ruleset.Member{{Prefix: netip.MustParsePrefix("10.1.0.0/24")}}}}}
	if err := d.Apply(ctx, remove); !errors.Is(err, ErrUnknown) {
		t.Errorf("before resync: %v", err)
	}
	resync(t, d, p)
	if err := Cleanup(ctx, Options{NetNS: n.fd}); err != nil {
		t.Fatal(err)
	}
	err := d.Apply(ctx, remove)
	want := "apply: delete 1 elements of set " + sampleAddrs() + ": no such file or directory"
	if err == nil || err.Error() != want || !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := d.Apply(ctx, remove); !errors.Is(err, ErrUnknown) {
		t.Errorf("after an error: %v", err)
	}
	resync(t, d, p)
	checkKernel(t, d, p)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := d.Apply(cancelled, remove); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if s := d.Stats(); s.Errors != 4 {
		t.Errorf("%d errors counted, want 4", s.Errors)
	}
}

// What Prepare reads ahead of the first Resync serves only while nobody changes it.
func TestReadAhead(t *testing.T) {
	ctx := context.Background()
	for _, change := range []struct {
		name string
		make func(n *namespace)
	}{
		{"nothing", func(*namespace) {}},
		{"a chain is flushed", func(n *namespace) { n.edit(t, foreignEdits["flush chain"]) }},
		{"the table goes", func(n *namespace) {
			if err := Cleanup(ctx, Options{NetNS: n.fd}); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(change.name, func(t *testing.T) {
			n := newNamespace(t)
			p := sample()
			resync(t, n.open(t), p)
			d := n.open(t)
			if err := d.Prepare(ctx); err != nil {
				t.Fatal(err)
			}
			change.make(n)
			resync(t, d, p)
			checkKernel(t, d, p)
			idle := n.open(t)
			if err := idle.Prepare(ctx); err != nil {
				t.Fatal(err)
			} // and is closed while it reads
		})
	}
}
