package rsync

import (
	"strings"
	"testing"
)

func TestSmallLane(t *testing.T) {
	for name := range transports {
		for _, mode := range []JailMode{Off, Require} {
			t.Run(name+map[JailMode]string{Off: "", Require: "/jail"}[mode], func(t *testing.T) {
				if mode == Require {
					needRoot(t)
				}
				r := newRun(t, Small)
				r.transport, r.recv.Jail = name, mode
				r.write("a", "hello")
				r.write("d/e/f", strings.Repeat("x", 3<<20))
				e := r.must()
				if read(t, r.staging+"/a") != "hello" || len(read(t, r.staging+"/d/e/f")) != 3<<20 {
					t.Error("contents differ")
				}
				if e.got.Jailed != (mode == Require) {
					t.Errorf("jailed: %v", e.got.Jailed)
				}
				t.Logf("sent %v early %v received %v", e.sent.Took, e.got.Early, e.got.Took)
			})
		}
	}
}
