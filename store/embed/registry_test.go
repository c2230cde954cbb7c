package embed

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// etcd's collectors are registered while packages are initialised, which every call of the CLI pays for. That few are in
// the default registry shows that package registry came before most of them.
func TestMetricsOfEtcdAreNotRegistered(t *testing.T) {
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		if name := f.GetName(); !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			names = append(names, name)
		}
	}
	if len(names) > 30 {
		t.Errorf("the default registry of Prometheus has %d families of others:\n%s", len(names), strings.Join(names, "\n"))
	}
	if len(families) == len(names) {
		t.Error("the default registry is empty of what Prometheus registers itself")
	}
}
