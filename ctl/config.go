package ctl

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	v3 "margay/api/v3"
)

// The values of StoreConfig.Type.
const (
	TypeEtcd       = "etcdv3"
	TypeKubernetes = "kubernetes"
)

// A StoreConfig says which datastore to talk to, and how.
type StoreConfig struct {
	Type string
	// Endpoints are URLs: http, https or unix. Empty when DiscoverySRV, a domain, is to be asked for them.
	Endpoints          []string
	DiscoverySRV       string
	Username, Password string
	// Paths of PEM files, or the PEM text itself; never both.
	KeyFile, CertFile, CAFile string
	Key, Cert, CA             string
	// Kubernetes is for that type only.
	Kubernetes KubernetesConfig
	// Patience is how long a request may take: the store should not give it up before the command does.
	Patience time.Duration
	// Source says where the settings came from, for people.
	Source string
}

// String names the datastore for people, without secrets.
func (cfg StoreConfig) String() string {
	k := cfg.Kubernetes
	switch {
	case cfg.Type != TypeKubernetes && cfg.DiscoverySRV != "":
		return "the etcd servers that DNS names for " + cfg.DiscoverySRV
	case cfg.Type != TypeKubernetes:
		return strings.Join(cfg.Endpoints, ",")
	case k.Context != "":
		return "Kubernetes (context " + k.Context + ")"
	}
	return strings.TrimSpace("Kubernetes " + cmp.Or(k.Endpoint, k.Kubeconfig))
}

// A KubernetesConfig says how to reach the API of Kubernetes. With neither Kubeconfig nor Inline nor Endpoint it
// is the cluster in which the program runs.
type KubernetesConfig struct {
	// Kubeconfig is a path; Inline is the text of such a file and beats it. Context is the one to use, "" for its current one.
	Kubeconfig, Inline, Context string
	// Endpoint is a URL. It and the rest beat what a kubeconfig says. The files are PEM.
	Endpoint, KeyFile, CertFile, CAFile, Token string
	// Insecure leaves out the check of the server's certificate.
	Insecure bool
	// QPS and Burst limit requests; 0 is the client's own limit.
	QPS   float32
	Burst int
	// APIGroup forces crd.projectcalico.org/v1 or projectcalico.org/v3; "" finds out.
	APIGroup string
}

// errNoStore says that no datastore is configured and none runs here.
var errNoStore = errors.New("no datastore")

// configFile is the form of /etc/calico/calicoctl.cfg.
type configFile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              configSpec `json:"spec"`
}

// configSpec has every field that a file may set. K8sDisableNodePoll and UsePodCIDR are about parts of calicoctl that are
// not here, and have no effect.
type configSpec struct {
	DatastoreType            string  `json:"datastoreType"`
	EtcdEndpoints            string  `json:"etcdEndpoints"`
	EtcdDiscoverySrv         string  `json:"etcdDiscoverySrv"`
	EtcdUsername             string  `json:"etcdUsername"`
	EtcdPassword             string  `json:"etcdPassword"`
	EtcdKeyFile              string  `json:"etcdKeyFile"`
	EtcdCertFile             string  `json:"etcdCertFile"`
	EtcdCACertFile           string  `json:"etcdCACertFile"`
	EtcdKey                  string  `json:"etcdKey"`
	EtcdCert                 string  `json:"etcdCert"`
	EtcdCACert               string  `json:"etcdCACert"`
	Kubeconfig               string  `json:"kubeconfig"`
	KubeconfigInline         string  `json:"kubeconfigInline"`
	K8sAPIEndpoint           string  `json:"k8sAPIEndpoint"`
	K8sKeyFile               string  `json:"k8sKeyFile"`
	K8sCertFile              string  `json:"k8sCertFile"`
	K8sCAFile                string  `json:"k8sCAFile"`
	K8sAPIToken              string  `json:"k8sAPIToken"`
	K8sInsecureSkipTLSVerify bool    `json:"k8sInsecureSkipTLSVerify"`
	K8sDisableNodePoll       bool    `json:"k8sDisableNodePoll"`
	UsePodCIDR               bool    `json:"usePodCIDR"`
	K8sClientQPS             float32 `json:"k8sClientQPS"`
	K8sClientBurst           int     `json:"k8sClientBurst"`
	K8sCurrentContext        string  `json:"k8sCurrentContext"`
	CalicoAPIGroup           string  `json:"calicoAPIGroup"`
}

// A variable is a setting that the environment may make.
type variable struct {
	name string
	set  func(string) error
}

// variables returns what the environment's settings do.
func (s *configSpec) variables() []variable {
	return []variable{
		{"DATASTORE_TYPE", setText(&s.DatastoreType)},
		{"ETCD_ENDPOINTS", setText(&s.EtcdEndpoints)},
		{"ETCD_DISCOVERY_SRV", setText(&s.EtcdDiscoverySrv)},
		{"ETCD_USERNAME", setText(&s.EtcdUsername)},
		{"ETCD_PASSWORD", setText(&s.EtcdPassword)},
		{"ETCD_KEY_FILE", setText(&s.EtcdKeyFile)},
		{"ETCD_CERT_FILE", setText(&s.EtcdCertFile)},
		{"ETCD_CA_CERT_FILE", setText(&s.EtcdCACertFile)},
		{"KUBECONFIG", setText(&s.Kubeconfig)},
		{"K8S_API_ENDPOINT", setText(&s.K8sAPIEndpoint)},
		{"K8S_KEY_FILE", setText(&s.K8sKeyFile)},
		{"K8S_CERT_FILE", setText(&s.K8sCertFile)},
		{"K8S_CA_FILE", setText(&s.K8sCAFile)},
		{"K8S_INSECURE_SKIP_TLS_VERIFY", setParsed(&s.K8sInsecureSkipTLSVerify, strconv.ParseBool)},
		{"K8S_DISABLE_NODE_POLL", setParsed(&s.K8sDisableNodePoll, strconv.ParseBool)},
		{"USE_POD_CIDR", setParsed(&s.UsePodCIDR, strconv.ParseBool)},
		{"K8S_CLIENT_QPS", setParsed(&s.K8sClientQPS, parseFloat)},
		{"K8S_CLIENT_BURST", setParsed(&s.K8sClientBurst, strconv.Atoi)},
		{"K8S_CURRENT_CONTEXT", setText(&s.K8sCurrentContext)},
		{"CALICO_API_GROUP", setText(&s.CalicoAPIGroup)},
	}
}

func setText(to *string) func(string) error {
	return func(value string) error { *to = value; return nil }
}

func setParsed[T any](to *T, parse func(string) (T, error)) func(string) error {
	return func(value string) (err error) { *to, err = parse(value); return err }
}

func parseFloat(text string) (float32, error) {
	value, err := strconv.ParseFloat(text, 32)
	return float32(value), err
}

// loadConfig finds the datastore: the file if it exists, and then nothing else; otherwise the environment; with neither
// the store that runs on this host, else the Kubernetes that kubectl would use.
func (c *cli) loadConfig(path string) (StoreConfig, error) {
	if _, err := os.Stat(path); err == nil {
		return c.configFromFile(path)
	} else if path != c.env.ConfigFile {
		return StoreConfig{}, &stdoutError{fmt.Errorf("Error reading config file: %s", path)}
	}
	var spec configSpec
	names, err := c.readEnv(&spec)
	if err != nil {
		return StoreConfig{}, err
	}
	if c.context != "" {
		names = append(names, "--context")
	}
	if len(names) > 0 {
		return c.storeConfig(spec, "the environment ("+strings.Join(names, ", ")+")")
	}
	if _, err := os.Stat(c.env.Socket); err == nil {
		return StoreConfig{Type: TypeEtcd, Endpoints: []string{"unix://" + c.env.Socket}, Source: "the default: the store of this host, which margay standalone runs, for root alone"}, nil
	}
	if place := c.kubernetesHere(); place != "" {
		return c.storeConfig(spec, "the default ("+place+")")
	}
	return StoreConfig{}, fmt.Errorf("%w is configured and none runs on this host: %s does not exist "+
		"(start one with `margay standalone`, or name one by ETCD_ENDPOINTS or in %s)", errNoStore, c.env.Socket, c.env.ConfigFile)
}

// configFromFile reads a file. Variables that are set as well have no effect, which the source says.
func (c *cli) configFromFile(path string) (StoreConfig, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return StoreConfig{}, err
	}
	spec, err := parseConfig(data)
	if err != nil {
		return StoreConfig{}, fmt.Errorf("syntax error in %s: %w", path, err)
	}
	source := "file " + path
	if ignored, _ := c.readEnv(&configSpec{}); len(ignored) > 0 {
		source += fmt.Sprintf(", which exists, so that %s in the environment has no effect", strings.Join(ignored, ", "))
	}
	return c.storeConfig(spec, source)
}

// kubernetesHere says by what a Kubernetes is found that nobody named: kubectl's file, or the cluster around this process.
func (c *cli) kubernetesHere() string {
	if file := c.homeKubeconfig(); file != "" {
		return file
	}
	if c.env.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		return "KUBERNETES_SERVICE_HOST"
	}
	return ""
}

// homeKubeconfig returns kubectl's file, "" if there is none.
func (c *cli) homeKubeconfig() string {
	home := c.env.Getenv("HOME")
	if home == "" {
		return ""
	}
	file := filepath.Join(home, ".kube", "config")
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

func parseConfig(data []byte) (configSpec, error) {
	var file configFile
	if err := yaml.UnmarshalStrict(data, &file); err != nil {
		return configSpec{}, plainYAMLError(err)
	}
	if file.APIVersion != v3.APIVersion {
		return configSpec{}, fmt.Errorf("invalid config file: unknown APIVersion '%s'", file.APIVersion)
	}
	if file.Kind != "CalicoAPIConfig" {
		return configSpec{}, fmt.Errorf("invalid config file: expected kind 'CalicoAPIConfig', got '%s'", file.Kind)
	}
	return file.Spec, nil
}

// plainYAMLError leaves out how the YAML library works, and says of an unknown field what calicoctl says.
func plainYAMLError(err error) error {
	_, text, found := strings.Cut(err.Error(), "while decoding JSON: json: ")
	if !found {
		return err
	}
	if field, ok := strings.CutPrefix(text, "unknown field "); ok {
		text = "field in document is not recognized or is in the wrong location: " + strings.Trim(field, `"`)
	}
	return errors.New(text)
}

// readEnv fills spec from the environment and returns the names of the variables that are set. A variable may carry the
// prefix CALICO_, which then wins.
func (c *cli) readEnv(spec *configSpec) ([]string, error) {
	var names []string
	for _, v := range spec.variables() {
		for _, name := range []string{"CALICO_" + v.name, v.name} {
			value := c.env.Getenv(name)
			if value == "" {
				continue
			}
			if err := v.set(value); err != nil {
				return names, fmt.Errorf("read the environment: %s: %w", name, err)
			}
			names = append(names, name)
			break
		}
	}
	return names, nil
}

// storeConfig decides on the type of datastore and refuses what contradicts itself. calicoctl takes --context from
// the environment alone; here it counts with a file, too.
func (c *cli) storeConfig(s configSpec, source string) (StoreConfig, error) {
	cfg := StoreConfig{
		Type: s.DatastoreType, Endpoints: endpoints(s.EtcdEndpoints), DiscoverySRV: s.EtcdDiscoverySrv,
		Username: s.EtcdUsername, Password: s.EtcdPassword,
		KeyFile: s.EtcdKeyFile, CertFile: s.EtcdCertFile, CAFile: s.EtcdCACertFile,
		Key: s.EtcdKey, Cert: s.EtcdCert, CA: s.EtcdCACert,
		Source: source,
	}
	if cfg.Type == "" {
		cfg.Type = TypeKubernetes
		if len(cfg.Endpoints) > 0 || cfg.DiscoverySRV != "" {
			cfg.Type = TypeEtcd
		}
	}
	if cfg.Type == TypeKubernetes {
		cfg = StoreConfig{Type: TypeKubernetes, Kubernetes: c.kubernetesConfig(s), Source: source}
	}
	if err := cfg.check(); err != nil {
		return cfg, fmt.Errorf("%w; the settings come from %s", err, source)
	}
	return cfg, nil
}

func (c *cli) kubernetesConfig(s configSpec) KubernetesConfig {
	k := KubernetesConfig{
		Kubeconfig: s.Kubeconfig, Inline: s.KubeconfigInline, Context: cmp.Or(c.context, s.K8sCurrentContext),
		Endpoint: s.K8sAPIEndpoint, KeyFile: s.K8sKeyFile, CertFile: s.K8sCertFile, CAFile: s.K8sCAFile, Token: s.K8sAPIToken,
		Insecure: s.K8sInsecureSkipTLSVerify, QPS: s.K8sClientQPS, Burst: s.K8sClientBurst, APIGroup: s.CalicoAPIGroup,
	}
	if k.Kubeconfig == "" && k.Inline == "" && k.Endpoint == "" {
		k.Kubeconfig = c.homeKubeconfig()
	}
	return k
}

func (cfg StoreConfig) check() error {
	inline := cfg.Key != "" || cfg.Cert != "" || cfg.CA != ""
	files := cfg.KeyFile != "" || cfg.CertFile != "" || cfg.CAFile != ""
	switch {
	case cfg.Type == TypeKubernetes:
		return nil
	case cfg.Type != TypeEtcd:
		return fmt.Errorf("unknown datastore type %s (etcdv3 or kubernetes)", strconv.Quote(cfg.Type))
	case len(cfg.Endpoints) > 0 && cfg.DiscoverySRV != "":
		return errors.New(`multiple discovery or bootstrap options specified, use either "etcdEndpoints" or "etcdDiscoverySrv"`)
	case len(cfg.Endpoints) == 0 && cfg.DiscoverySRV == "":
		return errors.New("no etcd endpoints specified")
	case inline && files:
		return errors.New("etcd key, certificate and CA are given both as files and inline (use one form)")
	}
	return nil
}

func endpoints(list string) []string {
	var out []string
	for endpoint := range strings.SplitSeq(list, ",") {
		if endpoint = strings.TrimSpace(endpoint); endpoint != "" {
			out = append(out, endpoint)
		}
	}
	return out
}
