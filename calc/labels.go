package calc

import (
	"margay/selector"
)

// The labels that are forced on objects, and the profile and the prefixes that bring the labels of namespaces and service
// accounts.
const (
	labelNamespace      = "projectcalico.org/namespace"
	labelOrchestrator   = "projectcalico.org/orchestrator"
	labelServiceAccount = "projectcalico.org/serviceaccount"

	namespaceProfile     = "kns."
	namespacePrefix      = "pcns."
	serviceAccountPrefix = "pcsa."
)

type label struct{ name, value string }

// labels are what an object is selected by: those forced on it, its own, and those of its profiles; the first of these
// that has a label wins, and the first profile among profiles.
type labels struct {
	forced  []label
	own     map[string]string
	parents []*profile
}

// Get implements [selector.Labels].
func (l *labels) Get(name string) (string, bool) {
	for _, f := range l.forced {
		if f.name == name {
			return f.value, true
		}
	}
	if value, ok := l.own[name]; ok {
		return value, true
	}
	for _, p := range l.parents {
		if value, ok := p.labels[name]; ok {
			return value, true
		}
	}
	return "", false
}

// eachOwn calls f with every label that is not a profile's, also with those that another one of the same name hides.
func (l *labels) eachOwn(f func(name, value string)) {
	for _, forced := range l.forced {
		f(forced.name, forced.value)
	}
	for name, value := range l.own {
		f(name, value)
	}
}

// each calls f with every label, also with those that another one of the same name hides.
func (l *labels) each(f func(name, value string)) {
	l.eachOwn(f)
	for _, p := range l.parents {
		for name, value := range p.labels {
			f(name, value)
		}
	}
}

// An index finds the selectors that match an object's labels without asking every selector: one that can only match
// where some label is present, or has some value, is asked only there.
type index[T any] struct {
	names map[string]*named[T]
	rest  []*term[T] // selectors that can match without any label
	size  int
	round uint64
}

// named holds the selectors that need one label.
type named[T any] struct {
	any    []*term[T]
	values map[string][]*term[T]
}

// A term is a selector in an index and what it selects for.
type term[T any] struct {
	sel   *selector.Selector
	use   T
	round uint64 // of the last match that asked it
}

func newIndex[T any]() *index[T] { return &index[T]{names: map[string]*named[T]{}} }

func (x *index[T]) add(t *term[T]) {
	x.size++
	x.eachBucket(t, func(bucket []*term[T]) []*term[T] { return append(bucket, t) })
}

func (x *index[T]) remove(t *term[T]) {
	x.size--
	x.eachBucket(t, func(bucket []*term[T]) []*term[T] {
		for i, other := range bucket {
			if other == t {
				last := len(bucket) - 1
				bucket[i], bucket[last] = bucket[last], nil
				return bucket[:last]
			}
		}
		return bucket
	})
}

// eachBucket replaces every list that t belongs in by what change makes of it.
func (x *index[T]) eachBucket(t *term[T], change func([]*term[T]) []*term[T]) {
	requirements, ok := t.sel.Requirements()
	if !ok {
		x.rest = change(x.rest)
		return
	}
	for _, r := range requirements {
		n := x.names[r.Label]
		if n == nil {
			n = &named[T]{values: map[string][]*term[T]{}}
			x.names[r.Label] = n
		}
		if !r.HasValue {
			n.any = change(n.any)
		} else if bucket := change(n.values[r.Value]); len(bucket) > 0 {
			n.values[r.Value] = bucket
		} else {
			delete(n.values, r.Value)
		}
		if len(n.any)+len(n.values) == 0 {
			delete(x.names, r.Label)
		}
	}
}

// match calls found with every use whose selector matches, once each.
func (x *index[T]) match(l *labels, found func(T)) {
	x.round++
	x.ask(x.rest, l, found)
	if len(x.names) < 8 { // cheaper than going through a dozen labels
		for name, n := range x.names {
			if value, ok := l.Get(name); ok {
				x.ask(n.any, l, found)
				x.ask(n.values[value], l, found)
			}
		}
		return
	}
	l.each(func(name, value string) {
		if n := x.names[name]; n != nil {
			x.ask(n.any, l, found)
			x.ask(n.values[value], l, found)
		}
	})
}

func (x *index[T]) ask(bucket []*term[T], l *labels, found func(T)) {
	for _, t := range bucket {
		if t.round == x.round {
			continue
		}
		t.round = x.round
		if t.sel.Matches(l) {
			found(t.use)
		}
	}
}
