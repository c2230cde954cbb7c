package typha

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/store"
)

func TestConnectionLimit(t *testing.T) {
	for _, c := range []struct{ nodes, instances, want int }{
		{0, 0, 10000}, {5000, 0, 10000}, {5000, 1, 10000}, {0, 3, 10000},
		{100, 3, 400}, {1000, 3, 601}, {1000, 2, 1201}, {5000, 3, 3001}, {50000, 2, 10000}, {1, 2, 400},
	} {
		if got := connectionLimit(c.nodes, c.instances, 400, 10000); got != c.want {
			t.Errorf("%d nodes, %d instances: %d, want %d", c.nodes, c.instances, got, c.want)
		}
	}
}

// TestRebalancing: an instance that has too many clients sends some away; they go to the other and notice nothing.
func TestRebalancing(t *testing.T) {
	m := filled(10)
	for i := range 5 {
		info, _ := v3.Lookup(v3.KindNode)
		node := info.New()
		node.SetName(fmt.Sprint("node", i))
		m.put(node)
	}
	cfg := ServerConfig{
		Instances:  func(context.Context) (int, error) { return 2, nil },
		LowerLimit: 1, UpperLimit: 100, PollInterval: 10 * time.Millisecond, DropInterval: 5 * time.Millisecond,
	}
	crowded, other := startServer(t, m, cfg), startServer(t, m, ServerConfig{})
	var followers []*follower
	for i := range 20 {
		c := dialWith(t, ClientConfig{Node: fmt.Sprint("n", i), Addresses: func(context.Context) ([]string, error) {
			return []string{crowded.address, other.address}, nil
		}})
		followers = append(followers, follows(t, c))
	}
	const limit = 1 + 5*120/100
	eventually(t, "they are spread", func() bool {
		n, l := crowded.server.count()
		rest, _ := other.server.count()
		return l == limit && n == limit && rest == 20-limit
	})
	m.put(set("after"))
	for i, f := range followers {
		f.same(t, m)
		if _, losses, _ := f.get(); losses > 0 {
			t.Errorf("client %d lost its connection", i)
		}
	}
	if got := value(t, crowded.server.metrics.dropped); got != 20-limit {
		t.Errorf("%v were dropped", got)
	}
}

// TestSpread: instances that are found are tried in random order, those near first; none or an error is unavailable.
func TestSpread(t *testing.T) {
	near, others := []string{"10.0.0.1:5473"}, []string{"10.0.0.2:5473", "10.0.0.3:5473", "10.0.0.4:5473"}
	c := dialWith(t, ClientConfig{Addresses: Spread(func(context.Context) ([]string, []string, error) { return near, others, nil })})
	second := map[string]bool{}
	for range 200 {
		got, err := c.addresses(t.Context())
		if err != nil || len(got) != 4 || got[0] != near[0] {
			t.Fatal(got, err)
		}
		second[got[1]] = true
	}
	if len(second) != len(others) {
		t.Errorf("only %v came second", second)
	}
	near, others = nil, nil
	if got, err := c.addresses(t.Context()); err == nil {
		t.Errorf("no address: %v", got)
	}
	cause := errors.New("forbidden")
	failing := error(nil)
	c = dialWith(t, ClientConfig{Addresses: Spread(func(context.Context) ([]string, []string, error) { return []string{"10.0.0.1:1"}, nil, failing })})
	for _, failing = range []error{nil, cause} {
		if got, err := c.addresses(t.Context()); err != nil || len(got) != 1 {
			t.Errorf("what was found before the error %v: %v, %v", failing, got, err)
		}
	}
	c = dialWith(t, ClientConfig{Addresses: Spread(func(context.Context) ([]string, []string, error) { return nil, nil, cause })})
	if _, err := c.List(t.Context(), "", v3.KindTier); !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, cause) {
		t.Error(err)
	}
}

// TestDrain: a server that stops accepts nobody and lets its clients go one by one, which serves them meanwhile.
func TestDrain(t *testing.T) {
	m := filled(10)
	stopping := startServer(t, m, ServerConfig{DrainTimeout: 10 * time.Second, DrainInterval: 20 * time.Millisecond})
	other := startServer(t, m, ServerConfig{})
	var followers []*follower
	for i := range 10 {
		c := dialWith(t, ClientConfig{Node: fmt.Sprint("n", i), Addresses: func(context.Context) ([]string, error) {
			return []string{stopping.address, other.address}, nil
		}})
		followers = append(followers, follows(t, c))
	}
	for _, f := range followers {
		f.same(t, m)
	}
	go stopping.stop()
	eventually(t, "it is not ready", func() bool { ready, _ := stopping.server.Ready(); return !ready })
	for i := range 20 {
		m.put(set(fmt.Sprint("during", i)))
		for _, f := range followers {
			f.same(t, m)
		}
	}
	<-stopping.stopped
	if n, _ := other.server.count(); n != len(followers) {
		t.Errorf("%d clients have moved", n)
	}
	for i, f := range followers {
		f.same(t, m)
		if _, losses, _ := f.get(); losses > 0 || f.changes != 20 {
			t.Errorf("client %d: %d losses, %d changes", i, losses, f.changes)
		}
	}
}

// TestRestart: clients find a server that was started again, and get the difference only.
func TestRestart(t *testing.T) {
	m := filled(10)
	fan := startServer(t, m, ServerConfig{})
	f := follows(t, fan.client(t, "n"))
	f.same(t, m)
	fan.stop()
	m.put(set("meanwhile"))
	again := startServerAt(t, m, ServerConfig{}, fan.address)
	f.same(t, m)
	if f.changes != 1 {
		t.Errorf("%d changes", f.changes)
	}
	_ = again
}
