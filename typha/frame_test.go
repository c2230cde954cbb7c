package typha

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	v3 "margay/api/v3"
	"margay/store"
)

func TestReadFrame(t *testing.T) {
	whole := appendFrame(nil, framePing, []byte("12345678"))
	for _, c := range []struct {
		name  string
		bytes []byte
		limit int
		want  error // nil: the frame above
	}{
		{"whole", whole, 8, nil},
		{"followed by another", append(slices.Clone(whole), whole...), 8, nil},
		{"empty", nil, 8, io.EOF},
		{"cut in the header", whole[:3], 8, io.ErrUnexpectedEOF},
		{"cut in the payload", whole[:9], 8, io.ErrUnexpectedEOF},
		{"no payload", whole[:5], 8, io.ErrUnexpectedEOF},
		{"too long", whole, 7, errFrame},
		{"length zero", []byte{0, 0, 0, 0, 7}, 8, errFrame},
		{"type zero", []byte{0, 0, 0, 1, 0}, 8, errFrame},
		{"unknown type", []byte{0, 0, 0, 1, 99}, 8, errFrame},
		{"4 GiB", []byte{0xff, 0xff, 0xff, 0xff, 7}, maxServer, errFrame},
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), maxHello, errFrame},
		{"TLS", []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, maxHello, errFrame},
	} {
		ft, payload, err := readFrame(bytes.NewReader(c.bytes), c.limit)
		if !errors.Is(err, c.want) || err == nil && (ft != framePing || string(payload) != "12345678") {
			t.Errorf("%s: %d %q %v, want %v", c.name, ft, payload, err, c.want)
		}
	}
}

// TestMemoryOfClaims: a header that announces what does not come costs next to nothing.
func TestMemoryOfClaims(t *testing.T) {
	header := binary.BigEndian.AppendUint32(nil, maxServer)
	header = append(header, byte(frameChunk))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err := readFrame(bytes.NewReader(header), maxServer)
	runtime.ReadMemStats(&after)
	if err == nil || after.TotalAlloc-before.TotalAlloc > 4*allocStep {
		t.Errorf("%v; %d bytes were allocated", err, after.TotalAlloc-before.TotalAlloc)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(appendFrame(nil, frameHello, []byte("{}")), 10)
	f.Add(appendFrame(nil, framePong, nil), 0)
	f.Add([]byte{0, 1, 0, 0, 4, 1}, 1<<20)
	f.Fuzz(func(t *testing.T, b []byte, limit int) {
		limit = min(max(limit, 0), maxServer)
		ft, payload, err := readFrame(bytes.NewReader(b), limit)
		if (err != nil) != (payload == nil) || len(payload) > limit {
			t.Fatalf("%d bytes, %v", len(payload), err)
		}
		if err == nil && !bytes.HasPrefix(b, appendFrame(nil, ft, payload)) {
			t.Fatalf("another frame than the bytes")
		}
	})
}

// events of every form.
func someEvents() []store.Event {
	info, _ := v3.Lookup(v3.KindGlobalNetworkPolicy)
	policy := info.New().(*v3.GlobalNetworkPolicy)
	policy.Name = "default.p" // as releases before 3.32 stored it
	policy.Spec.Tier, policy.Spec.Selector, policy.Spec.Types = "default", "all()", []string{"Ingress"}
	policy.ResourceVersion = "7"
	policy.Labels = map[string]string{"projectcalico.org/tier": "default"}
	policy.Annotations = map[string]string{"a": "b"}
	s := set("a", "10.0.0.0/8")
	s.ResourceVersion = "8"
	key := v3.Key{Kind: v3.KindNetworkSet, Namespace: "ns", Name: "x"}
	return []store.Event{
		{Key: v3.KeyOf(policy), Revision: "7", Resource: policy},
		{Key: v3.KeyOf(s), Revision: "8", Resource: s},
		{Key: key, Revision: "9", Fault: &store.Fault{Key: key, Revision: "9", Value: []byte("\x00{"), Err: errors.New("does not decode")}},
		{Key: key, Revision: "10", Fault: &store.Fault{Key: key, Revision: "10", Value: []byte{}, Err: errors.New("empty")}},
		{Key: key, Revision: "11", Fault: &store.Fault{Key: key, Revision: "11", Err: errors.New("value not known")}},
		{Key: key, Revision: "12"},
	}
}

// TestEventsTravel: an event is the same on the other side, packed or not.
func TestEventsTravel(t *testing.T) {
	var raw []byte
	for _, e := range someEvents() {
		raw = appendRecord(raw, recordOf(e))
	}
	packed := newPacker(zstd.SpeedFastest).append(nil, flagMore, raw)
	if packed[0] != flagMore|flagZstd || len(packed) >= len(raw) {
		t.Errorf("flags %d, %d of %d bytes", packed[0], len(packed), len(raw))
	}
	for _, pack := range [][]byte{packed, append([]byte{0}, raw...)} {
		records, _, err := newUnpacker(maxRaw).records(pack)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range someEvents() {
			got := records[i].event()
			if got.Key != want.Key || got.Revision != want.Revision || string(mustJSON(got.Resource)) != string(mustJSON(want.Resource)) {
				t.Errorf("event %d is %s@%s %s, want %s", i, got.Key, got.Revision, mustJSON(got.Resource), mustJSON(want.Resource))
			}
			if (got.Fault == nil) != (want.Fault == nil) {
				t.Fatalf("event %d: fault %v, want %v", i, got.Fault, want.Fault)
			}
			if want.Fault != nil && (got.Fault.Error() != want.Fault.Error() || string(got.Fault.Value) != string(want.Fault.Value) ||
				(got.Fault.Value == nil) != (want.Fault.Value == nil) || got.Fault.Revision != want.Revision) {
				t.Errorf("event %d: fault %+v, want %+v", i, got.Fault, want.Fault)
			}
		}
	}
}

// TestKindsOfKubernetesTravel: what only the Kubernetes store makes gets through as well, such as the endpoints of services.
func TestKindsOfKubernetesTravel(t *testing.T) {
	info, ok := v3.Lookup(v3.KindServiceEndpoints)
	if !ok {
		t.Fatal("the kind is not known")
	}
	r := info.New().(*v3.ServiceEndpoints)
	r.Namespace, r.Name, r.ResourceVersion = "ns", "web-x7", "7"
	r.Spec = v3.ServiceEndpointsSpec{Service: "web", Endpoints: []v3.ServiceEndpoint{{Addr: "10.0.0.1", Protocol: 6, Port: 80}, {Addr: "fd00::1"}}}
	records, err := decodeRecords(appendRecord(nil, recordOf(store.Event{Key: v3.KeyOf(r), Resource: r, Revision: "7"})))
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	if got := records[0].event(); got.Fault != nil || got.Key != v3.KeyOf(r) || string(mustJSON(got.Resource)) != string(mustJSON(r)) {
		t.Errorf("%+v %s, want %s", got, mustJSON(got.Resource), mustJSON(r))
	}
	if !slices.Contains(v3.AgentKinds(), v3.KindServiceEndpoints) {
		t.Error("typha does not follow them")
	}
}

// TestDoubtTravels: an agent behind typha knows as well which rules ask for what this release does not know.
func TestDoubtTravels(t *testing.T) {
	r, err := v3.DecodeStored(v3.KindGlobalNetworkPolicy, []byte(`{"metadata":{"name":"p"},"spec":{"egress":[{"action":"Allow","destination":{"domains":["a"]}}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	e := recordOf(store.Event{Key: v3.KeyOf(r), Revision: "1", Resource: r}).event()
	if e.Fault != nil {
		t.Fatal(e.Fault)
	}
	if got := e.Resource.(*v3.GlobalNetworkPolicy).Spec.Egress[0].Unknown; !slices.Equal(got, []string{"destination.domains"}) {
		t.Errorf("%q", got)
	}
}

// TestTooLarge: a value that fits into no frame is a fault, and does not stop the others.
func TestTooLarge(t *testing.T) {
	large := set("large")
	large.Annotations = map[string]string{"a": strings.Repeat("x", maxValue)}
	e := recordOf(store.Event{Key: v3.KeyOf(large), Revision: "1", Resource: large}).event()
	if e.Fault == nil || e.Resource != nil || !strings.Contains(e.Fault.Error(), "bytes") {
		t.Errorf("%+v", e.Fault)
	}
}

// TestUnpackIsBounded: few bytes that unpack to more than any server sends are refused.
func TestUnpackIsBounded(t *testing.T) {
	bomb := newPacker(zstd.SpeedFastest).append(nil, 0, make([]byte, maxRaw+1))
	if len(bomb) > maxRaw/100 {
		t.Fatalf("not much of a bomb: %d bytes", len(bomb))
	}
	if records, _, err := newUnpacker(maxRaw).records(bomb); err == nil || records != nil {
		t.Error("it was unpacked")
	}
}

func FuzzRecords(f *testing.F) {
	var all []byte
	for _, e := range someEvents() {
		one := appendRecord(nil, recordOf(e))
		f.Add(one)
		all = append(all, one...)
	}
	f.Add(all)
	f.Add([]byte{4, 0x80, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := decodeRecords(b)
		if err != nil && records != nil || err == nil && (records == nil) != (len(b) == 0) {
			t.Fatalf("%v, %v", records, err)
		}
		var again []byte
		for _, r := range records {
			again = appendRecord(again, r)
			e := r.event()
			if e.Key != r.key || e.Resource != nil && e.Fault != nil || (r.op == opDelete) != (e.Resource == nil && e.Fault == nil) {
				t.Fatalf("%+v", e)
			}
		}
		if err == nil && !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func FuzzCrumb(f *testing.F) {
	p := newPacker(zstd.SpeedFastest)
	raw := appendRecord(nil, recordOf(someEvents()[0]))
	f.Add(p.append(appendCrumb(nil, 7, "9"), 0, raw))
	f.Add(append(append(appendCrumb(nil, 1<<63, ""), 0), raw...))
	unpack := newUnpacker(maxRaw)
	f.Fuzz(func(t *testing.T, b []byte) {
		seq, revision, pack, err := cutCrumb(b)
		if err != nil {
			if pack != nil {
				t.Fatal("a pack with an error")
			}
			return
		}
		if !bytes.Equal(append(appendCrumb(nil, seq, revision), pack...), b) {
			t.Fatal("another crumb than the bytes")
		}
		if records, _, err := unpack.records(pack); err != nil && records != nil {
			t.Fatal("records with an error")
		}
	})
}

func TestTrail(t *testing.T) {
	tr := trail{maxCount: 4, maxSize: 100}
	add := func(revision store.Revision, size int) *crumb {
		c := &crumb{revision: revision, frame: make([]byte, size)}
		tr.add(c)
		return c
	}
	var zero crumb
	tr.begin("g", "1", zero.at)
	first := tr.tip
	if tr.at(1) != first || tr.of("1") != first || tr.at(0) != nil || tr.at(2) != nil || tr.of("") != nil {
		t.Fatal("the first crumb")
	}
	second := add("2", 10)
	if !isReady(first) || first.next != second || isReady(second) || second.seq != 2 || second.total != 10 {
		t.Fatalf("%+v %+v", first, second)
	}
	add("", 10) // the rest comes with the next
	add("4", 10)
	if len(tr.held) != 4 || tr.size != 30 || tr.of("3") != nil || tr.at(3).revision != "" {
		t.Fatalf("%d held, %d bytes", len(tr.held), tr.size)
	}
	add("5", 10)
	if tr.at(1) != nil || tr.of("1") != nil || tr.at(2) != second || tr.size != 30 {
		t.Fatalf("the oldest is held, or the size is %d", tr.size)
	}
	big := add("6", 95)
	if len(tr.held) != 2 || tr.size != 95 || tr.held[0].revision != "5" || tr.at(big.seq) != big {
		t.Fatalf("%d held, %d bytes", len(tr.held), tr.size)
	}
	huge := add("7", 1000)
	if len(tr.held) != 1 || tr.size != 0 || tr.of("7") != huge {
		t.Fatalf("%d held, %d bytes", len(tr.held), tr.size)
	}
	add("8", 1)
	tr.renew("h")
	if tr.generation != "h" || tr.of("7") != nil || tr.of("8") != tr.tip {
		t.Fatal("resumable across generations")
	}
	n := 0
	for c := first; isReady(c); c = c.next {
		n++
	}
	if n != 7 {
		t.Errorf("whoever holds the first crumb finds %d more", n)
	}
}
