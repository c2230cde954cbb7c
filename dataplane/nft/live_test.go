package nft

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// apply applies a delta to the kernel and to p, and returns the messages that it took.
func applyBoth(t testing.TB, d *Dataplane, p *ruleset.Program, delta *ruleset.Delta) uint64 {
	t.Helper()
	before := d.Stats().Messages
	p.Apply(delta)
	delta.Sets = ownedSets(delta.Sets)
	if err := d.Apply(t.Context(), delta); err != nil {
		t.Fatal(err)
	}
	return d.Stats().Messages - before
}

func memberDelta(id ruleset.SetID, add, remove []netip.Prefix) *ruleset.Delta {
	members := func(list []netip.Prefix) (out []ruleset.Member) {
		for _, p := range list {
			out = append(out, ruleset.Member{Prefix: p})
		}
		return out
	}
	return &ruleset.Delta{Sets: map[ruleset.SetID]*ruleset.SetDelta{id: {Add: members(add), Remove: members(remove)}}}
}

// A change sends what changed and no more.
func TestMessages(t *testing.T) {
	d := newNamespace(t).open(t)
	p := sample()
	resync(t, d, p)
	policy := ruleset.PolicyID{Kind: "GlobalNetworkPolicy", Name: "open"}
	longer := *p.Policies[policy]
	longer.Ingress = append(slices.Clone(longer.Ingress), ruleset.Rule{Action: ruleset.Deny, Protocol: ruleset.SCTP})
	tests := []struct {
		name     string
		delta    *ruleset.Delta
		messages uint64
	}{
		{"nothing", &ruleset.Delta{}, 0},
		{"member that was there", memberDelta("addrs", netsOf("10.1.0.0/24"), nil), 0},
		{"member that is covered", memberDelta("addrs", netsOf("10.1.0.7/32"), nil), 0},
		{"new member", memberDelta("addrs", netsOf("10.5.0.0/24"), nil), 1},
		{"neighbour", memberDelta("addrs", netsOf("10.5.1.0/24"), nil), 1},
		{"member that covers", memberDelta("addrs", netsOf("10.4.0.0/15"), nil), 2},
		{"cover goes", memberDelta("addrs", nil, netsOf("10.4.0.0/15")), 2},
		{"gone and back", memberDelta("addrs", netsOf("10.5.0.0/24"), netsOf("10.5.0.0/24")), 0},
		{"both families", memberDelta("addrs", netsOf("10.6.0.0/24", "fd06::/64"), nil), 2},
		{"rule in a policy of two endpoints", &ruleset.Delta{Policies: map[ruleset.PolicyID]*ruleset.Policy{policy: &longer}}, 2},
		{"the same policy", &ruleset.Delta{Policies: map[ruleset.PolicyID]*ruleset.Policy{policy: &longer}}, 0},
	}
	for _, tt := range tests {
		if got := applyBoth(t, d, p, tt.delta); got != tt.messages {
			t.Errorf("%s: %d messages, want %d", tt.name, got, tt.messages)
		}
		checkKernel(t, d, p)
	}
}

// A large set is programmed, read back, changed by one element, and becomes small and large again.
func TestLargeSet(t *testing.T) {
	d := newNamespace(t).open(t)
	p := sample()
	set := ruleset.NewSet(ruleset.Addrs, "large")
	for i := range 50_000 {
		set.Add(ruleset.Member{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 32)})
		set.Add(ruleset.Member{Prefix: netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 1, byte(i >> 8), byte(i)}), 64)})
	}
	p.Sets["large"] = set
	policy := policyOf("open", p.Policies[ruleset.PolicyID{Kind: "GlobalNetworkPolicy", Name: "open"}].Ingress...)
	policy.Ingress = append(policy.Ingress, ruleset.Rule{Action: ruleset.Allow, Source: ruleset.Entity{Sets: []ruleset.SetID{"large"}}})
	p.Policies[policy.ID] = policy
	start := time.Now()
	resync(t, d, p)
	t.Logf("programmed in %v", time.Since(start))
	start = time.Now()
	if n := resync(t, d, p); n != 0 {
		t.Errorf("%d messages to a table that was in sync", n)
	}
	t.Logf("read back and compared in %v", time.Since(start))
	start = time.Now()
	for _, net := range netsOf("21.0.0.0/24", "21.0.1.1/32") {
		if n := applyBoth(t, d, p, memberDelta("large", []netip.Prefix{net}, nil)); n != 1 {
			t.Errorf("one element took %d messages", n)
		}
	}
	t.Logf("two elements added in %v", time.Since(start))
	if n := applyBoth(t, d, p, memberDelta("large", netsOf("::/0"), nil)); n < 10 {
		t.Errorf("%d messages for 50,000 elements", n)
	}
	applyBoth(t, d, p, memberDelta("large", nil, netsOf("::/0")))
	checkKernel(t, d, p)
	if s := d.Stats(); s.Elements < 100_000 {
		t.Errorf("%d elements", s.Elements)
	}
	var most []netip.Prefix
	for _, m := range set.Members()[4000:] {
		most = append(most, m.Prefix)
	}
	for _, delta := range []*ruleset.Delta{memberDelta("large", nil, most), memberDelta("large", most, nil)} {
		applyBoth(t, d, p, delta)
		checkKernel(t, d, p)
	}
	select {
	case <-d.Disturbed():
		t.Error("disturbed by our own transactions")
	default:
	}
}

// Counts follow changes.
func TestStats(t *testing.T) {
	d := newNamespace(t).open(t)
	g := newGenerator(seedOf(t))
	p := g.program()
	resync(t, d, p)
	for range 30 {
		applyBoth(t, d, p, g.delta(p))
		got := d.Stats()
		d.measure()
		if want := d.Stats(); got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	}
}

// Log rules report what they match, whatever becomes of it.
func TestReadLog(t *testing.T) {
	w := newWire(t, "t0")
	d := w.open(t)
	p := sample()
	p.Settings.LogPrefix = "%t|%k|%p"
	resync(t, d, p)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	entries, result := make(chan LogEntry, 100), make(chan error, 1)
	go func() { result <- ReadLog(ctx, Options{NetNS: w.fd}, func(e LogEntry) { entries <- e }) }()
	want := []LogEntry{
		{Prefix: "default|gnp|open: ", In: "t0", Protocol: ruleset.UDP, SrcPort: 7000, DstPort: 53,
			Src: netip.MustParseAddr("10.1.0.1"), Dst: netip.MustParseAddr("10.2.0.1")},
		{Prefix: "default|gnp|open: ", In: "t0", Protocol: ruleset.UDP, SrcPort: 7001, DstPort: 54,
			Src: netip.MustParseAddr("fd01::1"), Dst: netip.MustParseAddr("fd02::1")},
	}
	for i := 0; i < len(want); {
		e := want[i]
		w.emit(t, &ruleset.Packet{In: "t0", Protocol: e.Protocol, Src: e.Src, Dst: e.Dst, SrcPort: e.SrcPort,
			DstPort: e.DstPort}, uint16(i))
		select {
		case got := <-entries:
			if got == want[max(i-1, 0)] && i > 0 {
				continue // sent twice before the reader was there
			}
			if got != want[i] {
				t.Errorf("got %+v, want %+v", got, want[i])
			}
			i++
		case <-time.After(200 * time.Millisecond): // the reader is not there yet
		case err := <-result:
			t.Fatal(err)
		}
	}
	if err := ReadLog(ctx, Options{NetNS: w.fd}, func(LogEntry) {}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second reader: %v", err)
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// With Settings.Reject a denied packet is answered, in every stage but Untracked: a reset for TCP, an error of the family
// for the rest.
func TestReject(t *testing.T) {
	w := newWire(t, interfaces...)
	if err := w.translate(); err != nil {
		t.Fatal(err)
	}
	d := w.open(t)
	answers := map[string]struct {
		protocol uint8
		is       func(b []byte) bool
	}{
		"tcp":  {ruleset.TCP, func(b []byte) bool { return b[0]>>4 == 4 && b[9] == ruleset.TCP && b[20+13]&4 != 0 }},
		"tcp6": {ruleset.TCP, func(b []byte) bool { return b[0]>>4 == 6 && b[6] == ruleset.TCP && b[40+13]&4 != 0 }},
		"udp":  {ruleset.UDP, func(b []byte) bool { return b[0]>>4 == 4 && b[9] == ruleset.ICMP && b[20] == 3 && b[21] == 13 }},
		"udp6": {ruleset.UDP, func(b []byte) bool { return b[0]>>4 == 6 && b[6] == ruleset.ICMPv6 && b[40] == 1 && b[41] == 1 }},
	}
	deny := policyOf("deny", ruleset.Rule{Action: ruleset.Deny})
	list := ruleset.Walk{Ingress: []ruleset.Tier{{Name: "default", Policies: []ruleset.PolicyID{deny.ID}}}}
	tests := []struct {
		name     string
		set      func(*ruleset.Endpoint)
		to4, to6 netip.Addr
	}{
		{"normal", func(ep *ruleset.Endpoint) { ep.Normal = list }, locals4[0], locals6[0]},
		{"forward", func(ep *ruleset.Endpoint) { ep.Forward = list }, own4(1, 1), own6(1, 1)},
		{"pre-DNAT", func(ep *ruleset.Endpoint) { ep.PreDNAT = list }, locals4[0], locals6[0]},
		{"pre-DNAT, translated", func(ep *ruleset.Endpoint) { ep.PreDNAT = list }, virtual4[0], virtual6[0]},
		{"pre-DNAT, passed on", func(ep *ruleset.Endpoint) { ep.PreDNAT = list }, own4(1, 1), own6(1, 1)},
	}
	for _, tt := range tests {
		ep := hostEndpoint("e", "t0")
		p := programOf([]*ruleset.Endpoint{ep}, deny)
		ep.Normal = ruleset.Walk{}
		tt.set(ep)
		p.Settings.Reject = true
		resync(t, d, p)
		for name, answer := range answers {
			p := &ruleset.Packet{In: "t0", Protocol: answer.protocol, Src: peers4[0], Dst: tt.to4, SrcPort: 5000, DstPort: 80}
			if strings.HasSuffix(name, "6") {
				p.Src, p.Dst = peers6[0], tt.to6
			}
			w.emit(t, p, 4)
			if !w.reads(t, "t0", answer.is) {
				t.Errorf("%s, %s: no answer", tt.name, name)
			}
		}
	}
}

// The bound on reports holds for a Log rule, not for each of the nft rules that it becomes.
func TestLogRate(t *testing.T) {
	w := newWire(t, "t0")
	d := w.open(t)
	p := sample()
	p.Settings.LogRate = ruleset.LogRate{Packets: 1, Per: time.Hour, Burst: 3}
	p.Policies[ruleset.PolicyID{Kind: "GlobalNetworkPolicy", Name: "open"}].Ingress[0].Source.Nets = netsOf("10.0.0.0/8", "fd00::/8")
	resync(t, d, p)
	log, err := bindLog(Options{NetNS: w.fd}, LogGroup)
	if err != nil {
		t.Fatal(err)
	}
	defer log.close()
	if err := log.configure(LogGroup, attrU32(nil, logCfgThreshold, 1)); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		for _, ends := range [][2]netip.Addr{{peers4[0], locals4[0]}, {peers6[0], locals6[0]}} {
			w.emit(t, &ruleset.Packet{In: "t0", Protocol: ruleset.UDP, Src: ends[0], Dst: ends[1], SrcPort: uint16(5000 + i), DstPort: 80}, 4)
		}
	}
	reports := 0
	for {
		list, err := log.receive(noWait)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range list {
			reports += oneIf(list[i].typ == unix.NFNL_SUBSYS_ULOG<<8|logMsgPacket)
		}
	}
	if reports != 3 {
		t.Errorf("%d reports, want the 3 of the burst", reports)
	}
}

// reads reports whether the host sends a packet that f accepts out of a device within a second.
func (w *wire) reads(t *testing.T, device string, f func([]byte) bool) bool {
	t.Helper()
	fd := int(w.tuns[device].Fd())
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, 100); n == 0 || err != nil {
			continue
		}
		b := make([]byte, 2000)
		n, err := unix.Read(fd, b)
		if err != nil {
			t.Fatal(err)
		}
		if n >= 40 && f(b[:max(n, 60)]) {
			return true
		}
	}
	return false
}
