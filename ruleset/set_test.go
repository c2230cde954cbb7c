package ruleset

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestSetContains(t *testing.T) {
	tests := []struct {
		name    string
		members []Member
		addr    string
		want    bool
	}{
		{"empty", nil, "10.0.0.1", false},
		{"single address", members("10.0.0.1/32"), "10.0.0.1", true},
		{"another address", members("10.0.0.1/32"), "10.0.0.2", false},
		{"net, first", members("10.0.0.0/24"), "10.0.0.0", true},
		{"net, last", members("10.0.0.0/24"), "10.0.0.255", true},
		{"net, after", members("10.0.0.0/24"), "10.0.1.0", false},
		{"nested nets, inner missing", members("10.0.0.0/8", "10.1.0.0/16"), "10.2.0.1", true},
		{"everything", members("0.0.0.0/0"), "255.255.255.255", true},
		{"everything of the other family", members("0.0.0.0/0"), "::1", false},
		{"IPv6 everything", members("::/0"), "2001:db8::1", true},
		{"IPv6 net", members("fd00::/8"), "fdff::1", true},
		{"IPv6 address", members("fd00::1/128"), "fd00::2", false},
		{"mapped address is IPv6", members("10.0.0.0/8"), "::ffff:10.0.0.1", false},
		{"no address", members("::/0"), "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var addr netip.Addr
			if test.addr != "" {
				addr = netip.MustParseAddr(test.addr)
			}
			set := NewSet(Addrs, "", test.members...)
			if got := set.Contains(addr); got != test.want {
				t.Errorf("Contains = %v, want %v", got, test.want)
			}
			if n := testing.AllocsPerRun(10, func() { set.Contains(addr) }); n != 0 {
				t.Errorf("Contains allocates %v times", n)
			}
		})
	}
}

func TestSetContainsPort(t *testing.T) {
	addr := netip.MustParseAddr("10.0.0.1")
	set := NewSet(AddrPorts, "", Member{netip.PrefixFrom(addr, 32), TCP, 80})
	tests := []struct {
		name     string
		addr     string
		protocol uint8
		port     uint16
		want     bool
	}{
		{"all equal", "10.0.0.1", TCP, 80, true},
		{"other address", "10.0.0.2", TCP, 80, false},
		{"other protocol", "10.0.0.1", UDP, 80, false},
		{"other port", "10.0.0.1", TCP, 81, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := set.ContainsPort(netip.MustParseAddr(test.addr), test.protocol, test.port); got != test.want {
				t.Errorf("ContainsPort = %v, want %v", got, test.want)
			}
		})
	}
}

func TestSetChanges(t *testing.T) {
	a, b := members("10.0.0.0/8")[0], members("10.0.0.1/32")[0]
	var set Set
	steps := []struct {
		name string
		got  bool
		want bool
	}{
		{"remove from the zero value", set.Remove(a), false},
		{"add to the zero value", set.Add(a), true},
		{"add again", set.Add(a), false},
		{"add another", set.Add(b), true},
		{"remove", set.Remove(a), true},
		{"remove again", set.Remove(a), false},
		{"contains what is left", set.Contains(b.Prefix.Addr()), true},
		{"contains what was removed", set.Contains(netip.MustParseAddr("10.0.0.2")), false},
	}
	for _, step := range steps {
		if step.got != step.want {
			t.Errorf("%s = %v, want %v", step.name, step.got, step.want)
		}
	}
	clone := set.Clone()
	clone.Remove(b)
	if set.Len() != 1 || clone.Len() != 0 {
		t.Errorf("a change of the clone reaches the set: %d and %d members", set.Len(), clone.Len())
	}
}

func TestMembersAreSorted(t *testing.T) {
	p := netip.MustParsePrefix("10.0.0.1/32")
	want := append(members("10.0.0.0/8", "10.0.0.0/16", "10.0.0.1/32"),
		Member{p, TCP, 80}, Member{p, TCP, 81}, Member{p, UDP, 80}, members("fd00::/8")[0])
	shuffled := []Member{want[4], want[6], want[0], want[5], want[1], want[3], want[2]}
	if got := NewSet(Addrs, "", shuffled...).Members(); !reflect.DeepEqual(got, want) {
		t.Errorf("Members = %v, want %v", got, want)
	}
}

// TestSetAgainstMap compares a set with a plain map over random changes: a set is what its members are, whatever
// happened before.
func TestSetAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set, plain := NewSet(Addrs, "x"), map[Member]struct{}{}
		for range 20 {
			m := Member{Prefix: netip.MustParsePrefix(draw(t, netPool))}
			_, there := plain[m]
			if rapid.Bool().Draw(t, "add") {
				plain[m] = struct{}{}
				if set.Add(m) == there {
					t.Fatalf("Add(%v) reports %v", m, there)
				}
			} else {
				delete(plain, m)
				if set.Remove(m) != there {
					t.Fatalf("Remove(%v) reports %v", m, !there)
				}
			}
		}
		if fresh := NewSet(Addrs, "x", slices.Collect(maps.Keys(plain))...); !reflect.DeepEqual(set, fresh) {
			t.Fatalf("set %v differs from a fresh one %v", set, fresh)
		}
		addr := netip.MustParseAddr(draw(t, addrPool))
		want := slices.ContainsFunc(set.Members(), func(m Member) bool { return covers(m.Prefix, addr) })
		if set.Contains(addr) != want {
			t.Fatalf("Contains(%v) = %v with %v", addr, !want, set.Members())
		}
	})
}

func TestPolicyOrder(t *testing.T) {
	sorted := []PolicyID{
		{"GlobalNetworkPolicy", "", "a"}, {"NetworkPolicy", "ns", "a"}, {"GlobalNetworkPolicy", "zz", "a"},
		{"NetworkPolicy", "zz", "a"}, {"GlobalNetworkPolicy", "", "b"},
	}
	for i, a := range sorted {
		for j, b := range sorted {
			if got, want := a.Compare(b) < 0, i < j; got != want {
				t.Errorf("%v before %v: %v, want %v", a, b, got, want)
			}
		}
	}
	// The separator is part of the key: a-b sorts before a since '-' is less than '/'.
	if (PolicyID{"K", "", "a-b"}).Compare(PolicyID{"K", "", "a"}) >= 0 {
		t.Error("names are compared without their separator")
	}
}
