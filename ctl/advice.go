package ctl

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	v3 "margay/api/v3"
	"margay/calc"
	"margay/ruleset"
	"margay/selector"
	"margay/store"
)

// An adviser compares what the datastore holds before and after a command, and warns of what people do not expect: a
// host endpoint that no policy selects denies everything, and an apply under a name that was taken removes what had it.
type adviser struct {
	list   *store.List
	before *landscape // nil: nothing was touched that matters, or it could not be read
}

// A landscape is what decides which policies apply to host endpoints.
type landscape struct {
	endpoints map[string]*v3.HostEndpoint
	policies  map[string]*v3.GlobalNetworkPolicy
	profiles  map[string]*v3.Profile
	felix     map[string]*v3.FelixConfiguration
	settings  SettingsFunc
	parsed    map[string]*selector.Selector // by text; nil: it does not parse
}

// warn prints what is to be said of manifests: traps of their kinds, and two manifests for one object. see returns an
// object as it is without what is no trap.
func (c *cli) warn(docs []v3.Document, see func(v3.Resource) v3.Resource) {
	var traps shared
	seen := map[v3.Key]*v3.Document{}
	for i := range docs {
		doc := &docs[i]
		for _, text := range slices.Concat(v3.Warnings(see(doc.Object)), calc.ManifestTraps(doc.Object)) {
			traps.add(v3.KeyOf(doc.Object), text)
		}
	}
	traps.print(c)
	for i := range docs {
		doc := &docs[i]
		key := v3.KeyOf(doc.Object)
		if first := seen[key]; first != nil {
			c.warning("%s: %s replaces %s (give it a name of its own if both are wanted)", key, placeOf(doc), placeOf(first))
		}
		seen[key] = doc
	}
}

// A shared collects warnings of which many objects may have the same one, in the order in which they come up.
type shared struct {
	texts []string
	keys  map[string][]string
}

func (s *shared) add(key v3.Key, text string) {
	if s.keys == nil {
		s.keys = map[string][]string{}
	}
	if s.keys[text] == nil {
		s.texts = append(s.texts, text)
	}
	s.keys[text] = append(s.keys[text], key.String())
}

func (s *shared) print(c *cli) {
	for _, text := range s.texts {
		c.warning("%s: %s", some(s.keys[text]), text)
	}
}

func (c *cli) warning(format string, args ...any) {
	fmt.Fprintf(c.env.Stderr, "Warning: "+format+"\n", args...)
}

// surveyed are the kinds that a landscape is made of.
func surveyed() []v3.Kind {
	return []v3.Kind{v3.KindHostEndpoint, v3.KindGlobalNetworkPolicy, v3.KindProfile, v3.KindFelixConfiguration}
}

// newAdviser looks at the datastore before a command changes objects of these kinds.
func newAdviser(ctx context.Context, s *session, kinds []v3.Kind) *adviser {
	a := &adviser{}
	for _, kind := range []v3.Kind{v3.KindHostEndpoint, v3.KindWorkloadEndpoint, v3.KindGlobalNetworkPolicy, v3.KindNetworkPolicy, v3.KindProfile} {
		if slices.Contains(kinds, kind) && a.list == nil && !s.down {
			a.survey(ctx, s)
		}
	}
	return a
}

// survey reads the landscape. Advice is not worth an error: without a landscape there is none.
func (a *adviser) survey(ctx context.Context, s *session) {
	found, err := s.list(ctx, "", surveyed()...)
	if err != nil {
		return
	}
	a.list, a.before = found, newLandscape(s.settings)
	for _, item := range found.Items {
		a.before.add(item)
	}
}

func newLandscape(settings SettingsFunc) *landscape {
	return &landscape{
		endpoints: map[string]*v3.HostEndpoint{}, policies: map[string]*v3.GlobalNetworkPolicy{},
		profiles: map[string]*v3.Profile{}, felix: map[string]*v3.FelixConfiguration{}, settings: settings, parsed: map[string]*selector.Selector{},
	}
}

func (l *landscape) add(item v3.Resource) {
	switch r := item.(type) {
	case *v3.HostEndpoint:
		l.endpoints[r.Name] = r
	case *v3.GlobalNetworkPolicy:
		l.policies[r.Name] = r
	case *v3.Profile:
		l.profiles[r.Name] = r
	case *v3.FelixConfiguration:
		l.felix[r.Name] = r
	}
}

// remove takes an object out, and with a Node what goes with it.
func (l *landscape) remove(key v3.Key) {
	switch key.Kind {
	case v3.KindHostEndpoint:
		delete(l.endpoints, key.Name)
	case v3.KindGlobalNetworkPolicy:
		delete(l.policies, key.Name)
	case v3.KindProfile:
		delete(l.profiles, key.Name)
	case v3.KindFelixConfiguration:
		delete(l.felix, key.Name)
	case v3.KindNode:
		maps.DeleteFunc(l.endpoints, func(_ string, h *v3.HostEndpoint) bool { return h.Spec.Node == key.Name })
	}
}

// after returns the landscape that the changes make of this one.
func (l *landscape) after(changes []*change) *landscape {
	if l == nil {
		return nil
	}
	out := &landscape{maps.Clone(l.endpoints), maps.Clone(l.policies), maps.Clone(l.profiles), maps.Clone(l.felix), l.settings, l.parsed}
	for _, c := range changes {
		switch {
		case c.err != nil:
		case c.state == stateDeleted:
			out.remove(c.key)
		case c.result != nil:
			out.add(c.result)
		}
	}
	return out
}

// print warns of what the changes have done, or would do.
func (a *adviser) print(ctx context.Context, c *cli, w *writer) {
	after := a.before.after(w.changes)
	if w.verb != verbDelete {
		c.warn(w.docs(), after.complete)
		c.misnumbered(ctx, w)
	}
	for _, change := range w.changes {
		if len(change.dropped) > 0 {
			c.warning("%s had fields that this version does not know, which went with its old spec: %s (patch keeps such fields)",
				change.key, fieldNames(change.dropped))
		}
		if w.verb == verbApply && change.err == nil && change.state == stateConfigured && !change.old.broken {
			if text := a.lost(change, after, w.mode); text != "" {
				c.warning("%s", text)
			}
		}
	}
	if after == nil {
		return
	}
	for _, change := range w.changes {
		if text := after.doubled(change); text != "" {
			c.warning(text, c.env.Name)
		}
	}
	for _, text := range after.bare(a.before) {
		c.warning("%s", text)
	}
	if w.verb != verbDelete {
		a.guide(ctx, c, w, after)
		c.unisolated(ctx, w, after)
	}
}

// doubled warns of a policy that was created although an older release stored one of that name: both are in force. The
// name of the program is for the caller to fill in.
func (l *landscape) doubled(c *change) string {
	if c.key.Kind != v3.KindGlobalNetworkPolicy || c.state != stateCreated || c.err != nil {
		return ""
	}
	old := l.policies[v3.DefaultTier+"."+c.key.Name]
	if old == nil || old.Spec.Tier != v3.DefaultTier && old.Spec.Tier != "" {
		return ""
	}
	return fmt.Sprintf("%s: %s is in force as well; releases before 3.32 stored a policy %s under that name "+
		"(if it is the same policy, run `%%s datastore migrate-policy-names`)", c.key, v3.KeyOf(old), c.key.Name)
}

// selects reports whether a policy applies to a host endpoint in the direction ("Ingress" or "Egress") when packets meet
// it: policies that act before connection tracking or DNAT decide nothing about the rest.
func (l *landscape) selects(p *v3.GlobalNetworkPolicy, h *v3.HostEndpoint, direction string) bool {
	if p.Spec.DoNotTrack || p.Spec.PreDNAT || len(p.Spec.Types) > 0 && !slices.Contains(p.Spec.Types, direction) {
		return false
	}
	return l.matches(p, h)
}

// matches reports whether the selectors of a policy choose a host endpoint, which is in no namespace and has no service
// account. A selector that does not parse chooses nothing.
func (l *landscape) matches(p *v3.GlobalNetworkPolicy, h *v3.HostEndpoint) bool {
	if p.Spec.NamespaceSelector != "" || p.Spec.ServiceAccountSelector != "" {
		return false
	}
	sel := l.parse(p.Spec.Selector)
	return sel != nil && sel.Matches(selector.Map(l.labels(h)))
}

func (l *landscape) parse(text string) *selector.Selector {
	sel, ok := l.parsed[text]
	if !ok {
		sel, _ = selector.Parse(text) // nil if it does not parse
		l.parsed[text] = sel
	}
	return sel
}

// labels returns the labels of a host endpoint: its own beat those of its profiles, of which the first wins.
func (l *landscape) labels(h *v3.HostEndpoint) map[string]string {
	if len(h.Spec.Profiles) == 0 {
		return h.Labels
	}
	labels := map[string]string{}
	for _, name := range slices.Backward(h.Spec.Profiles) {
		if profile := l.profiles[name]; profile != nil {
			maps.Copy(labels, profile.Spec.LabelsToApply)
		}
	}
	maps.Copy(labels, h.Labels)
	return labels
}

// governed reports whether a policy or a profile says anything about a direction of a host endpoint.
func (l *landscape) governed(h *v3.HostEndpoint, direction string) bool {
	if len(h.Spec.Profiles) > 0 && (h.Spec.Profiles[0] == v3.ProfileDefaultAllow || l.profiles[h.Spec.Profiles[0]] != nil) {
		return true
	}
	for _, p := range l.policies {
		if l.selects(p, h, direction) {
			return true
		}
	}
	return false
}

// complete returns a resource as v3.Warnings should see it: what the landscape answers is left to bare and guide.
func (l *landscape) complete(r v3.Resource) v3.Resource {
	if l == nil {
		return r
	}
	switch r := r.(type) {
	case *v3.HostEndpoint:
		c := *r
		c.Spec.Profiles = append([]string{v3.ProfileDefaultAllow}, c.Spec.Profiles...)
		return &c
	case *v3.GlobalNetworkPolicy:
		c := *r
		c.Spec.Ingress, c.Spec.Egress = opened(c.Spec.Ingress), opened(c.Spec.Egress)
		return &c
	case *v3.NetworkPolicy:
		c := *r
		c.Spec.Ingress, c.Spec.Egress = everywhere(opened(c.Spec.Ingress)), everywhere(opened(c.Spec.Egress))
		return &c
	}
	return r
}

// opened returns rules, if there are any, with one that allows something.
func opened(rules []v3.Rule) []v3.Rule {
	if len(rules) == 0 {
		return rules
	}
	return append(slices.Clone(rules), v3.Rule{Action: v3.ActionAllow})
}

// everywhere returns rules of a NetworkPolicy as if all that they select were meant in every namespace.
func everywhere(rules []v3.Rule) []v3.Rule {
	rules = slices.Clone(rules)
	for i := range rules {
		for _, e := range []*v3.EntityRule{&rules[i].Source, &rules[i].Destination} {
			if e.Selector+e.NotSelector != "" && e.NamespaceSelector == "" {
				e.NamespaceSelector = "all()"
			}
		}
	}
	return rules
}

// bare returns a warning for the host endpoints of which a direction was governed before, or which did not exist, and
// that now is not: all of it is denied. Endpoints of which the same is to be said share a warning.
func (l *landscape) bare(before *landscape) []string {
	names := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(l.endpoints)) {
		h := l.endpoints[name]
		was := before.endpoints[name]
		var lost []string
		for _, direction := range []string{v3.TypeIngress, v3.TypeEgress} {
			if !l.governed(h, direction) && (was == nil || before.governed(was, direction)) {
				lost = append(lost, direction)
			}
		}
		if len(lost) > 0 {
			text := l.denied(h, lost)
			names[text] = append(names[text], name)
		}
	}
	var out []string
	for _, text := range slices.Sorted(maps.Keys(names)) {
		out = append(out, fmt.Sprintf("HostEndpoint %s: %s", some(names[text]), text))
	}
	return out
}

// denied says what becomes of directions of which nothing is said.
func (l *landscape) denied(h *v3.HostEndpoint, directions []string) string {
	in, out := l.failsafes(h.Spec.Node)
	switch {
	case len(directions) == 2:
		return "no policy applies: all traffic in and out is denied but the failsafe ports (in: " + in + "; out: " + out + "); " +
			"apply a policy that allows what is needed, or name profile " + v3.ProfileDefaultAllow
	case directions[0] == v3.TypeIngress:
		return "no ingress policy applies: all incoming traffic is denied but the failsafe ports (" + in + "); " +
			"apply a policy with types: [Ingress] that allows what is offered"
	}
	return "no egress policy applies: all outgoing connections are denied but those to the failsafe ports (" + out + "); " +
		"apply a policy with types: [Egress] that allows what is needed"
}

// failsafes returns the failsafe ports of a node as the datastore has them; the agent's own environment and configurations
// for nodes by label may differ.
func (l *landscape) failsafes(node string) (in, out string) {
	configs := slices.SortedFunc(maps.Values(l.felix), func(a, b *v3.FelixConfiguration) int { return strings.Compare(a.Name, b.Name) })
	s := l.settings(node, configs, nil)
	return portList(s.FailsafeIngress, "from"), portList(s.FailsafeEgress, "to")
}

func portList(ports []ruleset.Failsafe, preposition string) string {
	if len(ports) == 0 {
		return "none"
	}
	texts := make([]string, len(ports))
	for i, p := range ports {
		texts[i] = fmt.Sprintf("%s %d", strings.ToLower(ruleset.ProtocolText(p.Protocol)), p.Port)
		if p.Net.IsValid() {
			texts[i] += " " + preposition + " " + p.Net.String()
		}
	}
	return strings.Join(texts, ", ")
}

// maxNamed is how many of many things a sentence names.
const maxNamed = 5

// some lists names, the first few of many.
func some(names []string) string {
	if len(names) <= maxNamed {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
}

// placeOf says where a document is.
func placeOf(d *v3.Document) string { return fmt.Sprintf("%s, document %d", d.File, d.Index) }
