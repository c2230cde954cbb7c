package ctl

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

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
	// Source says where the settings came from, for people.
	Source string
}

// errNoStore says that no datastore is configured and none runs here.
var errNoStore = errors.New("no datastore")

// configFile is the form of /etc/calico/calicoctl.cfg (spec 3.7).
type configFile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              configSpec `json:"spec"`
}

// configSpec has every field that a file may set; those for Kubernetes are accepted and not used.
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
	set  *string
}

// variables returns where the environment's settings go. The Kubernetes ones are here because they choose that datastore.
func (s *configSpec) variables() []variable {
	return []variable{
		{"DATASTORE_TYPE", &s.DatastoreType},
		{"ETCD_ENDPOINTS", &s.EtcdEndpoints},
		{"ETCD_DISCOVERY_SRV", &s.EtcdDiscoverySrv},
		{"ETCD_USERNAME", &s.EtcdUsername},
		{"ETCD_PASSWORD", &s.EtcdPassword},
		{"ETCD_KEY_FILE", &s.EtcdKeyFile},
		{"ETCD_CERT_FILE", &s.EtcdCertFile},
		{"ETCD_CA_CERT_FILE", &s.EtcdCACertFile},
		{"KUBECONFIG", &s.Kubeconfig},
		{"K8S_API_ENDPOINT", &s.K8sAPIEndpoint},
	}
}

// loadConfig finds the datastore: the file if it exists, and then nothing else; otherwise the environment; with neither
// the store that runs on this host.
func (c *cli) loadConfig(path string) (StoreConfig, error) {
	if _, err := os.Stat(path); err == nil {
		return c.configFromFile(path)
	} else if path != c.env.ConfigFile {
		return StoreConfig{}, &stdoutError{fmt.Errorf("Error reading config file: %s", path)}
	}
	var spec configSpec
	names := c.readEnv(&spec)
	if len(names) == 0 {
		return c.localStore()
	}
	return spec.storeConfig("the environment (" + strings.Join(names, ", ") + ")")
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
	if ignored := c.readEnv(&configSpec{}); len(ignored) > 0 {
		source += fmt.Sprintf(", which exists, so that %s in the environment has no effect", strings.Join(ignored, ", "))
	}
	return spec.storeConfig(source)
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

// plainYAMLError leaves out how the YAML library works, and says of an unknown field what calicoctl says (spec 3.3).
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
func (c *cli) readEnv(spec *configSpec) []string {
	var names []string
	for _, v := range spec.variables() {
		for _, name := range []string{"CALICO_" + v.name, v.name} {
			if value := c.env.Getenv(name); value != "" {
				*v.set = value
				names = append(names, name)
				break
			}
		}
	}
	return names
}

// localStore returns the store of this host, if its socket is there.
func (c *cli) localStore() (StoreConfig, error) {
	cfg := StoreConfig{Type: TypeEtcd, Endpoints: []string{"unix://" + c.env.Socket}, Source: "the default"}
	if _, err := os.Stat(c.env.Socket); err != nil {
		return cfg, fmt.Errorf("%w is configured and none runs on this host: %s does not exist "+
			"(start one with `margay standalone`, or name one by ETCD_ENDPOINTS or in %s)",
			errNoStore, c.env.Socket, c.env.ConfigFile)
	}
	return cfg, nil
}

// storeConfig decides on the type of datastore and refuses what contradicts itself (spec 3.7).
func (s configSpec) storeConfig(source string) (StoreConfig, error) {
	cfg := StoreConfig{
		Type: s.DatastoreType, Endpoints: endpoints(s.EtcdEndpoints), DiscoverySRV: s.EtcdDiscoverySrv,
		Username: s.EtcdUsername, Password: s.EtcdPassword,
		KeyFile: s.EtcdKeyFile, CertFile: s.EtcdCertFile, CAFile: s.EtcdCACertFile,
		Key: s.EtcdKey, Cert: s.EtcdCert, CA: s.EtcdCACert,
		Source: source,
	}
	if cfg.Type == "" {
		cfg.Type = TypeKubernetes
		if len(cfg.Endpoints) > 0 {
			cfg.Type = TypeEtcd
		}
	}
	if err := cfg.check(); err != nil {
		return cfg, fmt.Errorf("%w; the settings come from %s", err, source)
	}
	return cfg, nil
}

func (cfg StoreConfig) check() error {
	inline := cfg.Key != "" || cfg.Cert != "" || cfg.CA != ""
	files := cfg.KeyFile != "" || cfg.CertFile != "" || cfg.CAFile != ""
	switch {
	case cfg.Type == TypeKubernetes:
		return errors.New("datastore type kubernetes is not supported by this build yet " +
			"(set datastoreType or DATASTORE_TYPE to etcdv3 and name the etcd endpoints)")
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
