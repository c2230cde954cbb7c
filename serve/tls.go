package serve

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
)

// TLS names the PEM files of a server. TLS is on when certificate or key is set.
type TLS struct {
	Cert, Key, CA string
	ClientAuth    tls.ClientAuthType
}

// Enabled reports whether TLS is on.
func (t TLS) Enabled() bool { return t.Cert != "" || t.Key != "" }

// ErrNoClientCA: without own authorities Go would trust those of the system, that is, anybody's certificate.
var ErrNoClientCA = errors.New("client certificates shall be verified and no CA file is set (set PrometheusMetricsCAFile)")

// Config returns the configuration of a server. The files are read anew for every handshake, so that renewed certificates
// are used at once, and a session is never resumed under old ones. Any fault refuses the handshake: there is no way back
// to plain HTTP.
func (t TLS) Config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true, GetConfigForClient: t.read}
}

func (t TLS) read(*tls.ClientHelloInfo) (*tls.Config, error) {
	pair, err := ReadPair(t.Cert, t.Key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true, Certificates: []tls.Certificate{pair}, ClientAuth: t.ClientAuth,
	}
	if t.ClientAuth < tls.VerifyClientCertIfGiven {
		return config, nil
	}
	if t.CA == "" {
		return nil, ErrNoClientCA
	}
	config.ClientCAs, err = ReadPool(t.CA)
	return config, err
}

// maxFile bounds what is read of a file with certificates or keys, in bytes.
const maxFile = 1 << 20

// ReadPair reads a certificate and its key from PEM files.
func ReadPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := ReadBounded(certFile, maxFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("read certificate: %w", err)
	}
	key, err := ReadBounded(keyFile, maxFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("read key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("use certificate %s with key %s: %w", certFile, keyFile, err)
	}
	return pair, nil
}

// ReadPool reads the authorities in a PEM file.
func ReadPool(path string) (*x509.CertPool, error) {
	ca, err := ReadBounded(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("read CA %s: it holds no certificate", path)
	}
	return pool, nil
}

// ReadBounded reads a regular file that has at most limit bytes. A device may never end, and a pipe may never begin.
func ReadBounded(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return data, err
}

// ClientAuth returns what a PrometheusMetricsClientAuth asks for. When nobody says anything, certificates are asked for and
// verified if a CA file is given: neither a CA that is not asked nor a listener that nobody can pass is meant (3.32 and
// later releases have either as their default). What is not known asks for everything.
func ClientAuth(text, ca string) tls.ClientAuthType {
	switch text {
	case "NoClientCert":
		return tls.NoClientCert
	case "RequireAnyClientCert":
		return tls.RequireAnyClientCert
	case "VerifyClientCertIfGiven":
		return tls.VerifyClientCertIfGiven
	case "":
		if ca == "" {
			return tls.NoClientCert
		}
	}
	return tls.RequireAndVerifyClientCert
}
