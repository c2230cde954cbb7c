// Package registry keeps the metrics of the embedded store out of the default registry of Prometheus, which nothing here
// serves. etcd's packages register some 150 collectors when a program that links them starts, and each registration is a
// goroutine that the main thread has to wait for: 4 ms of every call of the CLI.
//
// It is a module of its own because of its path. Go initialises packages by their paths, as soon as what they import is
// initialised (Go specification, "Program initialization"), so that this one comes before those of go.etcd.io. It must not
// import more than Prometheus, which would delay it.
package registry

import "github.com/prometheus/client_golang/prometheus"

// Closed says that nothing can be registered by default any more.
var Closed = closeDefault()

func closeDefault() bool {
	prometheus.DefaultRegisterer = closed{}
	return true
}

// closed is a registry that takes everything and keeps nothing.
type closed struct{}

func (closed) Register(prometheus.Collector) error  { return nil }
func (closed) MustRegister(...prometheus.Collector) {}
func (closed) Unregister(prometheus.Collector) bool { return false }
