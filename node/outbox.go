package node

import (
	"errors"
	"time"

	"github.com/clsync/clsync/transfer/message"
	"github.com/clsync/clsync/transfer/session"
)

// maxUnsent and unsentFor bound what waits for room in a peer's queue, and for how long.
const (
	maxUnsent = 256
	unsentFor = 30 * time.Second
)

// An outbox holds small frames while a cut on its way fills the peer's queue.
type outbox struct {
	frames []outFrame
	since  time.Time // when the first of them found no room
}

type outFrame struct {
	typ     byte
	payload []byte
}

// put adds a frame. A head takes the place of one that still waits: it says all that
// the other did.
func (o *outbox) put(typ byte, payload []byte) {
	if typ == message.TypeHead {
		for i := range o.frames {
			if o.frames[i].typ == typ {
				o.frames[i].payload = payload
				return
			}
		}
	}
	o.frames = append(o.frames, outFrame{typ, payload})
}

// flush sends what there is room for. It returns an error if the peer takes nothing
// for too long; one that is gone needs nothing.
func (o *outbox) flush(now time.Time, send func(typ byte, payload []byte) error) error {
	for len(o.frames) > 0 {
		err := send(o.frames[0].typ, o.frames[0].payload)
		switch {
		case err == nil:
			o.frames, o.since = o.frames[1:], time.Time{}
			continue
		case errors.Is(err, session.ErrGone):
			o.frames = nil
			return nil
		case errors.Is(err, session.ErrFull) && o.since.IsZero():
			o.since = now
		}
		if errors.Is(err, session.ErrFull) && len(o.frames) <= maxUnsent && now.Sub(o.since) < unsentFor {
			return nil
		}
		o.frames = nil
		return err
	}
	return nil
}
