package ctl

import (
	"context"
	"strings"

	v3 "margay/api/v3"
	"margay/calc"
)

// kubernetesPolicy reports whether an object stands for a NetworkPolicy of Kubernetes.
func kubernetesPolicy(key v3.Key) bool {
	return key.Kind == v3.KindNetworkPolicy && strings.HasPrefix(key.Name, v3.PrefixKubernetesPolicy)
}

// An isolating is what decides, after changes, whether workloads are isolated as policies of Kubernetes mean it.
type isolating struct {
	now map[v3.Key]v3.Resource // policies and profiles, and the workloads that changed
	was map[v3.Key]v3.Resource // of what changed; nil: it did not exist
}

// change takes in an object that changed, perhaps more than once.
func (s *isolating) change(was, is v3.Resource) {
	key := v3.KeyOf(is)
	switch key.Kind {
	case v3.KindGlobalNetworkPolicy, v3.KindNetworkPolicy, v3.KindProfile, v3.KindWorkloadEndpoint:
		s.now[key] = is
		if _, earlier := s.was[key]; !earlier {
			s.was[key] = was
		}
	}
}

// keep takes in what is there, unless it changed.
func (s *isolating) keep(r v3.Resource) {
	if key := v3.KeyOf(r); s.now[key] == nil {
		s.now[key] = r
	}
}

// kubernetes reports whether there is a policy of Kubernetes.
func (s *isolating) kubernetes() bool {
	for key := range s.now {
		if kubernetesPolicy(key) {
			return true
		}
	}
	return false
}

func (s *isolating) isolation() *calc.Isolation {
	i := calc.NewIsolation()
	for key, is := range s.now {
		was, changed := s.was[key]
		if !changed {
			was = is
		}
		i.Update(key, was, is)
	}
	return i
}

// unisolated warns of policies that undo one of Kubernetes, if the changes brought that about. It reads what that takes, in
// most datastores no more than that there is no policy of Kubernetes; without an answer there is no advice.
func (c *cli) unisolated(ctx context.Context, w *writer, after *landscape) {
	s := &isolating{map[v3.Key]v3.Resource{}, map[v3.Key]v3.Resource{}}
	for _, change := range w.changes {
		if change.err == nil && change.result != nil && (change.state == stateCreated || change.state == stateConfigured) {
			s.change(change.before(), change.result)
		}
	}
	if w.session == nil || w.down || len(s.now) == 0 {
		return
	}
	policies, err := w.list(ctx, "", v3.KindNetworkPolicy)
	if err != nil {
		return
	}
	for _, p := range policies.Items {
		s.keep(p)
	}
	if !s.kubernetes() {
		return
	}
	for _, p := range after.policies {
		s.keep(p)
	}
	for _, p := range after.profiles {
		s.keep(p)
	}
	if i := s.isolation(); s.populate(ctx, w.session, i) {
		c.warnIsolation(i)
	}
}

// populate adds the workloads that did not change, and reports whether they could be read.
func (s *isolating) populate(ctx context.Context, from *session, i *calc.Isolation) bool {
	namespaces := i.Namespaces()
	if len(namespaces) > maxNamespaces {
		namespaces = []string{""} // all of them
	}
	for _, namespace := range namespaces {
		found, err := from.list(ctx, namespace, v3.KindWorkloadEndpoint)
		if err != nil {
			return false
		}
		for _, r := range found.Items {
			if key := v3.KeyOf(r); s.now[key] == nil {
				i.Update(key, r, r)
			}
		}
	}
	return true
}

// warnIsolation prints what agents will say.
func (c *cli) warnIsolation(i *calc.Isolation) {
	var traps shared
	for _, warning := range i.Warnings() {
		traps.add(warning.Key, warning.Text)
	}
	traps.print(c)
}

// before returns the object as it was; nil: there was none that could be used.
func (c *change) before() v3.Resource {
	if c.old.broken {
		return nil
	}
	return c.old.Resource
}

// warnAlone prints what is to be said of manifests by themselves.
func (c *cli) warnAlone(docs []v3.Document) {
	c.warn(docs, c.together(docs).alone)
	s := &isolating{map[v3.Key]v3.Resource{}, map[v3.Key]v3.Resource{}}
	for _, doc := range docs {
		s.change(nil, doc.Object)
	}
	c.warnIsolation(s.isolation())
}
