package nft

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// An exit is how a packet leaves a stage. The zero value drops it.
type exit struct {
	verdict int32 // nfDrop, nfAccept, NFT_RETURN, NFT_GOTO
	chain   string
}

// exits has the exit of each outcome of a line, report left out. A stage says what a line means, its exits what that means at
// the place where the stage is used: an allowed packet leaves the table, or goes on to the endpoint at the other end of its
// way.
type exits [3]exit

func goTo(chain string) exit { return exit{unix.NFT_GOTO, chain} }

// String returns the exit as nft(8) reads it.
func (x exit) String() string {
	switch x.verdict {
	case nfAccept:
		return "accept"
	case unix.NFT_RETURN:
		return "return"
	case unix.NFT_GOTO:
		return "goto " + x.chain
	}
	return "drop"
}

// denial returns the exit of denied packets where they may be answered.
func (u *builder) denial() exit {
	if u.settings.Reject {
		return goTo(rejectChain)
	}
	return exit{}
}

// report appends the statement with which a Log rule reports a packet. With a bound on the rate it is in a chain of its own,
// so that all nft rules that a Log rule becomes share the bound, see addLog.
func (u *builder) report(l *line, text string, c code) (string, code) {
	if u.settings.LogRate.Packets == 0 {
		return text + logText(l.prefix), c.log(LogGroup, l.prefix)
	}
	name := u.logChain(l)
	return text + "jump " + name, c.verdict(unix.NFT_JUMP, name)
}

func (u *builder) logChain(l *line) string {
	return endpointChain(u.home.id, u.home.dir, "log", l.comment)
}

// addLog adds the chain with which a Log rule reports a packet, if it has one.
func (u *builder) addLog(l *line) {
	rate := u.settings.LogRate
	if rate.Packets == 0 {
		return
	}
	burst := cmp.Or(rate.Burst, defaultBurst)
	unit, seconds := unitOf(rate.Per)
	bound := fmt.Sprintf("limit rate %d/%s burst %d packets ", rate.Packets, unit, burst)
	tell := code{}.limit(uint64(rate.Packets), seconds, burst).log(LogGroup, l.prefix)
	u.addChain(u.logChain(l), "", rule(bound+logText(l.prefix), l.comment, tell))
}

// defaultBurst is what the kernel makes of a burst of 0 packets.
const defaultBurst = 5

// unitOf returns the name of a period and its seconds.
func unitOf(per time.Duration) (string, uint64) {
	switch per {
	case time.Minute:
		return "minute", 60
	case time.Hour:
		return "hour", 60 * 60
	case 24 * time.Hour:
		return "day", 24 * 60 * 60
	}
	return "second", 1
}

func logText(prefix string) string {
	return "log prefix " + strconv.Quote(prefix) + " group " + strconv.Itoa(LogGroup)
}
