package ctl

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/etcd"
)

// A slowLine is a connection to a store on which every answer arrives late.
type slowLine struct {
	endpoint string

	mu    sync.Mutex
	delay time.Duration
	// left is how many more answers are told in time; negative: all of them. Those after it are never told.
	left int
}

// newSlowLine listens in front of a server's unix socket until the test ends.
func newSlowLine(t *testing.T, socket string, delay time.Duration) *slowLine {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	line := &slowLine{endpoint: "http://" + l.Addr().String(), delay: delay, left: -1}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { line.join(ctx, client, socket) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		wg.Wait()
	})
	return line
}

// join connects a client with the server until one of them ends or the test does.
func (l *slowLine) join(ctx context.Context, client net.Conn, socket string) {
	server, err := net.Dial("unix", socket)
	if err != nil {
		_ = client.Close()
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = client.Close(); _ = server.Close() })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { defer cancel(); _, _ = io.Copy(server, client) })
	wg.Go(func() { defer cancel(); l.answers(ctx, client, server) })
	wg.Wait()
	_ = client.Close()
	_ = server.Close()
}

// answers passes on what the server says, each piece after the delay.
func (l *slowLine) answers(ctx context.Context, client io.Writer, server io.Reader) {
	type piece struct {
		data []byte
		at   time.Time
	}
	pieces := make(chan piece, 10_000)
	go func() {
		defer close(pieces)
		for {
			data := make([]byte, 64<<10)
			n, err := server.Read(data)
			if err != nil {
				return
			}
			pieces <- piece{data[:n], time.Now()}
		}
	}()
	for p := range pieces {
		l.mu.Lock()
		delay, silent := l.delay, l.left == 0
		if l.left > 0 {
			l.left--
		}
		l.mu.Unlock()
		if silent {
			delay = time.Hour
		}
		pause(ctx, time.Until(p.at.Add(delay)))
		if _, err := client.Write(p.data); err != nil || ctx.Err() != nil {
			for range pieces { // until the server's side is closed, too
			}
			return
		}
	}
}

// hush lets the line tell so many more pieces of answers and nothing after them.
func (l *slowLine) hush(left int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = left
}

// open returns a store at the end of the line, as the CLI opens one for a request time-out.
func (l *slowLine) open(t *testing.T, patience time.Duration) store.Store {
	t.Helper()
	s, err := etcd.Open(t.Context(), etcd.Config{Endpoints: []string{l.endpoint}, RequestTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// mixedManifest has objects of several kinds, of which some need others.
const mixedManifest = `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec: {tier: platform, ingress: [{action: Allow}], types: [Ingress]}
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: platform}
spec: {order: 10}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: scrapers, labels: {calico-prometheus-access: "true"}}
spec: {nets: [192.0.2.0/24]}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool}
spec: {cidr: 10.9.0.0/16}
`

// TestSlowStore works on a store whose answers come late: every command says what it says on a fast one, and nothing else.
func TestSlowStore(t *testing.T) {
	fast, slow := newIncumbent(t), newIncumbent(t)
	line := newSlowLine(t, filepath.Join(slow.dir, "s"), 25*time.Millisecond)
	far := line.open(t, time.Minute)
	out, errs := watching(t, far, "gns")
	file := manifest(t, mixedManifest)
	changed := manifest(t, strings.Replace(mixedManifest, "192.0.2.0/24", "198.51.100.0/24", 1)+"---\n"+policies(150)[4:])
	for _, args := range [][]string{
		{"apply", "-f", file}, {"apply", "-f", file}, {"diff", "-f", changed}, {"apply", "-f", changed}, {"create", "-f", file},
		{"get", "gns", "scrapers", "nothing"}, {"get", "gnp"}, {"label", "gns", "scrapers", "a=b"},
		{"patch", "tier", "platform", "-p", `{"spec":{"order":20}}`}, {"replace", "-f", file}, {"delete", "-f", changed}, {"version"},
	} {
		wantOut, wantCode := on(t.Context(), fast.store, args...)
		gotOut, gotCode := on(t.Context(), far, append(args, "--request-timeout", "1m")...)
		if gotOut != wantOut || gotCode != wantCode {
			t.Errorf("%v: exit %d, want %d:\n%s\nwant\n%s", args, gotCode, wantCode, gotOut, wantOut)
		}
	}
	out.shows(t, "EVENT   NAME       \n"+
		"ADDED   scrapers   \nMODIFIED   scrapers   \nMODIFIED   scrapers   \nMODIFIED   scrapers   \nDELETED    scrapers   \n")
	if text := errs.String(); text != "" {
		t.Errorf("the watch says %s", text)
	}
}

// TestTooSlowStore has answers that come later than --request-timeout allows: the error says so and what to do, and what
// was sent is said to be unknown. In fact it was done.
func TestTooSlowStore(t *testing.T) {
	i := newIncumbent(t)
	line := newSlowLine(t, filepath.Join(i.dir, "s"), 0)
	const why = "gave no answer in time: given up after 700ms (if it is slow, give it more time with --request-timeout; "
	t.Run("reading", func(t *testing.T) {
		s := line.open(t, 700*time.Millisecond)
		out, code := on(t.Context(), s, "get", "tiers", "--request-timeout", "700ms")
		if code != 0 {
			t.Fatalf("exit %d: %s", code, out)
		}
		line.hush(0)
		for _, args := range [][]string{{"get", "tiers"}, {"get", "gnp", "x"}, {"status"}, {"label", "tier", "default", "a=b"}} {
			out, code := on(t.Context(), s, append(args, "--request-timeout", "700ms")...)
			if code != 1 || strings.Count(out, why) != 1 || !strings.Contains(out, line.endpoint) {
				t.Errorf("%v: exit %d: %s", args, code, out)
			}
		}
	})
	t.Run("writing", func(t *testing.T) {
		line.hush(-1)
		g := &gate{Store: line.open(t, time.Minute), before: func(_ context.Context, call int) {
			if call == 2 {
				line.hush(0)
			}
		}}
		out, code := on(t.Context(), g, "apply", "-f", manifest(t, mixedManifest+"---\n"+policies(250)[4:]), "--request-timeout", "700ms", "--changes=false")
		for _, want := range []string{"Partial success: applied ", why,
			"of 100 it is not known whether the datastore has done it: GlobalNetworkPolicy(policy-96), ", "\n54 not tried: GlobalNetworkPolicy(policy-196), "} {
			if code != 1 || !strings.Contains(out, want) {
				t.Fatalf("exit %d, %q is not said:\n%s", code, want, out)
			}
		}
		i.holds(func() error {
			if n := i.count(); n != 196 {
				return fmt.Errorf("%d policies are stored, want 96 and the 100 that are unknown", n)
			}
			return nil
		})
		if _, err := i.store.Get(t.Context(), v3.Key{Kind: v3.KindNetworkPolicy, Namespace: "shop", Name: "web"}); err != nil {
			t.Error(err)
		}
	})
}

// holds waits until a condition holds.
func (i *incumbent) holds(condition func() error) {
	i.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			i.Fatal(err)
		}
	}
}
