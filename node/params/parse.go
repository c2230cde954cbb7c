package params

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	v3 "margay/api/v3"
	"margay/ruleset"
)

var errRequired = errors.New("cannot be none")

// Forms of texts.
var (
	hostnameForm  = regexp.MustCompile(`^[a-zA-Z0-9_.-]+$`)
	authorityForm = regexp.MustCompile(`^([^:/\[\]@]+|\[[0-9a-fA-F:.]+\]):\d+$`)
	interfaceForm = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,15}$`)
	patternForm   = regexp.MustCompile(`^/[^\s]+/$`)
	rateForm      = regexp.MustCompile(`^([1-9]\d{0,3})/(second|minute|hour|day)$`)
)

// Forms that take long to compile, which every command of the CLI would pay for: they are compiled when they are asked.
var (
	hostForm   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9:._+-]{1,64}$`) })
	prefixForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[ -~]{0,127}$`) }) // NF_LOG_PREFIXLEN
)

// parse returns the value of a text, of the type that the fields of this kind have.
func parse(kind, arg, text string) (any, error) {
	switch kind {
	case "string":
		return text, nil
	case "bool":
		return parseBool(text)
	case "port":
		return parsePort(text)
	case "seconds":
		return parseSeconds(text)
	case "oneof":
		return parseOption(strings.Split(arg, "|"), text)
	case "prefix":
		return matching(prefixForm(), text, "must have at most 127 printable ASCII characters")
	case "hostname":
		return matching(hostnameForm, text, "must have letters, digits, '_', '.' and '-' only")
	case "host":
		return matching(hostForm(), text, "must be an address or a host name of at most 64 characters")
	case "authority":
		return matching(authorityForm, text, "must be host:port")
	case "endpoints":
		return parseEndpoints(text)
	case "interfaces":
		return parseInterfaces(text)
	case "patterns":
		return parsePatterns(text)
	case "nets":
		return parseNets(text)
	case "failsafes":
		return parseFailsafes(text)
	case "rate":
		return parseRate(text)
	case "burst":
		return parseBurst(text)
	case "percent":
		return parsePercent(text)
	}
	panic("no parser for " + kind)
}

func matching(form *regexp.Regexp, text, reason string) (string, error) {
	if !form.MatchString(text) {
		return "", errors.New(reason)
	}
	return text, nil
}

func parseBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "1", "yes", "y", "t":
		return true, nil
	case "false", "0", "no", "n", "f":
		return false, nil
	}
	return false, errors.New("must be true or false")
}

// parsePort takes decimal, 0x and 0 forms, as the incumbent does.
func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 0, 16)
	if err != nil {
		return 0, errors.New("must be a number from 0 to 65535")
	}
	return uint16(n), nil
}

func decimal(port uint16) string { return strconv.Itoa(int(port)) }

// maxSeconds bounds durations so that they fit: about 31 years.
const maxSeconds = 1e9

func parseSeconds(text string) (time.Duration, error) {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= 0 && n <= maxSeconds) { // NaN is neither
		return 0, errors.New("must be a number of seconds, without a unit and not negative")
	}
	return time.Duration(n * float64(time.Second)), nil
}

// parseRate takes 1 to 9999 packets per unit. The rate has no burst yet.
func parseRate(text string) (ruleset.LogRate, error) {
	parts := rateForm.FindStringSubmatch(text)
	if parts == nil {
		return ruleset.LogRate{}, errors.New("must be like 10/second: 1 to 9999 per second, minute, hour or day")
	}
	n, err := strconv.ParseUint(parts[1], 10, 32)
	if err != nil {
		return ruleset.LogRate{}, err
	}
	per := map[string]time.Duration{"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}[parts[2]]
	return ruleset.LogRate{Packets: uint32(n), Per: per}, nil
}

func parseBurst(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 0, 32)
	if err != nil || n > 9999 {
		return 0, errors.New("must be a number from 0 to 9999")
	}
	return uint32(n), nil
}

func parsePercent(text string) (int, error) {
	n, err := strconv.ParseInt(text, 0, 32)
	if err != nil || n < -1 {
		return 0, errors.New("must be a number from -1 on")
	}
	return int(n), nil
}

func parseOption(options []string, text string) (string, error) {
	for _, o := range options {
		if strings.EqualFold(o, text) {
			return o, nil
		}
	}
	return "", fmt.Errorf("must be one of %s", strings.Join(options, ", "))
}

// parseEndpoints takes URLs of one scheme: http or https with host and port only, or unix with a path.
func parseEndpoints(text string) ([]string, error) {
	var endpoints []string
	scheme := ""
	for _, entry := range strings.Split(text, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		u, err := url.Parse(entry)
		if err != nil {
			return nil, errors.New("contains what is no URL") // the error of url.Parse repeats the text, and that is shown to people
		}
		if scheme != "" && u.Scheme != scheme {
			return nil, errors.New("all endpoints must have the same scheme")
		}
		scheme = u.Scheme
		endpoint, ok := plainEndpoint(u)
		if !ok {
			return nil, errors.New("endpoints must be like http://host:port, https://host:port or unix:///path, and nothing else")
		}
		endpoints = append(endpoints, endpoint)
	}
	if endpoints == nil {
		return nil, errors.New("list of endpoints is empty")
	}
	return endpoints, nil
}

func plainEndpoint(u *url.URL) (string, bool) {
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return "", false
	}
	switch u.Scheme {
	case "unix":
		return "unix://" + u.Path, u.Host == "" && strings.HasPrefix(u.Path, "/")
	case "http", "https":
		return u.Scheme + "://" + u.Host, u.Hostname() != "" && (u.Path == "" || u.Path == "/")
	}
	return "", false
}

func parseInterfaces(text string) ([]string, error) {
	names := strings.Split(text, ",")
	for _, name := range names {
		if !interfaceForm.MatchString(name) {
			return nil, errors.New("must be a list of interface names of at most 15 letters, digits, '_' and '-', separated by commas")
		}
	}
	return names, nil
}

// parsePatterns takes a list of interface names and of regular expressions between slashes.
func parsePatterns(text string) ([]*regexp.Regexp, error) {
	var patterns []*regexp.Regexp
	for _, entry := range strings.Split(text, ",") {
		source := ""
		switch {
		case patternForm.MatchString(entry):
			source = entry[1 : len(entry)-1]
		case interfaceForm.MatchString(entry):
			source = "^" + regexp.QuoteMeta(entry) + "$"
		default:
			return nil, errors.New("list contains invalid Linux interface name or regex pattern (patterns stand between slashes)")
		}
		pattern, err := regexp.Compile(source)
		if err != nil {
			return nil, fmt.Errorf("list contains an invalid pattern: %w", err)
		}
		patterns = append(patterns, pattern)
	}
	return patterns, nil
}

// parseNets takes a list of networks, masked, and of addresses.
func parseNets(text string) ([]netip.Prefix, error) {
	var nets []netip.Prefix
	for _, entry := range strings.Split(text, ",") {
		entry = strings.TrimSpace(entry)
		p, err := netip.ParsePrefix(entry)
		if a, e := netip.ParseAddr(entry); err != nil && e == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil || p.Addr().Zone() != "" {
			return nil, errors.New("must be a list of networks like 10.0.0.0/8, separated by commas")
		}
		nets = append(nets, p.Masked())
	}
	return nets, nil
}

func parseFailsafes(text string) ([]ruleset.Failsafe, error) {
	ports, err := v3.ParseProtoPorts(text)
	if err != nil {
		return nil, err
	}
	failsafes := make([]ruleset.Failsafe, len(ports))
	for i, p := range ports {
		failsafes[i] = ruleset.Failsafe{Protocol: ruleset.TCP, Port: p.Port}
		if p.Protocol == "UDP" {
			failsafes[i].Protocol = ruleset.UDP
		}
		if p.Net == "" {
			continue
		}
		if failsafes[i].Net, err = netip.ParsePrefix(p.Net); err != nil {
			return nil, err
		}
	}
	return failsafes, nil
}
