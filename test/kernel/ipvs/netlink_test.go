package ipvs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What ip_vs has in include/uapi/linux/ip_vs.h.
const (
	newService = 1
	newDest    = 5

	attrService = 1
	attrDest    = 2

	serviceFamily    = 1
	serviceProtocol  = 2
	serviceAddr      = 3
	servicePort      = 4
	serviceScheduler = 6
	serviceFlags     = 7
	serviceTimeout   = 8
	serviceNetmask   = 9

	destAddr   = 1
	destPort   = 2
	destMethod = 3
	destWeight = 4
	destUpper  = 5
	destLower  = 6

	masquerading = 0
)

var errNoIPVS = errors.New("this kernel has no ip_vs (make test-kernel runs this on one that has)")

// A balancer is ip_vs in a network namespace.
type balancer struct {
	*netlink.Conn
	family uint16
}

func newBalancer(t *testing.T, ns int) *balancer {
	t.Helper()
	b, err := dialBalancer(ns)
	if errors.Is(err, errNoIPVS) && os.Getenv("MARGAY_REQUIRE_IPVS") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func dialBalancer(ns int) (*balancer, error) {
	c, err := netlink.Dial(unix.NETLINK_GENERIC, &netlink.Config{NetNS: ns})
	if err != nil {
		return nil, err
	}
	b := &balancer{Conn: c, family: unix.GENL_ID_CTRL}
	list, err := b.ask(unix.CTRL_CMD_GETFAMILY, 0, func(e *netlink.AttributeEncoder) { e.String(unix.CTRL_ATTR_FAMILY_NAME, "IPVS") })
	if errors.Is(err, unix.ENOENT) {
		err = errNoIPVS
	}
	for _, m := range list {
		d, decodeErr := netlink.NewAttributeDecoder(m.Data[4:])
		if decodeErr != nil {
			return nil, decodeErr
		}
		for d.Next() {
			if d.Type() == unix.CTRL_ATTR_FAMILY_ID {
				b.family = d.Uint16()
			}
		}
	}
	if err != nil || b.family == unix.GENL_ID_CTRL {
		c.Close()
		return nil, errors.Join(err, errNoIPVS)
	}
	return b, nil
}

// ask sends a command and returns the answer: what was asked for, or an acknowledgement if that is among the flags.
func (b *balancer) ask(command byte, flags netlink.HeaderFlags, f func(*netlink.AttributeEncoder)) ([]netlink.Message, error) {
	e := netlink.NewAttributeEncoder()
	f(e)
	attrs, err := e.Encode()
	if err != nil {
		return nil, err
	}
	return b.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(b.family), Flags: netlink.Request | flags},
		Data:   append([]byte{command, 1, 0, 0}, attrs...),
	})
}

// A service is a virtual service with one destination behind it, by masquerading.
type service struct {
	protocol uint8
	addr, to netip.AddrPort
}

func (b *balancer) add(t *testing.T, list ...service) {
	t.Helper()
	for _, s := range list {
		_, err := b.ask(newService, netlink.Acknowledge, s.encode)
		if err == nil {
			_, err = b.ask(newDest, netlink.Acknowledge, func(e *netlink.AttributeEncoder) {
				s.encode(e)
				e.Nested(attrDest, func(e *netlink.AttributeEncoder) error {
					e.Bytes(destAddr, addrBytes(s.to.Addr()))
					e.Bytes(destPort, binary.BigEndian.AppendUint16(nil, s.to.Port()))
					e.Uint32(destMethod, masquerading)
					e.Uint32(destWeight, 1)
					e.Uint32(destUpper, 0)
					e.Uint32(destLower, 0)
					return nil
				})
			})
		}
		if err != nil {
			t.Fatal(fmt.Errorf("add service %v: %w", s, err))
		}
	}
}

func (s service) encode(e *netlink.AttributeEncoder) {
	e.Nested(attrService, func(e *netlink.AttributeEncoder) error {
		if s.addr.Addr().Is4() {
			e.Uint16(serviceFamily, unix.AF_INET)
			e.Bytes(serviceNetmask, []byte{255, 255, 255, 255})
		} else {
			e.Uint16(serviceFamily, unix.AF_INET6)
			e.Uint32(serviceNetmask, 128)
		}
		e.Uint16(serviceProtocol, uint16(s.protocol))
		e.Bytes(serviceAddr, addrBytes(s.addr.Addr()))
		e.Bytes(servicePort, binary.BigEndian.AppendUint16(nil, s.addr.Port()))
		e.String(serviceScheduler, "rr")
		e.Bytes(serviceFlags, []byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
		e.Uint32(serviceTimeout, 0)
		return nil
	})
}

// addrBytes returns an address as union nf_inet_addr.
func addrBytes(a netip.Addr) []byte { return append(a.AsSlice(), make([]byte, 16-a.BitLen()/8)...) }
