package decode_test

import (
	"reflect"
	"testing"

	"github.com/google/gopacket/layers"

	"jindan/capture"
	"jindan/capture/decode"
)

// TestDropTables: without gopacket's tables a packet in each wrapping, whole and cut at every byte, is what it was with them.
func TestDropTables(t *testing.T) {
	ethernet, ppp := layers.EthernetTypeMetadata, layers.PPPTypeMetadata // other tests take them for the truth
	// number is that of a type without a name, as its decoder knows it.
	number := func(of *layers.EnumMetadata) reflect.Value { return reflect.ValueOf(of.DecodeWith).Elem() }
	t.Cleanup(func() {
		layers.EthernetTypeMetadata, layers.PPPTypeMetadata = ethernet, ppp
		for _, table := range []*[1 << 16]layers.EnumMetadata{&ethernet, &ppp} {
			for i := range table {
				if n := number(&table[1]); reflect.TypeOf(table[i].DecodeWith) == n.Addr().Type() {
					number(&table[i]).SetInt(int64(i))
				}
			}
		}
	})
	type result struct {
		packet capture.Packet
		reason capture.LossReason
	}
	wrappings := append(append(links(t), ethers(t)...), tunnels(t)...)
	read := func(each func(name string, cut int, r *result)) {
		d := decode.New()
		for _, w := range wrappings {
			for i := range len(w.data) + 1 {
				var r result
				r.reason = d.Decode(0, w.link, w.data[:i], len(w.data), &r.packet)
				r.packet.Data = nil
				each(w.name, i, &r)
			}
		}
	}
	var want []result
	read(func(_ string, _ int, r *result) { want = append(want, *r) })
	decode.DropTables()
	if x := layers.EthernetTypeMetadata[len(layers.EthernetTypeMetadata)/2]; x.DecodeWith != nil {
		t.Fatalf("the table of EtherTypes still holds %q", x.Name)
	}
	for _, x := range []*layers.EnumMetadata{&ethernet[1<<15+1], &ppp[1<<15+1]} {
		if n := number(x).Int(); n != 0 {
			t.Errorf("the decoder of type %d is still there", n)
		}
	}
	n := 0
	read(func(name string, cut int, r *result) {
		if w := &want[n]; r.reason != w.reason || r.packet.Src != w.packet.Src || r.packet.Seq != w.packet.Seq || r.packet.Hash != w.packet.Hash {
			t.Errorf("%s, cut at %d: %v %+v, want %v %+v", name, cut, r.reason, r.packet, w.reason, w.packet)
		}
		n++
	})
}
