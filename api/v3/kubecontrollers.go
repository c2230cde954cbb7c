package v3

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// KubeControllersConfiguration holds the settings of the Kubernetes controllers. There is one, named default.
type KubeControllersConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              KubeControllersConfigurationSpec   `json:"spec"`
	Status            KubeControllersConfigurationStatus `json:"status"`
}

// KubeControllersConfigurationName is the name of the one KubeControllersConfiguration.
const KubeControllersConfigurationName = "default"

// KubeControllersConfigurationSpec: EtcdV3CompactionPeriod 0 and the ports 0 mean off. See tags.go for the tags.
type KubeControllersConfigurationSpec struct {
	LogSeverityScreen      string            `json:"logSeverityScreen,omitempty" check:"enum=Debug|Info|Warning|Error|Fatal"`
	HealthChecks           string            `json:"healthChecks,omitempty" check:"enum=Enabled|Disabled" default:"Enabled"`
	EtcdV3CompactionPeriod *metav1.Duration  `json:"etcdV3CompactionPeriod,omitempty"`
	PrometheusMetricsPort  *int              `json:"prometheusMetricsPort,omitempty" check:"min=0,max=65535" default:"9094"`
	Controllers            ControllersConfig `json:"controllers"`
	DebugProfilePort       *int32            `json:"debugProfilePort,omitempty" check:"min=0,max=65535"`
}

// ControllersConfig has the controllers that run; nil: it does not. PolicyMigration is the 3.32 name of Migration.
type ControllersConfig struct {
	Node             *NodeControllerConfig         `json:"node,omitempty"`
	Policy           *ControllerConfig             `json:"policy,omitempty"`
	WorkloadEndpoint *ControllerConfig             `json:"workloadEndpoint,omitempty"`
	ServiceAccount   *ControllerConfig             `json:"serviceAccount,omitempty"`
	Namespace        *ControllerConfig             `json:"namespace,omitempty"`
	LoadBalancer     *LoadBalancerControllerConfig `json:"loadBalancer,omitempty"`
	PolicyMigration  *PolicyMigrationConfig        `json:"policyMigration,omitempty"`
	Migration        *MigrationControllerConfig    `json:"migration,omitempty"`
}

// ControllerConfig: ReconcilerPeriod nil means 5 minutes.
type ControllerConfig struct {
	ReconcilerPeriod *metav1.Duration `json:"reconcilerPeriod,omitempty"`
}

// NodeControllerConfig: LeakGracePeriod is the age at which an address without owner is released, 0 for never.
type NodeControllerConfig struct {
	ReconcilerPeriod *metav1.Duration        `json:"reconcilerPeriod,omitempty"`
	SyncLabels       string                  `json:"syncLabels,omitempty" check:"enum=Enabled|Disabled"`
	HostEndpoint     *AutoHostEndpointConfig `json:"hostEndpoint,omitempty"`
	LeakGracePeriod  *metav1.Duration        `json:"leakGracePeriod,omitempty" default:"15m"`
}

// AutoHostEndpointConfig says which host endpoints are made for the nodes.
type AutoHostEndpointConfig struct {
	AutoCreate                string                 `json:"autoCreate,omitempty" check:"enum=Enabled|Disabled"`
	CreateDefaultHostEndpoint string                 `json:"createDefaultHostEndpoint,omitempty" check:"enum=Enabled|Disabled"`
	Templates                 []HostEndpointTemplate `json:"templates,omitempty"`
}

// HostEndpointTemplate makes host endpoints for the nodes that NodeSelector selects (empty: all): one for each interface
// whose name matches InterfacePattern, a regular expression, with the addresses that lie in InterfaceCIDRs.
type HostEndpointTemplate struct {
	GenerateName     string            `json:"generateName,omitempty" check:"maxlen=253,format=name"`
	InterfaceCIDRs   []string          `json:"interfaceCIDRs,omitempty" check:"format=cidr"`
	InterfacePattern string            `json:"interfacePattern,omitempty" check:"format=regexp"`
	Labels           map[string]string `json:"labels,omitempty"`
	Annotations      map[string]string `json:"annotations,omitempty"`
	NodeSelector     string            `json:"nodeSelector,omitempty" check:"format=longSelector"`
}

// LoadBalancerControllerConfig says which Services get an address.
type LoadBalancerControllerConfig struct {
	AssignIPs string `json:"assignIPs,omitempty" check:"enum=AllServices|RequestedServicesOnly" default:"AllServices"`
}

// PolicyMigrationConfig is what 3.32 has for MigrationControllerConfig.
type PolicyMigrationConfig struct {
	Enabled string `json:"enabled,omitempty" check:"enum=Enabled|Disabled" default:"Enabled"`
}

// MigrationControllerConfig says whether stored policy names of older releases are rewritten.
type MigrationControllerConfig struct {
	PolicyNameMigrator string `json:"policyNameMigrator,omitempty" check:"enum=Enabled|Disabled" default:"Enabled"`
}

// KubeControllersConfigurationStatus is written by the controllers: what they run with, and the environment variables
// that made it differ from the spec.
type KubeControllersConfigurationStatus struct {
	RunningConfig   *KubeControllersConfigurationSpec `json:"runningConfig,omitempty"`
	EnvironmentVars map[string]string                 `json:"environmentVars,omitempty"`
}

// defaultRunning completes a reported configuration: of the defaults of a spec it has those that Calico's definitions have for
// Kubernetes, and not those of its code.
func defaultRunning(s *KubeControllersConfigurationSpec) {
	if s == nil {
		return
	}
	if s.HealthChecks == "" {
		s.HealthChecks = "Enabled"
	}
	if b := s.Controllers.LoadBalancer; b != nil {
		defaultTags(b)
	}
	if m := s.Controllers.PolicyMigration; m != nil {
		defaultTags(m)
	}
}

func validateKubeControllersConfiguration(c *check, k *KubeControllersConfiguration) {
	if k.Name != KubeControllersConfigurationName {
		c.fail("metadata.name", k.Name, `Cannot create a Kube Controllers Configuration resource with a name other than "default"`,
			"write "+KubeControllersConfigurationName)
	}
	checkTags(c, "spec", &k.Spec)
	checkRunning(c, k.Status.RunningConfig)
	templates := k.Spec.templates()
	for i, t := range templates {
		path := index(templatesPath, i)
		validateLabels(c, path+".labels", t.Labels)
		validateAnnotations(c, path+".annotations", t.Annotations)
		if t.GenerateName != "" && slices.ContainsFunc(templates[:i], func(o HostEndpointTemplate) bool { return o.GenerateName == t.GenerateName }) {
			c.fail(path+".generateName", t.GenerateName, "Template name must be unique", "")
		}
	}
}

// checkRunning checks the configuration that a status shows. Calico takes everything in its templates.
func checkRunning(c *check, running *KubeControllersConfigurationSpec) {
	if running == nil {
		return
	}
	spec := *running
	if n := spec.Controllers.Node; n != nil && n.HostEndpoint != nil {
		node, endpoint := *n, *n.HostEndpoint
		endpoint.Templates = nil
		node.HostEndpoint, spec.Controllers.Node = &endpoint, &node
	}
	checkTags(c, "status.runningConfig", &spec)
}

const templatesPath = "spec.controllers.node.hostEndpoint.templates"

func (s *KubeControllersConfigurationSpec) templates() []HostEndpointTemplate {
	if n := s.Controllers.Node; n != nil && n.HostEndpoint != nil {
		return n.HostEndpoint.Templates
	}
	return nil
}

// warnKubeControllersConfiguration names the templates that make nothing.
func warnKubeControllersConfiguration(k *KubeControllersConfiguration) []string {
	var warnings []string
	for i, t := range k.Spec.templates() {
		at := index(templatesPath, i)
		if t.GenerateName == "" {
			warnings = append(warnings, at+" has no name, so it makes no host endpoint (add generateName)")
		}
		if len(t.InterfaceCIDRs) == 0 && t.InterfacePattern == "" {
			warnings = append(warnings, fmt.Sprintf("%s selects no interface, so it makes no host endpoint (add interfaceCIDRs or interfacePattern)", at))
		}
	}
	return warnings
}
