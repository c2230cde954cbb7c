package typha

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"margay/serve"
)

// TLSFiles are what mutual TLS between client and server needs. It is off unless any of it is set; then all of
// it must be, but for one of the two names.
type TLSFiles struct {
	// CA, Cert and Key are paths of PEM files. CA is whom this side trusts, Cert what it shows.
	CA, Cert, Key string
	// The peer's certificate must have this common name or this URI among its alternative names; either will do if both
	// are set.
	PeerCN, PeerURISAN string
}

// Enabled reports whether any of it is set.
func (f TLSFiles) Enabled() bool { return f != TLSFiles{} }

// Check refuses a part of what is needed. names are those of the parameters, in the order of the fields.
func (f TLSFiles) Check(names [5]string) error {
	if !f.Enabled() {
		return nil
	}
	var missing []string
	for i, value := range []string{f.CA, f.Cert, f.Key} {
		if value == "" {
			missing = append(missing, names[i])
		}
	}
	if f.PeerCN == "" && f.PeerURISAN == "" {
		missing = append(missing, names[3]+" or "+names[4])
	}
	if len(missing) > 0 {
		return fmt.Errorf("TLS is asked for and incomplete: %s is not set", strings.Join(missing, ", "))
	}
	return nil
}

// errPeer is why a certificate of the right authority is not enough.
var errPeer = errors.New("the certificate is not that of a permitted peer")

// permits checks the name of the peer's certificate.
func (f TLSFiles) permits(cert *x509.Certificate) error {
	if f.PeerCN != "" && cert.Subject.CommonName == f.PeerCN {
		return nil
	}
	var uris []string
	for _, uri := range cert.URIs {
		if f.PeerURISAN != "" && uri.String() == f.PeerURISAN {
			return nil
		}
		uris = append(uris, uri.String())
	}
	return fmt.Errorf("%w: it has CN %.64q and URI SANs %.128q, wanted is CN %q or URI SAN %q", errPeer,
		cert.Subject.CommonName, uris, f.PeerCN, f.PeerURISAN)
}

// material is what the files hold.
type material struct {
	pair tls.Certificate
	ca   *x509.CertPool
}

func (f TLSFiles) read() (*material, error) {
	pair, err := serve.ReadPair(f.Cert, f.Key)
	if err != nil {
		return nil, err
	}
	pool, err := serve.ReadPool(f.CA)
	if err != nil {
		return nil, err
	}
	return &material{pair, pool}, nil
}

// maxAge is how long material is used without reading the files again.
const maxAge = time.Second

// A reader reads the files again when what it has is older than maxAge, so that renewed certificates are used without a
// restart and a thousand clients that come back at once do not mean as many reads. What cannot be read refuses every
// handshake: there is no way back to what was, or to none.
type reader struct {
	files TLSFiles

	mu   sync.Mutex
	have *material
	err  error
	at   time.Time
}

func (r *reader) get() (*material, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at.IsZero() || time.Since(r.at) > maxAge {
		r.have, r.err = r.files.read()
		r.at = time.Now()
	}
	return r.have, r.err
}

// base is what both sides have in common. Sessions are not resumed: that would go on with an old certificate.
// Records have their full size from the start, since what is sent is a pack that is read as a whole.
func base() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true}
}

// server returns the configuration that reads the files for every handshake.
func (r *reader) server() *tls.Config {
	config := base()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		m, err := r.get()
		if err != nil {
			return nil, err
		}
		c := base()
		c.Certificates, c.ClientCAs, c.ClientAuth = []tls.Certificate{m.pair}, m.ca, tls.RequireAndVerifyClientCert
		c.VerifyConnection = func(state tls.ConnectionState) error { return r.files.permits(state.PeerCertificates[0]) }
		return c, nil
	}
	return config
}

// client returns the configuration for one connection.
func (r *reader) client() (*tls.Config, error) {
	m, err := r.get()
	if err != nil {
		return nil, err
	}
	config := base()
	config.Certificates = []tls.Certificate{m.pair}
	// The server is known by its name in the certificate and not by the address where it is found: typha's instances
	// come and go. So the chain is verified here, and not with a host name.
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(state tls.ConnectionState) error {
		options := x509.VerifyOptions{Roots: m.ca, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		for _, cert := range state.PeerCertificates[1:] {
			options.Intermediates.AddCert(cert)
		}
		if _, err := state.PeerCertificates[0].Verify(options); err != nil {
			return fmt.Errorf("%w: %w", errPeer, err)
		}
		return r.files.permits(state.PeerCertificates[0])
	}
	return config, nil
}
