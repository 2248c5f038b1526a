package recording

import (
	"reflect"
	"testing"

	"jindan/capture"
	"jindan/capture/decode"
)

// FuzzFrame makes packets of any fields: a frame decodes to exactly what it was made of, or is not made.
func FuzzFrame(f *testing.F) {
	m := newMaker(8)
	for range 50 {
		p := m.packet()
		f.Add(append(appendFields(nil, &p), p.Data...))
	}
	d := decode.New()
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < packetFields || len(b) < packetFields+8*int(b[packetFields-1]) || b[packetFields-1] > 4 {
			return
		}
		var p, got capture.Packet
		readFields(b, &p)
		p.Frame = 0
		l, ok := plan(&p)
		if !ok {
			return
		}
		frame := appendFrame(nil, &p, l)
		if reason := d.Decode(1, decode.LinkEthernet, frame, int(p.IPLen)+etherLen, &got); reason != capture.LossNone {
			t.Fatalf("%v: %+v", reason, p)
		}
		if p.Proto == capture.ProtoTCP {
			p.Hash, p.Ident = capture.FlowHash(&p.Src, &p.Dst), p.Identity()
		}
		got.Dir = p.Dir // epb_flags
		got.SrcMAC, got.DstMAC = 0, 0
		if !reflect.DeepEqual(got, p) {
			t.Errorf("%+v\nfrom\n%+v", got, p)
		}
	})
}
