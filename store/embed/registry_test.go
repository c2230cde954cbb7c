package embed

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// etcd's collectors are registered while packages are initialised, which every call of the CLI pays for. That none is in
// the default registry shows that package registry came before all of them.
func TestMetricsOfEtcdAreNotRegistered(t *testing.T) {
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if name := f.GetName(); !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s is in the default registry of Prometheus", name)
		}
	}
	if len(families) == 0 {
		t.Error("the default registry is empty, also of what Prometheus registers itself")
	}
}
