package cause

import (
	"net/netip"
	"testing"

	"jindan/analyze"
	"jindan/capture"
	"jindan/rules"
)

// What was not seen between two findings of a host with two addresses has the one that its cause has: a link compares them as they stand
// in the subjects.
func TestSettledAddress(t *testing.T) {
	c := placeOf(analyze.Subject{Kind: analyze.SubjectPath, Host: "10.105.2.5", Peer: "10.105.3.3", Direction: "inbound"}, analyze.Local{})
	c.host = capture.AddrFrom(netip.MustParseAddr("10.105.1.5")) // which stands for the host
	p := place{kind: analyze.SubjectUpstream, host: c.host, free: true}.settled(rules.SameNet, &c)
	if f := p.fields(); f["host"] != "10.105.2.5" || f["peer"] != "10.105.3.3" {
		t.Errorf("%v", f)
	}
}
