package ctl

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// TLSConfig returns the TLS settings for the endpoints: nil when no endpoint is https and no key, certificate or CA is
// given. It reads the files.
func (cfg StoreConfig) TLSConfig() (*tls.Config, error) {
	key, err1 := pem(cfg.Key, cfg.KeyFile)
	cert, err2 := pem(cfg.Cert, cfg.CertFile)
	ca, err3 := pem(cfg.CA, cfg.CAFile)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	if key == nil && cert == nil && ca == nil && !cfg.wantsTLS() {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if key != nil || cert != nil {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("load the etcd client certificate: %w (certificate and key must be given together)", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	if ca != nil {
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("load the etcd CA: no certificate in PEM form in it")
		}
	}
	return out, nil
}

func (cfg StoreConfig) wantsTLS() bool {
	for _, endpoint := range cfg.Endpoints {
		if strings.HasPrefix(endpoint, "https://") || strings.HasPrefix(endpoint, "unixs://") {
			return true
		}
	}
	return false
}

// pem returns the text, or what the file holds, or nil.
func pem(text, file string) ([]byte, error) {
	switch {
	case text != "":
		return []byte(text), nil
	case file != "":
		return os.ReadFile(file)
	}
	return nil, nil
}

// ResolveEndpoints returns the endpoints, asking DNS for them when DiscoverySRV is set: SRV records of etcd-client-ssl
// give https URLs and those of etcd-client http ones (etcd's DNS discovery).
func (cfg StoreConfig) ResolveEndpoints(ctx context.Context) ([]string, error) {
	if cfg.DiscoverySRV == "" {
		return cfg.Endpoints, nil
	}
	var out []string
	var errs []error
	for _, service := range []struct{ name, scheme string }{{"etcd-client-ssl", "https"}, {"etcd-client", "http"}} {
		_, records, err := net.DefaultResolver.LookupSRV(ctx, service.name, "tcp", cfg.DiscoverySRV)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, r := range records {
			host := net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port)))
			out = append(out, service.scheme+"://"+host)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("discover etcd endpoints by SRV records of %s: %w", cfg.DiscoverySRV, errors.Join(errs...))
	}
	return out, nil
}
