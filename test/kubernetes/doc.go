// Package kubernetes holds the tests of store/kube, and of agents on it, against a real API server: what becomes of objects
// (TestDerived and the suite of storetest), what NetworkPolicy means on packets (TestNetworkPolicies), that it means the same
// by whatever way it comes (TestWays), faults of the server, Events, and that the programs need no more rights than
// install/kubernetes gives them (TestInstallation).
package kubernetes
