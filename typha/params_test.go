package typha

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParams(t *testing.T) {
	for _, c := range []struct {
		name string
		env  []string
		file string
		got  func(*Params) any
		want any
	}{
		{"default port", nil, "", func(p *Params) any { return p.Address() }, ":5473"},
		{"default health", nil, "", func(p *Params) any { return hostPort(p.HealthHost, p.HealthPort) }, "localhost:9098"},
		{"default metrics", nil, "", func(p *Params) any { return hostPort(p.MetricsHost, p.MetricsPort) }, ":9093"},
		{"off by default", nil, "", func(p *Params) any { return p.HealthEnabled || p.MetricsEnabled || p.TLS.Enabled() }, false},
		{"environment in any case", []string{"TYPHA_ServerPort=1"}, "", func(p *Params) any { return p.ServerPort }, uint16(1)},
		{"environment before file", []string{"TYPHA_SERVERPORT=1"}, "ServerPort=2", func(p *Params) any { return p.ServerPort }, uint16(1)},
		{"empty says nothing", []string{"TYPHA_SERVERPORT="}, "ServerPort=2", func(p *Params) any { return p.ServerPort }, uint16(2)},
		{"any section of the file", nil, "# c\n[x]\nServerPort : 2 # two\n; c", func(p *Params) any { return p.ServerPort }, uint16(2)},
		{"last line counts", nil, "ServerPort=2\nserverport=3", func(p *Params) any { return p.ServerPort }, uint16(3)},
		{"quoted", nil, "ClientCN = 'a b'", func(p *Params) any { return p.TLS.PeerCN }, "a b"},
		{"none", []string{"TYPHA_HEALTHHOST=none"}, "", func(p *Params) any { return p.HealthHost }, ""},
		{"no rebalancing", []string{"TYPHA_CONNECTIONREBALANCINGMODE=none"}, "", func(p *Params) any { return p.RebalancingMode }, "none"},
		{"seconds", []string{"TYPHA_SERVERMINBATCHINGAGETHRESHOLDSECS=0.02"}, "", func(p *Params) any { return p.Window }, 20 * time.Millisecond},
		{"TLS", []string{"TYPHA_SERVERKEYFILE=k", "TYPHA_SERVERCERTFILE=c", "TYPHA_CAFILE=a", "TYPHA_CLIENTCN=n", "TYPHA_CLIENTURISAN=u"}, "",
			func(p *Params) any { return p.TLS }, TLSFiles{"a", "c", "k", "n", "u"}},
		{"clients' endpoints", []string{"ETCD_ENDPOINTS=http://a:1, http://b:2/"}, "", func(p *Params) any { return strings.Join(p.Endpoints, " ") }, "http://a:1 http://b:2"},
		{"CALICO_ first", []string{"ETCD_ENDPOINTS=http://a:1", "CALICO_ETCD_ENDPOINTS=http://b:1"}, "", func(p *Params) any { return p.Endpoints[0] }, "http://b:1"},
		{"own endpoints first", []string{"ETCD_ENDPOINTS=http://a:1", "TYPHA_ETCDENDPOINTS=http://c:1"}, "", func(p *Params) any { return p.Endpoints[0] }, "http://c:1"},
		{"address and scheme", []string{"TYPHA_ETCDADDR=a:1", "TYPHA_ETCDSCHEME=HTTPS"}, "", func(p *Params) any { return p.Endpoints[0] }, "https://a:1"},
		{"no endpoints", nil, "", func(p *Params) any { return p.Endpoints == nil }, true},
		{"password", []string{"ETCD_USERNAME=u", "ETCD_PASSWORD=p"}, "", func(p *Params) any { return p.Username + p.Password }, "up"},
		{"no client certificates", nil, "", func(p *Params) any { return metricsTLS(p).ClientAuth }, tls.NoClientCert},
		{"a CA asks for them", []string{"TYPHA_PROMETHEUSMETRICSCAFILE=a"}, "", func(p *Params) any { return metricsTLS(p).ClientAuth }, tls.RequireAndVerifyClientCert},
		{"unless told", []string{"TYPHA_PROMETHEUSMETRICSCAFILE=a", "TYPHA_PROMETHEUSMETRICSCLIENTAUTH=noclientcert"}, "",
			func(p *Params) any { return metricsTLS(p).ClientAuth }, tls.NoClientCert},
		{"log", []string{"TYPHA_LOGSEVERITYSCREEN=debug"}, "", func(p *Params) any { return int(p.Level()) }, -4},
	} {
		p, problems := resolveParams(c.env, []byte(c.file))
		if got := c.got(p); got != c.want || len(problems) > 0 {
			t.Errorf("%s: %v, want %v; %v", c.name, got, c.want, problems)
		}
	}
}

func TestBadParams(t *testing.T) {
	for _, c := range []struct {
		env, file, want string
	}{
		{"TYPHA_SERVERPORT=0", "", "environment TYPHA_SERVERPORT: ServerPort = \"0\": must be a number from 1 to 65535 (not in force)"},
		{"TYPHA_SERVERPORT=x", "ServerPort=2", "must be a number"}, // a bad value counts as given
		{"TYPHA_SERVERPINGINTERVALSECS=0", "", "above zero"},
		{"TYPHA_SERVERPINGINTERVALSECS=NaN", "", "above zero"},
		{"TYPHA_HEALTHENABLED=maybe", "", "true or false"},
		{"TYPHA_DATASTORETYPE=redis", "", "one of etcdv3, kubernetes"},
		{"TYPHA_MAXCONNECTIONSLOWERLIMIT=-1", "", "from 1 on"},
		{"TYPHA_ETCDENDPOINTS=http://u:secret@h:1", "", "endpoints must be like"},
		{"TYPHA_PROMETHEUSMETRICSCLIENTAUTH=maybe", "", "one of"},
		{"TYPHA_NOSUCH=1", "", "environment TYPHA_NOSUCH: no parameter has this name"},
		{"TYPHA_LOGFILEPATH=/x", "", "environment TYPHA_LOGFILEPATH: this typha does not use it"},
		{"", "what is this", "file line 1: line is neither"},
	} {
		p, problems := resolveParams([]string{c.env}, []byte(c.file))
		if len(problems) != 1 || !strings.Contains(problems[0].String(), c.want) || strings.Contains(problems[0].String(), "secret") {
			t.Errorf("%s%s: %v, want %q", c.env, c.file, problems, c.want)
		}
		if p.ServerPort != 5473 || p.PingInterval != 10*time.Second || p.HealthEnabled || p.DatastoreType != "etcdv3" || p.LowerLimit != 400 {
			t.Errorf("%s: another value is in force: %+v", c.env, p)
		}
	}
	if p, _ := resolveParams([]string{"TYPHA_PROMETHEUSMETRICSCLIENTAUTH=maybe"}, nil); metricsTLS(p).ClientAuth != tls.RequireAndVerifyClientCert {
		t.Error("a value that cannot be used opens the metrics")
	}
}

// TestParamsReachTheServer: every parameter of the server is one of its configuration.
func TestParamsReachTheServer(t *testing.T) {
	p, _ := resolveParams(nil, nil)
	var want, got ServerConfig
	want.defaults()
	got = p.server()
	got.defaults()
	want.Log, got.Log = nil, nil
	if !slices.Equal(want.Kinds, got.Kinds) {
		t.Error("kinds")
	}
	want.Kinds, got.Kinds = nil, nil
	if a, b := mustText(want), mustText(got); a != b {
		t.Errorf("%s\n%s", a, b)
	}
}

func mustText(c ServerConfig) string {
	return string(mustJSON([]any{
		c.Window, c.MaxFallBehind, c.Grace, c.WriteTimeout, c.PingInterval, c.PongTimeout, c.HandshakeTimeout, c.MaxHandshakes, c.MaxClients,
		c.LowerLimit, c.UpperLimit, c.PollInterval, c.DropInterval, c.DrainTimeout, c.DrainInterval, c.MaxCrumbs, c.MaxCrumbBytes,
	}))
}

func FuzzParams(f *testing.F) {
	f.Add("TYPHA_SERVERPORT=1", "[x]\nServerPort = 2 ; c\n")
	f.Add("TYPHA_=x", "=\n:::\n\"\n'")
	f.Fuzz(func(t *testing.T, env, file string) {
		p, problems := resolveParams([]string{env}, []byte(file))
		if p.ServerPort == 0 || p.PingInterval <= 0 || p.UpperLimit < 1 || p.DatastoreType == "" && !strings.Contains(strings.ToLower(env+file), "none") {
			t.Fatalf("%+v", p)
		}
		for _, problem := range problems {
			if problem.Origin == "" || problem.Reason == "" {
				t.Fatalf("%+v", problem)
			}
		}
	})
}
