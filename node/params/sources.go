package params

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
	"margay/selector"
)

// clientVariables are what every client of the store reads, by the parameter that they stand for; each may
// also be spelled with CALICO_ in front.
func clientVariables() map[string]string {
	return map[string]string{
		"DATASTORE_TYPE":    "DatastoreType",
		"ETCD_ENDPOINTS":    "EtcdEndpoints",
		"ETCD_KEY_FILE":     "EtcdKeyFile",
		"ETCD_CERT_FILE":    "EtcdCertFile",
		"ETCD_CA_CERT_FILE": "EtcdCaFile",
		"NODENAME":          "FelixHostname",
	}
}

// fromEnv returns what the environment gives to the agent and to all clients. Of variables that differ in case only the
// last one counts.
func fromEnv(env []string) (own, client []setting) {
	const prefix = "FELIX_"
	found := map[string]setting{}
	plain, prefixed := map[string]string{}, map[string]string{}
	for _, variable := range env {
		name, text, _ := strings.Cut(variable, "=")
		if len(name) > len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) {
			found[strings.ToLower(name)] = setting{name: name[len(prefix):], text: text, origin: Origin{Environment, "environment " + name}}
		}
		plain[name] = text
		if bare, ok := strings.CutPrefix(name, "CALICO_"); ok {
			prefixed[bare] = text
		}
	}
	own = slices.Collect(maps.Values(found))
	for variable, name := range clientVariables() {
		if text := prefixed[variable]; text != "" {
			client = append(client, setting{name: name, text: text, origin: Origin{Client, "environment CALICO_" + variable}})
		} else {
			client = append(client, setting{name: name, text: plain[variable], origin: Origin{Client, "environment " + variable}})
		}
	}
	return own, client
}

// fromFile returns what the file gives: lines "name = value" or "name: value" before the first section and in [global]
// are for every host, those in [<host>] for that host and before the others. Comments begin with # or ; at the beginning
// of a line or after a blank.
func fromFile(s Sources, host string) ([]setting, []Problem) {
	global, own := map[string]setting{}, map[string]setting{}
	into := global
	file := "file "
	if s.FileName != "" {
		file += s.FileName + " "
	}
	var problems []Problem
	for i, line := range strings.Split(string(s.File), "\n") {
		origin := Origin{File, file + "line " + strconv.Itoa(i+1)}
		line = strings.TrimSpace(stripComment(strings.TrimPrefix(line, "\ufeff")))
		if line == "" {
			continue
		}
		if section, ok := strings.CutPrefix(line, "["); ok {
			section, closed := strings.CutSuffix(section, "]")
			switch section = strings.TrimSpace(section); {
			case closed && (strings.EqualFold(section, "global") || strings.EqualFold(section, "default")):
				into = global
			case closed && host != "" && section == host:
				into = own
			default:
				into = map[string]setting{} // for another host
				if !closed {
					problems = append(problems, Problem{Kind: Syntax, Origin: origin, Reason: "section without ]: its lines are not read"})
				}
			}
			continue
		}
		name, text, ok := cutPair(line)
		if !ok {
			problems = append(problems, Problem{Kind: Syntax, Origin: origin, Reason: "line is neither name = value nor [section]: it is not read"})
			continue
		}
		into[strings.ToLower(name)] = setting{name: name, text: text, origin: origin}
	}
	maps.Copy(global, own)
	return slices.Collect(maps.Values(global)), problems
}

func stripComment(line string) string {
	for i, r := range line {
		if (r == '#' || r == ';') && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			return line[:i]
		}
	}
	return line
}

func cutPair(line string) (name, text string, ok bool) {
	i := strings.IndexAny(line, "=:")
	if i <= 0 {
		return "", "", false
	}
	name, text = strings.TrimSpace(line[:i]), strings.TrimSpace(line[i+1:])
	if len(text) >= 2 && (text[0] == '"' || text[0] == '\'') && text[len(text)-1] == text[0] {
		text = text[1 : len(text)-1]
	}
	return name, text, name != ""
}

// resources applies the FelixConfigurations that concern the host.
func (r *resolver) resources(s Sources, host string) {
	named := map[string]*v3.FelixConfiguration{}
	for _, f := range s.Resources {
		named[f.Name] = f
	}
	r.resource(named[v3.FelixConfigurationNodePrefix+host], Node)
	r.resource(r.selected(s), Selector)
	r.resource(named[v3.FelixConfigurationDefault], Cluster)
}

func (r *resolver) resource(f *v3.FelixConfiguration, source Source) {
	if f != nil {
		r.apply(fromResource(f, source))
	}
}

// selected returns the oldest resource whose nodeSelector selects the host, by name where they are of one age; nil if
// there is none.
func (r *resolver) selected(s Sources) *v3.FelixConfiguration {
	var matches []*v3.FelixConfiguration
	byName := func(a, b *v3.FelixConfiguration) int { return strings.Compare(a.Name, b.Name) }
	for _, f := range slices.SortedFunc(slices.Values(s.Resources), byName) {
		text := f.Spec.NodeSelector
		if f.Name == v3.FelixConfigurationDefault || strings.HasPrefix(f.Name, v3.FelixConfigurationNodePrefix) ||
			text == nil || *text == "" || s.NodeLabels == nil {
			continue
		}
		sel, err := selector.Parse(*text)
		if err != nil {
			r.report(Problem{Kind: Syntax, Origin: Origin{Selector, resourceName(f) + " spec.nodeSelector"},
				Reason: err.Error() + ": the resource is not read"})
			continue
		}
		if sel.Matches(selector.Map(s.NodeLabels)) {
			matches = append(matches, f)
		}
	}
	if len(matches) == 0 {
		return nil
	}
	slices.SortStableFunc(matches, func(a, b *v3.FelixConfiguration) int {
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	for _, f := range matches[1:] {
		r.report(Problem{Kind: Conflict, Origin: Origin{Selector, resourceName(f)},
			Reason: resourceName(matches[0]) + " selects this host too and is older: this one is not read"})
	}
	return matches[0]
}

func resourceName(f *v3.FelixConfiguration) string { return "FelixConfiguration(" + f.Name + ")" }

// annotationPrefix begins annotations that set any parameter, before the field of the same parameter.
const annotationPrefix = "config.projectcalico.org/"

func fromResource(f *v3.FelixConfiguration, source Source) []setting {
	found := map[string]setting{}
	spec := reflect.ValueOf(&f.Spec).Elem()
	for _, p := range specFields() {
		text, err := specText(spec.Field(p.index), p.millis)
		found[strings.ToLower(p.name)] = setting{name: p.name, text: text, err: err,
			origin: Origin{source, resourceName(f) + " spec." + p.path}}
	}
	for _, key := range slices.Sorted(maps.Keys(f.Annotations)) {
		if name, ok := strings.CutPrefix(key, annotationPrefix); ok {
			found[strings.ToLower(name)] = setting{name: name, text: f.Annotations[key],
				origin: Origin{source, resourceName(f) + " annotation " + key}}
		}
	}
	return slices.Collect(maps.Values(found))
}

// A specField is a field of the FelixConfiguration that is a parameter.
type specField struct {
	name   string // of the parameter
	path   string // below spec
	preset string // what the store's schema fills in
	index  int
	millis bool // the parameter is in milliseconds
}

func specFields() []specField {
	var table []specField
	t := reflect.TypeFor[v3.FelixConfigurationSpec]()
	for i := range t.NumField() {
		f := t.Field(i)
		name, unit, _ := strings.Cut(f.Tag.Get("param"), ",")
		if name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		path, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		table = append(table, specField{name, path, f.Tag.Get("default"), i, unit == "ms"})
	}
	return table
}

// specText returns the text that stands for a field's value in environment and file, "" if it is absent.
func specText(v reflect.Value, millis bool) (string, error) {
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	} else if v.IsZero() {
		return "", nil
	}
	switch value := v.Interface().(type) {
	case string:
		return value, nil
	case metav1.Duration:
		unit := time.Second
		if millis {
			unit = time.Millisecond
		}
		return strconv.FormatFloat(float64(value.Duration)/float64(unit), 'f', -1, 64), nil
	case []v3.ProtoPort:
		return portsText(value)
	case []string:
		if len(value) == 0 {
			return "none", nil
		}
		return strings.Join(value, ","), nil
	case bool, int, uint32:
		return fmt.Sprint(value), nil
	default:
		// No parameter that is acted on has another type; the text only says that there is something.
		text, err := json.Marshal(value)
		return string(text), err
	}
}

// portsText also reads every port by itself: joined, one with a comma in its net would read as two.
func portsText(ports []v3.ProtoPort) (string, error) {
	if len(ports) == 0 {
		return "none", nil
	}
	texts := make([]string, len(ports))
	var bad error
	for i, p := range ports {
		texts[i] = p.String()
		if _, err := v3.ParseProtoPort(texts[i]); err != nil && bad == nil {
			bad = err
		}
	}
	return strings.Join(texts, ","), bad
}

// knownNames returns every parameter that the incumbent knows, in lower case, with the text that the store's schema fills
// in for it.
func knownNames() map[string]string {
	known := map[string]string{}
	for _, p := range specFields() {
		known[strings.ToLower(p.name)] = p.preset
	}
	for _, name := range strings.Fields(`
		CalicoVersion ClusterGUID ClusterType Variant
		IpInIpTunnelAddr IPv4VXLANTunnelAddr IPv6VXLANTunnelAddr VXLANTunnelMACAddr VXLANTunnelMACAddrV6
		DebugBPFCgroupV2 DebugCPUProfilePath DebugPanicAfter DebugSimulateDataRace`) {
		known[strings.ToLower(name)] = ""
	}
	return known
}
