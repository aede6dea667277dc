package trust

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/clsync/clsync/signature"
)

// MaxName is the longest name of a node, in bytes.
const MaxName = 64

// ErrName is returned for what cannot be the name of a node or a cluster.
var ErrName = errors.New("not a name")

// CheckName tells whether name can be a node's or a cluster's: 1 to 64 letters,
// digits, dots, dashes and underscores, with a letter or digit first. Names go
// into certificates, logs and file names; anything else would need care there.
func CheckName(name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("%w: %q has %d bytes, want 1 to %d", ErrName, name, len(name), MaxName)
	}
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '-' && c != '_') {
			return fmt.Errorf("%w: %q has a byte that is no letter, digit, dot, dash or underscore", ErrName, name)
		}
	}
	return nil
}

// NodeIDOf returns the ID of the node that has this public key.
func NodeIDOf(pub ed25519.PublicKey) (signature.NodeID, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return signature.NodeID{}, fmt.Errorf("encode public key: %w", err)
	}
	return digestKey(der), nil
}

func digestKey(spki []byte) (id signature.NodeID) {
	sum := sha256.Sum256(spki)
	copy(id[:], sum[:])
	return id
}

// GenerateNodeKey returns a fresh node key.
func GenerateNodeKey() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("draw a node key: %w", err)
	}
	return key, nil
}

const nodeKeyBlock = "PRIVATE KEY"

// WriteNodeKey writes key to a file of mode 600 that did not exist.
func WriteNodeKey(path string, key ed25519.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err == nil {
		err = writeNew(path, pem.EncodeToMemory(&pem.Block{Type: nodeKeyBlock, Bytes: der}))
	}
	if err != nil {
		return fmt.Errorf("write node key: %w", err)
	}
	return nil
}

// ReadNodeKey reads what WriteNodeKey wrote.
func ReadNodeKey(path string) (ed25519.PrivateKey, error) {
	text, err := readSecret(path)
	if err != nil {
		return nil, fmt.Errorf("read node key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != nodeKeyBlock {
		return nil, fmt.Errorf("read node key: %w: %s has no block %q", ErrKeyFile, path, nodeKeyBlock)
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read node key: %w: %s: %w", ErrKeyFile, path, err)
	}
	key, ok := any.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read node key: %w: %s holds a key that is not Ed25519", ErrKeyFile, path)
	}
	return key, nil
}

// LoadNodeKey reads the node's key and makes one where there is none. Only a
// missing file counts as none: another key would be another node.
func LoadNodeKey(path string) (ed25519.PrivateKey, error) {
	key, err := ReadNodeKey(path)
	if !errors.Is(err, os.ErrNotExist) {
		return key, err
	}
	if key, err = GenerateNodeKey(); err != nil {
		return nil, err
	}
	if err := WriteNodeKey(path, key); err != nil {
		if errors.Is(err, os.ErrExist) { // somebody else made it just now: that one counts
			return ReadNodeKey(path)
		}
		return nil, err
	}
	return key, nil
}
