package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A bridge turns memberlist's lines into slog records. Strangers can make
// memberlist complain once per packet, so what it says is rate limited; for the
// same reason its [ERR] is a warning here.
type bridge struct {
	log   *slog.Logger
	mu    sync.Mutex
	limit *rate.Limiter
	quiet int // lines left out since the last one
}

func newBridge(l *slog.Logger) *log.Logger {
	return log.New(&bridge{log: l, limit: rate.NewLimiter(rate.Every(200*time.Millisecond), 20)}, "", 0)
}

var levels = []struct {
	prefix string
	level  slog.Level
}{
	{"[DEBUG] ", slog.LevelDebug},
	{"[INFO] ", slog.LevelInfo},
	{"[WARN] ", slog.LevelWarn},
	{"[ERR] ", slog.LevelWarn},
	{"[ERROR] ", slog.LevelWarn},
}

func parseLine(b []byte) (slog.Level, string) {
	b = bytes.TrimSpace(b)
	for _, l := range levels {
		if rest, ok := bytes.CutPrefix(b, []byte(l.prefix)); ok {
			rest, _ = bytes.CutPrefix(rest, []byte("memberlist: "))
			return l.level, string(rest)
		}
	}
	return slog.LevelWarn, string(b)
}

func (br *bridge) Write(b []byte) (int, error) {
	ctx := context.Background()
	level, said := parseLine(b)
	if !br.log.Enabled(ctx, level) {
		return len(b), nil
	}
	br.mu.Lock()
	if !br.limit.Allow() {
		br.quiet++
		br.mu.Unlock()
		return len(b), nil
	}
	quiet := br.quiet
	br.quiet = 0
	br.mu.Unlock()
	attrs := []slog.Attr{slog.String("said", said)}
	if quiet > 0 {
		attrs = append(attrs, slog.Int("suppressed", quiet))
	}
	br.log.LogAttrs(ctx, level, "memberlist", attrs...)
	return len(b), nil
}
