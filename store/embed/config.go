package embed

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math"
	"os"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/features"
	"go.uber.org/zap"

	"margay/store/etcd"
)

// How the server behaves. Where nothing is said the values are those of the etcd command.
const (
	// One member needs no heartbeats to others, and an election among one is over after two ticks: it is ready 0.2 to
	// 0.3 s after its start.
	tickMillis    = 100
	electionTicks = 2

	// keptRevisions is how much history there is to resume a watch and to look for an earlier version of a faulty
	// object. The server looks every five minutes. An agent's status is a revision, too.
	keptRevisions = 25_000

	quotaBytes      = 2 << 30
	maxRequestBytes = 8 << 20 // an object; 400,000 addresses of a network set
	maxTxnOps       = 128

	// Of each address: connections at once, further ones wait; and how long a handshake may take.
	maxConnections   = 1024
	handshakeTimeout = 10 * time.Second

	// progressInterval is how often an idle watch is told the current revision.
	progressInterval = 5 * time.Second
)

// serverConfig returns the configuration of a cluster of one, which ends with a last word.
func serverConfig(cfg Config, word *lastWord) (config.ServerConfig, error) {
	const name = "margay"
	// The address of the member towards others is part of its identity; nothing listens there.
	peers, err := types.NewURLs([]string{"http://127.0.0.1:2380"})
	if err != nil {
		return config.ServerConfig{}, err
	}
	clients, err := types.NewURLs([]string{"http://" + DefaultListen})
	if err != nil {
		return config.ServerConfig{}, err
	}
	log := etcd.ZapLogger(cfg.Log, slog.LevelWarn).WithOptions(zap.WithPanicHook(word), zap.WithFatalHook(word))
	return config.ServerConfig{
		Name:               name,
		DataDir:            cfg.Dir,
		ClientURLs:         clients,
		PeerURLs:           peers,
		InitialPeerURLsMap: types.URLsMap{name: peers},
		// A new directory is a new cluster, by which watchers of an older one see that it is another.
		InitialClusterToken: uuid.NewString(),
		NewCluster:          true,
		MaxLearners:         1,
		StrictReconfigCheck: true,
		PreVote:             true,

		TickMs:                     tickMillis,
		ElectionTicks:              electionTicks,
		InitialElectionTickAdvance: true,

		// There is no other member that could have to catch up, and what is kept for it is kept in memory.
		SnapshotCount:          1_000,
		SnapshotCatchUpEntries: 1,
		MaxSnapFiles:           5,
		MaxWALFiles:            5,
		QuotaBackendBytes:      quotaBytes,

		AutoCompactionMode:      "revision",
		AutoCompactionRetention: keptRevisions,
		CompactHashCheckTime:    time.Minute,

		MaxTxnOps:                   maxTxnOps,
		MaxRequestBytes:             maxRequestBytes,
		MaxConcurrentStreams:        math.MaxUint32,
		WatchProgressNotifyInterval: progressInterval,
		WarningApplyDuration:        time.Second,
		WarningUnaryRequestDuration: time.Second,

		AuthToken:  "simple",
		BcryptCost: 10,
		TokenTTL:   300,

		DowngradeCheckTime: 5 * time.Second,
		V2Deprecation:      config.V2DeprDefault,
		ServerFeatureGate:  features.NewDefaultServerFeatureGate(name, log),
		Metrics:            "basic",
		Logger:             log,
	}, nil
}

// TLSFiles are PEM files for addresses beyond loopback. With a ClientCA, clients must show a certificate of it.
type TLSFiles struct {
	Cert, Key, ClientCA string
}

// TLSConfig reads the files. It returns nil if none is given.
func TLSConfig(f TLSFiles) (*tls.Config, error) {
	if f == (TLSFiles{}) {
		return nil, nil
	}
	if f.Cert == "" || f.Key == "" {
		return nil, fmt.Errorf("configure TLS of the store: certificate and key must be given together")
	}
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("configure TLS of the store: certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if f.ClientCA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(f.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("configure TLS of the store: %w", err)
	}
	c.ClientCAs = x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("configure TLS of the store: no certificate in the client CA %s", f.ClientCA)
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	return c, nil
}
