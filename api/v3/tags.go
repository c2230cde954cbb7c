package v3

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// This file reads the tags check and default of the kinds that have many plain fields. A check tag lists rules, separated
// by commas:
//
//	required          the text is not empty
//	enum=A|B          the text is one of these
//	fold=A|B          the same, in any case
//	format=name       the text has the form that formatOf describes, or is a selector of at most maxSelector characters
//	                  (format=selector) or of any length (format=longSelector)
//	min=n, max=n      the number lies between, both inclusive
//	maxlen=n          the text has at most n bytes
//	minitems=n        the list has at least n entries, also when it is absent
//	maxitems=n        the list has at most n entries
//
// Rules for texts and numbers hold for every entry of a list and for every key of a map. Fields that are absent are not
// checked; a text without a pointer is absent when it is empty. Structures are checked field by field, with or without a
// tag. A tag that cannot be read is a fault of this package and panics.

func tagRules(tag string) []Constraint {
	var rules []Constraint
	for _, text := range strings.Split(tag, ",") {
		if text != "" {
			name, arg, _ := strings.Cut(text, "=")
			rules = append(rules, Constraint{name, arg})
		}
	}
	return rules
}

// jsonName returns the name of a field in documents.
func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// defaultTags sets the absent fields of *spec, and of the structures in it that are there, that have a default tag. Such
// fields are texts, or pointers to texts, numbers, booleans or durations.
func defaultTags(spec any) { defaultStruct(reflect.ValueOf(spec).Elem()) }

func defaultStruct(v reflect.Value) {
	for i := range v.NumField() {
		f := v.Field(i)
		text, ok := v.Type().Field(i).Tag.Lookup("default")
		switch inner := reflect.Indirect(f); {
		case ok && f.IsZero():
			setDefault(f, text)
		case !ok && inner.Kind() == reflect.Struct && inner.Type().PkgPath() == v.Type().PkgPath():
			defaultStruct(inner)
		}
	}
}

func setDefault(f reflect.Value, text string) {
	if f.Kind() == reflect.String {
		f.SetString(text)
		return
	}
	f.Set(reflect.New(f.Type().Elem()))
	switch p := f.Interface().(type) {
	case *string:
		*p = text
		return
	case *metav1.Duration:
		text = strconv.Quote(text)
	}
	if err := json.Unmarshal([]byte(text), f.Interface()); err != nil {
		panic("default " + text + ": " + err.Error())
	}
}

// checkTags checks the fields of *spec, which stands at path.
func checkTags(c *check, path string, spec any) {
	taggedStruct(c, path, reflect.ValueOf(spec).Elem())
}

func taggedStruct(c *check, path string, v reflect.Value) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		rules := tagRules(field.Tag.Get("check"))
		if v.Field(i).Kind() == reflect.String && v.Field(i).Len() == 0 && !slices.Contains(rules, Constraint{Name: "required"}) {
			continue
		}
		taggedValue(c, path+"."+jsonName(field), v.Field(i), rules)
	}
}

func taggedValue(c *check, path string, v reflect.Value, rules []Constraint) {
	switch value := v.Interface().(type) {
	case metav1.Time:
		return
	case metav1.Duration:
		taggedText(c, path, value.Duration.String(), rules)
		return
	case DSCP:
		if _, err := ParseDSCP(value.String()); err != nil {
			e := err.(*valueError)
			c.fail(path, value.String(), e.reason, e.remedy)
		}
		return
	case Port:
		checkPort(c, path, value)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			taggedValue(c, path, v.Elem(), rules)
		}
	case reflect.String:
		taggedText(c, path, v.String(), rules)
	case reflect.Int, reflect.Int32, reflect.Int64:
		taggedNumber(c, path, v.Int(), rules)
	case reflect.Uint32:
		taggedNumber(c, path, int64(v.Uint()), rules)
	case reflect.Slice:
		taggedList(c, path, v, rules)
	case reflect.Map:
		for _, key := range slices.Sorted(maps.Keys(v.Interface().(map[string]string))) {
			taggedText(c, path+"["+key+"]", key, rules)
		}
	case reflect.Struct:
		taggedStruct(c, path, v)
	}
}

func taggedList(c *check, path string, v reflect.Value, rules []Constraint) {
	var rest []Constraint // for the entries
	for _, r := range rules {
		switch n := int64(v.Len()); {
		case r.Name == "maxitems" && n > r.number():
			c.failf(path, nil, "list is too long (max %d)", r.number())
		case r.Name == "minitems" && n < r.number():
			c.failf(path, nil, "list is too short (min %d)", r.number())
		case r.Name != "maxitems" && r.Name != "minitems":
			rest = append(rest, r)
		}
	}
	for i := range v.Len() {
		taggedValue(c, index(path, i), v.Index(i), rest)
	}
}

func taggedText(c *check, path, text string, rules []Constraint) {
	for _, r := range rules {
		switch r {
		case Constraint{"format", "selector"}:
			checkSelector(c, path, text)
			continue
		case Constraint{"format", "longSelector"}:
			checkStoredSelector(c, path, text)
			continue
		}
		if reason, remedy := r.refuse(text); reason != "" {
			c.fail(path, text, reason, remedy)
			return
		}
	}
}

// refuse returns why a text breaks the rule, "" if it does not.
func (r Constraint) refuse(text string) (reason, remedy string) {
	switch r.Name {
	case "required":
		if text == "" {
			return "must not be empty", ""
		}
	case "enum", "fold":
		return r.refuseOption(text)
	case "maxlen":
		if over := int64(len(text)) - r.number(); over > 0 {
			return fmt.Sprintf("is too long by %d bytes", over), ""
		}
	case "format":
		return formatOf(r.Arg).refuse(text), ""
	default:
		panic("no rule for texts: " + r.Name)
	}
	return "", ""
}

func (r Constraint) refuseOption(text string) (reason, remedy string) {
	options := strings.Split(r.Arg, "|")
	for _, o := range options {
		if o == text || r.Name == "fold" && strings.EqualFold(o, text) {
			return "", ""
		}
		if strings.EqualFold(o, text) {
			remedy = "write " + o
		}
	}
	return "must be one of " + strings.Join(options, ", "), remedy
}

func taggedNumber(c *check, path string, n int64, rules []Constraint) {
	for _, r := range rules {
		switch {
		case r.Name == "min" && n < r.number():
			c.failf(path, n, "must be at least %d", r.number())
		case r.Name == "max" && n > r.number():
			c.failf(path, n, "must be at most %d", r.number())
		case r.Name != "min" && r.Name != "max":
			panic("no rule for numbers: " + r.Name)
		}
	}
}

// number returns the argument of a rule that has a number.
func (r Constraint) number() int64 {
	n, err := strconv.ParseInt(r.Arg, 10, 64)
	if err != nil {
		panic("rule " + r.Name + " without a number: " + r.Arg)
	}
	return n
}

// A format is the form of a text: a pattern, or a function where no pattern can say it.
type format struct {
	pattern *pattern
	test    func(string) bool
	reason  string
}

// refuse returns why a text does not have the form, "" if it has.
func (f format) refuse(text string) string {
	if f.pattern != nil && f.pattern.MatchString(text) || f.pattern == nil && f.test(text) {
		return ""
	}
	return f.reason
}

// Patterns of texts. The ones of durations are what 3.32 means: it writes \\. where a full stop is meant in most of them,
// and refuses 1.5s for that.
var (
	durationFormat  = lazily(`^([0-9]+(\.[0-9]+)?(ms|s|m|h))*$`)
	timeoutFormat   = lazily(`^(([0-9]*(\.[0-9]*)?(ms|s|h|m|us)+)+|Auto)$`)
	logPrefixFormat = lazily(`^[a-zA-Z0-9%: /_-]*$`)
	logRateFormat   = lazily(`^[1-9]\d{0,3}/(second|minute|hour|day)$`)
	httpPathFormat  = lazily(`^/[^?# ]*$`)
	hostFormat      = lazily(`^[a-zA-Z0-9:._+-]{1,64}$`)
	ifaceFormat     = lazily(`^[a-zA-Z0-9_.-]{1,15}$`)
	ifaceStarFormat = lazily(`^(\*|[a-zA-Z0-9_.-]{1,15})$`)
	ifaceFilter     = lazily(`^[a-zA-Z0-9:._+-]{1,15}$`)
	featureFormat   = lazily(`^(\w+=(true|false)?,)*(\w+=(true|false)?)?$`)
	keyValueFormat  = lazily(`^(\w+=[^=,]+,+)*(\w+=[^=,]+)?$`)
	reporterFormat  = lazily(`^[a-zA-Z0-9_ -]+$`)
)

func formatOf(name string) format {
	switch name {
	case "duration":
		return format{pattern: durationFormat, reason: "must be a duration in hours, minutes, seconds or milliseconds and not negative"}
	case "conntrackTimeout":
		return format{pattern: timeoutFormat, reason: "must be a duration or Auto"}
	case "logPrefix":
		return format{pattern: logPrefixFormat, reason: "may contain letters, digits and the characters %: /_- only"}
	case "logRate":
		return format{pattern: logRateFormat, reason: "must be like 10/second: 1 to 9999 per second, minute, hour or day"}
	case "host":
		return format{pattern: hostFormat, reason: "must be an address or a host name of at most 64 characters"}
	case "interface":
		return format{pattern: ifaceStarFormat, reason: "must be an interface name of at most 15 characters, or *"}
	case "interfaceName":
		return format{pattern: ifaceFormat, reason: "must be an interface name of at most 15 characters"}
	case "interfaceFilter":
		return format{pattern: ifaceFilter, reason: "must be an interface name of at most 15 characters, with + for any end"}
	case "featureList":
		return format{pattern: featureFormat, reason: "must be a list like Name=true,Other=false"}
	case "keyValues":
		return format{pattern: keyValueFormat, reason: "must be a list like Name=value,Other=value"}
	case "reporter":
		return format{pattern: reporterFormat, reason: "name should match regex " + reporterFormat.String()}
	case "httpPath":
		return format{pattern: httpPathFormat, reason: httpPathReason}
	case "port":
		return format{pattern: endpointPortName, reason: portNameReason}
	case "dnsLabel":
		return format{pattern: dnsLabel, reason: "must be a valid DNS label"}
	case "name":
		return format{pattern: dnsSubdomain, reason: "name must consist of lower case alphanumeric characters, '-' or '.' (regex: " + subdomainFormat + ")"}
	}
	if f, ok := bgpFormat(name); ok {
		return f
	}
	return parsedFormat(name)
}

// parsedFormat returns the forms that are read by a parser.
func parsedFormat(name string) format {
	switch name {
	case "ipv4":
		return format{test: isIPv4, reason: "is not a valid IPv4 address"}
	case "ipv6":
		return format{test: isIPv6, reason: "is not a valid IPv6 address"}
	case "address":
		return format{test: func(s string) bool { return isIPv4(s) || isIPv6(s) }, reason: "is not a valid IP address"}
	case "net", "notNet":
		return format{test: func(s string) bool { p, ok := parseCIDR(s); q, _ := netip.ParsePrefix(s); return ok && p == q },
			reason: "must be a CIDR without host bits"}
	case "cidr":
		return format{test: func(s string) bool { return isNet(s, isIPv4) || isNet(s, isIPv6) }, reason: "invalid CIDR"}
	case "cidrv4":
		return format{test: func(s string) bool { return isNet(s, isIPv4) }, reason: "must be an IPv4 CIDR or address"}
	case "cidrv6":
		return format{test: func(s string) bool { return isNet(s, isIPv6) }, reason: "must be an IPv6 CIDR or address"}
	case "mac":
		return format{test: func(s string) bool { _, err := net.ParseMAC(s); return err == nil }, reason: "is not a MAC address"}
	case "regexp":
		return format{test: func(s string) bool { _, err := regexp.Compile(s); return err == nil },
			reason: "is not a regular expression (RE2 syntax: .* stands for anything)"}
	case "wireguardKey":
		return format{test: isWireguardKey, reason: "is not a WireGuard key: 32 bytes in base64"}
	}
	panic("no format " + name)
}

// isIPv4 reports whether s is an IPv4 address; ::ffff:a.b.c.d is one, as in 3.32.
func isIPv4(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Unmap().Is4()
}

func isIPv6(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == "" && !a.Unmap().Is4()
}

// isNet reports whether s is an address, or a CIDR with any host bits, of the family that isFamily accepts.
func isNet(s string, isFamily func(string) bool) bool {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return isFamily(s)
	}
	return isFamily(p.Addr().String())
}

// isWireguardKey reports whether s is a Curve25519 key as wg(8) prints it.
func isWireguardKey(s string) bool {
	key, err := base64.StdEncoding.DecodeString(s)
	return err == nil && len(key) == 32
}
