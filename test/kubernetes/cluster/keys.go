package cluster

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// keys are the cluster's authority, the server's certificate and the administrator's.
type keys struct {
	pool   *x509.CertPool
	ca     *x509.Certificate
	caKey  *rsa.PrivateKey
	caPEM  []byte
	admin  tls.Certificate
	client [2][]byte // the administrator's certificate and key as PEM
}

// newKeys makes them and writes what the API server reads.
func newKeys(dir, host string) (*keys, error) {
	k := &keys{pool: x509.NewCertPool()}
	var err error
	if k.caKey, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cluster"}, NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.caKey.PublicKey, k.caKey)
	if err != nil {
		return nil, err
	}
	if k.ca, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	k.pool.AddCert(k.ca)
	k.caPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	cert, key, err := k.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		IPAddresses: []net.IP{net.ParseIP(host), net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost", "kubernetes"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return nil, err
	}
	for name, text := range map[string][]byte{"ca.crt": k.caPEM, "server.crt": cert, "server.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return nil, err
		}
	}
	if k.client[0], k.client[1], err = k.user("admin", "system:masters"); err != nil {
		return nil, err
	}
	k.admin, err = tls.X509KeyPair(k.client[0], k.client[1])
	return k, err
}

// user issues a certificate for a user of a group.
func (k *keys) user(name, group string) (cert, key []byte, err error) {
	return k.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: name, Organization: []string{group}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

func (k *keys) issue(template *x509.Certificate) (cert, key []byte, err error) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, nil, err
	}
	template.SerialNumber, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(24*time.Hour)
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	der, err := x509.CreateCertificate(rand.Reader, template, k.ca, &private.PublicKey, k.caKey)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)}), nil
}

// writeKubeconfig writes the administrator's kubeconfig.
func (k *keys) writeKubeconfig(path, url string) error {
	return k.kubeconfig(path, url, k.client)
}

func (k *keys) kubeconfig(path, url string, client [2][]byte) error {
	encode := base64.StdEncoding.EncodeToString
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: c
  cluster: {server: %q, certificate-authority-data: %s}
users:
- name: u
  user: {client-certificate-data: %s, client-key-data: %s}
contexts:
- name: x
  context: {cluster: c, user: u}
current-context: x
`, url, encode(k.caPEM), encode(client[0]), encode(client[1]))
	return os.WriteFile(path, []byte(text), 0o600)
}

// Certificate issues a certificate of the cluster's authority for both ends of a connection, as PEM with its key.
func (c *Cluster) Certificate(name string) (cert, key []byte, err error) {
	return c.keys.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	})
}

// CAFile is the certificate of the cluster's authority.
func (c *Cluster) CAFile() string { return filepath.Join(c.cfg.Dir, "ca.crt") }

// UserKubeconfig writes a kubeconfig for a user, who may do what RBAC says, and returns its path.
func (c *Cluster) UserKubeconfig(user string) (string, error) {
	cert, key, err := c.keys.user(user, "users")
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.cfg.Dir, user+".kubeconfig")
	return path, c.keys.kubeconfig(path, c.URL(), [2][]byte{cert, key})
}
