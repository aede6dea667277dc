package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/node/control"
	"github.com/clsync/clsync/signature"
)

// newLog makes the daemon's log. For the journal, which has its own clock, lines
// carry no time, and begin with their priority as sd-daemon(3) has it.
func newLog(w io.Writer, format string, level slog.Leveler, journal bool) *slog.Logger {
	h := &logHandler{sink: &sink{w: w, journal: journal}}
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if journal && len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		if format == "json" { // the text handler escapes by itself
			return escapeAttr(a)
		}
		return a
	}}
	if format == "json" {
		h.inner = slog.NewJSONHandler(&h.sink.buf, o)
	} else {
		h.inner = slog.NewTextHandler(&h.sink.buf, o)
	}
	return slog.New(h)
}

// escapeAttr keeps the bytes of names: the JSON encoder would replace those that
// are not UTF-8.
func escapeAttr(a slog.Attr) slog.Attr {
	switch v := a.Value.Any().(type) {
	case string:
		if !utf8.ValidString(v) {
			a.Value = slog.StringValue(control.Escape(v))
		}
	case signature.Path:
		a.Value = slog.StringValue(control.Escape(string(v)))
	case error:
		if s := v.Error(); !utf8.ValidString(s) {
			a.Value = slog.StringValue(control.Escape(s))
		}
	}
	return a
}

// A sink is where all handlers of one log meet: one line at a time.
type sink struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	w       io.Writer
	journal bool
}

type logHandler struct {
	inner slog.Handler
	sink  *sink
}

func (h *logHandler) Enabled(ctx context.Context, l slog.Level) bool { return h.inner.Enabled(ctx, l) }

func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	h.sink.mu.Lock()
	defer h.sink.mu.Unlock()
	h.sink.buf.Reset()
	if h.sink.journal {
		fmt.Fprintf(&h.sink.buf, "<%d>", priority(r.Level))
	}
	if err := h.inner.Handle(ctx, r); err != nil {
		return err
	}
	_, err := h.sink.w.Write(h.sink.buf.Bytes())
	return err
}

func (h *logHandler) WithAttrs(as []slog.Attr) slog.Handler {
	return &logHandler{h.inner.WithAttrs(as), h.sink}
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{h.inner.WithGroup(name), h.sink}
}

// priority is the level as syslog counts.
func priority(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l >= slog.LevelInfo:
		return 6
	}
	return 7
}

// toJournal tells whether f is the stream that systemd connected to the journal.
func toJournal(f *os.File) bool {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false
	}
	return os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
