package v3

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// A Protocol is an IP protocol as documents spell it: one of the names below, or a decimal number. Anything else decodes
// too and is for [Validate] to refuse.
type Protocol string

// The protocols that have a name.
const (
	ProtocolICMP    Protocol = "ICMP"
	ProtocolTCP     Protocol = "TCP"
	ProtocolUDP     Protocol = "UDP"
	ProtocolICMPv6  Protocol = "ICMPv6"
	ProtocolSCTP    Protocol = "SCTP"
	ProtocolUDPLite Protocol = "UDPLite"
)

// Number returns the IP protocol number (IANA), 1 to 255. Names count only as spelt above.
func (p Protocol) Number() (uint8, bool) {
	switch p {
	case ProtocolICMP:
		return 1, true
	case ProtocolTCP:
		return 6, true
	case ProtocolUDP:
		return 17, true
	case ProtocolICMPv6:
		return 58, true
	case ProtocolSCTP:
		return 132, true
	case ProtocolUDPLite:
		return 136, true
	}
	n, _ := p.decimal()
	return n, n != 0
}

// decimal returns the number of a protocol that is spelt as one, 0 to 255.
func (p Protocol) decimal() (uint8, bool) {
	n, err := strconv.ParseUint(string(p), 10, 8)
	if err != nil {
		return 0, false
	}
	return uint8(n), true
}

// HasPorts reports whether rules may match ports of the protocol: TCP, UDP and SCTP.
func (p Protocol) HasPorts() bool {
	switch n, _ := p.Number(); n {
	case 6, 17, 132:
		return true
	}
	return false
}

// String returns the protocol as documents spell it.
func (p Protocol) String() string { return string(p) }

// MarshalJSON writes a number as a number, also when it was given as text.
func (p Protocol) MarshalJSON() ([]byte, error) {
	if n, ok := p.decimal(); ok {
		return json.Marshal(n)
	}
	return json.Marshal(string(p))
}

// UnmarshalJSON takes a number from 0 to 255 or any text.
func (p *Protocol) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		var s string
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
		*p = Protocol(s)
		if n, ok := p.decimal(); ok {
			*p = Protocol(strconv.Itoa(int(n)))
		}
		return nil
	}
	n, err := strconv.ParseUint(string(data), 10, 8)
	if err != nil {
		return &valueError{"protocol number invalid", protocolRemedy}
	}
	*p = Protocol(strconv.FormatUint(n, 10))
	return nil
}

const protocolRemedy = "write TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255"

// A Port is a port, a range of ports (both ends inclusive) or the name of a port that endpoints declare. Either Name is
// set, or First and Last are; they are equal for a single port.
type Port struct {
	First, Last uint16
	Name        string
}

// The forms of a port as text. A name here is what decodes; Validate is stricter.
var (
	portRange = lazily(`^(\d+):(\d+)$`)
	portName  = lazily(`^[a-zA-Z0-9_.-]{1,128}$`)
)

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

const (
	portReason = "port range invalid, port number must be between 1 and 65535"
	portRemedy = "write a port like 80, a range like 1000:2000 or a name like http"
)

// ParsePort returns the port that a text stands for: "80", "1000:2000" or "http". Port 0 parses, Validate refuses it.
func ParsePort(s string) (Port, error) {
	if isDigits(s) {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return Port{}, &valueError{portReason, portRemedy}
		}
		return Port{First: uint16(n), Last: uint16(n)}, nil
	}
	if ends := portRange.FindStringSubmatch(s); ends != nil {
		first, err1 := strconv.ParseUint(ends[1], 10, 16)
		last, err2 := strconv.ParseUint(ends[2], 10, 16)
		if err1 != nil || err2 != nil {
			return Port{}, &valueError{portReason, portRemedy}
		}
		if first > last {
			return Port{}, &valueError{
				fmt.Sprintf("minimum port number (%d) is greater than maximum port number (%d) in port range", first, last),
				fmt.Sprintf("write %d:%d", last, first),
			}
		}
		return Port{First: uint16(first), Last: uint16(last)}, nil
	}
	if !portName.MatchString(s) {
		return Port{}, &valueError{"port is no number, range or name", portRemedy}
	}
	return Port{Name: s}, nil
}

// String returns the port as documents spell it; ParsePort of it is p.
func (p Port) String() string {
	switch {
	case p.Name != "":
		return p.Name
	case p.First == p.Last:
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d:%d", p.First, p.Last)
}

// MarshalJSON writes a single port as a number, ranges and names as text.
func (p Port) MarshalJSON() ([]byte, error) {
	if p.Name == "" && p.First == p.Last {
		return json.Marshal(p.First)
	}
	return json.Marshal(p.String())
}

// UnmarshalJSON takes a number or what ParsePort takes.
func (p *Port) UnmarshalJSON(data []byte) error {
	s := string(data)
	if len(data) > 0 && data[0] == '"' {
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
	} else if !isDigits(s) {
		return &valueError{portReason, portRemedy}
	}
	port, err := ParsePort(s)
	if err != nil {
		return err
	}
	*p = port
	return nil
}

// A valueError is what an UnmarshalJSON of this package answers, so that the remedy survives.
type valueError struct{ reason, remedy string }

func (e *valueError) Error() string { return e.reason + " (" + e.remedy + ")" }
