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

// An isolating is what decides whether workloads are isolated as policies of Kubernetes mean it.
type isolating struct {
	now map[v3.Key]v3.Resource
	was map[v3.Key]v3.Resource // of what changes; nil: it did not exist
}

// put takes in an object, as it was and as it is.
func (s *isolating) put(was, is v3.Resource) {
	key := v3.KeyOf(is)
	switch key.Kind {
	case v3.KindGlobalNetworkPolicy, v3.KindNetworkPolicy, v3.KindProfile, v3.KindWorkloadEndpoint:
		s.now[key] = is
		if _, earlier := s.was[key]; !earlier {
			s.was[key] = was
		}
	}
}

// keep takes in what is there and did not change.
func (s *isolating) keep(items ...v3.Resource) {
	for _, r := range items {
		if key := v3.KeyOf(r); s.now[key] == nil {
			s.now[key] = r
		}
	}
}

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

func (s *isolating) print(c *cli) {
	var traps shared
	for _, warning := range s.isolation().Warnings() {
		traps.add(warning.Key, warning.Text)
	}
	traps.print(c)
}

// unisolated warns, as agents will, of policies that undo one of Kubernetes, if the changes bring that about.
func (c *cli) unisolated(ctx context.Context, w *writer, after *landscape) {
	s := &isolating{map[v3.Key]v3.Resource{}, map[v3.Key]v3.Resource{}}
	for _, change := range w.changes {
		if change.err == nil && change.result != nil && (change.state == stateCreated || change.state == stateConfigured) {
			s.put(change.before(), change.result)
		}
	}
	if w.session == nil || w.down || len(s.now) == 0 || !s.find(ctx, w.session, v3.KindNetworkPolicy, "") || !s.kubernetes() {
		return
	}
	for _, p := range after.policies {
		s.keep(p)
	}
	for _, p := range after.profiles {
		s.keep(p)
	}
	namespaces := s.isolation().Namespaces()
	if len(namespaces) > maxNamespaces {
		namespaces = []string{""} // all of them
	}
	for _, namespace := range namespaces {
		if !s.find(ctx, w.session, v3.KindWorkloadEndpoint, namespace) {
			return
		}
	}
	s.print(c)
}

// find reads what is stored, and reports whether it could.
func (s *isolating) find(ctx context.Context, from *session, kind v3.Kind, namespace string) bool {
	found, err := from.list(ctx, namespace, kind)
	if err == nil {
		s.keep(found.Items...)
	}
	return err == nil
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
		s.put(nil, doc.Object)
	}
	if s.kubernetes() {
		s.print(c)
	}
}
