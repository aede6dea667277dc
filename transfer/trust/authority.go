package trust

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"time"
)

// The dates in certificates are constant and never looked at; RFC 5280 has the
// second one for "no expiry".
var (
	notBefore = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// An authority is the cluster's certificate authority as one cluster key makes it.
type authority struct {
	label string // names it in server names and as the certificate's subject; tells nothing else
	cert  *x509.Certificate
	key   ed25519.PrivateKey
	own   tls.Certificate // issued to this node
}

// newAuthority makes the authority and this node's certificate from it. Both are
// functions of their inputs, Ed25519 signatures included.
func newAuthority(key, node ed25519.PrivateKey, name string) (*authority, error) {
	sum := sha256.Sum256(key.Public().(ed25519.PublicKey))
	a := &authority{label: hex.EncodeToString(sum[:8]), key: key}
	tmpl := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: a.label},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the cluster's authority: %w", err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("make the cluster's authority: %w", err)
	}
	id, err := NodeIDOf(node.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(append([]byte{1}, id[:]...)),
		Subject:               pkix.Name{CommonName: name},
		DNSNames:              []string{name},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if der, err = x509.CreateCertificate(rand.Reader, leaf, a.cert, node.Public(), key); err != nil {
		return nil, fmt.Errorf("issue the node's certificate: %w", err)
	}
	if leaf, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("issue the node's certificate: %w", err)
	}
	a.own = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: node, Leaf: leaf}
	return a, nil
}

// issued tells whether a issued leaf to a node. No clock is asked: see the
// package's comment.
func (a *authority) issued(leaf *x509.Certificate) bool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:       pool,
		CurrentTime: notBefore,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err == nil && !leaf.IsCA
}
