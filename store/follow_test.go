package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	v3 "margay/api/v3"
	"margay/store"
)

// A scripted store gives the answers of a script, in order, whatever is asked, and notes what was asked. After the
// script it waits for the context.
type scripted struct {
	store.Store
	steps []step
	asked []string
}

// A step is one answer of List or Next.
type step struct {
	list   string // "3: a@1 b@2! c@3" is a list of revision 3; b is faulty
	events string // "4: a@4 b@4-" are events up to revision 4; b is deleted
	err    error
}

func (s *scripted) take(ctx context.Context, what string) (step, error) {
	s.asked = append(s.asked, what)
	if len(s.steps) == 0 {
		<-ctx.Done()
		return step{}, ctx.Err()
	}
	next := s.steps[0]
	s.steps = s.steps[1:]
	return next, next.err
}

func (s *scripted) List(ctx context.Context, _ string, _ ...v3.Kind) (*store.List, error) {
	next, err := s.take(ctx, "list")
	if err != nil {
		return nil, err
	}
	events, at := parseEvents(next.list)
	list := &store.List{Revision: at}
	for _, e := range events {
		if e.Fault != nil {
			list.Faults = append(list.Faults, *e.Fault)
		} else {
			list.Items = append(list.Items, e.Resource)
		}
	}
	return list, nil
}

func (s *scripted) Watch(_ context.Context, from store.Revision, _ ...v3.Kind) store.Watcher {
	s.asked = append(s.asked, "watch "+string(from))
	return &scriptedWatch{s, from}
}

type scriptedWatch struct {
	script *scripted
	at     store.Revision
}

func (w *scriptedWatch) Next(ctx context.Context) ([]store.Event, error) {
	next, err := w.script.take(ctx, "next")
	if err != nil {
		return nil, err
	}
	events, at := parseEvents(next.events)
	w.at = at
	return events, nil
}

func (w *scriptedWatch) Revision() store.Revision { return w.at }

func (w *scriptedWatch) Close() {}

func parseEvents(text string) (events []store.Event, at store.Revision) {
	head, rest, _ := strings.Cut(text, ":")
	for _, word := range strings.Fields(rest) {
		name, revision, _ := strings.Cut(word, "@")
		kind := revision[len(revision)-1]
		revision = strings.TrimRight(revision, "!-")
		key := v3.Key{Kind: v3.KindTier, Name: name}
		e := store.Event{Key: key, Revision: store.Revision(revision)}
		switch kind {
		case '!':
			e.Fault = &store.Fault{Key: key, Revision: e.Revision, Value: []byte(revision)}
		case '-':
		default:
			info, _ := v3.Lookup(v3.KindTier)
			e.Resource = info.New()
			e.Resource.SetName(name)
			e.Resource.SetResourceVersion(revision)
		}
		events = append(events, e)
	}
	return events, store.Revision(head)
}

func printBatch(b store.Batch) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s:", b.Revision)
	for _, e := range b.Events {
		mark := ""
		switch {
		case e.Fault != nil:
			mark = "!"
		case e.Resource == nil:
			mark = "-"
		}
		fmt.Fprintf(&out, " %s@%s%s", e.Key.Name, e.Revision, mark)
	}
	if !b.InSync {
		out.WriteString(" (not in sync)")
	}
	if b.Err != nil {
		fmt.Fprintf(&out, " %v", b.Err)
	}
	return out.String()
}

func TestFollow(t *testing.T) {
	lost := &store.Error{Err: store.ErrUnavailable, Cause: errors.New("gone")}
	compacted := &store.Error{Err: store.ErrCompacted}
	const isLost = "datastore is unavailable: gone"
	for _, test := range []struct {
		name    string
		steps   []step
		batches []string
		asked   string
	}{
		{"snapshot, then changes",
			[]step{{list: "3: a@1 b@2!"}, {events: "3:"}, {events: "4: a@4 b@4-"}, {events: "6: c@5! c@6"}},
			[]string{"3: a@1 b@2!", "4: a@4 b@4-", "6: c@5! c@6"},
			"list, watch 3, next, next, next, next"},
		{"an empty store",
			[]step{{list: "1:"}},
			[]string{"1:"}, "list, watch 1, next"},
		{"revision moves on",
			[]step{{list: "1:"}, {events: "1:"}, {events: "9:"}, {events: "9:"}},
			[]string{"1:", "9:"}, "list, watch 1, next, next, next, next"},
		{"unreachable at first",
			[]step{{err: lost}, {err: lost}, {list: "3: a@1"}},
			[]string{": (not in sync) " + isLost, ": (not in sync) " + isLost, "3: a@1"},
			"list, list, list, watch 3, next"},
		{"connection lost and back",
			[]step{{list: "3: a@1"}, {events: "3:"}, {err: lost}, {err: lost}, {events: "3:"}, {events: "4: a@4"}},
			[]string{"3: a@1", "3: " + isLost, "3: " + isLost, "3:", "4: a@4"},
			"list, watch 3, next, next, next, next, next, next"},
		{"connection lost, back with a change",
			[]step{{list: "3: a@1"}, {err: lost}, {events: "4: a@4"}},
			[]string{"3: a@1", "3: " + isLost, "4: a@4"},
			"list, watch 3, next, next, next"},
		{"history gone: the difference",
			[]step{{list: "3: a@1 b@2 c@3 d@3!"}, {events: "4: e@4"}, {err: compacted}, {list: "9: a@1 b@8 d@3! f@9"}, {events: "10: a@10"}},
			[]string{"3: a@1 b@2 c@3 d@3!", "4: e@4", "9: b@8 f@9 c@9- e@9-", "10: a@10"},
			"list, watch 3, next, next, list, watch 9, next, next"},
		{"history gone, then nothing has changed",
			[]step{{list: "3: a@1"}, {err: compacted}, {list: "5: a@1"}},
			[]string{"3: a@1", "5:"}, "list, watch 3, next, list, watch 5, next"},
		{"history gone and unreachable",
			[]step{{list: "3: a@1"}, {err: compacted}, {err: lost}, {list: "5: a@1!"}},
			[]string{"3: a@1", "3: " + isLost, "5: a@1!"}, "list, watch 3, next, list, list, watch 5, next"},
		{"lost, then history gone",
			[]step{{list: "3: a@1"}, {err: lost}, {err: compacted}, {list: "5:"}},
			[]string{"3: a@1", "3: " + isLost, "3: revision is no longer available", "5: a@5-"},
			"list, watch 3, next, next, list, watch 5, next"},
		{"deleted by the watch, then listed again",
			[]step{{list: "3: a@1"}, {events: "4: a@4-"}, {err: compacted}, {list: "5: a@1"}},
			[]string{"3: a@1", "4: a@4-", "5: a@1"}, "list, watch 3, next, next, list, watch 5, next"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{steps: test.steps}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				var batches []string
				err := store.Follow(ctx, s, []v3.Kind{v3.KindTier}, func(b store.Batch) error {
					batches = append(batches, printBatch(b))
					return nil
				})
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("ended with %v", err)
				}
				if diff := cmp.Diff(test.batches, batches); diff != "" {
					t.Errorf("batches (- want, + got):\n%s", diff)
				}
				if asked := strings.Join(s.asked, ", "); asked != test.asked {
					t.Errorf("asked\n%s, want\n%s", asked, test.asked)
				}
			})
		})
	}
}

func TestFollowEndsWithDeliver(t *testing.T) {
	full := errors.New("full")
	for name, steps := range map[string][]step{
		"snapshot": {{list: "1:"}},
		"change":   {{list: "1:"}, {events: "2: a@2"}},
		"error":    {{err: store.ErrUnavailable}},
	} {
		left := len(steps)
		err := store.Follow(t.Context(), &scripted{steps: steps}, nil, func(store.Batch) error {
			if left--; left == 0 {
				return full
			}
			return nil
		})
		if !errors.Is(err, full) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFollowWaitsLongerAndLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		steps := make([]step, 40)
		for i := range steps {
			steps[i].err = store.ErrUnavailable
		}
		ctx, cancel := context.WithCancel(t.Context())
		var waits []time.Duration
		last := time.Now()
		err := store.Follow(ctx, &scripted{steps: steps}, nil, func(store.Batch) error {
			waits = append(waits, time.Since(last))
			last = time.Now()
			if len(waits) == len(steps) {
				cancel()
			}
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		for i, wait := range waits[1:] {
			longest := min(100*time.Millisecond<<min(i, 16), 5*time.Second)
			if wait < longest/2 || wait > longest {
				t.Errorf("wait %d is %v, want %v to %v", i, wait, longest/2, longest)
			}
		}
	})
}

// A model is a store whose whole history is known, and which changes and fails as it chooses.
type model struct {
	store.Store
	choices  []byte
	history  []store.Event // revision i+1 at i
	kept     int           // the first revision that can still be watched from
	failures int           // left
}

func (m *model) revision() int { return len(m.history) }

// choose returns a number below n, 0 when all choices have been made.
func (m *model) choose(n int) int {
	if len(m.choices) == 0 {
		return 0
	}
	choice := int(m.choices[0])
	m.choices = m.choices[1:]
	return choice % n
}

func (m *model) fails() bool {
	if m.failures == 0 || m.choose(3) != 1 {
		return false
	}
	m.failures--
	return true
}

// write makes some changes.
func (m *model) write() {
	for range m.choose(5) {
		key := v3.Key{Kind: v3.KindTier, Name: string(rune('a' + m.choose(3)))}
		e := store.Event{Key: key, Revision: store.Revision(strconv.Itoa(m.revision() + 1))}
		switch m.choose(4) {
		case 0:
			if _, exists := m.state()[key]; !exists {
				continue
			}
		case 1:
			e.Fault = &store.Fault{Key: key, Revision: e.Revision, Value: []byte(e.Revision)}
		default:
			info, _ := v3.Lookup(key.Kind)
			e.Resource = info.New()
			e.Resource.SetName(key.Name)
			e.Resource.SetResourceVersion(string(e.Revision))
		}
		m.history = append(m.history, e)
	}
	if m.choose(4) == 1 {
		m.kept = m.revision()
	}
}

// state returns which revision each object has.
func (m *model) state() map[v3.Key]store.Revision {
	state := map[v3.Key]store.Revision{}
	if err := apply(state, m.history); err != nil {
		panic(err)
	}
	return state
}

func apply(state map[v3.Key]store.Revision, events []store.Event) error {
	for _, e := range events {
		switch {
		case state[e.Key] == e.Revision:
			return fmt.Errorf("%s at %s came twice", e.Key, e.Revision)
		case e.Resource != nil || e.Fault != nil:
			state[e.Key] = e.Revision
		case state[e.Key] == "":
			return fmt.Errorf("%s is deleted and did not exist", e.Key)
		default:
			delete(state, e.Key)
		}
	}
	return nil
}

func (m *model) List(context.Context, string, ...v3.Kind) (*store.List, error) {
	m.write()
	if m.fails() {
		return nil, store.ErrUnavailable
	}
	list := &store.List{Revision: store.Revision(strconv.Itoa(m.revision()))}
	latest := map[v3.Key]store.Event{}
	for _, e := range m.history {
		latest[e.Key] = e
	}
	for _, e := range latest {
		switch {
		case e.Resource != nil:
			list.Items = append(list.Items, e.Resource)
		case e.Fault != nil:
			list.Faults = append(list.Faults, *e.Fault)
		}
	}
	return list, nil
}

func (m *model) Watch(_ context.Context, from store.Revision, _ ...v3.Kind) store.Watcher {
	at, _ := strconv.Atoi(string(from))
	return &modelWatch{m, at}
}

type modelWatch struct {
	m  *model
	at int
}

func (w *modelWatch) Next(ctx context.Context) ([]store.Event, error) {
	w.m.write()
	switch {
	case w.m.fails():
		return nil, store.ErrUnavailable
	case w.at < w.m.kept:
		return nil, store.ErrCompacted
	case w.at == w.m.revision() && len(w.m.choices) == 0:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	from := w.at
	w.at = w.m.revision()
	if behind := w.at - from; len(w.m.choices) > 0 {
		w.at = from + w.m.choose(behind+1)
	}
	return w.m.history[from:w.at], nil
}

func (w *modelWatch) Revision() store.Revision { return store.Revision(strconv.Itoa(w.at)) }

func (w *modelWatch) Close() {}

// TestFollowAgainstModel: whatever fails, all batches up to one add up to the state of its revision, and no value is
// delivered twice.
func TestFollowAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		m := &model{choices: make([]byte, rapid.IntRange(0, 500).Draw(rt, "choices")), failures: 8}
		for i := range m.choices {
			m.choices[i] = byte(random.UintN(256))
		}
		state := map[v3.Key]store.Revision{}
		var err error
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			err = store.Follow(ctx, m, []v3.Kind{v3.KindTier}, func(b store.Batch) error {
				if b.Err != nil {
					if len(b.Events) > 0 {
						return errors.New("a batch has an error and events")
					}
					return nil
				}
				if err := apply(state, b.Events); err != nil {
					return err
				}
				at, _ := strconv.Atoi(string(b.Revision))
				then := &model{history: m.history[:at]}
				if want := then.state(); !b.InSync || !maps.Equal(state, want) {
					return fmt.Errorf("at %d: %v, want %v (in sync: %v)", at, state, want, b.InSync)
				}
				return nil
			})
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			rt.Fatal(err)
		}
		if want := m.state(); !maps.Equal(state, want) {
			rt.Fatalf("in the end: %v, want %v", state, want)
		}
	})
}
