package ctl

import (
	v3 "margay/api/v3"
	"margay/node/params"
	"margay/ruleset"
)

// nodeSettings is what cmd/margay wires in.
func nodeSettings(node string, configs []*v3.FelixConfiguration, labels map[string]string) ruleset.Settings {
	p, _ := params.Resolve(params.Sources{Host: node, Resources: configs, NodeLabels: labels})
	return p.Settings()
}
