package nft

import (
	"crypto/sha256"
	"encoding/base32"
	"net/netip"
	"strconv"
	"strings"

	"margay/ruleset"
)

// constant returns a constant set with these elements. The name is a hash of the content: equal lists share a set and no
// name ever changes its content.
func constant(kind string, typ *SetType, elements []Element) *Set {
	set := newSet("", typ)
	set.Constant = true
	for _, e := range elements {
		set.elements[e] = struct{}{}
	}
	var content strings.Builder
	content.WriteString(typ.String())
	for _, e := range set.sorted() {
		content.WriteString("\n" + strconv.Quote(e.Key) + strconv.Quote(e.Until))
	}
	set.Name = kind + "-" + digest(content.String())
	return set
}

func netsTest(s side, nets []netip.Prefix) test {
	if len(nets) == 1 {
		return test{kind: testPrefix, side: s, nets: nets}
	}
	return test{kind: testNets, side: s, nets: nets}
}

func netsSet(nets []netip.Prefix) *Set {
	kind, typ := "nets4", typeNets4
	if !nets[0].Addr().Is4() {
		kind, typ = "nets6", typeNets6
	}
	var elements []Element
	for _, n := range nets {
		elements = append(elements, prefixElement(n))
	}
	return constant(kind, typ, elements)
}

func portsTest(s side, ranges []ruleset.PortRange) test {
	if len(ranges) == 1 {
		return test{kind: testPorts, side: s, ranges: ranges}
	}
	return test{kind: testPortSet, side: s, ranges: ranges}
}

func portSet(ranges []ruleset.PortRange) *Set {
	var elements []Element
	for _, r := range ranges {
		elements = append(elements, Element{Key: portKey(r.First), Until: increment([]byte(portKey(r.Last)))})
	}
	return constant("ports", typePorts, elements)
}

func protocolSet(p protocols) *Set {
	kind := "protocols"
	if p == portProtocols {
		kind = "protocols-with-ports"
	}
	var elements []Element
	for _, n := range p.list() {
		elements = append(elements, Element{Key: string([]byte{n})})
	}
	return constant(kind, typeProtos, elements)
}

// maxName is the length of the longest name and comment: nft(8) reads comments of 128 bytes with the final zero.
const maxName = 127

// digest returns 100 bits of a hash, in letters and digits.
func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:20]
}

// ident joins parts to a name that nft(8) reads back: a letter, then letters, digits and "/-_.". What had to be replaced
// or cut is made unique by a hash.
func ident(parts ...string) string {
	exact := strings.Join(parts, "/")
	for i, part := range parts {
		parts[i] = strings.Map(identRune, part)
	}
	name := strings.Join(parts, "/")
	if name == exact && len(name) <= maxName {
		return name
	}
	hash := "." + digest(exact)
	return name[:min(len(name), maxName-len(hash))] + hash
}

func identRune(r rune) rune {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_', r == '.':
		return r
	}
	return '_'
}

// remark returns text as a comment: nft(8) prints comments between quotes and escapes nothing, so quotes and what does not
// print are replaced, and what is too long is cut and made unique by a hash.
func remark(text string) string {
	if len(text) <= maxName && !strings.ContainsFunc(text, unfit) {
		return text
	}
	clean := strings.Map(func(r rune) rune {
		switch {
		case r == '"' || r == '\\':
			return '\''
		case unfit(r):
			return '?'
		}
		return r
	}, text)
	if len(clean) <= maxName {
		return clean
	}
	hash := "..." + digest(text)
	return clean[:maxName-len(hash)] + hash
}

// unfit reports whether a comment cannot have a character.
func unfit(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }

// setName returns the name of the set of a kind for a set of the Program: words of its comment for people, and a hash.
func setName(kind string, id ruleset.SetID, comment string) string {
	words := strings.FieldsFunc(strings.Map(identRune, comment), func(r rune) bool { return r == '_' })
	const enough = 60 // bytes
	name := strings.Join(words, "-")
	return kind + "/" + name[:min(len(name), enough)] + "." + digest(string(id))
}
