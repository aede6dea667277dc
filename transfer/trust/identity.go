package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/clsync/clsync/signature"
)

// ALPN names the protocol that is spoken over TLS.
const ALPN = "clsync/1"

var (
	// ErrStranger is returned for a peer whose certificate none of our cluster keys issued.
	ErrStranger = errors.New("peer does not have this cluster's key")
	// ErrOtherNode is returned where another node answers than the one expected.
	ErrOtherNode = errors.New("another node answers")
)

// An Identity is this node's: its key, its name, and the authorities it accepts.
// It may be used from many goroutines.
type Identity struct {
	cluster, name string
	key           ed25519.PrivateKey
	id            signature.NodeID
	state         atomic.Pointer[accepted]
}

// accepted is what one reading of the key file gives.
type accepted struct {
	generation  uint64
	authorities []*authority
	pool        *x509.CertPool
}

// NewIdentity makes the identity of the node that has key.
func NewIdentity(cluster, name string, key ed25519.PrivateKey, keys Keys) (*Identity, error) {
	if err := CheckName(cluster); err != nil {
		return nil, fmt.Errorf("cluster name: %w", err)
	}
	if err := CheckName(name); err != nil {
		return nil, fmt.Errorf("node name: %w", err)
	}
	if len(key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("node key: %w: %d bytes", ErrKeyFile, len(key))
	}
	id, err := NodeIDOf(key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	i := &Identity{cluster: cluster, name: name, key: key, id: id}
	return i, i.Reload(keys)
}

// ID returns the node's ID.
func (i *Identity) ID() signature.NodeID { return i.id }

// Name returns the node's name.
func (i *Identity) Name() string { return i.name }

// Generation counts the calls of Reload. When it moves, what was verified before
// is to be verified again.
func (i *Identity) Generation() uint64 { return i.state.Load().generation }

// Reload takes the keys of a changed file. On error the old ones stay.
func (i *Identity) Reload(keys Keys) error {
	if keys.Len() == 0 {
		return fmt.Errorf("reload cluster keys: %w: no key", ErrKeyFile)
	}
	next := &accepted{pool: x509.NewCertPool()}
	for _, key := range keys.authorities(i.cluster) {
		a, err := newAuthority(key, i.key, i.name)
		if err != nil {
			return err
		}
		next.authorities = append(next.authorities, a)
		next.pool.AddCert(a.cert)
	}
	for {
		old := i.state.Load()
		if old != nil {
			next.generation = old.generation + 1
		}
		if i.state.CompareAndSwap(old, next) {
			return nil
		}
	}
}

// TLSServer returns the configuration of the accepting side. It follows Reload.
func (i *Identity) TLSServer() *tls.Config {
	base := i.config()
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := i.state.Load()
		cfg := i.config()
		cfg.ClientAuth = tls.RequireAnyClientCert // verified by VerifyConnection, without a clock
		cfg.ClientCAs = now.pool                  // tells the client which authorities we accept
		cfg.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return now.forServerName(hello.ServerName), nil
		}
		cfg.VerifyConnection = func(cs tls.ConnectionState) error { return now.verify(cs) }
		return cfg, nil
	}
	return base
}

// TLSClient returns the configuration for one dial. If expect is not zero, any
// other node that answers is refused with ErrOtherNode.
func (i *Identity) TLSClient(expect signature.NodeID) *tls.Config {
	now := i.state.Load()
	cfg := i.config()
	// Go's TLS cannot send the list of authorities that the client accepts, so the
	// server name carries it. Nodes are not found by it: they are known by their keys.
	cfg.ServerName = now.serverName()
	cfg.InsecureSkipVerify = true // VerifyConnection does it, without names and clocks
	cfg.GetClientCertificate = func(req *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return now.forSubjects(req.AcceptableCAs), nil
	}
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := now.verify(cs); err != nil {
			return err
		}
		id, name, err := PeerOf(cs)
		if err != nil {
			return err
		}
		if !expect.IsZero() && id != expect {
			return fmt.Errorf("%w: %s (%s) instead of %s", ErrOtherNode, id, name, expect)
		}
		return nil
	}
	return cfg
}

// config has what both sides need. There are no session tickets: a full handshake
// costs a millisecond, connections to a peer are reused (see package session),
// and a ticket would be one more thing that Reload has to take back.
func (i *Identity) config() *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  []string{ALPN},
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	}
}

// Verify tells whether a connection's peer is still a member by the keys of now.
func (i *Identity) Verify(cs tls.ConnectionState) error { return i.state.Load().verify(cs) }

func (s *accepted) verify(cs tls.ConnectionState) error {
	if cs.Version < tls.VersionTLS13 || cs.NegotiatedProtocol != ALPN {
		return fmt.Errorf("peer speaks %q, not %q", cs.NegotiatedProtocol, ALPN)
	}
	if len(cs.PeerCertificates) != 1 {
		return fmt.Errorf("%w: %d certificates, want 1", ErrStranger, len(cs.PeerCertificates))
	}
	leaf := cs.PeerCertificates[0]
	if !slices.ContainsFunc(s.authorities, func(a *authority) bool { return a.issued(leaf) }) {
		return ErrStranger
	}
	_, _, err := PeerOf(cs)
	return err
}

// PeerOf returns who is at the other end of a connection that was verified.
func PeerOf(cs tls.ConnectionState) (id signature.NodeID, name string, err error) {
	if len(cs.PeerCertificates) == 0 {
		return id, "", fmt.Errorf("%w: no certificate", ErrStranger)
	}
	leaf := cs.PeerCertificates[0]
	if _, ok := leaf.PublicKey.(ed25519.PublicKey); !ok {
		return id, "", fmt.Errorf("%w: its key is not Ed25519", ErrStranger)
	}
	name = leaf.Subject.CommonName
	if err := CheckName(name); err != nil {
		return id, "", fmt.Errorf("peer's certificate: %w", err)
	}
	if len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != name {
		return id, "", fmt.Errorf("%w: its certificate has several names", ErrStranger)
	}
	return digestKey(leaf.RawSubjectPublicKeyInfo), name, nil
}

const serverSuffix = "clsync"

func (s *accepted) serverName() string {
	var b strings.Builder
	for _, a := range s.authorities {
		b.WriteString(a.label + ".")
	}
	return b.String() + serverSuffix
}

// forServerName picks the certificate that a client with that server name
// accepts. Sharing none, it gets the first one: its own check then says why.
func (s *accepted) forServerName(name string) *tls.Certificate {
	labels := strings.Split(name, ".")
	return s.pick(func(a *authority) bool { return slices.Contains(labels, a.label) })
}

// forSubjects picks the certificate that a server accepting those authorities accepts.
func (s *accepted) forSubjects(subjects [][]byte) *tls.Certificate {
	return s.pick(func(a *authority) bool {
		return slices.ContainsFunc(subjects, func(d []byte) bool { return bytes.Equal(d, a.cert.RawSubject) })
	})
}

func (s *accepted) pick(ok func(*authority) bool) *tls.Certificate {
	n := slices.IndexFunc(s.authorities, ok)
	return &s.authorities[max(n, 0)].own
}
