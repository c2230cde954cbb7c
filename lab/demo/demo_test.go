package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// TestMain lets this binary stand in for margay: with words instead of flags it prints them, and does what the first says.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || strings.HasPrefix(os.Args[1], "-") {
		os.Exit(m.Run())
	}
	fmt.Println(strings.Join(os.Args[1:], " "))
	switch os.Args[1] {
	case "fail":
		os.Exit(1)
	case "block":
		<-time.After(time.Hour) // unlike select {}, no deadlock to the runtime
	}
}

// newTestStage makes the hosts, without margay.
func newTestStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{out: newScreen(io.Discard, false, nil), binary: "/proc/self/exe", stations: map[string]station{}}
	t.Cleanup(s.close)
	for _, do := range []func(context.Context) error{s.writeFiles, s.makeHosts, s.listen} {
		if err := do(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// serve stands in for the programs of margay on a host.
func (s *stage) serve(t *testing.T, on, name string) {
	t.Helper()
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# HELP\nfelix_host{host=%q} 1\nmargay_store_connected 1\n", name)
	})
	for _, addr := range []string{":9091", "127.0.0.1:9099", ":2379"} {
		listener, err := s.stations[on].Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: answer}
		t.Cleanup(func() { srv.Close() })
		go srv.Serve(listener)
	}
}

// What the table says is what the packets do: an answer, silence and a refusal are told apart, and metrics of another
// host are none.
func TestTableSeesWhatIsThere(t *testing.T) {
	s := newTestStage(t)
	s.serve(t, master, master)
	s.serve(t, node0, "somebody-else")
	s.serve(t, storeHost, storeHost)
	gone := s.stations[mgmt102]
	if err := gone.RemoveAddress("eth0", netip.PrefixFrom(gone.addr, 24)); err != nil {
		t.Fatal(err)
	}
	// Answers to mgmt101 get lost: it has an address that nobody can reach.
	lost := s.stations[mgmt101]
	for _, host := range []station{s.stations[master], s.stations[node0]} {
		if err := host.AddAddress("lo", netip.PrefixFrom(lost.addr, 32)); err != nil {
			t.Fatal(err)
		}
	}
	all := "yes yes yes yes | yes yes yes err"
	want := map[string]string{
		stranger: all, prometheus: all, mgmtOther: all,
		mgmt101: "no no no no | no no no no", mgmt102: "err err err err | err err err err",
		"stranger 80": "yes | yes", "stranger 53 by UDP": "yes | yes", "store 2379": "yes | yes", "(agent in sync)": "yes | yes",
	}
	tab := s.table(*allOpen())
	tab.look(t.Context())
	for _, r := range append(tab.in, tab.out...) {
		if got := outcomes(r.cells[0]) + " | " + outcomes(r.cells[1]); got != want[r.label] {
			t.Errorf("%s: %s, want %s", r.label, got, want[r.label])
		}
	}
	if got := tab.wrong(); got != 3+8+8 {
		t.Errorf("%d cells are wrong", got)
	}
}

func outcomes(cells []cell) string {
	words := make([]string, len(cells))
	for i := range cells {
		words[i] = cells[i].seen.String()
	}
	return strings.Join(words, " ")
}

// A table that does not become right makes the step fail, one that is right does not.
func TestStepFails(t *testing.T) {
	s := newTestStage(t)
	p := &play{stage: s, out: s.out, stepTime: 2 * time.Second}
	st := step{title: "x", dir: denyList, want: allOpen()}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := p.step(ctx, st); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no metrics, and the step ended with %v", err)
	}
	for _, name := range []string{master, node0, storeHost} {
		s.serve(t, name, name)
	}
	if err := p.step(t.Context(), st); err != nil {
		t.Error(err)
	}
	if p.wrong != 0 || p.cells != 48 || p.steps != 2 {
		t.Errorf("%d steps, %d cells, %d wrong", p.steps, p.cells, p.wrong)
	}
	st.want = denied()
	if err := p.step(t.Context(), st); !errors.Is(err, ErrWrong) || p.wrong != 10 {
		t.Errorf("9091 is open, %d wrong, and the step ended with %v", p.wrong, err)
	}
}

func TestCommands(t *testing.T) {
	s := newTestStage(t)
	output, err := s.run(t.Context(), denyList, []string{"get", "nodes"})
	if want := "get nodes --config " + s.dir + "/calicoctl.cfg"; err != nil || output != want {
		t.Errorf("run: %q, %v, want %q", output, err, want)
	}
	if output, err := s.run(t.Context(), denyList, []string{"fail"}); err == nil || !strings.HasPrefix(output, "fail") {
		t.Errorf("run: %q, %v", output, err)
	}
	p, err := s.start(s.stations[master], nil, "block", "here")
	if err != nil {
		t.Fatal(err)
	}
	err = s.await(t.Context(), []*process{p}, "its log", func(context.Context) bool { return strings.Contains(p.log.tail(1), "block here") })
	if err != nil || p.ended() {
		t.Errorf("await: %v, ended %v", err, p.ended())
	}
	p.stop()
	if !p.ended() {
		t.Error("the process runs on")
	}
	if err := s.await(t.Context(), []*process{p}, "nothing", func(context.Context) bool { return false }); err == nil {
		t.Error("nobody noticed that the process has ended")
	}
}
