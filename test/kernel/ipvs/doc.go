// Package ipvs tests how Margay judges what IPVS balances, on the real ip_vs of a kernel: many kernels have none, so that
// `make test-kernel` runs it on one that has.
package ipvs
