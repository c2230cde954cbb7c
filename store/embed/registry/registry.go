// Package registry keeps most metrics of the embedded store out of the default registry of Prometheus, which nothing here
// serves. etcd's packages register some 150 collectors when a program that links them starts, and each registration is a
// goroutine that the main thread has to wait for: a fifth of every call of the CLI.
//
// Go initialises a package when all that it imports is initialised; of those that are ready, the one with the lowest path
// is the next (Go specification, "Program initialization"). Most of etcd needs gRPC, and so text/template, whose path is
// above this one's. A few packages of etcd need less, and come before. This package must import nothing but Prometheus.
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
