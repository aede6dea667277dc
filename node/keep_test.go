package node

import (
	"testing"

	"github.com/clsync/clsync/signature"
)

// What an operator has taken out of the conflict store is forgotten; another entry
// with the same content is not.
func TestKeptStates(t *testing.T) {
	var k keptStates
	a, b := signature.Hash{Algorithm: signature.SHA256, Sum: [32]byte{1}}, signature.Hash{Algorithm: signature.SHA256, Sum: [32]byte{2}}
	k.add("c/1", a)
	k.add("c/2", a)
	k.add("c/3", b)
	k.remove("c/1", a)
	if id, ok := k.find(a); id != "c/2" || !ok || k.count() != 2 {
		t.Errorf("found %q, %v; %d kept", id, ok, k.count())
	}
	k.remove("c/3", b)
	if id, ok := k.find(b); ok || k.count() != 1 {
		t.Errorf("found %q; %d kept", id, k.count())
	}
}
