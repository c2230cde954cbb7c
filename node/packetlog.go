package node

import (
	"context"
	"log/slog"
	"time"
)

// A PacketLog describes one packet that a rule with action Log matched, as fields for the log.
type PacketLog []slog.Attr

// Bounds of what packets may write to the log: whoever sends packets must not be able to fill a disk.
const (
	packetLogBurst  = 100
	packetLogPeriod = time.Second
)

// A packetLogger writes packets to the log, at most packetLogBurst in a packetLogPeriod, and counts the others. It is used
// by one goroutine.
type packetLogger struct {
	log     *slog.Logger
	now     func() time.Time
	start   time.Time // of the current period
	written int       // in the current period
	dropped int       // since the last line about them
}

// report writes one packet, or counts it.
func (l *packetLogger) report(p PacketLog) {
	if now := l.now(); now.Sub(l.start) >= packetLogPeriod {
		if l.dropped > 0 {
			l.log.Warn("packets that rules log were left out of the log", "packets", l.dropped)
		}
		l.start, l.written, l.dropped = now, 0, 0
	}
	if l.written >= packetLogBurst {
		l.dropped++
		return
	}
	l.written++
	l.log.LogAttrs(context.Background(), slog.LevelInfo, "packet", p...)
}

// readPackets runs read until the context ends, again after errors.
func readPackets(ctx context.Context, log *slog.Logger, read func(context.Context, func(PacketLog)) error) {
	l := &packetLogger{log: log, now: time.Now}
	retry, refusals := backoff{first: firstPause, last: lastPause}, repeats{}
	for {
		err := read(ctx, l.report)
		if ctx.Err() != nil {
			return
		}
		pause := retry.step()
		if refusals.new(err) {
			log.Warn("packets that rules log cannot be read, trying again", "error", err, "pause", pause)
		}
		if wait(ctx, pause) != nil {
			return
		}
	}
}
