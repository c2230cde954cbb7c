// Package kubernetes holds the tests of store/kube, and of agents on it, against a real API server.
package kubernetes
