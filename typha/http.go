package typha

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"text/tabwriter"

	"margay/serve"
)

// metricsTLS returns how the metrics are served.
func metricsTLS(p *Params) serve.TLS {
	return serve.TLS{
		Cert: p.MetricsCert, Key: p.MetricsKey, CA: p.MetricsCA, ClientAuth: serve.ClientAuth(p.MetricsClientAuth, p.MetricsCA),
	}
}

// probes serves /liveness and /readiness.
func probes(live func() bool, ready func() (bool, string)) http.Handler {
	both := func() bool { is, _ := ready(); return is && live() }
	return serve.Probes(live, both, func() []byte { return report(live, ready) })
}

// report prints the state as the agent's report has it.
func report(live func() bool, ready func() (bool, string)) []byte {
	liveness, readiness := "timed out", "reporting non-ready"
	if live() {
		liveness = "reporting live"
	}
	is, detail := ready()
	if is && live() {
		readiness = "reporting ready"
	}
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "COMPONENT\tTIMEOUT\tLIVENESS\tREADINESS\tDETAIL")
	fmt.Fprintf(w, "server\t%s\t%s\t%s\t%s\n", liveDeadline, liveness, readiness, strings.ReplaceAll(detail, "\n", " "))
	_ = w.Flush() // a bytes.Buffer takes everything
	return out.Bytes()
}
