package calc

import (
	"maps"
	"reflect"
	"slices"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// defaultAllow is the profile that exists everywhere without being stored, allows all and gives no labels.
const defaultAllow = "projectcalico-default-allow"

// A profile is named by items that inherit its labels and by local endpoints that walk its rules. It is here as long as
// it is stored or named; nothing is stored if spec is nil.
type profile struct {
	name   string
	spec   *v3.ProfileSpec
	labels map[string]string
	heirs  map[*item]struct{}
	users  int    // local endpoints that name it
	mark   uint64 // see markGivers

	told     *ruleset.Profile
	sets     []*set
	warnings []string
}

// profile returns the profile with this name, which may not be stored.
func (c *Calc) profile(name string) *profile {
	p := c.profiles[name]
	if p == nil {
		p = &profile{name: name, heirs: map[*item]struct{}{}}
		if name == defaultAllow {
			allow := []v3.Rule{{Action: "Allow"}}
			p.spec = &v3.ProfileSpec{Ingress: allow, Egress: allow}
		}
		c.profiles[name] = p
	}
	return p
}

func (c *Calc) updateProfile(name string, r v3.Resource) {
	if name == defaultAllow {
		return
	}
	p := c.profile(name)
	before := p.labels
	p.spec, p.labels = nil, nil
	if r != nil {
		p.spec = &r.(*v3.Profile).Spec
		p.labels = p.spec.LabelsToApply
	}
	if !maps.Equal(before, p.labels) {
		c.givers.remove(p, before)
		c.givers.add(p)
		for it := range p.heirs {
			c.touch(it.key)
		}
	}
	c.changedProfiles[p] = struct{}{}
}

// inherit returns the profiles with these names.
func (c *Calc) inherit(names []string) []*profile {
	var list []*profile
	for _, name := range names {
		if p := c.profile(name); !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

func (c *Calc) disinherit(it *item) {
	for _, p := range it.parents {
		delete(p.heirs, it)
		c.changedProfiles[p] = struct{}{}
	}
}

// inheritLabels marks the local endpoints whose labels changed, their own or a profile's.
func (c *Calc) inheritLabels() {
	for key := range c.touched {
		if ep := c.locals[key]; ep != nil {
			c.relabelled[ep] = struct{}{}
		}
	}
}

// flushProfiles tells the profiles that local endpoints name and forgets those that nobody names or stores.
func (c *Calc) flushProfiles(d *ruleset.Delta) {
	drain(c.changedProfiles, func(p *profile) {
		var compiled *ruleset.Profile
		var specs []setSpec
		p.warnings = nil
		if p.spec != nil && p.users > 0 {
			k := compiler{parsed: c.parsed}
			compiled = &ruleset.Profile{
				Name: p.name, Ingress: k.rules("spec.ingress", p.spec.Ingress, ruleset.Ingress),
				Egress: k.rules("spec.egress", p.spec.Egress, ruleset.Egress),
			}
			specs, p.warnings = k.specs, k.warnings
		}
		p.sets = c.exchangeSets(p.sets, specs)
		if !reflect.DeepEqual(compiled, p.told) {
			d.Profiles[p.name], p.told = compiled, compiled
		}
		if len(p.heirs) == 0 && p.users == 0 && (p.spec == nil || p.name == defaultAllow) {
			delete(c.profiles, p.name)
		}
	})
}
