package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// A LogEntry is a packet that matched a Log rule.
type LogEntry struct {
	Prefix   string // says which tier and policy
	In, Out  string // interfaces; "" for the direction that the packet did not take
	Src, Dst netip.Addr
	Protocol uint8
	// Ports are 0 when the protocol has none or the packet is not the first fragment.
	SrcPort, DstPort uint16
}

// What nflog has in include/uapi/linux/netfilter/nfnetlink_log.h.
const (
	logMsgPacket = 0
	logMsgConfig = 1

	logCfgCommand   = 1
	logCfgMode      = 2
	logCfgTimeout   = 4
	logCfgThreshold = 5

	logCommandBind  = 1
	logModePacket   = 2
	logAttrIn       = 4
	logAttrOut      = 5
	logAttrPayload  = 9
	logAttrPrefix   = 10
	logCopied       = 128 // bytes of a packet: headers, with some options
	logFlushCentis  = 10  // reports wait at most 0.1 s for company
	logFlushReports = 32
)

// ReadLog hands the packets that match Log rules to f until ctx ends, and returns ctx's error. One process at a time can
// read them. Reports that f is too slow for are lost, which is logged; bounding their rate is the caller's matter.
func ReadLog(ctx context.Context, o Options, f func(LogEntry)) error {
	return readLog(ctx, o, LogGroup, func(e LogEntry, _ []byte) { f(e) })
}

// readLog also hands over the packet, as much as was copied. It is valid until f returns.
func readLog(ctx context.Context, o Options, group uint16, f func(LogEntry, []byte)) error {
	c, err := bindLog(o, group)
	if err != nil {
		return fmt.Errorf("read log group %d: %w", group, err)
	}
	stop := context.AfterFunc(ctx, func() { c.close() })
	defer func() {
		if stop() {
			c.close()
		}
	}()
	for {
		list, err := c.receive(wait)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			if o.Log != nil {
				o.Log.Warn("reports of Log rules were lost", "group", group)
			}
			continue
		case err != nil:
			return fmt.Errorf("read log group %d: %w", group, err)
		}
		for i := range list {
			if list[i].typ == unix.NFNL_SUBSYS_ULOG<<8|logMsgPacket {
				c.report(list[i].payload(), f)
			}
		}
	}
}

// bindLog returns a connection to which the kernel sends the reports of a group.
func bindLog(o Options, group uint16) (*conn, error) {
	c, err := dial(o.NetNS)
	if err != nil {
		return nil, err
	}
	mode := append(binary.BigEndian.AppendUint32(nil, logCopied), logModePacket, 0)
	for _, data := range [][]byte{
		attr(nil, logCfgCommand, []byte{logCommandBind}),
		attrU32(attrU32(attr(nil, logCfgMode, mode), logCfgTimeout, logFlushCentis), logCfgThreshold, logFlushReports),
	} {
		if err := c.configure(group, data); err != nil {
			c.close()
			if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EBUSY) {
				return nil, fmt.Errorf("%w (another process may be reading this group)", err)
			}
			return nil, err
		}
	}
	return c, nil
}

// configure sends a configuration message for a log group and waits for the answer.
func (c *conn) configure(group uint16, data []byte) error {
	c.seq++
	m := message{
		typ: unix.NFNL_SUBSYS_ULOG<<8 | logMsgConfig, flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK, seq: c.seq, data: data,
	}
	if err := c.send(appendMessage(nil, m, unix.AF_UNSPEC, group)); err != nil {
		return err
	}
	for {
		list, err := c.receive(wait)
		if err != nil {
			return err
		}
		for i := range list {
			if kerr, ok := answer(&list[i]); ok && list[i].seq == c.seq {
				if kerr != nil {
					return kerr
				}
				return nil
			}
		}
	}
}

func (c *conn) report(list []attribute, f func(LogEntry, []byte)) {
	e := LogEntry{
		Prefix: text(find(list, logAttrPrefix)),
		In:     c.interfaceName(find(list, logAttrIn)),
		Out:    c.interfaceName(find(list, logAttrOut)),
	}
	packet := find(list, logAttrPayload)
	e.parse(packet)
	f(e, packet)
}

// interfaceName asks the kernel for the name of an interface in the socket's network namespace.
func (c *conn) interfaceName(index []byte) string {
	n := number(index)
	if n == 0 {
		return ""
	}
	name := "#" + strconv.FormatUint(uint64(n), 10)
	_ = c.raw.Control(func(fd uintptr) {
		if ifr, err := unix.NewIfreq("?"); err == nil {
			ifr.SetUint32(n)
			if unix.IoctlIfreq(int(fd), unix.SIOCGIFNAME, ifr) == nil {
				name = ifr.Name()
			}
		}
	})
	return name
}

// parse reads the headers of a packet as far as they were copied.
func (e *LogEntry) parse(b []byte) {
	if len(b) < 1 {
		return
	}
	var rest []byte
	switch b[0] >> 4 {
	case 4:
		rest = e.parse4(b)
	case 6:
		rest = e.parse6(b)
	}
	if ruleset.HasPorts(e.Protocol) && len(rest) >= 4 {
		e.SrcPort, e.DstPort = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
	}
}

// parse4 returns what follows the header, or nil when that is not the start of the payload.
func (e *LogEntry) parse4(b []byte) []byte {
	if len(b) < 20 {
		return nil
	}
	e.Src, e.Dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	e.Protocol = b[9]
	header := int(b[0]&0xf) * 4
	fragment := binary.BigEndian.Uint16(b[6:]) & 0x1fff
	if header < 20 || header > len(b) || fragment != 0 {
		return nil
	}
	return b[header:]
}

// parse6 skips extension headers (RFC 8200 section 4).
func (e *LogEntry) parse6(b []byte) []byte {
	if len(b) < 40 {
		return nil
	}
	e.Src, e.Dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	e.Protocol = b[6]
	for b = b[40:]; len(b) >= 8; {
		n := 0
		switch e.Protocol {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			n = 8 + 8*int(b[1])
		case unix.IPPROTO_FRAGMENT:
			n = 8
			if binary.BigEndian.Uint16(b[2:])&^7 != 0 {
				e.Protocol = b[0]
				return nil
			}
		default:
			return b
		}
		if n > len(b) {
			return nil
		}
		e.Protocol, b = b[0], b[n:]
	}
	return b
}
