package params

import (
	"cmp"
	"reflect"
	"slices"
	"strings"

	v3 "margay/api/v3"
)

// Sources are all places where a setting can be given.
type Sources struct {
	// Host is the name of this host unless FelixHostname says otherwise.
	Host string
	// Env is the environment, as os.Environ returns it.
	Env []string
	// File is the content of felix.cfg; nil if there is none. FileName is where it was, for problems.
	File     []byte
	FileName string
	// Resources are all FelixConfigurations of the store, in any order.
	Resources []*v3.FelixConfiguration
	// NodeLabels are the labels of this host's Node, not nil if that exists. Without it no nodeSelector matches.
	NodeLabels map[string]string
	// Previous is the result of the last Resolve, nil at first: its values stay where new ones are bad.
	Previous *Params
}

// A Source is a kind of place. Higher ones win.
type Source uint8

// The sources, lowest first. Client is the environment that all clients of the store read.
const (
	Default Source = iota
	Cluster
	Selector
	Node
	Client
	File
	Environment
)

// local reports whether parameters of the store connection may come from the source.
func (s Source) local() bool { return s >= Client }

// An Origin is the place that gave a value.
type Origin struct {
	Source Source
	At     string // environment FELIX_LOGPREFIX; FelixConfiguration(default) spec.logPrefix; "" for the built-in default
}

// String returns At, or "built-in default".
func (o Origin) String() string { return cmp.Or(o.At, "built-in default") }

// A setting is a value that some place gives.
type setting struct {
	name   string // as the place spells it
	text   string
	origin Origin
	err    error // the place itself cannot say it as text
}

// A field is a field of Params.
type field struct {
	name            string // of the parameter
	index           int
	kind, arg       string // of the parser
	preset          string // built-in default
	local, required bool
	effect          Effect
}

// fields returns the table that the tags of Params are.
func fields() []field {
	var table []field
	t := reflect.TypeFor[Params]()
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		typ, ok := tag.Lookup("type")
		if !ok {
			continue
		}
		f := field{name: cmp.Or(tag.Get("name"), t.Field(i).Name), index: i, preset: tag.Get("default")}
		f.kind, f.arg, _ = strings.Cut(typ, "=")
		_, f.local = tag.Lookup("local")
		_, f.required = tag.Lookup("required")
		f.effect = map[string]Effect{"listener": Listener, "restart": Restart}[tag.Get("change")]
		table = append(table, f)
	}
	return table
}

// Resolve returns the settings in force and everything that is wrong with what the places say. A bad value counts as
// given: lower places are not asked, the value of Previous stays, or else the built-in default (the incumbent
// exits for some parameters).
func Resolve(s Sources) (*Params, []Problem) {
	r := &resolver{table: map[string]field{}, known: knownNames(), previous: s.Previous, done: map[string]bool{},
		params: &Params{settings: map[string]setting{}}}
	for _, f := range fields() {
		r.table[strings.ToLower(f.name)] = f
		r.preset(f, s.Host)
	}
	env, client := fromEnv(s.Env)
	host := hostname(s, env, client)
	file, problems := fromFile(s, host)
	r.problems = problems
	for _, layer := range [][]setting{env, file, client} {
		r.apply(layer)
	}
	r.resources(s, r.params.FelixHostname)
	if r.params.Origin("PrometheusMetricsClientAuth").Source == Default && r.params.PrometheusMetricsCAFile != "" {
		r.params.PrometheusMetricsClientAuth = "RequireAndVerifyClientCert"
	}
	return r.params, r.problems
}

// hostname returns the name of the section of the file that is for this host: what the file itself has to say about the
// name, outside of such sections, included.
func hostname(s Sources, env, client []setting) string {
	global, _ := fromFile(s, "")
	for _, layer := range [][]setting{env, global, client} {
		for _, given := range layer {
			if strings.EqualFold(given.name, "FelixHostname") && given.text != "" {
				return given.text
			}
		}
	}
	return s.Host
}

type resolver struct {
	table    map[string]field  // by lower-case name
	known    map[string]string // default text of the store's schema by lower-case name, of every name there is
	previous *Params
	params   *Params
	done     map[string]bool // names that a place has decided
	problems []Problem
}

// preset writes the built-in default. The host is the default of its own name.
func (r *resolver) preset(f field, host string) {
	text := f.preset
	if f.name == "FelixHostname" {
		text = host
	}
	r.params.settings[f.name] = setting{name: f.name, text: text}
	if text == "" {
		return
	}
	value, err := parse(f.kind, f.arg, text)
	if err != nil && f.name == "FelixHostname" {
		r.report(Problem{Kind: Bad, Name: f.name, Origin: Origin{Default, "name of the host"}, Value: bounded(text), Reason: err.Error(), Instead: text})
		value = text
	} else if err != nil {
		panic("default of " + f.name + ": " + err.Error())
	}
	r.set(f, value)
}

func (r *resolver) set(f field, value any) {
	reflect.ValueOf(r.params).Elem().Field(f.index).Set(reflect.ValueOf(value))
}

func (r *resolver) report(p Problem) { r.problems = append(r.problems, p) }

// apply takes the settings of one place, after those of all higher ones.
func (r *resolver) apply(layer []setting) {
	slices.SortStableFunc(layer, func(a, b setting) int {
		return strings.Compare(strings.ToLower(a.name), strings.ToLower(b.name))
	})
	for _, s := range layer {
		if s.text == "" {
			continue // nothing is said; "none" says that there shall be nothing
		}
		f, acted := r.table[strings.ToLower(s.name)]
		switch {
		case acted && f.local && !s.origin.Source.local():
			r.report(Problem{Kind: Misplaced, Name: f.name, Origin: s.origin,
				Reason: "is read from environment and file only: it is needed before the store can be read"})
		case acted:
			r.applyField(f, s)
		default:
			r.notUsed(s)
		}
	}
}

func (r *resolver) notUsed(s setting) {
	preset, known := r.known[strings.ToLower(s.name)]
	switch {
	case !known:
		r.report(Problem{Kind: Unknown, Name: s.name, Origin: s.origin, Reason: "no parameter has this name" + r.meant(s.name)})
	case preset != s.text: // what the store's schema fills in, nobody has set
		r.report(Problem{Kind: Unused, Name: s.name, Origin: s.origin, Reason: "this agent does not use it"})
	}
}

// meant suggests the parameter that an unknown name was to be.
func (r *resolver) meant(name string) string {
	var names []string
	for _, f := range r.table {
		names = append(names, f.name)
	}
	for _, f := range specFields() {
		names = append(names, f.name)
	}
	if near := v3.Nearest(name, slices.Values(names)); near != "" {
		return " (" + near + "?)"
	}
	return ""
}

func (r *resolver) applyField(f field, s setting) {
	value, err := f.read(s)
	decided := r.done[f.name]
	r.done[f.name] = true
	if err == nil && !decided {
		r.params.settings[f.name] = s
		r.set(f, value)
	}
	if err == nil {
		return
	}
	if !decided && r.previous != nil {
		r.params.settings[f.name] = r.previous.settings[f.name]
		r.set(f, reflect.ValueOf(r.previous).Elem().Field(f.index).Interface())
	}
	r.report(Problem{Kind: Bad, Name: f.name, Origin: s.origin, Value: shown(f, s.text), Reason: err.Error(),
		Instead: cmp.Or(r.params.Text(f.name), "nothing")})
}

// read returns the value of the field that a setting gives.
func (f field) read(s setting) (any, error) {
	if s.err != nil {
		return nil, s.err
	}
	if strings.EqualFold(s.text, "none") {
		if f.required {
			return nil, errRequired
		}
		return reflect.Zero(reflect.TypeFor[Params]().Field(f.index).Type).Interface(), nil
	}
	return parse(f.kind, f.arg, s.text)
}
