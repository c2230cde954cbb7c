package main

import (
	"regexp"
	"testing"

	v3 "margay/api/v3"
)

// texts to try patterns and parsers with.
var tried = []string{
	"", "a", "1", "0", "10.0.0.1", "10.0.0.1/32", "10.0.0.0/8", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "010.0.0.1", "256.0.0.1", "1.2.3.4.5",
	"0.0.0.0", "0.0.0.0/0", "255.255.255.255/32", "::", "::/0", "::1", "::1/128", "1::", "fe80::1", "fe80::/10", "fd00::/48", "fd00::1/48",
	"fd00::/129", "fd00:::1", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1::3:4:5:6:7:8", "1:2::8", "12345::",
	"g::", "DEAD:BEEF::", "fd00::1%eth0", "10.0.0.0/08", " 10.0.0.1", "10.0.0.1 ", "10.0.0.1:179", "10.0.0.1:0", "10.0.0.1:65536", "[fd00::1]:179", "[fd00::1]",
	"fd00::1:179", "80", "0x50", "1:2", "0:5", "65535", "65536", "1:65535", "http", "HTTP", "a-b", "a--b", "-a", "a-", "1-2", "1-a", "a.b", "1a",
	"abcdefghijklmno", "TCP", "tcp", "Tcp", "UDP", "ICMP", "ICMPv6", "icmpv6", "SCTP", "UDPLite", "6", "255", "256", "132",
	"EF", "ef", "DF", "CS0", "CS6", "CS7", "AF11", "AF43", "AF44", "63", "64",
}

// TestPatterns holds the patterns of addresses, ports and protocols against the parsers of api/v3. A range with its ends
// turned round is left to CEL, and a port or protocol with a leading zero to nobody: the decoder removes it.
func TestPatterns(t *testing.T) {
	for name, check := range map[string]struct {
		pattern string
		parses  func(string) bool
	}{
		"cidr":    {parsed("cidr"), func(s string) bool { _, err := v3.ParseNet(s); return err == nil }},
		"address": {parsed("address"), func(s string) bool { _, err := v3.ParseAddr(s); return err == nil }},
		"port": {portText, func(s string) bool {
			p, err := v3.ParsePort(s)
			return err == nil && (p.Name == "" && p.First > 0 || p.Name != "" && regexp.MustCompile("^"+portName+"$").MatchString(s))
		}},
		"protocol": {protocolText, func(s string) bool { _, ok := v3.Protocol(s).Number(); return ok }},
		"dscp":     {dscpText, func(s string) bool { _, err := v3.ParseDSCP(s); return err == nil }},
	} {
		pattern := regexp.MustCompile(check.pattern)
		matched := 0
		for _, text := range tried {
			if got, want := pattern.MatchString(text), check.parses(text); got != want {
				t.Errorf("%s %q: pattern %v, parser %v", name, text, got, want)
			} else if got {
				matched++
			}
		}
		if matched < 4 {
			t.Errorf("%s matches %d texts only", name, matched)
		}
	}
	for _, format := range []string{"ipv4", "ipv6", "net", "notNet", "cidrv4", "cidrv6", "peer", "mac", "wireguardKey", "community", "plainCommunity", "ignoredInterface"} {
		regexp.MustCompile(parsed(format))
	}
}
