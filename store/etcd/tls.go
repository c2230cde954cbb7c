package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// TLSFiles holds the material for TLS with the servers, as paths of PEM files or as PEM itself, not as a mixture of the
// two. CA is whom to trust, default the system's roots; Cert and Key, both or none, are shown to the server.
type TLSFiles struct {
	CAFile, CertFile, KeyFile string
	CA, Cert, Key             []byte
}

// TLSConfig reads the material. It returns nil if there is none.
func TLSConfig(f TLSFiles) (*tls.Config, error) {
	files := f.CAFile != "" || f.CertFile != "" || f.KeyFile != ""
	inline := len(f.CA) > 0 || len(f.Cert) > 0 || len(f.Key) > 0
	switch {
	case files && inline:
		return nil, errors.New("configure TLS for etcd: certificates are given as files and inline (give one of the two)")
	case !files && !inline:
		return nil, nil
	case files:
		for _, file := range []struct {
			name string
			pem  *[]byte
		}{{f.CAFile, &f.CA}, {f.CertFile, &f.Cert}, {f.KeyFile, &f.Key}} {
			if file.name == "" {
				continue
			}
			var err error
			if *file.pem, err = os.ReadFile(file.name); err != nil {
				return nil, fmt.Errorf("configure TLS for etcd: %w", err)
			}
		}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(f.CA) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(f.CA) {
			return nil, fmt.Errorf("configure TLS for etcd: no certificate in the CA %s", f.CAFile)
		}
	}
	if len(f.Cert) == 0 && len(f.Key) == 0 {
		return config, nil
	}
	if len(f.Cert) == 0 || len(f.Key) == 0 {
		return nil, errors.New("configure TLS for etcd: client certificate and key must be given together")
	}
	pair, err := tls.X509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("configure TLS for etcd: client certificate %s with key %s: %w", f.CertFile, f.KeyFile, err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}
