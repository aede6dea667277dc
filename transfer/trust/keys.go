package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// KeySize is the length of a cluster key, in bytes.
const KeySize = 32

// MaxKeys bounds how many keys a file may hold. Two are needed to change a key.
const MaxKeys = 8

const keyHeader = "# clsync cluster key, version 1"

const keyRemark = `# Whoever has this file is a member of the cluster: keep it secret, mode 600.
# One key per line. The first one seals, all are accepted. To change the key while
# the cluster runs: add the new one as second line everywhere, then make it the
# first everywhere, then take the old one out everywhere.
`

// ErrKeyFile is returned for a key file that is not what it should be.
var ErrKeyFile = errors.New("not a usable key file")

// Keys are the cluster's keys: the first seals and issues, all are accepted. They
// do not show up in logs.
type Keys struct{ keys [][]byte }

func (k Keys) String() string       { return fmt.Sprintf("%d cluster keys", len(k.keys)) }
func (k Keys) GoString() string     { return k.String() }
func (k Keys) LogValue() slog.Value { return slog.StringValue(k.String()) }

// Len returns how many keys there are.
func (k Keys) Len() int { return len(k.keys) }

// NewKeys makes Keys of raw ones, the sealing one first.
func NewKeys(keys ...[]byte) (Keys, error) {
	if len(keys) == 0 || len(keys) > MaxKeys {
		return Keys{}, fmt.Errorf("%w: %d keys, want 1 to %d", ErrKeyFile, len(keys), MaxKeys)
	}
	var out Keys
	for i, key := range keys {
		if len(key) != KeySize {
			return Keys{}, fmt.Errorf("%w: key %d has %d bytes, want %d", ErrKeyFile, i+1, len(key), KeySize)
		}
		if bytes.Count(key, key[:1]) == KeySize {
			return Keys{}, fmt.Errorf("%w: key %d is one byte repeated", ErrKeyFile, i+1)
		}
		if slices.ContainsFunc(out.keys, func(k []byte) bool { return bytes.Equal(k, key) }) {
			return Keys{}, fmt.Errorf("%w: key %d stands in it twice", ErrKeyFile, i+1)
		}
		out.keys = append(out.keys, bytes.Clone(key))
	}
	return out, nil
}

// GenerateClusterKey returns a fresh cluster key.
func GenerateClusterKey() ([]byte, error) {
	key := make([]byte, KeySize)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("draw a cluster key: %w", err)
	}
	return key, nil
}

// ReadClusterKeys reads a key file. It refuses one that anyone but its owner can
// read or that somebody else could have put there.
func ReadClusterKeys(path string) (Keys, error) {
	text, err := readSecret(path)
	if err != nil {
		return Keys{}, fmt.Errorf("read cluster key: %w", err)
	}
	keys, err := parseKeys(string(text))
	if err != nil {
		return Keys{}, fmt.Errorf("read cluster key %s: %w", path, err)
	}
	return keys, nil
}

func parseKeys(text string) (Keys, error) {
	header, rest, _ := strings.Cut(text, "\n")
	if strings.TrimRight(header, " \r") != keyHeader {
		return Keys{}, fmt.Errorf("%w: its first line is not %q", ErrKeyFile, keyHeader)
	}
	var keys [][]byte
	n := 1
	for line := range strings.Lines(rest) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(key) != KeySize { // the line is a secret: it is not quoted
			return Keys{}, fmt.Errorf("%w: line %d is not %d bytes in base64", ErrKeyFile, n, KeySize)
		}
		keys = append(keys, key)
	}
	return NewKeys(keys...)
}

// WriteKeyFile writes a key file with mode 600, whole or not at all. It never
// replaces a file: the key in it may be the only copy.
func WriteKeyFile(path string, keys Keys) error {
	if keys.Len() == 0 {
		return fmt.Errorf("write cluster key: %w: no key", ErrKeyFile)
	}
	var b bytes.Buffer
	b.WriteString(keyHeader + "\n" + keyRemark)
	for _, key := range keys.keys {
		b.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	}
	if err := writeNew(path, b.Bytes()); err != nil {
		return fmt.Errorf("write cluster key: %w", err)
	}
	return nil
}

// Gossip returns the gossip keys, the sealing one first.
func (k Keys) Gossip(cluster string) [][]byte { return k.derive("gossip", cluster) }

// Beacon returns the keys that authenticate multicast beacons, the sealing one first.
func (k Keys) Beacon(cluster string) [][]byte { return k.derive("beacon", cluster) }

// authorities returns the private keys of the certificate authorities.
func (k Keys) authorities(cluster string) []ed25519.PrivateKey {
	var out []ed25519.PrivateKey
	for _, seed := range k.derive("authority", cluster) {
		out = append(out, ed25519.NewKeyFromSeed(seed))
	}
	return out
}

// derive gives every use its own key: a stolen gossip key opens no session, and a
// key file copied to a cluster of another name makes no member of it.
func (k Keys) derive(use, cluster string) [][]byte {
	out := make([][]byte, 0, len(k.keys))
	for _, key := range k.keys {
		d, err := hkdf.Key(sha256.New, key, []byte(cluster), "clsync/1 "+use, KeySize)
		if err != nil {
			panic("derive 32 bytes: " + err.Error()) // only a length beyond 255 hashes fails
		}
		out = append(out, d)
	}
	return out
}
