package nft

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"margay/ruleset"
)

// nft(8) reads what we wrote, as text and as JSON, and our text of it means the same to it.
func TestListing(t *testing.T) {
	needNFT(t)
	ours, theirs := newNamespace(t), newNamespace(t)
	d := ours.open(t)
	g := newGenerator(seedOf(t))
	for i := range 12 {
		p := g.program()
		switch i {
		case 0:
			p = sample()
		case 1:
			p = programOf([]*ruleset.Endpoint{hostEndpoint("e", "t0")}, policyOf("p", ruleset.Rule{
				Action:      ruleset.Allow,
				Source:      ruleset.Entity{NotPorts: &ruleset.Ports{Ranges: []ruleset.PortRange{{First: 1, Last: 1}}}},
				Destination: ruleset.Entity{NotPorts: &ruleset.Ports{Ranges: []ruleset.PortRange{{First: 2, Last: 2}}}},
			}))
		}
		d.limits = pick(g, testLimits...)
		resync(t, d, p)
		got := ours.nft(t, "", "list", "ruleset")
		text := newImage(p, d.limits).table.String()
		theirs.nft(t, "", "flush", "ruleset")
		if out, err := theirs.tryNFT(text, "-f", "-"); err != nil {
			t.Fatalf("nft does not load our text: %s\n%s", out, text)
		}
		want := theirs.nft(t, "", "list", "ruleset")
		if diff := cmp.Diff(normal(want), normal(got)); diff != "" {
			t.Fatalf("the text (-) is not what was programmed (+):\n%s", diff)
		}
		if out := ours.nft(t, "", "--json", "list", "ruleset"); !json.Valid([]byte(out)) {
			t.Fatalf("not JSON: %s", out)
		}
		// What nft prints can be loaded again.
		theirs.nft(t, "", "flush", "ruleset")
		if out, err := theirs.tryNFT(got, "-f", "-"); err != nil {
			t.Fatalf("nft does not load its own listing: %s\n%s", out, got)
		}
	}
}

var (
	counts   = regexp.MustCompile(`packets \d+ bytes \d+`)
	bothPort = regexp.MustCompile(`@th,0,32 0x[0-9a-f]+`)
	portOf   = regexp.MustCompile(`\b(tcp|udp|sctp|udplite) ([ds]port)`)
)

// normal returns a listing without what nft(8) decides when it loads a text: the order of objects and of conditions,
// loading both ports at once, and the name that it uses for a protocol's port; and without counts.
func normal(listing string) string {
	_, listing, _ = strings.Cut(listing, "\n")
	listing = strings.TrimSuffix(listing, "}\n")
	listing = counts.ReplaceAllString(listing, "")
	listing = bothPort.ReplaceAllStringFunc(listing, func(s string) string {
		n, _ := strconv.ParseUint(strings.TrimPrefix(s, "@th,0,32 0x"), 16, 32)
		return fmt.Sprintf("th sport %d th dport %d", n>>16, n&0xffff)
	})
	listing = portOf.ReplaceAllString(listing, "th $2")
	lines := strings.Split(listing, "\n")
	for i, line := range lines {
		words := strings.Fields(line)
		slices.Sort(words)
		lines[i] = strings.Join(words, " ")
	}
	objects := strings.Split(strings.TrimSpace(strings.Join(lines, "\n")), "\n\n")
	slices.Sort(objects)
	return strings.Join(objects, "\n\n")
}
