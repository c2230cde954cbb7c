package ctl

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
	"margay/store"
)

// Bounds of the writer.
const (
	// maxAttempts is how often an update is tried when somebody else changes the object at the same time. (calicoctl
	// tries five times, a second apart.)
	maxAttempts = 20
	// chunk is how many objects go to the store before somebody who interrupts is heard.
	chunk = 100
	// listFrom is from how many objects of a kind on the kind is listed rather than each object read.
	listFrom = 20
	// grace is how long a request that was sent may still be answered after an interruption.
	grace = 2 * time.Second
)

// What became of an object, as people are told.
const (
	stateCreated    = "created"
	stateConfigured = "configured"
	stateUnchanged  = "unchanged"
	stateExists     = "exists"
	stateDeleted    = "deleted"
	stateAbsent     = "absent"
	stateNotTried   = "not tried"
	stateUnknown    = "unknown" // sent, and not answered
)

// A change is what one document asks for, and what became of it.
type change struct {
	doc     v3.Document
	key     v3.Key
	given   string     // resourceVersion of the manifest
	old     version    // what is there, or was
	unknown v3.Unknown // with rewritten: the fields to store that this program does not know
	// rewritten says that doc holds the whole new version, with the revision of the one it was made from.
	rewritten bool
	attempts  int

	state    string
	result   v3.Resource    // as stored
	revision store.Revision // of the write; "": nothing was written
	dropped  v3.Unknown     // fields that were stored and are not any more
	err      error
}

// changesOf returns the changes that documents ask for.
func changesOf(docs []v3.Document, v verb) []*change {
	out := make([]*change, len(docs))
	for i, doc := range docs {
		out[i] = &change{doc: doc, key: v3.KeyOf(doc.Object), given: doc.Object.GetResourceVersion()}
		if err := refusal(refusedAs(v), out[i].key); err != nil {
			out[i].err = err
		}
	}
	return out
}

// refusedAs is how calicoctl calls a verb where it refuses it.
func refusedAs(v verb) string {
	switch v {
	case verbReplace:
		return "apply or replace"
	case verbDelete:
		return "delete"
	}
	return "create or apply"
}

// A writer carries out the changes of one command, in the order of the documents but for what others need (see order):
//
//	order -> rounds of different objects -> read what is there -> decide -> store.WriteAll -> results, conflicts again
type writer struct {
	*session
	cli        *cli
	verb       verb
	mode       store.Mode
	skipExists bool
	pretending bool // nothing is sent to the store; the changes of one object are made nonetheless
	skipAbsent bool // of delete
	changes    []*change
	seen       *store.List        // a list that was made for another purpose; may be nil
	known      map[v3.Key]version // read before, of the kinds in listed
	listed     map[v3.Kind]bool
}

// A version is what is stored of an object; the zero value stands for nothing.
type version struct {
	v3.Resource
	// broken says that the stored value cannot be used. Only key and revision are known, with which it can be replaced.
	broken bool
}

// run carries out all changes. It ends early when the store does not answer or the context ends.
func (w *writer) run(ctx context.Context) {
	pending := w.order()
	for len(pending) > 0 && !w.stopped(ctx, pending) {
		var round, rest []*change
		seen := map[v3.Key]bool{}
		for i, c := range pending {
			if seen[c.key] || i == chunk {
				rest = pending[i:]
				break
			}
			seen[c.key] = true
			round = append(round, c)
		}
		pending = append(w.round(ctx, round), rest...)
	}
}

// order returns the changes that are to be tried: what others need before them, or after them when it is deleted. All
// else keeps its order, because a policy may have to be there before the endpoint that it is for.
func (w *writer) order() []*change {
	providers := map[v3.Key][]*change{}
	for _, c := range w.changes {
		if c.err == nil {
			providers[c.key] = append(providers[c.key], c)
		}
	}
	relations := map[*change][]*change{}
	for _, c := range w.changes {
		needs := store.Needs(c.doc.Object)
		if node := nodeOf(c.doc.Object); w.verb == verbDelete && node != "" {
			needs = append(needs, v3.Key{Kind: v3.KindNode, Name: node}) // with which the endpoint would go, too
		}
		for _, need := range needs {
			for _, p := range providers[need] {
				if w.verb == verbDelete {
					relations[p] = append(relations[p], c)
				} else {
					relations[c] = append(relations[c], p)
				}
			}
		}
	}
	var out []*change
	done := map[*change]bool{}
	var emit func(c *change)
	emit = func(c *change) {
		if done[c] || c.err != nil {
			return
		}
		done[c] = true
		for _, first := range relations[c] {
			emit(first)
		}
		out = append(out, c)
	}
	for _, c := range w.changes {
		emit(c)
	}
	return out
}

// nodeOf returns the node of an endpoint, "" of anything else.
func nodeOf(r v3.Resource) string {
	switch e := r.(type) {
	case *v3.HostEndpoint:
		return e.Spec.Node
	case *v3.WorkloadEndpoint:
		return e.Spec.Node
	}
	return ""
}

// stopped reports whether no more is to be tried, and then says so in the changes that are left.
func (w *writer) stopped(ctx context.Context, left []*change) bool {
	if ctx.Err() == nil && !w.down {
		return false
	}
	for _, c := range left {
		c.state, c.err = stateNotTried, &store.Error{Key: c.key, Err: store.ErrNotTried}
	}
	return true
}

// round tries changes of different objects and returns those that are to be tried again.
func (w *writer) round(ctx context.Context, changes []*change) (again []*change) {
	ctx, stop := lingering(ctx)
	defer stop()
	if err := w.read(ctx, changes); err != nil {
		for _, c := range changes {
			c.state, c.err = stateNotTried, err
		}
		return nil
	}
	var writes []store.Write
	var written []*change
	for _, c := range changes {
		if c.err != nil {
			continue
		}
		c.attempts++
		if op, ok := w.decide(ctx, c); ok {
			writes = append(writes, store.Write{Op: op, Resource: c.doc.Object, Unknown: c.unknown})
			written = append(written, c)
		}
	}
	for i, result := range w.writeAll(ctx, w.mode, writes) {
		c := written[i]
		c.result, c.revision, c.dropped, c.err = result.Resource, result.Revision, result.Dropped, result.Err
		if w.emptied(ctx, c) {
			c.result, c.err = c.doc.Object, nil
		}
		if w.settle(c, writes[i].Op) {
			again = append(again, c)
		}
	}
	if len(again) > 0 {
		backOff(ctx, again[0].attempts)
	}
	return again
}

// backOff waits before an update is tried again, longer each time, and not as long as others wait.
func backOff(ctx context.Context, attempt int) {
	longest := min(time.Duration(attempt)*20*time.Millisecond, 200*time.Millisecond)
	pause(ctx, longest/2+rand.N(longest/2))
}

// lingering returns a context that ends a little after ctx: a request that was sent should be answered.
func lingering(ctx context.Context) (context.Context, func()) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return out, func() { stop(); cancel() }
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// read finds what is stored, for the changes that need to know. It fails only when the store does not answer.
func (w *writer) read(ctx context.Context, changes []*change) error {
	if w.verb != verbApply && w.verb != verbReplace {
		return nil
	}
	w.listMany(ctx)
	for _, c := range changes {
		if c.rewritten {
			continue
		}
		if c.attempts == 0 && w.listed[c.key.Kind] {
			c.old = w.known[c.key]
			continue
		}
		c.old, c.err = w.current(ctx, c.key)
		switch {
		case errors.Is(c.err, store.ErrNotFound):
			c.err = nil
		case unreachable(c.err) || c.err != nil && ctx.Err() != nil:
			return c.err
		}
	}
	return nil
}

// listMany lists the kinds of which many objects are to be changed.
func (w *writer) listMany(ctx context.Context) {
	if w.listed != nil {
		return
	}
	w.listed, w.known = map[v3.Kind]bool{}, map[v3.Key]version{}
	if w.seen != nil {
		w.remember(w.seen, surveyed()...)
	}
	count := map[v3.Kind]int{}
	for _, c := range w.changes {
		count[c.key.Kind]++
	}
	for kind, n := range count {
		if n < listFrom || w.listed[kind] {
			continue
		}
		found, err := w.list(ctx, "", kind)
		if err != nil {
			continue // each object is read, and tells what is wrong
		}
		w.remember(found, kind)
	}
}

// remember takes in a list of kinds.
func (w *writer) remember(found *store.List, kinds ...v3.Kind) {
	for _, kind := range kinds {
		w.listed[kind] = true
	}
	for _, item := range found.Items {
		w.known[v3.KeyOf(item)] = version{Resource: item}
	}
	for _, fault := range found.Faults {
		w.known[fault.Key] = broken(fault)
	}
}

// broken returns the version that a fault is.
func broken(fault store.Fault) version {
	r := named(fault.Key)
	r.SetResourceVersion(string(fault.Revision))
	return version{r, true}
}

// current returns the stored version of an object.
func (s *session) current(ctx context.Context, key v3.Key) (version, error) {
	r, err := s.get(ctx, key)
	if fault := (*store.Fault)(nil); errors.As(err, &fault) {
		return broken(*fault), nil
	}
	if err != nil {
		return version{}, err
	}
	return version{Resource: r}, nil
}

// decide returns what to ask of the store, false if nothing.
func (w *writer) decide(ctx context.Context, c *change) (store.Op, bool) {
	r := c.doc.Object
	switch {
	case w.verb == verbDelete:
		r.SetResourceVersion(c.given)
		return store.Delete, true
	case c.rewritten:
		return store.Update, true
	case w.verb == verbCreate:
		if c.given != "" {
			c.err = withRevision(c.key, c.given)
			return 0, false
		}
		fallthrough
	case c.old.Resource == nil && w.verb == verbApply:
		setOwned(r, &metav1.ObjectMeta{})
		return store.Create, true
	case c.old.Resource == nil:
		c.err = &store.Error{Key: c.key, Err: store.ErrNotFound, Cause: errors.New("key not found")}
		return 0, false
	}
	if latest := c.old.GetResourceVersion(); c.given != "" && c.given != latest {
		c.err = outOfDate(c.key, c.given, latest, w.since(ctx, c))
		return 0, false
	}
	setOwned(r, c.old)
	if !c.old.broken {
		v3.KeepStatus(r, c.old.Resource)
	}
	// calicoctl writes the same again. A new revision should say that something is new.
	if !c.old.broken && same(c.old.Resource, r) {
		c.state, c.result = stateUnchanged, c.old.Resource
		return 0, false
	}
	return store.Update, true
}

// settle takes the store's answer, and reports whether the change is to be tried again.
func (w *writer) settle(c *change, op store.Op) bool {
	switch {
	case c.err == nil:
		c.state = map[store.Op]string{store.Create: stateCreated, store.Update: stateConfigured, store.Delete: stateDeleted}[op]
	case errors.Is(c.err, store.ErrNotTried):
		c.state = stateNotTried
	case unreachable(c.err) || errors.Is(c.err, context.Canceled):
		c.state = stateUnknown
		if !w.answered {
			c.state = stateNotTried
		}
	case errors.Is(c.err, store.ErrExists) && w.verb == verbCreate && w.skipExists:
		c.state, c.err = stateExists, nil
	case errors.Is(c.err, store.ErrNotFound) && w.verb == verbDelete && w.skipAbsent && isOf(c.err, c.key):
		c.state, c.err = stateAbsent, nil
	case c.given != "" && errors.Is(c.err, store.ErrConflict) && c.attempts == 1 && w.verb != verbDelete:
		c.err = nil
		return true // to say what was changed
	case w.verb == verbCreate || w.verb == verbDelete || c.given != "" || c.rewritten || c.attempts >= maxAttempts:
	case errors.Is(c.err, store.ErrConflict) || (errors.Is(c.err, store.ErrExists) || errors.Is(c.err, store.ErrNotFound)) && isOf(c.err, c.key):
		c.err = nil
		return true
	}
	if w.mode == store.DryRun && errors.Is(c.err, store.ErrNotFound) && w.provided(c.err) {
		c.state, c.err, c.result = stateCreated, nil, c.doc.Object
		if op == store.Update {
			c.state = stateConfigured
		}
	}
	return false
}

// isOf reports whether a store's error is about the object itself, not about one that it needs.
func isOf(err error, key v3.Key) bool {
	var e *store.Error
	return errors.As(err, &e) && e.Key == key
}

// provided reports whether what a dry run misses would have been made by the command itself, or before it in a new store.
func (w *writer) provided(err error) bool {
	var e *store.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range w.changes {
		if c.key == e.Key && c.state == stateCreated {
			return true
		}
	}
	initial, err := store.Initial()
	return err == nil && slices.ContainsFunc(initial, func(r v3.Resource) bool { return v3.KeyOf(r) == e.Key })
}

// emptied reports whether a dry run may not delete a tier only because of policies that the command itself would delete before.
func (w *writer) emptied(ctx context.Context, c *change) bool {
	if w.mode != store.DryRun || c.key.Kind != v3.KindTier || !errors.Is(c.err, store.ErrNotSupported) || store.CheckDelete(c.key) != nil {
		return false
	}
	stored, err := w.list(ctx, "", v3.KindGlobalNetworkPolicy, v3.KindNetworkPolicy, v3.KindStagedGlobalNetworkPolicy, v3.KindStagedNetworkPolicy)
	if err != nil || len(stored.Faults) > 0 {
		return false
	}
	return !slices.ContainsFunc(stored.Items, func(r v3.Resource) bool {
		tier, _ := store.TierKey(r)
		return tier == c.key && !slices.ContainsFunc(w.changes, func(o *change) bool { return o.key == v3.KeyOf(r) && o.state == stateDeleted })
	})
}

// pretend is what becomes of changes when no store is asked.
func (w *writer) pretend() {
	states := map[verb]string{verbCreate: stateCreated, verbApply: stateConfigured, verbReplace: stateConfigured, verbDelete: stateDeleted}
	for _, c := range w.order() {
		if w.verb == verbCreate && c.given != "" {
			c.err = withRevision(c.key, c.given)
			continue
		}
		c.state, c.result = states[w.verb], c.doc.Object
	}
}

// docs returns the documents of the changes.
func (w *writer) docs() []v3.Document {
	out := make([]v3.Document, len(w.changes))
	for i, c := range w.changes {
		out[i] = c.doc
	}
	return out
}

// note says on standard error what became of each object, in the order of the documents.
func (w *writer) note(o *outcome) {
	if !w.cli.changes {
		return
	}
	for _, c := range w.changes {
		if c.state != "" {
			fmt.Fprintf(w.cli.env.Stderr, "%s %s%s\n", c.state, c.key, o.pretended())
		}
	}
}

// count tells the outcome what became of the changes, in the order of the documents. What was not tried, or not answered,
// shares an error.
func (w *writer) count(o *outcome) {
	var cause error
	lost := map[string][]*change{}
	common := map[string]*commonError{}
	for _, c := range w.changes {
		switch {
		case c.state == stateNotTried || c.state == stateUnknown:
			lost[c.state] = append(lost[c.state], c)
			if cause == nil && !errors.Is(c.err, store.ErrNotTried) {
				cause = c.err
			}
		case c.err != nil && !strings.Contains(c.err.Error(), c.key.Name):
			w.failTogether(o, common, c)
		case c.err != nil:
			o.fail(c.doc.Locate(c.err))
		case c.state == stateAbsent:
			o.skip()
		default:
			o.ok(c.key)
		}
	}
	o.lost(cause, lost[stateUnknown], lost[stateNotTried])
}

// A commonError is what the store says of many objects alike: that it is full, or that the user may not write.
type commonError struct {
	error
	keys []string
}

func (e *commonError) Error() string { return fmt.Sprintf("%v (%s)", e.error, some(e.keys)) }

func (e *commonError) Unwrap() error { return e.error }

// failTogether notes an error that does not name the object it is about, once for all of which it is said.
func (w *writer) failTogether(o *outcome, common map[string]*commonError, c *change) {
	text := c.err.Error()
	if common[text] == nil {
		common[text] = &commonError{error: c.err}
		o.fail(common[text])
	}
	common[text].keys = append(common[text].keys, c.key.String())
}

// maxSince is how many versions of an object are read to find the one that a manifest names.
const maxSince = 100

// since says what others changed in an object since the version that a manifest names, "" if that is not known any more.
func (w *writer) since(ctx context.Context, c *change) string {
	if c.old.broken {
		return ""
	}
	version := c.old.Resource
	for range maxSince {
		before := store.Revision(version.GetResourceVersion())
		previous, err := w.previous(ctx, c.key, before)
		if err != nil || !w.store.Reached(store.Revision(previous.GetResourceVersion()), store.Revision(c.given)) {
			return ""
		}
		if version = previous; version.GetResourceVersion() == c.given {
			fields, err := differences(version, c.old.Resource)
			if err != nil || len(fields) == 0 {
				return ""
			}
			return "; changed since: " + sentence(fields)
		}
	}
	return ""
}
