package capture

import "testing"

// An identity is the same in every process: with a secret in it, the copies that a table forgets,
// and with them the findings, differed from run to run.
func TestIdentity(t *testing.T) {
	p := Packet{Seq: 1000, Ack: 2000, Len: 1400, Window: 512, Flags: ACK, IPID: 7, TSVal: 5, TSEcr: 4}
	p.Src.Addr[15], p.Src.Port = 1, 8080
	p.Dst.Addr[15], p.Dst.Port = 2, 40000
	p.Hash = FlowHash(&p.Src, &p.Dst)
	const want = 0x5cea63e0e3dbcf5
	if got := p.Identity(); got != want {
		t.Errorf("identity %#x, want %#x", got, uint64(want))
	}
	again := p
	again.IPID++
	back := p
	back.Src, back.Dst = p.Dst, p.Src
	for name, q := range map[string]Packet{"sent again": again, "the other direction": back} {
		if q.Identity() == p.Identity() {
			t.Errorf("%s: the same identity", name)
		}
	}
}
