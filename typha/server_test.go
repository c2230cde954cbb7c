package typha

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	v3 "margay/api/v3"
	"margay/store"
)

// filled returns a store with n objects.
func filled(n int) *memory {
	m := newMemory()
	for i := range n {
		m.put(set(fmt.Sprintf("s%04d", i), fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)))
	}
	return m
}

// breakAll breaks the connections of a client, as a network might.
func (c *Client) breakAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.sessions {
		_ = s.conn.Close()
	}
}

// TestManyClients follows random changes with several clients whose connections break again and again, and expects each to
// end with the state of the store, to have seen every change once, and to have needed one snapshot.
func TestManyClients(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	m := filled(300)
	fan := startServer(t, m, ServerConfig{})
	const n = 8
	clients, followers := make([]*Client, n), make([]*follower, n)
	for i := range n {
		clients[i] = fan.client(t, fmt.Sprintf("n%d", i))
		followers[i] = follows(t, clients[i])
	}
	for _, f := range followers {
		f.same(t, m)
	}
	const changes = 2000
	for i := range changes {
		name := fmt.Sprintf("s%04d", rnd.IntN(400))
		key := v3.Key{Kind: v3.KindGlobalNetworkSet, Name: name}
		switch _, is := lastOf(m, key); {
		case is && rnd.IntN(3) == 0:
			m.remove(key)
		case rnd.IntN(10) == 0:
			m.add(store.Event{Key: key, Fault: &store.Fault{Value: []byte("{"), Err: errors.New("does not decode")}})
		default:
			m.put(set(name, fmt.Sprintf("10.0.%d.0/24", i%256)))
		}
		if rnd.IntN(50) == 0 {
			clients[rnd.IntN(n)].breakAll()
		}
	}
	for i, f := range followers {
		f.same(t, m)
		if f.changes != changes {
			t.Errorf("client %d saw %d changes of %d", i, f.changes, changes)
		}
	}
	if made := value(t, fan.server.metrics.snapshotsMade) + value(t, fan.server.metrics.snapshotsReused); made != n {
		t.Errorf("%v snapshots for %d clients", made, n)
	}
	if m.lists != 1 || m.watches != 1 {
		t.Errorf("the store was listed %d times and watched %d times", m.lists, m.watches)
	}
}

func lastOf(m *memory, key v3.Key) (store.Event, bool) {
	state, _ := m.state()
	e, ok := state[key]
	return e, ok
}

// TestResume breaks a connection: as long as the change is held the client goes on behind it, else it gets a snapshot and
// the difference.
func TestResume(t *testing.T) {
	m := filled(10)
	fan := startServer(t, m, ServerConfig{MaxCrumbs: 20, Window: time.Microsecond})
	c := fan.client(t, "n")
	f := follows(t, c)
	f.same(t, m)
	hold := blockDial(c)
	outage := func(changes int) {
		release := hold()
		c.breakAll()
		eventually(t, "the client notices", func() bool { _, _, err := f.get(); return err != nil })
		for i := range changes {
			last := m.put(set(fmt.Sprint("x", i)))
			eventually(t, "typha has seen it", func() bool { return fan.tip().revision == last })
		}
		release()
		f.same(t, m)
	}
	outage(10)
	metrics := fan.server.metrics
	if value(t, metrics.resumed) != 1 || value(t, metrics.snapshotsMade)+value(t, metrics.snapshotsReused) != 1 {
		t.Errorf("resumed %v times, %v snapshots", value(t, metrics.resumed), value(t, metrics.snapshotsMade))
	}
	outage(25)
	if value(t, metrics.resumed) != 1 || value(t, metrics.snapshotsMade)+value(t, metrics.snapshotsReused) != 2 {
		t.Errorf("resumed %v times, %v snapshots", value(t, metrics.resumed), value(t, metrics.snapshotsMade))
	}
	if f.changes != 35 {
		t.Errorf("%d changes", f.changes)
	}
}

// tip returns the newest crumb.
func (f *running) tip() *crumb {
	f.server.cache.mu.Lock()
	defer f.server.cache.mu.Unlock()
	return f.server.cache.trail.tip
}

// blockDial makes a client's attempts to connect fail between hold and release.
func blockDial(c *Client) (hold func() (release func())) {
	blocked := make(chan struct{}, 1)
	dial := c.cfg.Dial
	c.cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		select {
		case blocked <- struct{}{}:
			<-blocked
			return dial(ctx, network, address)
		default:
			return nil, errors.New("no way")
		}
	}
	return func() func() {
		blocked <- struct{}{}
		return func() { <-blocked }
	}
}

// TestLargeChange: a change of many objects at once is cut into several crumbs and arrives as one.
func TestLargeChange(t *testing.T) {
	m := filled(10)
	fan := startServer(t, m, ServerConfig{})
	watching := fan.client(t, "n")
	list, err := watching.List(t.Context(), "", v3.AgentKinds()...)
	if err != nil {
		t.Fatal(err)
	}
	w := watching.Watch(t.Context(), list.Revision, v3.AgentKinds()...)
	defer w.Close()
	if events, err := w.Next(t.Context()); len(events) > 0 || err != nil {
		t.Fatal(events, err)
	}
	m.mu.Lock() // so that it comes as one
	const n = 2000
	for i := range n {
		s := set(fmt.Sprintf("large%d", i))
		s.Annotations = map[string]string{"text": strings.Repeat(fmt.Sprint(i), 200)}
		s.ResourceVersion = fmt.Sprint(11 + i)
		m.history = append(m.history, store.Event{Key: v3.KeyOf(s), Revision: store.Revision(s.ResourceVersion), Resource: s})
	}
	m.wake()
	m.mu.Unlock()
	var events []store.Event
	for len(events) == 0 {
		if events, err = w.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(events) != n || w.Revision() != "2010" {
		t.Errorf("%d events up to %s", len(events), w.Revision())
	}
	if seq := fan.tip().seq; seq < 4 {
		t.Errorf("it was %d crumbs", seq-1)
	}
	follows(t, fan.client(t, "late")).same(t, m)
}

// TestStrangers does what no client does, again and again, and expects that clients do not notice.
func TestStrangers(t *testing.T) {
	m := filled(10)
	fan := startServer(t, m, ServerConfig{HandshakeTimeout: 800 * time.Millisecond, MaxHandshakes: 50, PongTimeout: 4 * time.Second, PingInterval: 100 * time.Millisecond})
	f := follows(t, fan.client(t, "n"))
	f.same(t, m)
	for _, c := range []struct {
		name string
		do   func(*stranger)
	}{
		{"says nothing", func(*stranger) {}},
		{"closes at once", func(s *stranger) { s.Close() }},
		{"speaks HTTP", func(s *stranger) { io.WriteString(s, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") }},
		{"half a header", func(s *stranger) { s.Write([]byte{0, 0}) }},
		{"half a hello", func(s *stranger) { s.Write([]byte{0, 0, 1, 0, 1, '{'}) }},
		{"4 GiB", func(s *stranger) { s.Write([]byte{0xff, 0xff, 0xff, 0xff, 1}) }},
		{"a large hello", func(s *stranger) { s.Write(appendFrame(nil, frameHello, make([]byte, maxHello+1))) }},
		{"no JSON", func(s *stranger) { s.Write(appendFrame(nil, frameHello, []byte("{"))) }},
		{"no node", func(s *stranger) { s.send(frameHello, clientHello{Protocol: protocol}) }},
		{"a node with a slash", func(s *stranger) { s.send(frameHello, clientHello{Protocol: protocol, Node: "a/b"}) }},
		{"a node with a line break", func(s *stranger) { s.send(frameHello, clientHello{Protocol: protocol, Node: "a\nb"}) }},
		{"other protocol", func(s *stranger) { s.send(frameHello, clientHello{Protocol: 99, Node: "x"}) }},
		{"no hello", func(s *stranger) { s.send(frameFollow, follow{Mode: modeSnapshot}) }},
		{"oversized after hello", func(s *stranger) {
			s.send(frameHello, clientHello{Protocol: protocol, Node: "x"})
			s.Write([]byte{0x7f, 0, 0, 0, byte(frameRequest)})
		}},
		{"a server's frame", func(s *stranger) {
			s.send(frameHello, clientHello{Protocol: protocol, Node: "x"})
			s.Write(appendFrame(nil, frameChunk, []byte("x")))
		}},
		{"an odd pong", func(s *stranger) {
			s.send(frameHello, clientHello{Protocol: protocol, Node: "x"})
			s.Write(appendFrame(nil, framePong, []byte("x")))
		}},
		{"never a pong", func(s *stranger) { s.send(frameHello, clientHello{Protocol: protocol, Node: "x"}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := fan.stranger(t)
			c.do(s)
			f.awaitRevision(t, m.put(set("during")))
			if c.name != "closes at once" {
				s.wantEnd()
			}
		})
	}
	// As many stalled handshakes as there may be, and more, of one address: an agent that comes from there gets in.
	for range 200 {
		fan.stranger(t)
	}
	follows(t, fan.client(t, "late")).same(t, m)
	if _, losses, err := f.get(); err != nil || losses > 0 {
		t.Errorf("%v, %d losses", err, losses)
	}
	eventually(t, "nothing is left of them", func() bool { return value(t, fan.server.metrics.active) == 2 })
}

func TestIsNode(t *testing.T) {
	for name, want := range map[string]bool{
		"n": true, "A_b.c-1": true, "knöten": true, strings.Repeat("n", 253): true,
		"": false, strings.Repeat("n", 254): false, "a/b": false, "a\nb": false, "a\x1b[2J": false, "a\xff": false, "a\u202eb": false, "a\tb": false,
	} {
		if isNode(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func TestOtherProtocolIsTold(t *testing.T) {
	fan := startServer(t, filled(1), ServerConfig{})
	s := fan.stranger(t)
	s.send(frameHello, clientHello{Protocol: 99, Node: "x"})
	if b := read[bye](t, s.want(frameBye)); !strings.Contains(b.Reason, "same release") {
		t.Errorf("%+v", b)
	}
}

// TestUnknownFollow: a mode of a later release is refused, and the connection goes on.
func TestUnknownFollow(t *testing.T) {
	fan := startServer(t, filled(1), ServerConfig{})
	s := fan.introduced(t)
	s.send(frameFollow, follow{Mode: "sideways"})
	if a := read[accepted](t, s.want(frameAccepted)); a.Code != codeNotSupported {
		t.Errorf("%+v", a)
	}
	s.send(frameFollow, follow{Mode: modeResume, Generation: "another", Seq: 1})
	if a := read[accepted](t, s.want(frameAccepted)); a.Code != codeCompacted {
		t.Errorf("%+v", a)
	}
	s.send(frameFollow, follow{Mode: modeSnapshot})
	if a := read[accepted](t, s.want(frameAccepted)); a.Code != "" || a.Chunks != 1 {
		t.Errorf("%+v", a)
	}
	s.want(frameChunk)
}

func TestMaxClients(t *testing.T) {
	m := filled(1)
	fan := startServer(t, m, ServerConfig{MaxClients: 2})
	a, b := fan.introduced(t), fan.introduced(t)
	third := fan.client(t, "n")
	if _, err := third.List(t.Context(), "", v3.KindGlobalNetworkSet); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a third client: %v", err)
	}
	a.Close()
	eventually(t, "there is room again", func() bool {
		_, err := third.List(t.Context(), "", v3.KindGlobalNetworkSet)
		return err == nil
	})
	b.Close()
}

// TestLostStore: clients learn that typha has lost its store, keep what they have, get no snapshot meanwhile, and go on
// without gap.
func TestLostStore(t *testing.T) {
	m := filled(10)
	fan := startServer(t, m, ServerConfig{})
	c := fan.client(t, "n")
	f := follows(t, c)
	f.same(t, m)
	m.setDown(&store.Error{Err: store.ErrUnavailable, Cause: errors.New("etcd is on holiday")})
	eventually(t, "the client knows", func() bool {
		_, _, err := f.get()
		return errors.Is(err, store.ErrUnavailable) && strings.Contains(err.Error(), "etcd is on holiday")
	})
	if ready, detail := fan.server.Ready(); ready || !strings.Contains(detail, "holiday") {
		t.Errorf("ready %v: %s", ready, detail)
	}
	late := fan.client(t, "late")
	if _, err := late.List(t.Context(), "", v3.KindGlobalNetworkSet); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "holiday") {
		t.Errorf("a new client: %v", err)
	}
	hold := blockDial(c)
	release := hold()
	c.breakAll() // who comes back is told, too
	eventually(t, "the connection is lost", func() bool { _, _, err := f.get(); return strings.Contains(fmt.Sprint(err), "no way") })
	release()
	eventually(t, "the client knows again", func() bool { _, _, err := f.get(); return strings.Contains(fmt.Sprint(err), "holiday") })
	m.put(set("meanwhile"))
	m.setDown(nil)
	f.same(t, m)
	if ready, detail := fan.server.Ready(); !ready {
		t.Error(detail)
	}
	m.put(set("after"))
	f.same(t, m)
	if f.changes != 2 {
		t.Errorf("%d changes", f.changes)
	}
	follows(t, late).same(t, m)
}

// TestStoreGoesBack: when the store is replaced by an older one, clients get the difference, and nobody resumes from what
// was before.
func TestStoreGoesBack(t *testing.T) {
	m := filled(10)
	fan := startServer(t, m, ServerConfig{})
	c := fan.client(t, "n")
	f := follows(t, c)
	f.same(t, m)
	away := fan.client(t, "away")
	g := follows(t, away)
	g.same(t, m)
	release := blockDial(away)()
	away.breakAll()
	eventually(t, "the client notices", func() bool { _, _, err := g.get(); return err != nil })
	m.mu.Lock()
	m.history, m.first = m.history[:3], 0
	m.history = append(m.history, store.Event{Key: v3.Key{Kind: v3.KindGlobalNetworkSet, Name: "s0000"}, Revision: "4"})
	m.wake()
	m.mu.Unlock()
	f.same(t, m)
	for i := range 20 { // past the old revision: what it names now is another state
		m.put(set(fmt.Sprint("new", i)))
	}
	f.same(t, m)
	release()
	g.same(t, m)
	if value(t, fan.server.metrics.resumed) != 0 {
		t.Error("somebody resumed")
	}
}

// TestNotOlder: a client that comes from an instance that is further gets no older state.
func TestNotOlder(t *testing.T) {
	ahead, behind := filled(20), filled(10)
	first, second := startServer(t, ahead, ServerConfig{}), startServer(t, behind, ServerConfig{})
	second.server.cache.catchUp = time.Minute
	at := first.address
	c := dialWith(t, ClientConfig{Addresses: func(context.Context) ([]string, error) { return []string{at}, nil }})
	if _, err := c.List(t.Context(), "", v3.KindGlobalNetworkSet); err != nil {
		t.Fatal(err)
	}
	c.breakAll()
	at = second.address
	eventually(t, "the connection has ended", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.sessions) == 0 })
	result := make(chan *store.List, 1)
	go func() {
		list, _ := c.List(t.Context(), "", v3.KindGlobalNetworkSet)
		result <- list
	}()
	eventually(t, "it has asked", func() bool { return value(t, second.server.metrics.active) == 1 })
	for i := range 10 {
		select {
		case list := <-result:
			t.Fatalf("it got revision %s with %d", list.Revision, i)
		default:
		}
		behind.put(set(fmt.Sprint("more", i)))
	}
	if list := <-result; list == nil || list.Revision != "20" {
		t.Errorf("it got %+v", list)
	}
	// A store that went back is not waited for for ever.
	second.server.cache.catchUp = time.Millisecond
	c.has("1000")
	if list, err := c.List(t.Context(), "", v3.KindGlobalNetworkSet); err != nil || list.Revision != "20" {
		t.Errorf("%v, %v", list, err)
	}
}

// TestRequests does what an agent asks of typha beside reading, and what it must not ask.
func TestRequests(t *testing.T) {
	m := filled(3)
	fan := startServer(t, m, ServerConfig{})
	c := fan.client(t, "n")
	ctx := t.Context()
	if err := c.Initialise(ctx); err != nil {
		t.Error(err)
	}
	info, _ := v3.Lookup(v3.KindNode)
	node := info.New()
	node.SetName("n")
	if r, err := c.Create(ctx, node); err != nil || r.GetResourceVersion() != "4" {
		t.Errorf("%v, %v", r, err)
	}
	beat := &store.Heartbeat{Time: "now", UptimeSeconds: 7}
	if err := c.ReportStatus(ctx, store.NodeStatus{Node: "n", Ready: true, Heartbeat: beat}); err != nil || len(m.statuses) != 1 ||
		!m.statuses[0].Ready || m.statuses[0].Heartbeat == nil || *m.statuses[0].Heartbeat != *beat {
		t.Errorf("%v, %+v", err, m.statuses)
	}
	pod := store.NodeStatus{Node: "n", Endpoints: map[string]store.EndpointState{}}
	states := map[v3.Key]store.EndpointState{}
	for i := range 500 { // a host full of pods
		key := v3.KeyOf(benchEndpoint(i, time.Time{}))
		states[key], pod.Endpoints[key.String()] = store.EndpointUp, store.EndpointUp
	}
	if err := c.ReportStatus(ctx, pod); err != nil || len(m.statuses[1].Endpoints) != 500 {
		t.Errorf("many endpoints: %v", err)
	}
	if err := c.ReportEndpoints(ctx, "n", states); err != nil || !maps.Equal(m.states, states) {
		t.Errorf("%d states of endpoints: %v", len(m.states), err)
	}
	if pods, err := c.HostPods(ctx, "n"); err != nil || len(pods) != 1 || pods[0].Node != "n" || pods[0].Labels["app"] != "proxy" {
		t.Errorf("pods on the node's network: %v, %v", pods, err)
	}
	many := store.NodeStatus{Node: "n", Detail: strings.Repeat("x", maxClient), Endpoints: pod.Endpoints}
	for i := range 4000 {
		many.Faults = append(many.Faults, fmt.Sprintf("fault %d: %s", i, strings.Repeat("<", 500)))
		many.Warnings = append(many.Warnings, randomText(200))
	}
	if err := c.ReportStatus(ctx, many); err != nil || !strings.HasPrefix(m.statuses[2].Faults[len(m.statuses[2].Faults)-1], "and ") {
		t.Errorf("a long status: %v", err)
	}
	eventually(t, "typha has the Node", func() bool { _, err := c.Get(ctx, v3.KeyOf(node)); return err == nil })
	if _, err := c.Get(ctx, v3.KeyOf(set("no"))); !errors.Is(err, store.ErrNotFound) || err.Error() != "resource does not exist: GlobalNetworkSet(no) with error: key not found" {
		t.Errorf("what does not exist: %v", err)
	}
	node.SetName("other")
	peer := v3.Key{Kind: v3.KindBGPPeer, Name: "x"} // which no agent follows
	for name, err := range map[string]error{
		"another node":     second(c.Create(ctx, node)),
		"a policy":         second(c.Create(ctx, set("x"))),
		"update":           second(c.Update(ctx, set("s0000"))),
		"delete":           second(c.Delete(ctx, v3.KeyOf(set("s0000")), "")),
		"another's state":  c.ReportEndpoints(ctx, "other", states),
		"another's pods":   second(c.HostPods(ctx, "other")),
		"states":           second(c.EndpointStatuses(ctx)),
		"another's status": c.ReportStatus(ctx, store.NodeStatus{Node: "other"}),
		"write all":        c.WriteAll(ctx, store.Commit, []store.Write{{Resource: set("x")}})[0].Err,
		"statuses":         second(c.Statuses(ctx)),
		"last change":      second(c.LastChange(ctx)),
		"other kinds":      second(c.List(ctx, "", v3.KindBGPPeer)),
		"get other kinds":  second(c.Get(ctx, peer)),
	} {
		if !errors.Is(err, store.ErrNotSupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What a client does not ask, a stranger might.
	s := fan.introduced(t)
	addressed, labelled := v3.Node{}, v3.Node{}
	addressed.Name, labelled.Name = "stranger", "stranger"
	addressed.Kind, labelled.Kind = string(v3.KindNode), string(v3.KindNode)
	addressed.Spec.BGP = &v3.NodeBGPSpec{IPv4Address: "192.0.2.1/24"}
	labelled.Labels = map[string]string{"role": "trusted"}
	for i, r := range []request{
		{Op: opRegister, Value: mustJSON(addressed)}, {Op: opRegister, Value: mustJSON(labelled)},
		{Op: opRegister, Value: mustJSON(node)}, {Op: opRegister, Value: mustJSON(set("stranger"))}, {Op: "drop"},
		{Op: opReport, Pack: append([]byte{0}, mustJSON(statusReport{Status: store.NodeStatus{Node: "n"}})...)},
		{Op: opEndpoints, Pack: append([]byte{0}, mustJSON(endpointsReport{Node: "n"})...)},
	} {
		r.ID = uint64(i)
		s.send(frameRequest, r)
		if a := read[reply](t, s.want(frameReply)); a.ID != r.ID || a.Code != codeForbidden && a.Code != codeNotSupported {
			t.Errorf("%s: %+v", r.Op, a)
		}
	}
	bomb := newPacker(zstd.SpeedFastest).append(nil, 0, make([]byte, 10*maxReport))
	for i, pack := range [][]byte{nil, {0}, {0, '{'}, {7}, bomb} {
		s.send(frameRequest, request{ID: uint64(i), Op: opReport, Pack: pack})
		if a := read[reply](t, s.want(frameReply)); a.Code != codeOther && a.Code != codeForbidden {
			t.Errorf("pack %d: %+v", i, a)
		}
	}
	if len(m.created) != 1 || len(m.statuses) != 3 {
		t.Errorf("created %v, %d statuses", m.created, len(m.statuses))
	}
}

// TestManyNames: clients that make up names do not fill the store.
func TestManyNames(t *testing.T) {
	m := newMemory()
	fan := startServer(t, m, ServerConfig{MaxClients: 3})
	for i := range 5 {
		c := fan.client(t, fmt.Sprint("n", i))
		for range 2 {
			err := c.ReportStatus(t.Context(), store.NodeStatus{Node: fmt.Sprint("n", i)})
			if (err == nil) != (i < 3) || err != nil && !errors.Is(err, store.ErrForbidden) {
				t.Errorf("name %d: %v", i, err)
			}
		}
		c.Close()
		eventually(t, "it is gone", func() bool { n, _ := fan.server.count(); return n == 0 })
	}
	if len(m.statuses) != 6 {
		t.Errorf("%d reports", len(m.statuses))
	}

	// Nodes are no such names, and one that has become a Node makes room.
	info, _ := v3.Lookup(v3.KindNode)
	for _, name := range []string{"n4", "n0"} {
		node := info.New()
		node.SetName(name)
		revision := m.put(node)
		eventually(t, "typha has seen it", func() bool { return m.Reached(fan.tip().revision, revision) })
	}
	for _, name := range []string{"n4", "n0", "n3"} {
		if err := fan.client(t, name).ReportStatus(t.Context(), store.NodeStatus{Node: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestUnreachable(t *testing.T) {
	c := dialWith(t, ClientConfig{Addresses: Fixed("127.0.0.1:1")})
	_, err := c.List(t.Context(), "", v3.KindTier)
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Error(err)
	}
	// A server that accepts and says nothing.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c = dialWith(t, ClientConfig{Addresses: Fixed(listener.Addr().String()), DialTimeout: 100 * time.Millisecond})
	if _, err := c.Get(t.Context(), v3.KeyOf(set("a"))); !errors.Is(err, store.ErrUnavailable) {
		t.Error(err)
	}
}

// TestMetrics: the names that the incumbent has.
func TestMetrics(t *testing.T) {
	m := filled(3)
	fan := startServer(t, m, ServerConfig{PingInterval: 10 * time.Millisecond})
	f := follows(t, fan.client(t, "n"))
	f.same(t, m)
	m.put(set("x"))
	f.same(t, m)
	var body string
	eventually(t, "a ping was answered", func() bool {
		w := httptest.NewRecorder()
		fan.server.metrics.handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		body = w.Body.String()
		return !strings.Contains(body, "typha_ping_latency_count{syncer=\"felix\"} 0\n")
	})
	for _, line := range []string{
		"typha_connections_accepted 1", "typha_connections_active 1", `typha_connections_streaming{syncer="felix"} 1`, "typha_connections_dropped 0",
		`typha_snapshots_generated{syncer="felix"} 1`, `typha_cache_size{syncer="felix"} 4`, `typha_breadcrumb_seq_number{syncer="felix"} 2`,
		`typha_updates_total{syncer="felix"} 4`, `typha_updates_skipped{syncer="felix"} 0`, `typha_client_snapshot_send_secs_count{syncer="felix"} 1`,
		`typha_client_latency_secs_count{syncer="felix"} 1`, `typha_client_write_latency_secs_count{syncer="felix"} 1`, `typha_kvs_per_msg_sum{syncer="felix"} 1`,
		`typha_breadcrumb_block{syncer="felix"} 1`, `typha_connections_grace_used{syncer="felix"} 0`, "typha_log_errors 0",
	} {
		if !strings.Contains(body, "\n"+line+"\n") {
			t.Errorf("%s is not in the metrics", line)
		}
	}
	if t.Failed() {
		t.Log(body)
	}
}
