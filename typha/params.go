package typha

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Params are typha's parameters, each valid.
type Params struct {
	// Store connection, as the agent's: DatastoreType is etcdv3 or kubernetes; Endpoints are URLs, nil when none were
	// given.
	DatastoreType                          string
	Endpoints                              []string
	EtcdCAFile, EtcdCertFile, EtcdKeyFile  string
	Username, Password                     string // for no log
	LogSeverityScreen                      string // "" for no log at all
	HealthEnabled                          bool
	HealthHost                             string
	HealthPort                             uint16
	MetricsEnabled, GoMetrics, ProcMetrics bool
	MetricsHost                            string
	MetricsPort                            uint16
	MetricsCA, MetricsCert, MetricsKey     string
	MetricsClientAuth                      string
	ServerHost                             string
	ServerPort                             uint16
	TLS                                    TLSFiles
	MaxFallBehind, Grace, Window           time.Duration
	PingInterval, PongTimeout              time.Duration
	HandshakeTimeout, WriteTimeout         time.Duration
	RebalancingMode                        string // none or kubernetes
	DropInterval, PollInterval             time.Duration
	DrainTimeout, DrainInterval            time.Duration
	UpperLimit, LowerLimit                 int
	K8sNamespace, K8sService, K8sPort      string
	MaxClients, MaxHandshakes              int
	etcdAddr, etcdScheme                   string
	etcdEndpoints                          []string
}

// A Problem is something that environment or file say and that does not take effect, or not as it is said.
type Problem struct {
	// Origin is where: environment TYPHA_HEALTHPORT, file line 3.
	Origin string
	Reason string
}

// String returns both.
func (p Problem) String() string { return p.Origin + ": " + p.Reason }

// A setting is one parameter: its name without TYPHA_, its default as text, and what it does.
type setting struct {
	name, preset string
	set          func(p *Params, text string) error
}

// settings is the table of all parameters that are acted on.
func settings() []setting {
	return slices.Concat(storeSettings(), listenerSettings(), serverSettings(), balanceSettings())
}

func storeSettings() []setting {
	return []setting{
		{"DatastoreType", "etcdv3", option(func(p *Params) *string { return &p.DatastoreType }, "etcdv3", "kubernetes")},
		{"EtcdAddr", "", text(func(p *Params) *string { return &p.etcdAddr })},
		{"EtcdScheme", "http", option(func(p *Params) *string { return &p.etcdScheme }, "http", "https")},
		{"EtcdEndpoints", "", func(p *Params, v string) (err error) { p.etcdEndpoints, err = endpoints(v); return err }},
		{"EtcdCaFile", "", text(func(p *Params) *string { return &p.EtcdCAFile })},
		{"EtcdCertFile", "", text(func(p *Params) *string { return &p.EtcdCertFile })},
		{"EtcdKeyFile", "", text(func(p *Params) *string { return &p.EtcdKeyFile })},
		{"LogSeverityScreen", "INFO", option(func(p *Params) *string { return &p.LogSeverityScreen }, "TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL")},
	}
}

func listenerSettings() []setting {
	return []setting{
		{"HealthEnabled", "false", boolean(func(p *Params) *bool { return &p.HealthEnabled })},
		{"HealthHost", "localhost", text(func(p *Params) *string { return &p.HealthHost })},
		{"HealthPort", "9098", port(func(p *Params) *uint16 { return &p.HealthPort })},
		{"PrometheusMetricsEnabled", "false", boolean(func(p *Params) *bool { return &p.MetricsEnabled })},
		{"PrometheusMetricsHost", "", text(func(p *Params) *string { return &p.MetricsHost })},
		{"PrometheusMetricsPort", "9093", port(func(p *Params) *uint16 { return &p.MetricsPort })},
		{"PrometheusGoMetricsEnabled", "true", boolean(func(p *Params) *bool { return &p.GoMetrics })},
		{"PrometheusProcessMetricsEnabled", "true", boolean(func(p *Params) *bool { return &p.ProcMetrics })},
		{"PrometheusMetricsCAFile", "", text(func(p *Params) *string { return &p.MetricsCA })},
		{"PrometheusMetricsCertFile", "", text(func(p *Params) *string { return &p.MetricsCert })},
		{"PrometheusMetricsKeyFile", "", text(func(p *Params) *string { return &p.MetricsKey })},
		{"PrometheusMetricsClientAuth", "", setClientAuth},
	}
}

func serverSettings() []setting {
	return []setting{
		{"ServerHost", "", text(func(p *Params) *string { return &p.ServerHost })},
		{"ServerPort", "5473", port(func(p *Params) *uint16 { return &p.ServerPort })},
		{"ServerKeyFile", "", text(func(p *Params) *string { return &p.TLS.Key })},
		{"ServerCertFile", "", text(func(p *Params) *string { return &p.TLS.Cert })},
		{"CAFile", "", text(func(p *Params) *string { return &p.TLS.CA })},
		{"ClientCN", "", text(func(p *Params) *string { return &p.TLS.PeerCN })},
		{"ClientURISAN", "", text(func(p *Params) *string { return &p.TLS.PeerURISAN })},
		{"ServerMaxFallBehindSecs", "300", seconds(func(p *Params) *time.Duration { return &p.MaxFallBehind })},
		{"ServerNewClientFallBehindGracePeriod", "300", seconds(func(p *Params) *time.Duration { return &p.Grace })},
		{"ServerMinBatchingAgeThresholdSecs", "0.01", seconds(func(p *Params) *time.Duration { return &p.Window })},
		{"ServerPingIntervalSecs", "10", seconds(func(p *Params) *time.Duration { return &p.PingInterval })},
		{"ServerPongTimeoutSecs", "60", seconds(func(p *Params) *time.Duration { return &p.PongTimeout })},
		{"ServerHandshakeTimeoutSecs", "10", seconds(func(p *Params) *time.Duration { return &p.HandshakeTimeout })},
		{"ServerWriteTimeoutSecs", "120", seconds(func(p *Params) *time.Duration { return &p.WriteTimeout })},
		{"ServerMaxClients", "20000", number(func(p *Params) *int { return &p.MaxClients })},
		{"ServerMaxHandshakes", "1000", number(func(p *Params) *int { return &p.MaxHandshakes })},
	}
}

func balanceSettings() []setting {
	return []setting{
		{"ConnectionRebalancingMode", "none", option(func(p *Params) *string { return &p.RebalancingMode }, "none", "kubernetes")},
		{"ConnectionDropIntervalSecs", "1", seconds(func(p *Params) *time.Duration { return &p.DropInterval })},
		{"ShutdownTimeoutSecs", "300", seconds(func(p *Params) *time.Duration { return &p.DrainTimeout })},
		{"ShutdownConnectionDropIntervalMaxSecs", "1", seconds(func(p *Params) *time.Duration { return &p.DrainInterval })},
		{"MaxConnectionsUpperLimit", "10000", number(func(p *Params) *int { return &p.UpperLimit })},
		{"MaxConnectionsLowerLimit", "400", number(func(p *Params) *int { return &p.LowerLimit })},
		{"K8sServicePollIntervalSecs", "30", seconds(func(p *Params) *time.Duration { return &p.PollInterval })},
		{"K8sNamespace", "kube-system", text(func(p *Params) *string { return &p.K8sNamespace })},
		{"K8sServiceName", "calico-typha", text(func(p *Params) *string { return &p.K8sService })},
		{"K8sPortName", "calico-typha", text(func(p *Params) *string { return &p.K8sPort })},
	}
}

// unused are the incumbent's parameters that nothing here depends on, in lower case.
func unused() []string {
	return strings.Fields(`logfilepath logseverityfile logseveritysys snapshotcachemaxbatchsize servermaxmessagesize
		debugmemoryprofilepath debugdisablelogdropping debughost debugport`)
}

// The kinds of parameters. A text that cannot be used is an error, and the default stays.

func text(field func(*Params) *string) func(*Params, string) error {
	return func(p *Params, v string) error { *field(p) = v; return nil }
}

func option(field func(*Params) *string, options ...string) func(*Params, string) error {
	return func(p *Params, v string) error {
		for _, o := range append([]string{""}, options...) {
			if strings.EqualFold(o, v) {
				*field(p) = o
				return nil
			}
		}
		return fmt.Errorf("must be one of %s", strings.Join(options, ", "))
	}
}

// setClientAuth asks for everything where the text cannot be used.
func setClientAuth(p *Params, v string) error {
	const everything = "RequireAndVerifyClientCert"
	err := option(func(p *Params) *string { return &p.MetricsClientAuth },
		"NoClientCert", "RequireAnyClientCert", "VerifyClientCertIfGiven", everything)(p, v)
	if err != nil {
		p.MetricsClientAuth = everything
	}
	return err
}

func boolean(field func(*Params) *bool) func(*Params, string) error {
	return func(p *Params, v string) error {
		switch strings.ToLower(v) {
		case "true", "1", "yes", "y", "t":
			*field(p) = true
		case "", "false", "0", "no", "n", "f":
			*field(p) = false
		default:
			return errors.New("must be true or false")
		}
		return nil
	}
}

func port(field func(*Params) *uint16) func(*Params, string) error {
	return func(p *Params, v string) error {
		n, err := strconv.ParseUint(v, 0, 16)
		if err != nil || n == 0 {
			return errors.New("must be a number from 1 to 65535")
		}
		*field(p) = uint16(n)
		return nil
	}
}

func number(field func(*Params) *int) func(*Params, string) error {
	return func(p *Params, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return errors.New("must be a number from 1 on")
		}
		*field(p) = n
		return nil
	}
}

// maxSeconds bounds durations so that they fit: about 31 years.
const maxSeconds = 1e9

func seconds(field func(*Params) *time.Duration) func(*Params, string) error {
	return func(p *Params, v string) error {
		n, err := strconv.ParseFloat(v, 64)
		if err != nil || !(n > 0 && n <= maxSeconds) { // NaN is neither
			return errors.New("must be a number of seconds above zero, without a unit")
		}
		*field(p) = time.Duration(n * float64(time.Second))
		return nil
	}
}

func endpoints(v string) ([]string, error) {
	var all []string
	for entry := range strings.SplitSeq(v, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		// What is wrong is not repeated: there may be a password in it.
		if u, err := url.Parse(entry); err != nil || u.User != nil || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "unix" {
			return nil, errors.New("endpoints must be like http://host:port, https://host:port or unix:///path, and nothing else")
		}
		all = append(all, strings.TrimRight(entry, "/"))
	}
	return all, nil
}

// given is a parameter as some place has it.
type given struct{ name, text, origin string }

// resolveParams returns the parameters in force and what is wrong with what the places say. env is as os.Environ returns
// it: TYPHA_<Name>, in any case, counts first, then the file, then what all clients of the store read (ETCD_ENDPOINTS and
// so on), then the default. "none" is the empty value. A value that cannot be used leaves the default in force.
func resolveParams(env []string, file []byte) (*Params, []Problem) {
	p := &Params{}
	table := map[string]setting{}
	for _, s := range settings() {
		table[strings.ToLower(s.name)] = s
		if err := s.set(p, s.preset); err != nil && s.preset != "" {
			panic(fmt.Sprintf("default of %s: %v", s.name, err))
		}
	}
	own, client := fromEnv(env)
	lines, problems := fromFile(file)
	done := map[string]bool{}
	for _, g := range slices.Concat(own, lines, client) {
		key := strings.ToLower(g.name)
		s, ok := table[key]
		switch {
		case g.text == "":
		case !ok && slices.Contains(unused(), key):
			problems = append(problems, Problem{g.origin, "this typha does not use it"})
		case !ok:
			problems = append(problems, Problem{g.origin, "no parameter has this name"})
		case !done[key]:
			done[key] = true
			if err := s.apply(p, g.text); err != nil {
				problems = append(problems, Problem{g.origin, fmt.Sprintf("%s = %.80q: %v (not in force)", s.name, shown(s, g.text), err)})
			}
		}
	}
	p.Endpoints = p.etcdEndpoints
	if p.Endpoints == nil && p.etcdAddr != "" {
		p.Endpoints = []string{p.etcdScheme + "://" + p.etcdAddr}
	}
	p.Username, p.Password = credentials(env)
	return p, problems
}

// credentials returns what the variables for all clients of etcd say.
func credentials(env []string) (username, password string) {
	for _, prefix := range []string{"CALICO_", ""} {
		for _, variable := range env {
			name, v, _ := strings.Cut(variable, "=")
			switch name {
			case prefix + "ETCD_USERNAME":
				username = v
			case prefix + "ETCD_PASSWORD":
				password = v
			}
		}
		if username != "" {
			break
		}
	}
	return username, password
}

// apply sets the value of a text.
func (s setting) apply(p *Params, v string) error {
	if strings.EqualFold(v, "none") && s.name != "ConnectionRebalancingMode" {
		v = ""
	}
	return s.set(p, v)
}

func shown(s setting, v string) string {
	if s.name == "EtcdEndpoints" {
		return "(not shown)"
	}
	return v
}

// fromEnv returns what the environment gives to typha and to all clients of the store.
func fromEnv(env []string) (own, client []given) {
	const prefix = "TYPHA_"
	names := map[string]string{
		"DATASTORE_TYPE": "DatastoreType", "ETCD_ENDPOINTS": "EtcdEndpoints", "ETCD_KEY_FILE": "EtcdKeyFile",
		"ETCD_CERT_FILE": "EtcdCertFile", "ETCD_CA_CERT_FILE": "EtcdCaFile",
	}
	var calico []given
	for _, variable := range env {
		name, v, _ := strings.Cut(variable, "=")
		origin := "environment " + name
		bare, isCalico := strings.CutPrefix(name, "CALICO_")
		switch parameter, known := names[bare]; {
		case len(name) > len(prefix) && strings.EqualFold(name[:len(prefix)], prefix):
			own = append(own, given{name[len(prefix):], v, origin})
		case known && isCalico:
			calico = append(calico, given{parameter, v, origin})
		case known:
			client = append(client, given{parameter, v, origin})
		}
	}
	return own, append(calico, client...)
}

// fromFile returns the lines "name = value" of the file, of all its sections as the incumbent has it.
func fromFile(data []byte) ([]given, []Problem) {
	var lines []given
	var problems []Problem
	for i, line := range strings.Split(string(data), "\n") {
		origin := "file line " + strconv.Itoa(i+1)
		line = strings.TrimSpace(strings.TrimPrefix(line, "\ufeff"))
		if line == "" || line[0] == '#' || line[0] == ';' || line[0] == '[' {
			continue
		}
		for _, mark := range []string{" #", " ;", "\t#", "\t;"} {
			line, _, _ = strings.Cut(line, mark)
		}
		at := strings.IndexAny(line, "=:")
		if at <= 0 {
			problems = append(problems, Problem{origin, "line is neither name = value nor [section]: it is not read"})
			continue
		}
		v := strings.TrimSpace(line[at+1:])
		if len(v) >= 2 && (v[0] == '"' || v[0] == '\'') && v[len(v)-1] == v[0] {
			v = v[1 : len(v)-1]
		}
		lines = append(lines, given{strings.TrimSpace(line[:at]), v, origin})
	}
	slices.Reverse(lines) // the last one counts
	return lines, problems
}

// Level returns the level of the log: TRACE is -8, CRITICAL and FATAL are 12, none is above all.
func (p *Params) Level() slog.Level {
	levels := map[string]slog.Level{
		"TRACE": slog.LevelDebug - 4, "DEBUG": slog.LevelDebug, "INFO": slog.LevelInfo, "WARNING": slog.LevelWarn,
		"ERROR": slog.LevelError, "CRITICAL": slog.LevelError + 4, "FATAL": slog.LevelError + 4, "": 100,
	}
	return levels[p.LogSeverityScreen]
}

// Address returns host:port where clients are served.
func (p *Params) Address() string { return hostPort(p.ServerHost, p.ServerPort) }

func hostPort(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// server returns the part of the configuration that is the server's.
func (p *Params) server() ServerConfig {
	return ServerConfig{
		TLS: p.TLS, Window: p.Window, MaxFallBehind: p.MaxFallBehind, Grace: p.Grace, WriteTimeout: p.WriteTimeout,
		PingInterval: p.PingInterval, PongTimeout: p.PongTimeout, HandshakeTimeout: p.HandshakeTimeout,
		MaxClients: p.MaxClients, MaxHandshakes: p.MaxHandshakes, LowerLimit: p.LowerLimit, UpperLimit: p.UpperLimit,
		PollInterval: p.PollInterval, DropInterval: p.DropInterval, DrainTimeout: p.DrainTimeout, DrainInterval: p.DrainInterval,
	}
}
