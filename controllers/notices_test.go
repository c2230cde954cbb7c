package controllers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/store"
)

// TestNotices: what many agents say is said once; what many say in other words is cut short.
func TestNotices(t *testing.T) {
	var statuses []store.NodeStatus
	for i := range 1000 {
		node := fmt.Sprintf("n%03d", i)
		statuses = append(statuses, store.NodeStatus{Node: node,
			Warnings: []string{
				"GlobalNetworkPolicy(p): all say this: really",
				"NetworkPolicy(a/b): HostEndpoint(" + node + "): each says this",
				"Nonsense(x): no kind", "NetworkPolicy(nowhere): no namespace", "Tier(): no name", "and 7 more, which the agent's log names",
			},
			Faults: []string{"GlobalNetworkPolicy(p): does not decode"},
		})
	}
	var got []string
	for _, n := range noticesOf(statuses) {
		got = append(got, fmt.Sprintf("%s %s %s %q", n.Key, n.Reason, n.Node, n.Text))
	}
	want := []string{
		`GlobalNetworkPolicy(p) NotInForce n000 "does not decode"`,
		`GlobalNetworkPolicy(p) PolicyWarning n000 "all say this: really"`,
		`NetworkPolicy(a/b) PolicyWarning n000 "HostEndpoint(n000): each says this"`,
		`NetworkPolicy(a/b) PolicyWarning n001 "HostEndpoint(n001): each says this"`,
		`NetworkPolicy(a/b) PolicyWarning n002 "HostEndpoint(n002): each says this"`,
		`NetworkPolicy(a/b) PolicyWarning  "agents have 997 more like this to say about it (margay status shows them)"`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A board takes notices.
type board struct {
	shown []string
	err   map[string]error // by name of the object
}

func (b *board) Notify(_ context.Context, n store.Notice) error {
	text := n.Key.Name + " " + n.Text
	if n.Over {
		text += " is over"
	}
	b.shown = append(b.shown, text)
	return b.err[n.Key.Name]
}

// TestTeller: a notice is shown when it is new, again after a while, and once more when it is over, never too many at once; an
// error is tried again, an object that is gone is not.
func TestTeller(t *testing.T) {
	var warnings []string
	b := &board{err: map[string]error{"gone": store.ErrNotFound}}
	counted := 0
	teller := &teller{to: b, told: map[store.Notice]showing{}, count: func(error) { counted++ },
		from: func(context.Context) ([]store.NodeStatus, error) {
			return []store.NodeStatus{{Node: "n", Warnings: warnings}}, nil
		}}
	now := time.Now()
	round := func(later time.Duration, want string, fails bool, given ...string) {
		t.Helper()
		warnings, b.shown, now = given, nil, now.Add(later)
		if err := teller.round(t.Context(), now); (err != nil) != fails || strings.Join(b.shown, "; ") != want {
			t.Errorf("%v: shown %q, %v; want %q", given, b.shown, err, want)
		}
	}
	round(0, "a x; gone y", false, "Tier(a): x", "Tier(gone): y")
	round(overAfter-time.Second, "", false, "Tier(gone): y") // its agent restarts
	round(0, "", false, "Tier(a): x", "Tier(gone): y")
	round(overAfter-time.Second, "", false, "Tier(gone): y")
	round(time.Second, "a x is over", false, "Tier(gone): y")
	round(time.Minute, "", false, "Tier(gone): y")
	round(0, "a x", false, "Tier(a): x", "Tier(gone): y")
	round(overAfter, "gone y is over", false, "Tier(a): x")
	teller.told = map[store.Notice]showing{}
	round(0, "a x; gone y", false, "Tier(a): x", "Tier(gone): y")
	round(time.Minute, "a z", false, "Tier(a): x", "Tier(a): z", "Tier(gone): y")
	round(tellAgain-time.Minute, "", false, "Tier(a): x", "Tier(a): z", "Tier(gone): y")
	round(time.Second, "a x; gone y", false, "Tier(a): x", "Tier(a): z", "Tier(gone): y")
	b.err["b"] = errors.New("the server is away")
	round(0, "b x", true, "Tier(b): x", "Tier(c): x")
	delete(b.err, "b")
	round(0, "b x; c x", false, "Tier(b): x", "Tier(c): x")
	teller.knows = ofKubernetes
	round(0, "knp.default.p x; pod x", false, "Tier(d): x", "NetworkPolicy(a/own): x", "WorkloadEndpoint(a/pod): x", "NetworkPolicy(a/knp.default.p): x")
	teller.knows = nil
	var many []string
	for i := range maxTold + 10 {
		many = append(many, v3.Key{Kind: v3.KindTier, Name: fmt.Sprintf("t%03d", i)}.String()+": x")
	}
	warnings, b.shown = many, nil
	for _, want := range []int{maxTold, maxTold + 10} {
		if err := teller.round(t.Context(), now); err != nil || len(b.shown) != want {
			t.Errorf("%d shown, %v; want %d", len(b.shown), err, want)
		}
	}
	if counted == 0 {
		t.Error("nothing was counted")
	}
}
