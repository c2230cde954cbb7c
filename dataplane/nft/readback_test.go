package nft

import (
	"testing"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// encoded returns the messages that make the table.
func encoded(t testing.TB, p *ruleset.Program) []byte {
	t.Helper()
	b := newBatch(0)
	for _, c := range Diff(nil, Compile(p)) {
		if err := b.encode(&c, nil); err != nil {
			t.Fatal(err)
		}
	}
	return b.finish(1)
}

// readBack reads messages as those of a dump, which have the attributes of the ones that make a table.
func readBack(datagram []byte) *Table {
	r := &reader{dump: &dump{table: NewTable(), handles: map[string][]uint64{}}}
	v := &view{chains: map[string]*viewChain{}, maps: map[string][]viewRule{}, said: map[string]*said{}}
	elements := map[string][]Element{}
	for _, m := range messages(datagram) {
		a := m.payload()
		switch m.typ {
		case nftType(unix.NFT_MSG_NEWCHAIN):
			r.chain(a)
			v.addChain(a)
		case nftType(unix.NFT_MSG_NEWSET):
			r.set(a)
		case nftType(unix.NFT_MSG_NEWRULE):
			r.rule(a)
			if len(m.data) >= sizeofNfgenmsg {
				v.addRule(m.data[sizeofNfgenmsg:])
			}
		case nftType(unix.NFT_MSG_NEWSETELEM):
			name := text(find(a, unix.NFTA_SET_ELEM_LIST_SET))
			s := r.dump.table.Sets[name]
			if s == nil {
				continue
			}
			for _, e := range attributes(find(a, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
				elements[name] = append(elements[name], s.readElement(e, texts{}))
				v.countedElement(0, e)
			}
		}
		answer(&m)
	}
	for name, list := range elements {
		s := r.dump.table.Sets[name]
		if s.Type != nil && s.Type.interval {
			list = pairEnds(list)
		}
		s.elements = map[Element]struct{}{}
		for _, e := range list {
			s.elements[e] = struct{}{}
		}
	}
	return r.dump.table
}

// TestReadBack: what readBack makes of our own messages is the table, so that FuzzReadBack fuzzes what reads the kernel's.
func TestReadBack(t *testing.T) {
	for name, p := range goldens() {
		if changes := Diff(readBack(encoded(t, p)), Compile(p)); len(changes) != 0 {
			t.Errorf("%s: %d changes, the first %v", name, len(changes), changes[0])
		}
	}
}

// FuzzReadBack: whatever somebody puts into the table, it is read, and changes lead from there to what is wanted.
func FuzzReadBack(f *testing.F) {
	f.Add(encoded(f, ruleset.NewProgram())) // large seeds are slow to mutate
	f.Add(encoded(f, denyList()))
	want := Compile(programOf([]*ruleset.Endpoint{hostEndpoint("h", "eth0")}, policyOf("p", tcp(ruleset.Deny, 9091), tcp(ruleset.Allow))))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		have := readBack(datagram)
		b := newBatch(0)
		for _, c := range Diff(have, want) {
			handles := make([]uint64, len(c.old))
			for i := range handles {
				handles[i] = uint64(i + 1)
			}
			if err := b.encode(&c, handles); err != nil {
				t.Fatalf("change %v: %v", c, err)
			}
		}
	})
}
