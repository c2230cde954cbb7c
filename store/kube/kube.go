// Package kube keeps resources in the Kubernetes API: those of projectcalico.org/v3 as custom resources, and the objects
// that Kubernetes has itself (pods, namespaces, service accounts, nodes, EndpointSlices, policies) as resources made from
// them, which can be read and not written. It must not decide anything about resources: package store has the rules,
// api/v3 the formats, convert what objects of Kubernetes mean.
//
//	Create Update Delete --rules--> one request each; tiers and pools are looked at again after it (write.go)
//	Get List             <--decode-- pages of each resource type, one after the other; nothing is kept of them
//	Watch                <--decode-- one stream for each resource type, merged
//
// A kind has one or more sources, each a resource type of the API server. A server gives every resource type a version of
// its own, so a Revision holds one number for each source (revision.go).
//
// Clusters that hold crd.projectcalico.org/v1 objects are read and written in that form (legacy.go).
//
// Of client-go this uses what finds and presents credentials; requests are plain HTTP with JSON, so that a stored value is
// what the server sent, with every field, known or not. Nothing here logs a value or a credential.
package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/flowcontrol"

	"margay/store"
	"margay/store/kube/convert"
)

// The API groups that the resources may be in (CALICO_API_GROUP).
const (
	GroupV3 = "projectcalico.org/v3"
	GroupV1 = "crd.projectcalico.org/v1"
)

// DefaultStatusNamespace is where agents keep what they report.
const DefaultStatusNamespace = "calico-system"

// defaultRequestTimeout bounds a request: a page of a list of a slow server takes some seconds.
const defaultRequestTimeout = 30 * time.Second

// Config says how to reach a cluster, and how to see it. Without Kubeconfig, Inline and Server it is the cluster in which the
// program runs, as its pod's service account.
type Config struct {
	// Kubeconfig is a path, or several as KUBECONFIG has them; Inline is the text of such a file and beats it.
	Kubeconfig, Inline string
	// Context of the kubeconfig; "": its current one.
	Context string
	// Server is the URL of the API server. It and the rest beat what a kubeconfig says. The files are PEM.
	Server                    string
	CAFile, CertFile, KeyFile string
	Token                     string
	// Verify the server's certificate, or do not.
	Verify Verification
	// QPS and Burst limit requests; 0: no limit, as the server has its own.
	QPS   float32
	Burst int
	// Group forces the API group of the resources; "": what the cluster has.
	Group string
	// StatusNamespace holds the reports of the agents; "": DefaultStatusNamespace.
	StatusNamespace string
	// InterfacePrefix begins the names of the host sides of pods' interfaces; "": cali.
	InterfacePrefix string
	// RequestTimeout bounds each request whose context ends later or never; 0: 30 s.
	RequestTimeout time.Duration
	// UserAgent names the program in the server's audit log.
	UserAgent string
	// Log gets warnings, such as rules of Kubernetes policies that cannot be converted; nil: they are dropped.
	Log *slog.Logger
}

// Verification says whether the server must prove who it is.
type Verification int

// InsecureSkipVerify is for tests and for clusters that are broken that way.
const (
	VerifyServer Verification = iota
	InsecureSkipVerify
)

// A Store is a store.Store over the Kubernetes API.
type Store struct {
	client *client
	cfg    Config
	log    *slog.Logger
	ctx    context.Context // ends when the store is closed
	close  context.CancelFunc

	mu      sync.Mutex
	catalog *catalog // what the server serves; nil: not asked yet
	written vector   // the last version that this store wrote, by source
	reports map[string]report
	told    map[string]bool // warnings that were logged
}

var _ store.Store = (*Store)(nil)

// Open returns a store on the cluster. It does not wait for a connection: a server that cannot be reached shows in the
// first operation, as store.ErrUnavailable. Its errors are about the configuration.
func Open(_ context.Context, cfg Config) (*Store, error) {
	if cfg.Group != "" && cfg.Group != GroupV3 && cfg.Group != GroupV1 {
		return nil, fmt.Errorf("open datastore: CALICO_API_GROUP is %q (use %s or %s)", cfg.Group, GroupV3, GroupV1)
	}
	rc, err := cfg.rest()
	if err != nil {
		return nil, fmt.Errorf("open datastore: %w", err)
	}
	rc.UserAgent = cmp.Or(cfg.UserAgent, "margay")
	base, _, err := rest.DefaultServerUrlFor(rc)
	if err != nil {
		return nil, fmt.Errorf("open datastore: %w", err)
	}
	hc, err := rest.HTTPClientFor(rc)
	if err != nil {
		return nil, fmt.Errorf("open datastore: %w", err)
	}
	hc.Timeout = 0 // watches last
	cfg.StatusNamespace = cmp.Or(cfg.StatusNamespace, DefaultStatusNamespace)
	cfg.InterfacePrefix = cmp.Or(cfg.InterfacePrefix, convert.DefaultInterfacePrefix)
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		client: &client{http: hc, base: base, timeout: cmp.Or(cfg.RequestTimeout, defaultRequestTimeout), limit: limiter(cfg)},
		cfg:    cfg, log: log, written: vector{}, reports: map[string]report{}, told: map[string]bool{},
	}
	s.ctx, s.close = context.WithCancel(context.Background())
	return s, nil
}

// limiter returns what holds back requests, nil without a limit.
func limiter(cfg Config) flowcontrol.RateLimiter {
	if cfg.QPS <= 0 {
		return nil
	}
	return flowcontrol.NewTokenBucketRateLimiter(cfg.QPS, max(cfg.Burst, 1))
}

// rest returns client-go's configuration.
func (cfg Config) rest() (*rest.Config, error) {
	if cfg.Kubeconfig == "" && cfg.Inline == "" && cfg.Server == "" {
		rc, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("%w (set KUBECONFIG, or run in a pod with a service account)", err)
		}
		return rc, nil
	}
	overrides := &clientcmd.ConfigOverrides{CurrentContext: cfg.Context}
	overrides.ClusterInfo.Server, overrides.ClusterInfo.CertificateAuthority = cfg.Server, cfg.CAFile
	overrides.ClusterInfo.InsecureSkipTLSVerify = cfg.Verify == InsecureSkipVerify
	overrides.AuthInfo.ClientCertificate, overrides.AuthInfo.ClientKey = cfg.CertFile, cfg.KeyFile
	overrides.AuthInfo.Token = cfg.Token
	if cfg.Inline != "" {
		raw, err := clientcmd.Load([]byte(cfg.Inline))
		if err != nil {
			return nil, fmt.Errorf("read the kubeconfig given as text: %w", err)
		}
		return clientcmd.NewDefaultClientConfig(*raw, overrides).ClientConfig()
	}
	rules := &clientcmd.ClientConfigLoadingRules{}
	if paths := filepath.SplitList(cfg.Kubeconfig); len(paths) == 1 {
		rules.ExplicitPath = paths[0]
	} else {
		rules.Precedence = paths
	}
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
}

// Close releases connections. Watchers end with an error.
func (s *Store) Close() error {
	s.close()
	s.client.closed.Store(true)
	s.client.http.CloseIdleConnections()
	if t, ok := s.client.http.Transport.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
	return nil
}

// warnOnce logs a warning unless it was logged before.
func (s *Store) warnOnce(text string, args ...any) {
	id := fmt.Sprint(append([]any{text}, args...)...)
	s.mu.Lock()
	told := s.told[id]
	if len(s.told) < maxTold {
		s.told[id] = true
	}
	s.mu.Unlock()
	if !told {
		s.log.Warn(text, args...)
	}
}

// maxTold bounds what is remembered of warnings.
const maxTold = 10_000

var errClosed = errors.New("the connection was closed")
