package convert

import (
	"k8s.io/apimachinery/pkg/api/resource"

	v3 "margay/api/v3"
)

const qosPrefix = "qos.projectcalico.org/"

// Bounds of the quality of service, as Calico has them. Bandwidth and peak rate are bits per second, bursts bits, the
// minimum burst bytes.
const (
	leastBits, mostBits         = 1000, 1e15
	leastPeak, mostPeak         = 1010, 1.01e15
	mostBurst, defaultBurst     = 8 * (1<<32 - 1), 4 << 30
	leastMinburst, mostMinburst = 1000, 100e6
	mostPackets, defaultPackets = 10_000, 5
	mostConnections             = 1<<32 - 1
)

// qosControls returns what the annotations of a pod ask for, nil if nothing. A value that is no quantity is left out, one
// that is out of bounds becomes the bound. The annotations of Kubernetes give way to Calico's.
func qosControls(annotations map[string]string) *v3.QoSControls {
	var q v3.QoSControls
	for _, a := range []struct {
		key         string
		least, most int64
		to          *int64
	}{
		{"kubernetes.io/ingress-bandwidth", leastBits, mostBits, &q.IngressBandwidth},
		{"kubernetes.io/egress-bandwidth", leastBits, mostBits, &q.EgressBandwidth},
		{qosPrefix + "ingressBandwidth", leastBits, mostBits, &q.IngressBandwidth},
		{qosPrefix + "egressBandwidth", leastBits, mostBits, &q.EgressBandwidth},
		{qosPrefix + "ingressBurst", leastBits, mostBurst, &q.IngressBurst},
		{qosPrefix + "egressBurst", leastBits, mostBurst, &q.EgressBurst},
		{qosPrefix + "ingressPeakrate", leastPeak, mostPeak, &q.IngressPeakrate},
		{qosPrefix + "egressPeakrate", leastPeak, mostPeak, &q.EgressPeakrate},
		{qosPrefix + "ingressMinburst", leastMinburst, mostMinburst, &q.IngressMinburst},
		{qosPrefix + "egressMinburst", leastMinburst, mostMinburst, &q.EgressMinburst},
		{qosPrefix + "ingressPacketRate", 1, mostPackets, &q.IngressPacketRate},
		{qosPrefix + "egressPacketRate", 1, mostPackets, &q.EgressPacketRate},
		{qosPrefix + "ingressPacketBurst", 1, mostPackets, &q.IngressPacketBurst},
		{qosPrefix + "egressPacketBurst", 1, mostPackets, &q.EgressPacketBurst},
		{qosPrefix + "ingressMaxConnections", 1, mostConnections, &q.IngressMaxConnections},
		{qosPrefix + "egressMaxConnections", 1, mostConnections, &q.EgressMaxConnections},
	} {
		if text, ok := annotations[a.key]; ok {
			if quantity, err := resource.ParseQuantity(text); err == nil {
				*a.to = min(max(quantity.Value(), a.least), a.most)
			}
		}
	}
	defaultBursts(&q)
	if text, ok := annotations[qosPrefix+"dscp"]; ok {
		if dscp, err := v3.ParseDSCP(text); err == nil {
			q.DSCP = &dscp
		}
	}
	if q == (v3.QoSControls{}) {
		return nil
	}
	return &q
}

// defaultBursts: a rate needs a burst.
func defaultBursts(q *v3.QoSControls) {
	for _, b := range []struct {
		rate, burst *int64
		value       int64
	}{
		{&q.IngressBandwidth, &q.IngressBurst, defaultBurst},
		{&q.EgressBandwidth, &q.EgressBurst, defaultBurst},
		{&q.IngressPacketRate, &q.IngressPacketBurst, defaultPackets},
		{&q.EgressPacketRate, &q.EgressPacketBurst, defaultPackets},
	} {
		if *b.rate != 0 && *b.burst == 0 {
			*b.burst = b.value
		}
	}
}
