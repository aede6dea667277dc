package node

import (
	"errors"
	"testing"
	"time"

	"github.com/clsync/clsync/transfer/message"
	"github.com/clsync/clsync/transfer/session"
)

// Small frames wait while there is no room for them, in order, the latest head only;
// a peer that takes nothing for too long is given up, one that is gone is not blamed.
func TestOutbox(t *testing.T) {
	now := time.Unix(1e9, 0)
	var sent []string
	var refuse error
	send := func(_ byte, payload []byte) error {
		if refuse == nil {
			sent = append(sent, string(payload))
		}
		return refuse
	}
	flush := func(o *outbox, after time.Duration) error { return o.flush(now.Add(after), send) }
	var o outbox
	refuse = session.ErrFull
	o.put(message.TypeHead, []byte("head 1"))
	o.put(message.TypeAck, []byte("ack 1"))
	if err := flush(&o, 0); err != nil {
		t.Fatal(err)
	}
	o.put(message.TypeHead, []byte("head 2"))
	o.put(message.TypeAck, []byte("ack 2"))
	if err := flush(&o, unsentFor/2); err != nil {
		t.Fatal(err)
	}
	refuse = nil
	if err := flush(&o, unsentFor/2); err != nil || len(sent) != 3 || sent[0] != "head 2" || sent[1] != "ack 1" || sent[2] != "ack 2" {
		t.Errorf("sent %q, %v", sent, err)
	}
	refuse = session.ErrFull
	o.put(message.TypeAck, []byte("ack 3"))
	if err := flush(&o, time.Hour); err != nil {
		t.Error("the time counts from the first refusal: ", err)
	}
	if err := flush(&o, time.Hour+unsentFor); !errors.Is(err, session.ErrFull) || len(o.frames) != 0 {
		t.Errorf("%d frames, %v", len(o.frames), err)
	}
	for range maxUnsent + 1 {
		o.put(message.TypeAck, nil)
	}
	if err := flush(&o, 2*time.Hour); !errors.Is(err, session.ErrFull) {
		t.Error(err)
	}
	refuse = session.ErrGone
	o.put(message.TypeAck, nil)
	if err := flush(&o, 0); err != nil || len(o.frames) != 0 {
		t.Errorf("%d frames, %v", len(o.frames), err)
	}
}
